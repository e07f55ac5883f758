"""The data plane: an app's request in, attempts out, one response back. It acts; ``core`` decides.

An untroubled request passes ``client`` -> ``exchange`` -> ``upstream.connection`` -> ``exchange`` -> ``client``, within
two callbacks and without a task (docs/design.md lists every function). Read it in this order:

``server``     the listening port: its connections, the sweep of stalled ones, start and end of each exchange
``client``     the app's connection: its bytes -> requests, request bodies, responses in order
``routing``    which upstream and policy a request means, whether it may, and what holds it back
``exchange``   one request until its response: prepare, send, retry, respond
``message``    heads, ids, own responses, bounded reads of bodies
``tunnel``     CONNECT, upgrades, interception
``delivery``   stored requests, sent later from the outbox
``operator``   what an operator may do: open what is held, retries off and on
``record``     what happened, for log, metrics and report

Imports: ``server -> tunnel, delivery, record -> exchange -> routing -> client -> message``.
"""
