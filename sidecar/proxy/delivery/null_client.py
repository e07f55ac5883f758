"""An app that is not there: what the delivery of a stored request has in place of a connection.

It takes the answer and keeps none of it, so that an exchange runs as for any app: same engine, same waits. It opens
no socket. The counterpart is ``delivery``.
"""

# Compiled in the wheel.

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from sidecar.core.settings.deployment import Limits
from sidecar.proxy.client.connection import ClientConnection
from sidecar.upstream.connection import Connection
from sidecar.wire.heads import BadHead, RequestMessage
from sidecar.wire.write_batch import WriteBatch

__all__ = ["NullClient"]

ANSWER_BYTES: Final = 256 << 10
ANSWER_SECONDS: Final = 10.0
"""How much of a body that nobody reads is taken, so that the connection can serve again; then it is cut."""


class _NullOwner:
    """What is stored was accepted under the limits of its day."""

    draining = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.limits = Limits(head_bytes=16 << 20, headers=100_000)
        self.write_batch = WriteBatch(loop)

    def exchange(self, app: ClientConnection, message: RequestMessage) -> None: ...
    def refuse(self, app: ClientConnection, bad: BadHead) -> None: ...
    def joined(self, app: ClientConnection) -> bool:
        return False

    def left(self, app: ClientConnection) -> None: ...


class NullClient(ClientConnection):
    """Feed it one whole request; then ``request`` is that, or None if it is none."""

    is_delivery = True
    is_inside = True
    """Its request was admitted when it was stored; there is nobody to be asked for a credential."""

    def __init__(self, loop: asyncio.AbstractEventLoop, request: bytes) -> None:
        super().__init__(loop, _NullOwner(loop))
        self._timer: asyncio.TimerHandle | None = None
        self.on_hint: Callable[[float], None] | None = None
        """Called with the seconds of each hint, before it is waited for."""
        self.reader.feed(request)

    @property
    def request(self) -> RequestMessage | None:
        whole = self.reader.bad is None and not self.reader.is_receiving
        return self.reader.message if whole else None

    @property
    def is_leaving(self) -> bool:
        """Nobody waits, and nobody leaves."""
        return False

    def hinted(self, seconds: float) -> None:
        if self.on_hint is not None:
            self.on_hint(seconds)

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
