"""The deadline after the head has gone out: a body that only trickles is cut, one that flows is let through.

A large download may well take longer than the deadline of its exchange; a hang that sends a byte now and then
must not (the app would wait for it for ever). Server-sent events are neither: the caller leaves them alone.
"""

from __future__ import annotations

from typing import Final

from sidecar.core.words import FailureKind
from sidecar.proxy.services import Services
from sidecar.upstream.connection import Connection

__all__ = ["Trickle"]

TRICKLE_BYTES_PER_SECOND: Final = 1024
"""Past the deadline a body that comes slower than this is cut; one that flows is a download, not a hang."""
TRICKLE_CHECK_SECONDS: Final = 5.0


class Trickle:
    """Past the deadline: cut a body that only trickles, unless it is the app that is slow."""

    __slots__ = ("_connection", "_handle", "_loop", "_seen_bytes")

    def __init__(self, services: Services, connection: Connection, deadline_at: float) -> None:
        self._loop = services.loop
        self._connection = connection
        self._seen_bytes = 0
        left = max(0.0, deadline_at - services.clock.monotonic())
        self._handle = self._loop.call_later(left, self._check, max(left, 1.0))

    def _check(self, span_seconds: float) -> None:
        connection = self._connection
        came = connection.received_bytes - self._seen_bytes
        if came < TRICKLE_BYTES_PER_SECOND * span_seconds and not connection.is_paused:
            connection.fail(FailureKind.BODY_CUT, "the response body trickles past the deadline")
            return
        self._seen_bytes = connection.received_bytes
        self._handle = self._loop.call_later(TRICKLE_CHECK_SECONDS, self._check, TRICKLE_CHECK_SECONDS)

    def stop(self) -> None:
        self._handle.cancel()
