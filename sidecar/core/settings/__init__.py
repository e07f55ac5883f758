"""What is deployed, as frozen values. Made by ``sidecar.config``, read by everything else.

``deployment``   listeners, upstreams, routes, login, outbox, limits
``gateway``      the sidecar as a proxy: access, tunnels, its own outbound proxy
``path_index``   which of many path patterns matches first, found by their literal segments
"""
