"""One connection to an upstream: bytes of a request out; what comes back is read by ``reception``, its other half.

It knows exactly whether a byte of the request was handed to the transport, which is what a retry hangs on.
"""

# Compiled in the wheel.

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable

from sidecar.core.words import FailureKind
from sidecar.upstream.reception import BODY, CLOSED, DONE, HEAD, HELD_BYTES, IDLE, UNASKED, Owner, Reception, Sink
from sidecar.wire.framing import UNTIL_CLOSE, stays_open
from sidecar.wire.turn import Turn

__all__ = ["HELD_BYTES", "Connection", "Owner", "Sink"]


class Connection(Reception):
    """One socket, one request at a time."""

    __slots__ = ("_ask", "_careful")

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: Owner) -> None:
        super().__init__(loop, owner)
        self._ask: Callable[[int], list[tuple[int, int]]] | None = None
        """poll(2) on this socket alone."""
        self._careful = False

    # -- the request's side ------------------------------------------------------------------------------

    def send(self, head: bytes, method: str, *, whole: bool) -> bool:
        """Begin an attempt. ``head`` may carry the body behind it; ``whole`` says that nothing more follows.

        False: the connection had died; not one byte was written.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            return False
        self._begin(method, whole=whole)
        transport.write(head)
        return True

    def send_in_turn(self, request: bytes, method: str, turn: Turn, *, careful: bool) -> bool:
        """As ``send``, of a whole request, at the end of this turn of the loop.

        ``careful``: only if there is no news then (``has_news``). A connection that turns out to have died, before a
        byte was written, fails with its request ``unwritten``; False, as of ``send``, if that is known already.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            return False
        self._begin(method, whole=True)
        self.unwritten = request
        self._careful = careful
        turn.add(self)
        return self._state == HEAD

    def write_out(self) -> None:
        """The request that waits for the end of the turn, unless it has failed already."""
        transport = self.transport
        if self._state != HEAD or transport is None:
            return
        if transport.is_closing() or (self._careful and self.has_news(transport)):
            self.fail(FailureKind.CLOSED, UNASKED)
            return
        request, self.unwritten = self.unwritten, b""
        transport.write(request)

    def _begin(self, method: str, *, whole: bool) -> None:
        if self.message is not None:
            # Of the request before. A connection that has failed or is tainted never sees another one.
            self.message = None
            self.interim = 0
            self.held_bytes = 0
            self.received_bytes = 0
            self.complete = False
        self._method = method
        self._state = HEAD
        self.request_sent = whole

    def write(self, data: bytes) -> None:
        """More of the request body, already framed."""
        if self._state in (HEAD, BODY) and self.transport is not None:
            self.transport.write(data)

    def pause_writing(self) -> None:
        self.writing_paused = True

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self.on_writable is not None:
            self.on_writable()

    def hand_on(self, heir: asyncio.Protocol) -> None:
        """After a 101 the connection is no longer ours: ``heir`` gets its transport, and what came behind the head."""
        transport, self.transport = self.transport, None
        held, self.held = self.held, []
        self._state = CLOSED
        self._stop_idle()
        self._owner.gone(self)
        for data in held:
            heir.data_received(data)
        if transport is None:
            heir.connection_lost(None)
            return
        transport.set_protocol(heir)
        heir.connection_made(transport)
        if self._paused_reading:
            transport.resume_reading()

    # -- back to the pool --------------------------------------------------------------------------------

    def release(self) -> None:
        """The attempt is over: back to the pool if the answer was whole and nothing speaks against it, else cut."""
        message = self.message
        self._sink = None
        self.on_writable = None
        self.on_interim = None
        self.held = []
        if (
            self._state == DONE
            and message is not None
            and (not message.should_close or stays_open(message))
            and not self.tainted
            and self.length != UNTIL_CLOSE
            and self.request_sent
            and not self.writing_paused
            and self.transport is not None
            and not self.transport.is_closing()
        ):
            self._state = IDLE
            if self._paused_reading:
                self.resume_reading()
            self._owner.put(self)
        else:
            self.abort()

    def is_stale(self) -> bool:
        """Whether an idle connection has died, or ``has_news``."""
        transport = self.transport
        return transport is None or transport.is_closing() or self.has_news(transport)

    def has_news(self, transport: asyncio.Transport) -> bool:
        """Whether the kernel holds something for an idle connection: its end, or bytes nobody asked for.

        One poll(2); used before a request that could not be repeated is entrusted to a pooled connection.
        """
        ask = self._ask
        if ask is None:
            # Made once for a connection: making it costs more than asking it.
            poller = select.poll()
            poller.register(transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLRDHUP)
            ask = self._ask = poller.poll
        return len(ask(0)) > 0
