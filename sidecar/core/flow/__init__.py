"""Flow control: what holds sends back in front of one upstream, and lets them go again.

``limiter``      puts the parts together; start reading here
``evidence``     which share of recent answers were refusals, and whether that is more than chance
``keys``         what is known of each scope · ``scopes`` their names in words
``queue``        where exchanges wait, in order
``gate`` ``rate_limit`` ``concurrency_limit`` ``breaker`` ``latency``  the parts, each a value and functions on it
``ratelimit_headers``  what an upstream announces
``retry_switch`` retries that an operator has turned off
``shared_limiter`` ``shared_state`` ``lease``  the same among several replicas

Pure, as all of ``core``: time and chance are arguments.
"""
