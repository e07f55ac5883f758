"""The app's side: one connection, its requests one after the other, its responses in order.

Bytes come in and become requests (``request_reader``), each is handed to an ``exchange``, bytes go out. It never sends
a second status line into a body: a fault after a head has gone out cuts the connection. Counterpart:
``upstream.connection``.

An untroubled request costs no task, no timer and no log line here; one sweep (``proxy.server``) ends every connection
that has stalled.
"""

# Compiled in the wheel.

from __future__ import annotations

import asyncio
import select
import socket
import struct
from typing import Final, Protocol

from sidecar.core.enums import FailureKind
from sidecar.core.settings.deployment import Limits
from sidecar.proxy.client.request_reader import RequestReader
from sidecar.upstream.connection import Connection
from sidecar.wire.chunked import LAST_CHUNK, encode_chunk
from sidecar.wire.heads import BadHead, RequestMessage
from sidecar.wire.write_batch import WriteBatch

__all__ = ["ClientConnection", "ConnectionOwner"]

PIPELINED_BYTES: Final = 64 << 10
"""Bytes that a client may send ahead while its request is worked on; then reading pauses."""
LINGER_SECONDS: Final = 2.0
"""Seconds for the app to read a response that leaves unread request bytes behind, before the reset (RFC 9112 section
9.6).
"""
HALF_CLOSED_SECONDS: Final = 1.0
"""Seconds that a client has, after shutting down its sending side, to show that it still reads its response. Most such
clients have left.
"""


class ConnectionOwner(Protocol):
    """The server, as its connections see it."""

    limits: Limits
    write_batch: WriteBatch

    @property
    def draining(self) -> bool: ...
    def exchange(self, app: ClientConnection, message: RequestMessage) -> None: ...
    def refuse(self, app: ClientConnection, bad: BadHead) -> None: ...
    def joined(self, app: ClientConnection) -> bool: ...
    def left(self, app: ClientConnection) -> None: ...


class CurrentExchange(Protocol):
    """The exchange that is under way, as its connection sees it."""

    @property
    def is_waiting(self) -> bool: ...
    def cut_wait_short(self) -> None: ...
    def cancel(self) -> None: ...


class ClientConnection(asyncio.Protocol):
    """One app's connection. It is also the sink of the response that is being relayed."""

    __slots__ = (
        "_chunked",
        "_done",
        "_half_closed",
        "_leaving",
        "_loop",
        "_owner",
        "_reading_paused",
        "_source",
        "_unwritten",
        "_watch",
        "_write_batch",
        "active_at",
        "broken",
        "current",
        "heard",
        "keep_alive",
        "leaving_since",
        "part",
        "part_since",
        "reader",
        "response_bytes",
        "response_started",
        "stalled_since",
        "transport",
        "until_close",
    )

    is_delivery = False
    """Whether this is the null client of the outbox (``delivery``): a stored request is neither stored again nor
    hedged.
    """
    is_inside = False
    """Whether requests come through an intercepted tunnel (``tunnel.intercept``), whose CONNECT has been admitted."""

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: ConnectionOwner) -> None:
        self._loop = loop
        self._owner = owner
        self._write_batch = owner.write_batch
        self._unwritten = b""
        """A whole response, until the end of this iteration of the loop."""
        self.transport: asyncio.Transport | None = None
        self.reader = RequestReader(owner.limits, self._begin_exchange, self._body_broke)
        self.current: CurrentExchange | None = None
        """The exchange that is under way; None between requests."""
        self._done: asyncio.Future[None] | None = None
        self._source: Connection | None = None
        self._chunked = False
        self._reading_paused = False
        self._half_closed = False
        self._leaving = False
        self._watch: asyncio.TimerHandle | None = None
        """Fires when a request body pauses too long; one at a time."""
        self.leaving_since = 0.0
        """When we began to close, in monotonic seconds; the sweep aborts what has not been flushed by then."""
        self.active_at = loop.time()
        """When the last bytes came from the app, in monotonic seconds; kept by the sweep."""
        self.heard = False
        """Whether bytes have come since the last sweep."""
        self.part = 0
        self.part_since = 0.0
        """The unfinished head that the sweep saw (``reader.parts``), and when it first did, in monotonic seconds; 0:
        none.
        """
        self.stalled_since = 0.0
        """Since when the app has not been taking what we write, in monotonic seconds; 0: it takes it."""
        self.keep_alive = True
        self.response_started = False
        self.until_close = False
        """Whether the end of the connection is the end of the body (RFC 9112 section 6.3)."""
        self.response_bytes = 0
        self.broken: FailureKind | None = None
        """How the relayed response broke off."""

    # -- coming and going --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream transport, always
        if not self._owner.joined(self):
            self._leaving = True
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._owner.left(self)
        self.reader.close()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self.current is not None:
            self.current.cancel()

    def eof_received(self) -> bool:
        self.write_out()
        if self._leaving:
            return False
        if self.current is not None:
            if self.current.is_waiting or self.reader.is_receiving:
                self.current.cancel()
                return False
            self._loop.call_later(HALF_CLOSED_SECONDS, self.give_up, self.current)
        # Whole requests may have come before it. The last one ends the connection.
        has_next = self.reader.has_next
        self.keep_alive = self.keep_alive and has_next
        self._half_closed = self.current is not None or has_next
        return self._half_closed

    @property
    def is_leaving(self) -> bool:
        """Whether the app has at least stopped sending: no new attempt is made for it."""
        return self._half_closed or self.transport is None

    def give_up(self, exchange: CurrentExchange, seen_bytes: int = -1) -> None:
        """Cancel the exchange of an app that has stopped sending, unless the app goes on taking its response."""
        if self.current is not exchange:
            return
        if self.response_started and self.response_bytes != seen_bytes:
            self._loop.call_later(HALF_CLOSED_SECONDS, self.give_up, exchange, self.response_bytes)
        else:
            exchange.cancel()

    def note_activity(self) -> None:
        """Bring ``active_at`` up to date. A flag on the path of every read, a clock here."""
        if self.heard:
            self.heard = False
            self.active_at = self._loop.time()

    def watch_body(self, idle_seconds: float) -> None:
        """End the exchange if the app pauses longer than this in its request body."""
        if self.reader.is_receiving and self.current is not None:
            self.note_activity()
            held_back = self._reading_paused or self.reader.expects_continue
            silent = 0.0 if held_back else self._loop.time() - self.active_at
            if self._watch is not None:
                self._watch.cancel()
            if silent >= idle_seconds:
                self.time_out("the request body stalled")
            else:
                self._watch = self._loop.call_later(idle_seconds - silent + 0.001, self.watch_body, idle_seconds)

    def cut_wait_short(self) -> None:
        """End the wait before a retry now, without the retry."""
        if self.current is not None:
            self.current.cut_wait_short()

    def _body_broke(self) -> None:
        """The request cannot be completed: the upstream must not see a whole one, and the app gets no response to
        it.
        """
        self.keep_alive = False
        if self.current is None:
            return
        if self.response_started:
            self.cut()
        else:
            self.current.cancel()

    def _begin_exchange(self) -> None:
        """A request is there, or a head that is malformed."""
        if self._unwritten:
            # The response before this one goes out first.
            self.write_out()
        reader = self.reader
        message = reader.message
        if reader.bad is not None or message is None:
            self._refuse()
        elif self._half_closed and reader.is_receiving:
            # The rest of its body will never come.
            self._leave()
        elif self.transport is not None:
            self.keep_alive = not message.should_close and not (self._half_closed and not reader.has_next)
            self._owner.exchange(self, message)
            if self._half_closed and self.current is not None:
                self._loop.call_later(HALF_CLOSED_SECONDS, self.give_up, self.current)

    def _begin_last(self) -> None:
        """As ``_begin_exchange``, while shutting down: the response says that it is the last."""
        self.write_out()
        reader = self.reader
        if reader.bad is not None or reader.message is None:
            self._refuse()
        elif self.transport is not None:
            self.keep_alive = False
            self._owner.exchange(self, reader.message)

    def _refuse(self) -> None:
        if self._leaving:
            return
        if self.reader.bad is not None and self.transport is not None:
            self._owner.refuse(self, self.reader.bad)
        self._leave()

    def exchange_over(self, *, cut: bool, last: bool) -> None:
        """The exchange has ended: go on with the next request, or close. ``last``: no further request is taken."""
        self.current = None
        reader = self.reader
        if reader.bad is not None and not self.response_started:
            self._refuse()
        elif cut:
            self.cut()
        elif not self.keep_alive or reader.is_receiving or last:
            self._leave()
        else:
            # ``keep_alive``, ``until_close`` and ``broken`` are as they were: every change of them ends the connection.
            self.response_started = False
            self.response_bytes = 0
            if self.stalled_since:
                self.set_reading(False)
            elif reader.behind:
                # In a new iteration of the loop: a client that pipelines must not keep the others waiting.
                self._loop.call_soon(self._next)
            else:
                if self._reading_paused:
                    self.set_reading(True)
                reader.next()

    def _next(self) -> None:
        """Go on with the bytes behind the last request; not while the app leaves its response unread."""
        if self._leaving or self.transport is None or self.current is not None:
            return
        if self.stalled_since:
            self.set_reading(False)
            return
        # The bytes of the next request have been waiting for us, so the idle time begins now.
        self.active_at = self._loop.time()
        self.reader.next()
        if self._half_closed and self.reader.has_part:
            # The head began, but its sender has stopped sending: it will never be whole.
            self._leave()
        elif self._reading_paused and self._wants_more():
            self.set_reading(True)

    def _wants_more(self) -> bool:
        """Whether reading may resume after a pause for pipelined bytes or unread responses."""
        reader = self.reader
        if reader.is_receiving:
            return reader.body is None or not reader.body.is_pausing
        return reader.has_part or len(reader.behind) <= PIPELINED_BYTES

    def _leave(self) -> None:
        """Close so that the app can still read its response, even if it sends bytes that we do not read (RFC 9112
        section 9.6).
        """
        transport = self.transport
        if transport is None or self._leaving:
            return
        self.write_out()
        self._leaving = True
        self.leaving_since = self._loop.time()
        reader = self.reader
        if (reader.is_receiving or reader.bad is not None or reader.behind) and transport.can_write_eof():
            self.set_reading(True)
            transport.write_eof()
            self._loop.call_later(LINGER_SECONDS, transport.abort)
        else:
            transport.close()

    def time_out(self, detail: str) -> None:
        """Answer 408: the app is too slow with its request (RFC 9110 section 15.5.9)."""
        self.reader.bad = BadHead(408, "timeout", detail)
        if self.current is not None:
            self._body_broke()
        else:
            self._refuse()

    def cut(self) -> None:
        """Abort, so that the app does not take half a response for a whole one."""
        self.write_out()
        transport = self.transport
        if transport is None:
            return
        self._leaving = True
        if self.until_close:
            # Only a reset tells the app that a body delimited by close is incomplete; a plain close is its proper end.
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    def close_after_last(self) -> None:
        """Shut down: first answer the exchange under way, and a request that the kernel already holds."""
        self.keep_alive = False
        self.reader.hand_to(self._begin_last)
        transport = self.transport
        if transport is None or self.current is not None or self.reader.has_part:
            self.close_if_idle()
            return
        poller = select.poll()
        poller.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        if not poller.poll(0):
            self.close_if_idle()

    def close_if_idle(self) -> None:
        if self.current is None and self.transport is not None and not self._leaving and not self.reader.has_next:
            self.write_out()
            self._leaving = True
            self.leaving_since = self._loop.time()
            self.transport.close()

    # -- requests ----------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._leaving:
            return
        self.heard = True
        reader = self.reader
        reader.feed(data)
        if len(reader.behind) > PIPELINED_BYTES and not reader.has_part:
            self.set_reading(False)

    def set_reading(self, reading: bool) -> None:
        """Resume or pause reading from the app (back-pressure)."""
        transport = self.transport
        if transport is None or transport.is_closing() or reading is not self._reading_paused or self._half_closed:
            return
        self._reading_paused = not reading
        if reading:
            transport.resume_reading()
        else:
            transport.pause_reading()

    # -- responses ---------------------------------------------------------------------------------------

    def respond(self, data: bytes, body_bytes: int) -> None:
        """Send a whole response, head and body: at the end of this iteration of the loop, or with the next
        ``write_out``.
        """
        self.response_started = True
        self.response_bytes = body_bytes
        if self.transport is not None:
            self._unwritten = data
            self._write_batch.add(self)

    def write_out(self) -> None:
        """Write the response that waits for the end of this iteration of the loop, if there is one."""
        data = self._unwritten
        if data:
            self._unwritten = b""
            if self.transport is not None:
                self.transport.write(data)

    def hinted(self, seconds: float) -> None:
        """The upstream asked for this many seconds of quiet. An app that waits for its response need not know."""

    def interim(self, data: bytes) -> None:
        """A 1xx head before the answer."""
        if self.transport is not None and not self.response_started:
            self.transport.write(data)

    def start_response(self, head: bytes, source: Connection, *, chunked: bool) -> None:
        """Send the head of a response whose body is relayed from ``source``; then call ``source.relay``."""
        self.response_started = True
        self._source = source
        self._chunked = chunked
        self._done = self._loop.create_future()
        if self.transport is not None:
            self.transport.write(head)

    async def response_done(self) -> None:
        """Wait until the body is relayed, or has broken off (``broken``)."""
        if self._done is not None:
            try:
                await self._done
            finally:
                self._source = None
                self._done = None

    def take(self, data: bytes) -> None:
        self.response_bytes += len(data)
        if self.transport is not None:
            self.transport.write(encode_chunk(data) if self._chunked else data)
        if self.stalled_since and self._source is not None:
            self._source.pause_reading()

    def end(self) -> None:
        if self._chunked and self.transport is not None:
            self.transport.write(LAST_CHUNK)
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def broke(self, kind: FailureKind) -> None:
        self.broken = kind
        self.keep_alive = False
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def pause_writing(self) -> None:
        self.stalled_since = self._loop.time()
        if self._source is not None:
            self._source.pause_reading()
        elif self.current is None:
            # Stop reading requests from a client that is not reading its responses.
            self.set_reading(False)

    def resume_writing(self) -> None:
        self.stalled_since = 0.0
        if self._source is not None:
            self._source.resume_reading()
        elif self.current is None:
            self._loop.call_soon(self._next)
