"""One connection to an upstream: bytes of a request out, a response head and a live body in.

It knows exactly whether a byte of the request was handed to the transport, which is what a retry hangs on.
It decides nothing: a failure is a word (``FailureKind``), the rest is for ``core.decide``. The counterpart is
``proxy.front``: the app's side.

A response body is *held* (bounded, with back-pressure) until somebody says where it goes: ``relay`` streams
it to a sink as it comes, ``whole`` waits for it, ``release`` lets it go.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Protocol

from sidecar.core.words import FailureKind
from sidecar.wire.chunked import ChunkedDecoder
from sidecar.wire.framing import CHUNKED, UNTIL_CLOSE, response_length
from sidecar.wire.heads import HEAD_END, MAX_RESPONSE_HEAD_BYTES, BadHead, ResponseMessage, parse_response_head

__all__ = ["HELD_BYTES", "Connection", "Owner", "Sink"]

HELD_BYTES = 64 << 10
"""How much of a body that nobody has asked for yet may pile up before reading pauses."""
MAX_INTERIM = 32
"""1xx heads before the final one; more is an attack (RFC 9110 section 15.2 sets no limit)."""

IDLE, HEAD, BODY, DONE, CLOSED = range(5)


class Sink(Protocol):
    """Where a response body goes."""

    def take(self, data: bytes) -> None: ...
    def end(self) -> None: ...
    def broke(self, kind: FailureKind) -> None: ...


class Owner(Protocol):
    """The pool."""

    def put(self, connection: Connection) -> None: ...
    def gone(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """One socket, one request at a time."""

    __slots__ = (
        "_decoder",
        "_head",
        "_idle_handle",
        "_left",
        "_loop",
        "_method",
        "_owner",
        "_paused_reading",
        "_sink",
        "_state",
        "_waiter",
        "complete",
        "detail",
        "expired",
        "failure",
        "held",
        "held_bytes",
        "idle_seconds",
        "idle_since",
        "interim",
        "length",
        "message",
        "on_interim",
        "on_writable",
        "received_bytes",
        "request_sent",
        "reused",
        "tainted",
        "transport",
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
        self.writing_paused = False
        self.on_writable: Callable[[], None] | None = None
        self.on_interim: Callable[[ResponseMessage], None] | None = None
        self.reused = False
        self.idle_since = 0.0
        self.expired = 0.0
        """Seconds after which the upstream said it would close an idle connection; 0: it did not say."""
        self._reset("")

    def _reset(self, method: str) -> None:
        self._method = method
        self._head = b""
        self._left = 0
        self._decoder: ChunkedDecoder | None = None
        self._sink: Sink | None = None
        self.message: ResponseMessage | None = None
        self.length = 0
        self.interim = 0
        self.held: list[bytes] = []
        self.held_bytes = 0
        self.received_bytes = 0
        self.complete = False
        self.tainted = False
        self.request_sent = False
        self.failure: FailureKind | None = None
        self.detail = ""
        self.idle_seconds = 0.0

    # -- the request's side ------------------------------------------------------------------------------

    def send(self, head: bytes, method: str, *, whole: bool) -> bool:
        """Begin an attempt. ``head`` may carry the body behind it; ``whole`` says that nothing more follows.

        False: the connection had died; not one byte was written.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            return False
        self._reset(method)
        self._state = HEAD
        self.request_sent = whole
        transport.write(head)
        return True

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

    # -- the response's side -----------------------------------------------------------------------------

    async def head(self) -> ResponseMessage | None:
        """The final response head, or None: then ``failure`` says what came instead."""
        if self.message is None and self.failure is None:
            await self._wait()
        return self.message

    async def whole(self, limit_bytes: int) -> bool:
        """Wait until the body is complete (True), or larger than ``limit_bytes``, or cut (False)."""
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
        """The sink is full."""
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
        """Whether reading stands still because the sink is full."""
        return self._paused_reading

    def _check_idle(self) -> None:
        left = self.idle_since + self.idle_seconds - self._loop.time()
        if self._paused_reading:
            # The app is the slow one; the pause is not the upstream's.
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
            # An answer that nobody asked for, or more than the answer (RFC 9112 section 9.2): never reuse.
            self.abort()

    def _take_head(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        end = data.find(HEAD_END)
        if end < 0:
            if len(data) > MAX_RESPONSE_HEAD_BYTES or _cannot_be_a_head(data):
                self.fail(FailureKind.PROTOCOL, "the upstream's answer is not an HTTP response")
            self._head = data
            return
        end += 4
        try:
            message = parse_response_head(data if end == len(data) else data[:end])
            if message.code < 200:
                self._take_interim(message, data[end:])
                return
            length = response_length(message, self._method)
        except BadHead as exc:
            self.fail(FailureKind.PROTOCOL, exc.detail)
            return
        self.message = message
        self.length = length
        rest = data[end:]
        if length > 0:
            self._left = length
        elif length == CHUNKED:
            self._decoder = ChunkedDecoder()
        self._state = BODY
        if length == 0:
            self._finish(rest)
        elif rest:
            self._take_body(rest)
        self._wake()

    def _take_interim(self, message: ResponseMessage, rest: bytes) -> None:
        self.interim += 1
        if message.code == 101:
            raise BadHead(502, "upstream", "the upstream switched protocols, which nobody asked for")
        if self.interim > MAX_INTERIM:
            raise BadHead(502, "upstream", "the upstream sent too many interim responses")
        if self.on_interim is not None:
            self.on_interim(message)
        if rest:
            self._take_head(rest)

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
        return False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream transport, always

    def connection_lost(self, exc: Exception | None) -> None:
        state, self._state = self._state, CLOSED
        self.transport = None
        self._stop_idle()
        self._owner.gone(self)
        if state == HEAD and self.failure is None:
            # RFC 9112 section 9.6: without a head nobody can tell whether the request was acted upon.
            self._failed(FailureKind.RESET if exc is not None else FailureKind.CLOSED, "no response head")
        elif state == BODY and self.failure is None:
            if self.length == UNTIL_CLOSE and exc is None:
                self._state = BODY
                self._finish(b"")
                self._state = CLOSED
            else:
                self._failed(FailureKind.BODY_CUT, "the upstream closed in mid-body")
        if self.on_writable is not None:
            self.on_writable()

    def fail(self, kind: FailureKind, detail: str) -> None:
        """End the attempt here: cut the connection, and say so to whoever waits."""
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
        """Cut it now. Nothing is reported to the sink afterwards."""
        self._sink = None
        self._state = CLOSED
        self._stop_idle()
        if self.transport is not None:
            self.transport.abort()
            self.transport = None
            self._owner.gone(self)

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
            and _stays_open(message)
            and not self.tainted
            and self.length != UNTIL_CLOSE
            and self.request_sent
            and self.transport is not None
            and not self.transport.is_closing()
        ):
            self._state = IDLE
            self.resume_reading()
            self._owner.put(self)
        else:
            self.abort()

    def is_stale(self) -> bool:
        """Whether the kernel holds something for an idle connection: its end, or bytes nobody asked for.

        One poll(2); used before a request that could not be repeated is entrusted to a pooled connection.
        """
        if self.transport is None or self.transport.is_closing():
            return True
        sock = self.transport.get_extra_info("socket")
        poller = select.poll()
        poller.register(sock.fileno(), select.POLLIN | select.POLLRDHUP)
        return bool(poller.poll(0))


def _stays_open(message: ResponseMessage) -> bool:
    """Whether the upstream keeps the connection (RFC 9112 section 9.3).

    The parser does not know that an answer to HEAD has no body, and takes its missing length for "until close".
    """
    if not message.should_close:
        return True
    return message.version[1] == 1 and "close" not in ",".join(message.headers.getall("Connection", ())).lower()


def _cannot_be_a_head(data: bytes) -> bool:
    """Whether an unfinished head is hopeless already: waiting on would only be a slower refusal."""
    if not (data.startswith(b"HTTP/1.") or b"HTTP/1.".startswith(data[:7])):
        return True
    bare = data.find(b"\n")
    while bare >= 0:
        if data[bare - 1 : bare] != b"\r":
            return True
        bare = data.find(b"\n", bare + 1)
    return False
