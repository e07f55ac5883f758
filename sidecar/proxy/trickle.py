"""The deadline after the head has gone out: a body that only trickles is cut, one that flows is let through.

A large download may well take longer than the deadline of its exchange; a hang that sends a byte now and then
must not (the app would wait for it for ever). Server-sent events are neither: the caller leaves them alone.
What counts is what came within one window: a body that has just begun is no trickle, however little it has brought.
"""

from __future__ import annotations

from typing import Final

from sidecar.core.words import FailureKind
from sidecar.proxy.services import Services
from sidecar.upstream.connection import Connection

__all__ = ["Trickle"]

TRICKLE_BYTES_PER_SECOND: Final = 1024
"""Past the deadline a body that comes slower than this is cut; one that flows is a download, not a hang."""
WINDOW_SECONDS: Final = 5.0
"""Over which the rate is measured; the first one ends at the deadline, or so long after the head if that is later."""


class Trickle:
    """Past the deadline: cut a body that only trickles, unless it is the app that is slow."""

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
        # One that stands still at either end of the window waits for the app, not for the upstream.
        is_held = self._was_paused or connection.is_paused
        if came < TRICKLE_BYTES_PER_SECOND * WINDOW_SECONDS and not is_held:
            connection.fail(FailureKind.BODY_CUT, "the response body trickles past the deadline")
        else:
            self._next_window()

    def stop(self) -> None:
        self._handle.cancel()
