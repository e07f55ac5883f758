"""A response that is still arriving, relayed to the app: bounded by the pause between bytes, and past the deadline by a
minimum rate.

Server-sent events have neither bound (docs/semantics.md). Counterpart: ``respond``, which has sent the head.
"""

from __future__ import annotations

from typing import Final

from sidecar.core.enums import FailureKind
from sidecar.proxy.client.connection import ClientConnection
from sidecar.proxy.exchange.context import Services
from sidecar.proxy.exchange.prepare import Prepared
from sidecar.proxy.exchange.respond import give_stream
from sidecar.proxy.message.peek import is_event_stream
from sidecar.upstream.connection import Connection, Sink
from sidecar.wire.heads import ResponseMessage

__all__ = ["MinimumBodyRate", "stream"]

TRICKLE_BYTES_PER_SECOND: Final = 1024
"""Bytes a second: past the deadline a slower body is cut as a hang; a faster one is a download."""
WINDOW_SECONDS: Final = 5.0
"""Seconds over which the rate is measured. The first window ends at the deadline, or one window after the head if that
is later.
"""


class MinimumBodyRate:
    """Past the deadline, cut a body that comes slower than the minimum rate, unless it is the app that is slow."""

    __slots__ = ("_connection", "_handle", "_loop", "_seen_bytes", "_was_paused")

    def __init__(self, services: Services, connection: Connection, deadline_at: float) -> None:
        self._loop = services.loop
        self._connection = connection
        self._seen_bytes = 0
        self._was_paused = False
        left = deadline_at - services.clock.monotonic() - WINDOW_SECONDS
        if left > 0:
            self._handle = self._loop.call_later(left, self._next_window)
        else:
            self._next_window()

    def _next_window(self) -> None:
        connection = self._connection
        self._seen_bytes = connection.received_bytes
        self._was_paused = connection.is_paused
        self._handle = self._loop.call_later(WINDOW_SECONDS, self._check)

    def _check(self) -> None:
        connection = self._connection
        came = connection.received_bytes - self._seen_bytes
        # A body that is paused at either end of the window waits for the app, not for the upstream.
        is_held = self._was_paused or connection.is_paused
        if came < TRICKLE_BYTES_PER_SECOND * WINDOW_SECONDS and not is_held:
            connection.fail(FailureKind.BODY_CUT, "the response body trickles past the deadline")
        else:
            self._next_window()

    def stop(self) -> None:
        self._handle.cancel()


async def stream(
    app: ClientConnection,
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
    """Relay until the body ends or breaks off (``app.broken``). ``deadline_at``: monotonic seconds."""
    if is_event_stream(message):
        await give_stream(app, connection, head, chunked=chunked, idle_seconds=0.0, sink=sink)
        return
    minimum_rate = MinimumBodyRate(services, connection, deadline_at)
    try:
        idle_seconds = prepared.compiled.policy.timeouts.idle_seconds
        await give_stream(app, connection, head, chunked=chunked, idle_seconds=idle_seconds, sink=sink)
    finally:
        minimum_rate.stop()
