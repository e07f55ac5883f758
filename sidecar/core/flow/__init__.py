"""Flow control: what holds sends back in front of one upstream, and lets them go again.

``limiter`` puts the parts together; ``queue`` is where exchanges wait, ``keys`` what is known of each gate key. The
values: ``gate``, ``rate_limit``, ``concurrency_limit``, ``breaker``, ``latency``. ``ratelimit_headers`` reads what an
upstream announces. ``shared_limiter``, ``shared_state`` and ``lease``: the same among several replicas. Pure, as all of
``core``: time and chance are arguments.
"""
