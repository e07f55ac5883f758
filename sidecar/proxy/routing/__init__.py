"""Where a request goes, whether it may, and what holds it back there.

``router``       by mount or by host -> a destination
``destination``  an upstream made ready: pool, compiled policies, budget, limiter
``access``       which clients may use the forward side, and which hosts may be asked for
``limiter``      the loop's side of ``core.flow``: the futures of held exchanges, and the timer that wakes them
``shadow``       a second policy of an upstream that judges as well and acts on nothing
``clock``        the two clocks and the random numbers of the data plane; nothing else reads them
"""
