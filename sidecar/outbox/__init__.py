"""Requests that are kept on disk and delivered later: accepted only once durable, never lost, in order.

``items``   a stored request, how full the outbox is, why it refuses
``sqlite``  the file: one database, every change durable before anybody hears of it
``worker``  one thread that does all of it, so that no fsync ever holds up the event loop

The deliveries are made by ``proxy.delivery``.
"""
