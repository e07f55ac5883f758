"""Connections that end as a relay of bytes.

``connect``    CONNECT (RFC 9110 section 9.3.6) · ``upgrade`` the handshake, retried by the table; after a 101, a relay
``switch``     what the two have in common · ``relay`` two transports joined, with back-pressure
``intercept``  tunnels that are intercepted: the requests inside get the full engine
"""
