"""The app's side: one connection, its requests one after the other, its answers in order.

Bytes come in and become requests (``intake``), each is handed to the loop (``exchange``), bytes go out. It never
sends a second status line into a body: what goes wrong after a head has gone out cuts the connection. The
counterpart is ``upstream.connection``.

An untroubled request costs no task, no timer and no log line here: one task serves a connection, and one
sweep (``listener``) looks after all that have stalled.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Protocol

from sidecar.core.deployment import Limits
from sidecar.core.words import FailureKind
from sidecar.proxy.intake import Intake
from sidecar.upstream.connection import Connection
from sidecar.wire.chunked import LAST_CHUNK, encode_chunk
from sidecar.wire.heads import BadHead, RequestMessage

__all__ = ["AppConnection", "House"]

PIPELINED_BYTES = 64 << 10
"""What a client may send ahead while its request is worked on; then reading pauses."""
LINGER_SECONDS = 2.0
"""After an answer that leaves unread bytes behind: time for the app to read it before the reset (RFC 9112 9.6)."""
HALF_CLOSED_SECONDS = 1.0
"""A client that shut down its sending side may still want the answer that is under way; most have just left."""


class House(Protocol):
    """The listener, as its connections see it."""

    limits: Limits

    @property
    def draining(self) -> bool: ...
    async def exchange(self, app: AppConnection, message: RequestMessage) -> None: ...
    def refuse(self, app: AppConnection, bad: BadHead) -> None: ...
    def joined(self, app: AppConnection) -> bool: ...
    def left(self, app: AppConnection) -> None: ...
    def crashed(self, exc: Exception) -> None: ...


class AppConnection(asyncio.Protocol):
    """One app's connection. It is also the sink of the response that is being relayed."""

    __slots__ = (
        "_chunked",
        "_done",
        "_half_closed",
        "_house",
        "_leaving",
        "_loop",
        "_reading_paused",
        "_ready",
        "_source",
        "_task",
        "active_at",
        "broken",
        "busy",
        "intake",
        "keep_alive",
        "part_since",
        "response_bytes",
        "response_started",
        "stalled_since",
        "transport",
        "until_close",
        "waiting",
        "woken",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, house: House) -> None:
        self._loop = loop
        self._house = house
        self.transport: asyncio.Transport | None = None
        self.intake = Intake(house.limits, self._wake, self._body_broke)
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._done: asyncio.Future[None] | None = None
        self._source: Connection | None = None
        self._chunked = False
        self._reading_paused = False
        self._half_closed = False
        self._leaving = False
        self.active_at = loop.time()
        """When the last bytes came from the app."""
        self.part_since = 0.0
        """When the head that is not whole yet began."""
        self.stalled_since = 0.0
        """Since when the app has not been taking what we write; 0: it does."""
        self.busy = False
        """Whether an exchange is under way."""
        self.waiting = False
        """Whether that exchange stands still before a retry."""
        self.woken = False
        """Whether its wait is being cut short because the sidecar is shutting down."""
        self._begin()

    def _begin(self) -> None:
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
        if self._house.joined(self):
            self._task = self._loop.create_task(self._serve())
        else:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._house.left(self)
        if self._task is not None and not self._task.done():
            self._task.cancel()

    def eof_received(self) -> bool:
        if not self.busy or self._leaving or self._task is None:
            return False
        if self.waiting or self.intake.is_receiving:
            self._task.cancel()
            return False
        self._half_closed = True
        self.keep_alive = False
        self._loop.call_later(HALF_CLOSED_SECONDS, self.give_up)
        return True

    @property
    def is_leaving(self) -> bool:
        """Whether the app has at least stopped sending: no new attempt is made for it."""
        return self._half_closed or self.transport is None

    def give_up(self, seen_bytes: int = -1) -> None:
        """Stop what is under way for an app that has stopped sending, unless it goes on taking its answer."""
        if not self.busy or self._task is None:
            return
        if self.response_started and self.response_bytes != seen_bytes:
            self._loop.call_later(HALF_CLOSED_SECONDS, self.give_up, self.response_bytes)
        else:
            self._task.cancel()

    def watch_body(self, idle_seconds: float) -> None:
        """End the exchange if the app pauses longer than this in its request body."""
        if self.intake.is_receiving and self.busy:
            held_back = self._reading_paused or self.intake.expects_continue
            silent = 0.0 if held_back else self._loop.time() - self.active_at
            if silent >= idle_seconds:
                self.time_out("the request body stalled")
            else:
                self._loop.call_later(idle_seconds - silent + 0.001, self.watch_body, idle_seconds)

    def cut_wait_short(self) -> None:
        """End the wait before a retry now, without the retry."""
        if self.waiting and self._task is not None:
            self.woken = True
            self._task.cancel()

    def _body_broke(self) -> None:
        """The request cannot be completed: the upstream must not see a whole one, nor the app an answer to it."""
        self.keep_alive = False
        if self.busy and self.response_started:
            self.cut()
        elif self.busy and self._task is not None:
            self._task.cancel()

    async def _serve(self) -> None:
        intake = self.intake
        try:
            while await self._request_is_there():
                message = intake.message
                if intake.bad is not None or message is None:
                    break
                self.busy = True
                self.keep_alive = not message.should_close
                await self._house.exchange(self, message)
                self.busy = False
                if not self.keep_alive or self._half_closed or intake.is_receiving or self._house.draining:
                    break
                self._begin()
                if self._reading_paused:
                    self.set_reading(True)
                intake.next()
            if intake.bad is not None and not self.response_started:
                self._house.refuse(self, intake.bad)
        except asyncio.CancelledError:
            if intake.bad is not None and not self.response_started:
                self._house.refuse(self, intake.bad)
            else:
                self.cut()
        except Exception as exc:
            self._house.crashed(exc)
            self.cut()
        finally:
            self.busy = False
            self._leave()

    async def _request_is_there(self) -> bool:
        intake = self.intake
        while intake.message is None and intake.bad is None:
            if self.transport is None or self._leaving:
                return False
            self._ready = ready = self._loop.create_future()
            try:
                await ready
            finally:
                self._ready = None
        return True

    def _wake(self) -> None:
        ready = self._ready
        if ready is not None and not ready.done():
            ready.set_result(None)

    def _leave(self) -> None:
        """Close so that the app can still read the answer, though it may be sending bytes that we shall not read."""
        transport = self.transport
        if transport is None or self._leaving:
            return
        self._leaving = True
        intake = self.intake
        if (intake.is_receiving or intake.bad is not None or intake.behind) and transport.can_write_eof():
            self.set_reading(True)
            transport.write_eof()
            self._loop.call_later(LINGER_SECONDS, transport.abort)
        else:
            transport.close()

    def time_out(self, detail: str) -> None:
        """The app is too slow with its request (RFC 9110 section 15.5.9)."""
        self.intake.bad = BadHead(408, "timeout", detail)
        if self.busy:
            self._body_broke()
        else:
            self._wake()

    def cut(self) -> None:
        """End it without a clean end, so that nobody takes half an answer for a whole one."""
        transport = self.transport
        if transport is None:
            return
        self._leaving = True
        if self.until_close:
            # Only a reset tells the app that such a body is not whole; a plain close would be its proper end.
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    def close_if_idle(self) -> None:
        if not self.busy and self.transport is not None:
            self._leaving = True
            self.transport.close()

    # -- requests ----------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._leaving:
            return
        intake = self.intake
        now = self.active_at = self._loop.time()
        if not intake.has_part:
            self.part_since = now
        intake.feed(data)
        if len(intake.behind) > PIPELINED_BYTES and self.busy:
            self.set_reading(False)

    @property
    def is_paused(self) -> bool:
        """Whether it is us who do not read, for now."""
        return self._reading_paused

    def set_reading(self, reading: bool) -> None:
        """Back-pressure on the app."""
        transport = self.transport
        if transport is None or transport.is_closing() or reading is not self._reading_paused:
            return
        self._reading_paused = not reading
        if reading:
            transport.resume_reading()
        else:
            transport.pause_reading()

    # -- responses ---------------------------------------------------------------------------------------

    def respond(self, data: bytes, body_bytes: int) -> None:
        """A whole answer: head and body."""
        self.response_started = True
        self.response_bytes = body_bytes
        if self.transport is not None:
            self.transport.write(data)

    def interim(self, data: bytes) -> None:
        """A 1xx head before the answer."""
        if self.transport is not None and not self.response_started:
            self.transport.write(data)

    def start_response(self, head: bytes, source: Connection, *, chunked: bool) -> None:
        """The head of an answer whose body is relayed from ``source``; then call ``source.relay``."""
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

    def resume_writing(self) -> None:
        self.stalled_since = 0.0
        if self._source is not None:
            self._source.resume_reading()
