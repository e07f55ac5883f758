"""One request of the app, from its head to the end of its response. Read ``exchange`` first.

``state``       where an exchange stands, what changes that, and how it waits before a send
``exchange``    from its start to its end; the fast path for a response that needs no decision
``prepare``     everything that is known before the first send, worked out once
``send``        one attempt: a connection, the request on it, its head or its failure
``retry_loop``  send, judge, release the losing response, wait, send again
``facts``       what ``core.decide`` is given: request, history, pressure
``actions``     ``then: login`` and ``then: reread``
``hedge``       a second send beside a slow first one
``respond``     handing over: the live response, a buffered one, or our own
``stream``      a response that is still coming, bounded by the pause between bytes and by the deadline
``store``       into the outbox, and only then a receipt
``context``     what every exchange uses and none owns
"""
