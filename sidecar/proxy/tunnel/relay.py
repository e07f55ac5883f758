"""Two transports joined: bytes go on as they come, both ways, unread. For tunnels and upgraded connections.

Back-pressure passes through: while one side cannot be written to, the other is not read from. A half-close stays a
half-close (except through TLS, which has none), a reset stays a reset. One call per read, no task, one timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Final

__all__ = ["End", "Relay"]

LOOKS: Final = 8
"""Checks of a relay within its idle time: it ends at most an eighth of that time late."""


class End(asyncio.Protocol):
    """One side. Until it is joined to the other, it keeps what arrives."""

    __slots__ = ("_write", "early", "has_ended", "is_lost", "other", "received_bytes", "relay", "transport")

    def __init__(self) -> None:
        self.early: list[bytes] = []
        self._write: Callable[[bytes], object] = self.early.append
        self.transport: asyncio.Transport | None = None
        self.other: End | None = None
        self.relay: Relay | None = None
        self.received_bytes = 0
        self.has_ended = False
        """Whether this side sends no more."""
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream transport, always

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        self._write(data)

    def join(self, other: End) -> None:
        """Pass on what has arrived to ``other``, and from now on everything."""
        self.other = other
        if other.transport is None:
            return
        for data in self.early:
            other.transport.write(data)
        self.early.clear()
        self._write = other.transport.write

    def eof_received(self) -> bool:
        self.has_ended = True
        other = self.other
        if other is None:
            return True
        other.finish()
        return not (other.has_ended or other.is_lost or self.is_tls)

    @property
    def is_tls(self) -> bool:
        return self.transport is not None and self.transport.get_extra_info("sslcontext") is not None

    def finish(self) -> None:
        """Nothing more will be written to this side."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self.has_ended or not transport.can_write_eof():
            transport.close()
        else:
            transport.write_eof()

    def pause_writing(self) -> None:
        source = self.other.transport if self.other is not None else None
        if source is not None and not source.is_closing():
            source.pause_reading()

    def resume_writing(self) -> None:
        source = self.other.transport if self.other is not None else None
        if source is not None and not source.is_closing():
            source.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if self.relay is not None:
            self.relay.lost(self, exc)

    def drop(self) -> None:
        """Both sides are gone."""
        self._write = self.early.append

    def close(self) -> None:
        """Once everything is written."""
        if self.transport is not None:
            self.transport.close()

    def reset(self) -> None:
        """Abort at once with a reset, so that the app does not take it for a proper end."""
        transport = self.transport
        if transport is None or self.is_lost:
            return
        sock = transport.get_extra_info("socket")
        if sock is not None and not self.is_tls:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


class Relay:
    """``app`` and ``upstream``, joined. ``on_over`` is called once, when both connections are gone."""

    __slots__ = ("_handle", "_looks", "_loop", "_on_over", "_quiet", "_seen_bytes", "app", "upstream")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        app: End,
        upstream: End,
        idle_seconds: float,
        on_over: Callable[[], None],
    ) -> None:
        self._loop = loop
        self.app = app
        self.upstream = upstream
        self._on_over = on_over
        self._seen_bytes = 0
        self._quiet = 0
        self._looks = idle_seconds / LOOKS
        app.relay = upstream.relay = self
        app.join(upstream)
        upstream.join(app)
        self._handle: asyncio.TimerHandle | None = loop.call_later(self._looks, self._look)
        for end in (app, upstream):
            # Replay what happened before the two were joined.
            if end.is_lost:
                loop.call_soon(self.lost, end, None)
            elif end.has_ended and end.other is not None:
                end.other.finish()

    @property
    def bytes_up(self) -> int:
        return self.app.received_bytes

    @property
    def bytes_down(self) -> int:
        return self.upstream.received_bytes

    def _look(self) -> None:
        seen = self.app.received_bytes + self.upstream.received_bytes
        self._quiet = self._quiet + 1 if seen == self._seen_bytes else 0
        self._seen_bytes = seen
        if self._quiet >= LOOKS:
            self.reset()
        else:
            self._handle = self._loop.call_later(self._looks, self._look)

    def lost(self, end: End, exc: Exception | None) -> None:
        """One side is gone: the other gets what is left, then goes too."""
        other = end.other
        if other is None:
            return
        if not other.is_lost:
            if exc is not None:
                other.reset()
            else:
                other.close()
        elif self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self._on_over()
            # The two ends point at each other and back here: break the cycle, so that nothing waits for the garbage
            # collector.
            self._on_over = _ignore
            for each in (end, other):
                each.relay = each.other = None
                each.drop()

    def reset(self) -> None:
        """End both now."""
        self.app.reset()
        self.upstream.reset()


def _ignore() -> None:
    """Replaces the callback of a relay that is over."""
