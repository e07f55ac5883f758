"""May an attempt be repeated, should it be, and after how long. Read ``decide`` first; it asks the others in order.

``decide``       one finished attempt in, one decision with its reason out; the order of judgement stands at its head
``attempt``      its input: the request, the attempts so far, the time, the pressure at this moment
``policy`` ``rows``  its rules, as values: one policy, one line of its table
``table``        which row matches: compiled, so that 500 rows cost what 5 cost
``conditions``   whether the ``when`` of a row holds; a new condition of a row is added here
``expression``   regular expressions of rows, searched in bounded time
``safety``       may it be sent again: the five permissions of section 3 of the design
``retry_after``  when the upstream wants it back: ``Retry-After`` and every other hint
``times``        numbers, HTTP-dates, ISO 8601 and durations as real APIs write them
``backoff``      how long to wait where there is no hint: exponential, with jitter
``wait``         the pause: hint or backoff, its jitter, ``max_wait``
``budget``       how many retries the traffic has earned: a token bucket
``hedge``        when a second send may go beside a slow first one
"""
