"""Intercepting tunnels: a local authority, certificates for a few named hosts, and TLS toward the app. Off by default.

``authority``  made once, kept in one folder, able to sign for the configured hosts only
``leaves``     a certificate for one host at a time, made when first asked for, kept in memory
``open``       opens the others; says what is missing in an installation without ``cryptography``

Only this package imports ``cryptography`` (the extra ``intercept``), and it is loaded only where the configuration
asks. Toward the upstream nothing changes: its certificate is verified as always. The counterpart is
``proxy.tunnel.intercept``.
"""
