"""The sidecar measured beside its peers: what it costs, on this machine, in one run.

``python -m benchmarks`` is the whole comparison; ``benchmarks.quick`` is the check of a minute. Nothing in
``sidecar`` imports this package. How to run it is in ``benchmarks/README.md``, the method in
``docs/performance.md``.
"""
