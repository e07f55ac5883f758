"""An app that is not there: what the delivery of a stored request has in place of a connection.

It takes the answer and keeps none of it, so that an exchange runs as for any app: same engine, same waits. It opens
no socket. The counterpart is ``courier``.
"""

# Compiled in the wheel.

from __future__ import annotations

import asyncio
from typing import Final

from sidecar.core.deployment import Limits
from sidecar.proxy.front import AppConnection
from sidecar.upstream.connection import Connection
from sidecar.wire.heads import BadHead, RequestMessage
from sidecar.wire.turn import Turn

__all__ = ["Nobody"]

ANSWER_BYTES: Final = 256 << 10
ANSWER_SECONDS: Final = 10.0
"""How much of a body that nobody reads is taken, so that the connection can serve again; then it is cut."""


class _NoHouse:
    """What is stored was accepted under the limits of its day."""

    draining = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.limits = Limits(head_bytes=16 << 20, headers=100_000)
        self.turn = Turn(loop)

    def exchange(self, app: AppConnection, message: RequestMessage) -> None: ...
    def refuse(self, app: AppConnection, bad: BadHead) -> None: ...
    def joined(self, app: AppConnection) -> bool:
        return False

    def left(self, app: AppConnection) -> None: ...


class Nobody(AppConnection):
    """Feed it one whole request; then ``request`` is that, or None if it is none."""

    is_inside = True
    """Its request was admitted when it was stored; there is nobody to be asked for a credential."""

    def __init__(self, loop: asyncio.AbstractEventLoop, request: bytes) -> None:
        super().__init__(loop, _NoHouse(loop))
        self._timer: asyncio.TimerHandle | None = None
        self.intake.feed(request)

    @property
    def request(self) -> RequestMessage | None:
        whole = self.intake.bad is None and not self.intake.is_receiving
        return self.intake.message if whole else None

    @property
    def is_leaving(self) -> bool:
        """Nobody waits, and nobody leaves."""
        return False

    def start_response(self, head: bytes, source: Connection, *, chunked: bool) -> None:
        super().start_response(head, source, chunked=chunked)
        self._timer = self._loop.call_later(ANSWER_SECONDS, self.end)

    async def response_done(self) -> None:
        try:
            await super().response_done()
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def take(self, data: bytes) -> None:
        super().take(data)
        if self.response_bytes > ANSWER_BYTES:
            self.end()
