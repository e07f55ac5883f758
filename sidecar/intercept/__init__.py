"""Opening tunnels: a local authority, certificates for a few named hosts, and TLS toward the app. Off by default.

Only this room imports ``cryptography`` (the extra ``intercept``), and it is loaded only where the configuration asks.
Toward the upstream nothing changes: its certificate is verified as always. The counterpart is ``proxy.tunnel``.
"""
