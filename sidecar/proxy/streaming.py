"""An answer that is still coming, to the app: bounded by the pause between bytes, and by the deadline if it trickles.

Server-sent events have neither bound (docs/semantics.md). The counterpart is ``exchange``, which has made the head.
"""

from __future__ import annotations

from sidecar.proxy.answering import give_stream
from sidecar.proxy.front import AppConnection
from sidecar.proxy.looking import is_event_stream
from sidecar.proxy.preparation import Prepared
from sidecar.proxy.services import Services
from sidecar.proxy.trickle import Trickle
from sidecar.upstream.connection import Connection, Sink
from sidecar.wire.heads import ResponseMessage

__all__ = ["stream"]


async def stream(
    app: AppConnection,
    services: Services,
    prepared: Prepared,
    connection: Connection,
    message: ResponseMessage,
    head: bytes,
    deadline_at: float,
    sink: Sink | None,
    *,
    chunked: bool,
) -> None:
    """Until the body has come to its end, or has broken off (``app.broken``). ``deadline_at``: monotonic seconds."""
    if is_event_stream(message):
        await give_stream(app, connection, head, chunked=chunked, idle_seconds=0.0, sink=sink)
        return
    trickle = Trickle(services, connection, deadline_at)
    try:
        idle_seconds = prepared.bound.policy.timeouts.idle_seconds
        await give_stream(app, connection, head, chunked=chunked, idle_seconds=idle_seconds, sink=sink)
    finally:
        trickle.stop()
