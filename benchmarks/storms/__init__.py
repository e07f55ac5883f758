"""Storms over real sockets: the sidecar beside Envoy and HAProxy, the same load against the same failing upstream.

``__main__`` (what to run) → ``scenarios`` (which storms, with which goals) → ``standing`` (one peer in one storm):
``upstream`` is the process that fails, ``apps`` the load, ``peers`` say what each proxy is told → ``judge`` makes
figures of both logs → ``report`` tables. The upstream's behaviour is that of ``sidecar.simulate``, on a real clock.
"""
