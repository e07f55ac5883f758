"""The pure core: it is told what happened and what is allowed, and says what to do and why.

It never sleeps, logs, counts, reads a clock, draws a random number, opens a socket or parses YAML: time and chance are
arguments. It imports itself and a short list of the standard library. Read it in this order:

``enums``      the closed lists: outcome, reason, failure, verb; each word is written once, here
``decision``   may an attempt be repeated, should it be, and after how long: ``decide`` and what it asks
``flow``       what holds sends back: gate, rate limit, breaker, concurrency limit, and the queue in front of them
``settings``   what is deployed: upstreams, routes, listeners, tunnels · ``secret_names`` which keys hold a secret
``dryrun``     the same engine without a network: ``explain``, policy tests

Imports: ``dryrun -> flow -> settings -> decision -> enums``.
"""
