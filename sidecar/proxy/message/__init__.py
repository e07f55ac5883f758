"""Parts of HTTP messages, as values and functions; nothing here waits.

``headers``       which fields travel, in the order, case and repetition in which they came
``ids``           request id, correlation id, idempotency key: the app's own if sane, else new ones
``own_response``  the responses that the sidecar makes itself, and the ``Sidecar`` and ``Proxy-Status`` fields
``receipt``       the 202 for a stored request
``peek``          a bounded, decoded look into a response body
``userinfo``      credentials in a URL -> ``Authorization``
``errors``        a request that is refused, as an exception
"""
