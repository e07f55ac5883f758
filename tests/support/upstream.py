"""A scripted upstream on loopback: a test says, request by request, what goes over the wire.

    upstream.script(say(503, headers=[("Retry-After", "1")]), reset(), say(200, b"fine"))

Each request takes the next step of the script; when the script is used up, ``otherwise`` answers (200
by default). Every request is kept byte for byte in ``requests``. Nothing here waits for time: a step waits
for bytes, for the end of the connection, or for an event that the test holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal

from tests.support.wire import (
    BodyReader,
    Buffered,
    Channel,
    Fields,
    Gone,
    Malformed,
    PlainChannel,
    TlsChannel,
    parse_fields,
)

__all__ = [
    "Connection",
    "Live",
    "Received",
    "Step",
    "Upstream",
    "close",
    "cut_body",
    "early",
    "hang",
    "head_bytes",
    "refused_port",
    "reset",
    "say",
    "say_raw",
    "tls_server",
]

_PATIENCE_SECONDS = 60.0
_Headers = Iterable[tuple[str, str]]
Step = Callable[["Connection"], Awaitable[None]]
When = Literal["nothing", "head", "request"]


@dataclass
class Received:
    """One request as it arrived."""

    number: int
    connection: int
    head: bytes
    method: str
    target: str
    version: str
    headers: Fields
    at: float
    """Loop time of the last byte of the head."""
    body: bytearray = field(default_factory=bytearray)
    raw_body: bytearray = field(default_factory=bytearray)
    body_bytes: int = 0
    digest: str = ""
    """SHA-256 of the whole body, also where it is not kept."""
    trailers: Fields = field(default_factory=Fields)
    framing: str = "none"
    complete: bool = False
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the sidecar's end of the connection went away before the answer was over."""


class Connection:
    """One connection of the sidecar, as a step sees it."""

    def __init__(self, upstream: Upstream, channel: Channel, number: int) -> None:
        self.upstream = upstream
        self.channel = channel
        self.number = number
        self.source = Buffered(channel)
        self.over = False
        self.idle = True
        self.ended = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.request: Received | None = None
        self._body: BodyReader | None = None
        self._hash = hashlib.sha256()

    async def first_byte(self) -> None:
        if not self.source.held:
            await self.source.more()

    async def read_head(self) -> Received:
        head = await self.source.until(b"\r\n\r\n")
        line, _, block = head[:-2].partition(b"\r\n")
        parts = line.decode("latin-1").split(" ")
        if len(parts) != 3:
            raise Malformed(f"not a request line: {line[:200]!r}")
        now = asyncio.get_running_loop().time()
        count = len(self.upstream.requests) + 1
        request = Received(count, self.number, head, parts[0], parts[1], parts[2], parse_fields(block), now)
        self.request = request
        self.upstream.note(request)
        self._body = BodyReader(self.source, request.headers, until_close=False)
        self._body.keep_raw = self.upstream.keep_bodies
        self._hash = hashlib.sha256()
        request.framing = self._body.framing
        return request

    async def read_piece(self) -> bytes:
        """Some bytes of the request body; empty at its end."""
        assert self._body is not None
        assert self.request is not None
        data = await self._body.piece()
        self.request.body_bytes += len(data)
        self._hash.update(data)
        if self.upstream.keep_bodies:
            self.request.body += data
            self.request.raw_body = self._body.raw
        if self._body.done:
            self.request.trailers = self._body.trailers
        return data

    async def read_body(self) -> None:
        assert self.request is not None
        while await self.read_piece():
            pass
        self.request.complete = True
        self.request.digest = self._hash.hexdigest()
        self.upstream.effects[self.request.target] += 1

    async def read_request(self) -> Received:
        request = await self.read_head()
        await self.read_body()
        return request

    async def read_until(self, when: When) -> None:
        if when == "head":
            await self.read_head()
        elif when == "request":
            await self.read_request()

    async def send(self, data: bytes) -> None:
        await self.channel.send(data)

    def close(self) -> None:
        self.over = True
        self.channel.close()

    def reset(self) -> None:
        self.over = True
        self.channel.reset()

    async def until_gone(self) -> None:
        """Waits for the sidecar to end the connection."""
        try:
            while True:
                self.source.held += await self.channel.recv(65536)
        except Gone:
            self.over = True
            if self.request is not None:
                self.request.gone.set()


class Upstream:
    """Listens on a port of loopback. Made by ``Upstream.start``."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.connections: list[Connection] = []
        self.effects: Counter[str] = Counter()
        """How often each target was received whole: what a retry may have done twice."""
        self.faults: list[BaseException] = []
        self.keep_bodies = True
        self.otherwise: Callable[[Connection], Step] = lambda _: say(200, b"ok")
        self._steps: deque[Step] = deque()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self.port = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def start(
        cls,
        *,
        tls: ssl.SSLContext | None = None,
        port: int = 0,
        receive_buffer_bytes: int | None = None,
    ) -> AsyncIterator[Upstream]:
        upstream = cls()
        await upstream.open(tls=tls, port=port, receive_buffer_bytes=receive_buffer_bytes)
        try:
            yield upstream
        finally:
            await upstream.stop()
        for fault in upstream.faults:
            raise fault

    async def open(
        self, *, tls: ssl.SSLContext | None = None, port: int = 0, receive_buffer_bytes: int | None = None
    ) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer_bytes is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        listener.bind(("127.0.0.1", port))
        listener.listen(256)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        if tls is not None:
            self._server = await asyncio.start_server(self._serve_tls, sock=listener, ssl=tls)
            return
        self._listener = listener
        self._spawn(self._accept(listener))

    async def stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in self.connections:
            connection.close()
        if self._listener is not None:
            self._listener.close()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"

    def script(self, *steps: Step) -> None:
        """The steps for the next requests, in order of arrival."""
        self._steps.extend(steps)

    def note(self, request: Received) -> None:
        self.requests.append(request)
        self.changed()

    def changed(self) -> None:
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Returns when ``holds`` is true; looked at whenever something arrives or ends here."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not holds():
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await self._changed.wait()

    async def received(self, count: int = 1) -> Received:
        """The request with that number, once its head is here."""
        await self.until(lambda: len(self.requests) >= count)
        return self.requests[count - 1]

    @property
    def open_connections(self) -> int:
        return sum(not connection.over for connection in self.connections)

    async def close_idle(self, how: Literal["close", "reset"] = "close") -> None:
        """Ends every connection that waits for a request, and lets the sidecar see it."""
        await self.until(lambda: any(each.idle and not each.over for each in self.connections))
        for connection in [each for each in self.connections if each.idle and not each.over]:
            if how == "reset":
                connection.reset()
            else:
                connection.channel.end()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await connection.ended.wait()
                connection.close()
            if connection.task is not None:
                connection.task.cancel()
                await asyncio.gather(connection.task, return_exceptions=True)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError:
                return
            self._spawn(self._serve(PlainChannel(sock)))

    async def _serve_tls(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._serve(TlsChannel(reader, writer))

    async def _serve(self, channel: Channel) -> None:
        connection = Connection(self, channel, len(self.connections) + 1)
        connection.task = asyncio.current_task()
        self.connections.append(connection)
        self.changed()
        try:
            await self._converse(connection)
        except Gone:
            if connection.request is not None:
                connection.request.gone.set()
        except OSError:
            pass  # our own end was closed by the test
        except AssertionError as fault:
            self.faults.append(fault)
        finally:
            connection.close()
            connection.ended.set()
            self.changed()

    async def _converse(self, connection: Connection) -> None:
        while not connection.over:
            connection.idle = True
            await connection.first_byte()
            connection.idle = False
            step = self._steps.popleft() if self._steps else self.otherwise(connection)
            await step(connection)
            connection.request = None


def head_bytes(status: int, headers: _Headers = (), *, reason: str | None = None, version: str = "1.1") -> bytes:
    """A response head."""
    phrase = _phrase(status) if reason is None else reason
    lines = [f"HTTP/{version} {status} {phrase}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unnamed"


def say(
    status: int = 200,
    body: bytes = b"",
    *,
    headers: _Headers = (),
    reason: str | None = None,
    chunks: Iterable[bytes] | None = None,
    interim: bytes = b"",
    last: bool = False,
    read: When = "request",
) -> Step:
    """Reads the request, then answers, sized or (with ``chunks``) chunked; ``last`` closes afterwards."""

    async def step(connection: Connection) -> None:
        await connection.read_until(read)
        fields = list(headers)
        content = body
        if chunks is not None:
            fields.append(("Transfer-Encoding", "chunked"))
            content = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in chunks) + b"0\r\n\r\n"
        elif status not in (204, 304) and not any(name.lower() == "content-length" for name, _ in fields):
            fields.append(("Content-Length", str(len(body))))
        if connection.request is not None and connection.request.method == "HEAD":
            content = b""
        await connection.send(interim + head_bytes(status, fields, reason=reason) + content)
        if last:
            connection.close()

    return step


def early(status: int, body: bytes = b"", *, headers: _Headers = (), linger: bool = False) -> Step:
    """Answers as soon as the head of the request is here; keeps no byte of the body.

    ``linger`` shuts down its own side first and reads on until the sidecar has gone, as servers should
    (RFC 9112 section 9.6).
    """

    async def step(connection: Connection) -> None:
        await connection.read_head()
        fields = [*headers, ("Content-Length", str(len(body)))]
        await connection.send(head_bytes(status, fields) + body)
        if linger:
            connection.channel.end()
        await connection.until_gone()

    return step


def say_raw(data: bytes, *, last: bool = False, read: When = "request", wait: bool = False) -> Step:
    """Reads the request, then sends exactly these bytes; ``wait`` keeps the connection until it is gone."""

    async def step(connection: Connection) -> None:
        await connection.read_until(read)
        await connection.send(data)
        if last:
            connection.close()
        elif wait:
            await connection.until_gone()

    return step


def reset(after: When = "request", *, send: bytes = b"") -> Step:
    """RST: when the first byte is there, after the head, or after the whole request."""

    async def step(connection: Connection) -> None:
        await connection.read_until(after)
        if send:
            await connection.send(send)
        connection.reset()

    return step


def close(after: When = "request", *, send: bytes = b"") -> Step:
    """FIN instead of an answer."""

    async def step(connection: Connection) -> None:
        await connection.read_until(after)
        if send:
            await connection.send(send)
        connection.close()

    return step


def hang(*, send: bytes = b"", read: When = "request") -> Step:
    """Says no more (than ``send``) until the sidecar ends the connection."""

    async def step(connection: Connection) -> None:
        await connection.read_until(read)
        if send:
            await connection.send(send)
        await connection.until_gone()

    return step


def cut_body(sent: bytes, *, length: int | None, how: Literal["close", "reset"] = "close") -> Step:
    """A 200 whose body ends too soon: sized if ``length`` is given, else chunked without the last chunk."""
    if length is not None:
        data = head_bytes(200, [("Content-Length", str(length))]) + sent
    else:
        data = head_bytes(200, [("Transfer-Encoding", "chunked")]) + b"%x\r\n%b\r\n" % (len(sent), sent)
    return close(send=data) if how == "close" else reset(send=data)


class Live:
    """A step that the test plays by hand: it says when to read and what to send.

    ``await live.here()`` returns the connection once the request's first byte has come.
    """

    def __init__(self) -> None:
        self._connection: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._over = asyncio.Event()

    async def __call__(self, connection: Connection) -> None:
        self._connection.set_result(connection)
        await self._over.wait()

    async def here(self) -> Connection:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await asyncio.shield(self._connection)

    def over(self) -> None:
        """Hands the connection back to the script."""
        self._over.set()


def refused_port() -> int:
    """A port of loopback on which nobody listens, nor ever will: it stays taken as long as this process lives."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    port: int = sock.getsockname()[1]
    sock.detach()
    return port


def free_port() -> int:
    """A port of loopback on which nobody listens yet."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def tls_server(certificate_chain: str) -> ssl.SSLContext:
    """A context for a server from one PEM file that holds the key and the chain."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate_chain)
    return context
