"""One connection to an upstream: the bytes of a request out, a head and a live body in, or a failure.

It knows exactly whether a byte of the request was handed to the transport, which is what a retry depends on. States and
what changes them (RFC 9112; the names follow h11's):

    IDLE   --send-->                          HEAD
    HEAD   --final head-->                    BODY, or DONE if the body came with it
    BODY   --last byte-->                     DONE
    DONE   --release-->                       IDLE, or CLOSED if it must not serve again
    any    --lost, failed, aborted, handed on-->  CLOSED
"""

# Compiled in the wheel.

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable
from typing import Any, Final, Protocol

from sidecar.core.enums import FailureKind
from sidecar.wire.chunked import ChunkedDecoder
from sidecar.wire.framing import CHUNKED, UNTIL_CLOSE, response_length, stays_open
from sidecar.wire.heads import (
    MAX_RESPONSE_HEAD_BYTES,
    BadHead,
    ResponseMessage,
    cannot_be_a_head,
    parse_response_head,
    plain_response_head,
    response_head_end,
)
from sidecar.wire.write_batch import WriteBatch

__all__ = [
    "BODY",
    "CLOSED",
    "DONE",
    "HEAD",
    "HELD_BYTES",
    "IDLE",
    "UNASKED",
    "Asker",
    "Connection",
    "Owner",
    "Sink",
]

HELD_BYTES: Final = 64 << 10
"""Bytes of a body held before ``relay`` or ``whole`` is called; then reading pauses."""
LAST_BYTES: Final = 256 << 10
"""Bytes read of a response that lay unread when the connection was reset."""
MAX_INTERIM: Final = 32
"""1xx heads before the final one; more is an attack (RFC 9110 section 15.2 sets no limit). All of them together may
have as many bytes as one head.
"""

UNASKED: Final = "the upstream sent what nobody had asked for, or ended"

IDLE: Final = 0
HEAD: Final = 1
BODY: Final = 2
DONE: Final = 3
CLOSED: Final = 4


class Sink(Protocol):
    """Where a response body goes: the app's connection, or a buffer."""

    def take(self, data: bytes) -> None: ...
    def end(self) -> None: ...
    def broke(self, kind: FailureKind) -> None: ...


class Asker(Protocol):
    """What sends a request and is called with its response, in place of awaiting ``head``."""

    def head_arrived(self) -> None:
        """A final head or a failure has come; called once."""

    def interim_arrived(self, message: ResponseMessage) -> None:
        """A 1xx head has come (RFC 9110 section 15.2); never a 101."""


class Owner(Protocol):
    """The pool, as its connections see it."""

    def put(self, connection: Any) -> None: ...
    def gone(self, connection: Any) -> None: ...


class Connection(asyncio.Protocol):
    """One socket, one request at a time. ``_state`` is its state; the table of transitions is above."""

    __slots__ = (
        "_ask",
        "_careful",
        "_decoder",
        "_head",
        "_idle_handle",
        "_left",
        "_loop",
        "_method",
        "_owner",
        "_paused_reading",
        "_said_end",
        "_sink",
        "_state",
        "_waiter",
        "asker",
        "complete",
        "detail",
        "expired",
        "failure",
        "has_rested",
        "held",
        "held_bytes",
        "idle_seconds",
        "idle_since",
        "interim",
        "interim_bytes",
        "length",
        "may_switch_to",
        "message",
        "on_interim",
        "on_writable",
        "received_bytes",
        "request_sent",
        "reused",
        "tainted",
        "transport",
        "unwritten",
        "writing_paused",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: Owner) -> None:
        self._loop = loop
        self._owner = owner
        self.transport: asyncio.Transport | None = None
        self._state = IDLE
        self._waiter: asyncio.Future[None] | None = None
        self._idle_handle: asyncio.TimerHandle | None = None
        self._paused_reading = False
        self._ask: Callable[[int], list[tuple[int, int]]] | None = None
        """poll(2) on this socket alone; made at first use."""
        self._careful = False
        """Whether ``unwritten`` must not be sent on a connection that may be closed."""
        self._said_end = False
        """Whether the upstream itself has ended: over TLS anyone on the path can cut, only the upstream can send
        close_notify.
        """
        self.writing_paused = False
        self.asker: Asker | None = None
        """Called when a final head or a failure has come, and forgotten then; ``head`` need not be awaited."""
        self.on_writable: Callable[[], None] | None = None
        self.on_interim: Callable[[ResponseMessage], None] | None = None
        self.may_switch_to: frozenset[str] = frozenset()
        """Protocols (lower case) that the current request asks to upgrade to; its sender resets it."""
        self.reused = False
        self.has_rested = False
        """Whether it was idle for ``RESTED_SECONDS`` before it was taken: it may have been closed unnoticed."""
        self.idle_since = 0.0
        self.expired = 0.0
        """Seconds after which the upstream announced to close an idle connection; 0: not announced."""
        self._method = ""
        self._head = b""
        self._left = 0
        self._decoder: ChunkedDecoder | None = None
        self._sink: Sink | None = None
        self.message: ResponseMessage | None = None
        self.length = 0
        self.interim = 0
        self.interim_bytes = 0
        self.held: list[bytes] = []
        self.held_bytes = 0
        self.received_bytes = 0
        self.complete = False
        self.tainted = False
        self.request_sent = False
        self.unwritten = b""
        """A request that waits for the end of the loop's iteration. After a failure: not a byte of it was written."""
        self.failure: FailureKind | None = None
        self.detail = ""
        self.idle_seconds = 0.0

    # -- the request's side ------------------------------------------------------------------------------

    def send(self, head: bytes, method: str, *, whole: bool) -> bool:
        """Begin an attempt. ``head`` may carry the body behind it; ``whole`` says that nothing more follows.

        False: the connection was closed; not one byte was written.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            return False
        self._begin(method, whole=whole)
        transport.write(head)
        return True

    def send_in_batch(self, request: bytes, method: str, write_batch: WriteBatch, *, careful: bool) -> bool:
        """As ``send``, for a whole request, at the end of this iteration of the loop.

        ``careful``: only if the kernel holds nothing for it then (``has_news``). A connection that turns out to be
        closed before a byte was written fails with its request ``unwritten``; False, as of ``send``, if that is known
        already.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            return False
        self._begin(method, whole=True)
        self.unwritten = request
        self._careful = careful
        write_batch.add(self)
        return self._state == HEAD

    def write_out(self) -> None:
        """Write the request that waits for the end of the iteration, unless it has failed already."""
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
            # The previous request's head. A connection that has failed or is tainted never gets another request.
            self.message = None
            self.interim = self.interim_bytes = 0
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

    def hand_on(self, successor: asyncio.Protocol) -> None:
        """Give the transport to ``successor`` after a 101, with the bytes that came behind the head."""
        transport, self.transport = self.transport, None
        held, self.held = self.held, []
        self._state = CLOSED
        self._stop_idle()
        self._owner.gone(self)
        for data in held:
            successor.data_received(data)
        if transport is None:
            successor.connection_lost(None)
            return
        transport.set_protocol(successor)
        successor.connection_made(transport)
        if self._paused_reading:
            transport.resume_reading()

    # -- the response's side -----------------------------------------------------------------------------

    async def head(self) -> ResponseMessage | None:
        """The final response head, or None: then ``failure`` says what came instead."""
        if self.message is None and self.failure is None:
            await self._wait()
        return self.message

    @property
    def is_unanswered(self) -> bool:
        """Whether not one byte has come back for the current request."""
        return self.message is None and not self._head and not self.interim

    async def whole(self, limit_bytes: int) -> bool:
        """Wait until the body is complete (True), or is larger than ``limit_bytes``, or broke off (False)."""
        while not self.complete and self.failure is None and self.held_bytes <= limit_bytes:
            await self._wait()
        return self.complete

    async def _wait(self) -> None:
        self._waiter = waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        """Last in a call: the woken task may return the connection and use it again at once."""
        asker = self.asker
        if asker is not None:
            self.asker = None
            asker.head_arrived()
            return
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def relay(self, sink: Sink, idle_seconds: float) -> None:
        """Stream the body to ``sink``: what is held at once, the rest as it comes.

        ``idle_seconds`` is the longest pause between two of its bytes; 0 means no limit (server-sent events).
        """
        self._sink = sink
        if self.held:
            held, self.held, self.held_bytes = self.held, [], 0
            for data in held:
                sink.take(data)
        if self.complete:
            sink.end()
        elif self.failure is not None:
            sink.broke(self.failure)
        else:
            self.resume_reading()
            if idle_seconds:
                self.idle_seconds = idle_seconds
                self.idle_since = self._loop.time()
                self._idle_handle = self._loop.call_later(idle_seconds, self._check_idle)

    def pause_reading(self) -> None:
        """Pause reading: the sink is full."""
        if not self._paused_reading and self.transport is not None and self._state == BODY:
            self._paused_reading = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused_reading and self.transport is not None:
            self._paused_reading = False
            self.idle_since = self._loop.time()
            self.transport.resume_reading()

    @property
    def is_paused(self) -> bool:
        """Whether reading is paused because the sink is full."""
        return self._paused_reading

    def _check_idle(self) -> None:
        left = self.idle_since + self.idle_seconds - self._loop.time()
        if self._paused_reading:
            # The app is slow, not the upstream: start the idle time anew.
            left = self.idle_seconds
        if left > 0.001:
            self._idle_handle = self._loop.call_later(left, self._check_idle)
        else:
            self.fail(FailureKind.BODY_CUT, "the response body stalled")

    def timed_out(self) -> None:
        """The time for the response head is over."""
        if self.message is None:
            self.fail(FailureKind.HEAD_TIMEOUT, "no response head in time")

    def data_received(self, data: bytes) -> None:
        if self._state == HEAD:
            self._take_head(data)
        elif self._state == BODY:
            self.idle_since = self._loop.time()
            self._take_body(data)
        elif self._state != CLOSED:
            # A response without a request, or bytes behind the response (RFC 9112 section 9.2): never reuse.
            self.abort()

    def _take_head(self, data: bytes) -> None:
        if self.unwritten:
            self.fail(FailureKind.CLOSED, UNASKED)
            return
        plain = plain_response_head(data) if not self._head else None
        try:
            if plain is not None:
                message, end = plain
            else:
                found = self._read_head(data)
                if found is None:
                    return
                message, end, data = found
            if message.code < 200:
                self._take_interim(message, end, data[end:])
                return
            length = response_length(message, self._method)
        except BadHead as exc:
            self.fail(FailureKind.PROTOCOL, exc.detail)
            return
        self.message = message
        self.length = length
        rest = data[end:]
        if length > 0 and len(rest) == length and self._sink is None:
            # The body came whole with its head, as most bodies do.
            self.held = [rest]
            self.received_bytes = self.held_bytes = length
            self.complete = True
            self._state = DONE
            asker = self.asker
            if asker is not None:
                self.asker = None
                asker.head_arrived()
            else:
                self._wake()
            return
        if length > 0:
            self._left = length
        elif length == CHUNKED:
            self._decoder = ChunkedDecoder()
            if message.version[1] == 0:
                # RFC 9112 section 6.1: read it, but trust the framing no further.
                self.tainted = True
        self._state = BODY
        asker, self.asker = self.asker, None
        if length == 0:
            self._finish(rest)
        elif rest:
            self._take_body(rest)
        if asker is not None:
            asker.head_arrived()
        else:
            self._wake()

    def _read_head(self, data: bytes) -> tuple[ResponseMessage, int, bytes] | None:
        """A head that came in pieces, or is not plain: with where it ends, and all bytes so far; None: incomplete.

        Raises ``BadHead``.
        """
        seen_bytes = len(self._head)
        data, self._head = self._head + data, b""
        end = response_head_end(data, seen_bytes)
        if end < 0:
            if len(data) > MAX_RESPONSE_HEAD_BYTES or cannot_be_a_head(data):
                raise BadHead(502, "upstream", "the upstream's answer is not an HTTP response")
            self._head = data
            return None
        if end > MAX_RESPONSE_HEAD_BYTES:
            raise BadHead(502, "upstream", "the upstream's response head is too large")
        return parse_response_head(data if end == len(data) else data[:end]), end, data

    def _take_interim(self, message: ResponseMessage, size_bytes: int, rest: bytes) -> None:
        self.interim += 1
        self.interim_bytes += size_bytes
        if message.code == 101:
            self._switch(message, rest)
            return
        if self.interim > MAX_INTERIM or self.interim_bytes > MAX_RESPONSE_HEAD_BYTES:
            raise BadHead(502, "upstream", "the upstream sent too many interim responses")
        if self.on_interim is not None:
            self.on_interim(message)
        elif self.asker is not None:
            self.asker.interim_arrived(message)
        if rest:
            self._take_head(rest)

    def _switch(self, message: ResponseMessage, rest: bytes) -> None:
        """A 101 (RFC 9110 section 15.2.2): final, if it names what this request asked for."""
        named = {token.strip().lower() for token in ",".join(message.headers.getall("Upgrade", ())).split(",")}
        if not named <= self.may_switch_to:
            raise BadHead(502, "upstream", "the upstream switched protocols, which nobody asked for")
        self.message = message
        self.length = UNTIL_CLOSE
        self._state = BODY
        if rest:
            self._give(rest)
        self._wake()

    def _take_body(self, data: bytes) -> None:
        left = self._left
        if left:
            size = len(data)
            if size < left:
                self._left = left - size
                self._give(data)
            elif size == left:
                self._left = 0
                self._give(data)
                self._finish(b"")
            else:
                self._left = 0
                self._give(data[:left])
                self._finish(data[left:])
        elif self._decoder is not None:
            self._take_chunks(self._decoder, data)
        else:
            self._give(data)

    def _take_chunks(self, decoder: ChunkedDecoder, data: bytes) -> None:
        try:
            pieces = decoder.feed(data)
        except BadHead as exc:
            self.fail(FailureKind.BODY_CUT, f"the upstream's chunked coding is broken: {exc.detail}")
            return
        if pieces:
            self._give(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if decoder.done:
            self._finish(decoder.rest)

    def _give(self, data: bytes) -> None:
        self.received_bytes += len(data)
        if self._sink is not None:
            self._sink.take(data)
            return
        self.held.append(data)
        self.held_bytes += len(data)
        if self.held_bytes > HELD_BYTES:
            self.pause_reading()
            self._wake()

    def _finish(self, rest: bytes) -> None:
        """The response is whole. Only now may the connection serve another one."""
        self._decoder = None
        if rest:
            self.tainted = True
        self.complete = True
        self._state = DONE
        self._stop_idle()
        self._wake()
        if self._sink is not None:
            self._sink.end()

    def _stop_idle(self) -> None:
        if self._idle_handle is not None:
            self._idle_handle.cancel()
            self._idle_handle = None

    # -- its end -----------------------------------------------------------------------------------------

    def eof_received(self) -> bool:
        self._said_end = True
        return False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream transport, always

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and not self.request_sent and self._state in (HEAD, BODY):
            self._hear_last_words()
        state, self._state = self._state, CLOSED
        self.transport = None
        self._stop_idle()
        self._owner.gone(self)
        if state == HEAD and self.failure is None:
            # RFC 9112 section 9.6: without a head it is unknown whether the request was acted upon.
            self._failed(FailureKind.RESET if exc is not None else FailureKind.CLOSED, "no response head")
        elif state == BODY and self.failure is None:
            if self.length == UNTIL_CLOSE and exc is None and self._said_end:
                self._state = BODY
                self._finish(b"")
                self._state = CLOSED
            else:
                self._failed(FailureKind.BODY_CUT, "the upstream closed in mid-body")
        if self.on_writable is not None:
            self.on_writable()

    def _hear_last_words(self) -> None:
        """Read what the upstream sent before a write failed, since the loop now closes the connection.

        An upstream that answers early and closes with our bytes unread resets the connection (RFC 9112 section 9.6).
        """
        transport = self.transport
        if transport is None or transport.get_extra_info("ssl_object") is not None or self._paused_reading:
            return
        with contextlib.suppress(OSError):
            data = os.read(transport.get_extra_info("socket").fileno(), LAST_BYTES)
            if data:
                self.data_received(data)

    def fail(self, kind: FailureKind, detail: str) -> None:
        """Fail the attempt: abort the connection, and wake its waiter."""
        if self.failure is None and not self.complete:
            self._failed(kind, detail)
        self.abort()

    def _failed(self, kind: FailureKind, detail: str) -> None:
        self.failure = kind
        self.detail = detail
        self._wake()
        if self._sink is not None:
            self._sink.broke(kind)

    def abort(self) -> None:
        """Abort now. Nothing is reported to the sink afterwards."""
        self._sink = None
        self._state = CLOSED
        self._stop_idle()
        if self.transport is not None:
            self.transport.abort()
            self.transport = None
            self._owner.gone(self)

    # -- back to the pool --------------------------------------------------------------------------------

    def release(self) -> None:
        """End the attempt: back to the pool if the response was whole and the connection is reusable, else abort."""
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
        """Whether an idle connection is closed, or ``has_news``."""
        transport = self.transport
        return transport is None or transport.is_closing() or self.has_news(transport)

    def has_news(self, transport: asyncio.Transport) -> bool:
        """Whether the kernel holds something for an idle connection: its end, or unrequested bytes.

        One poll(2); used before a request that could not be repeated goes over a pooled connection.
        """
        ask = self._ask
        if ask is None:
            # Kept for the connection: making it costs more than one poll.
            poller = select.poll()
            poller.register(transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLRDHUP)
            ask = self._ask = poller.poll
        return len(ask(0)) > 0
