"""The API's side: connections, and one small request of our own. It never retries.

``pool``            connections to one origin, kept alive and shared
``connection``      one connection: request bytes out, a head and a live body in, or a failure
``dialer``          host and port -> a connected socket: resolved, checked, raced, through an outbound proxy
``resolver``        names -> addresses, off the loop · ``address_guard`` which addresses may be dialled
``outbound_proxy``  direct or through a proxy · ``errors`` foreign errors -> the closed list of failures
``tls``             TLS on top of a TCP transport, and the sessions that halve the next handshake
``timeouts``        many timeouts of one length on one timer
``fetch``           one small request and its whole response · ``login`` the credential of an upstream, renewed in time
"""
