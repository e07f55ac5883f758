"""The app of a test: a raw HTTP/1.1 client that sends exactly the bytes it is given.

It tells a clean end from a cut one, keeps every byte of the answer, and reads only when asked to, so
that a test can be a slow reader. It never follows, retries or decodes. Its counterpart is
``support.upstream``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.support.wire import BodyReader, Buffered, Fields, Gone, Malformed, PlainChannel, parse_fields

__all__ = ["Answer", "Client", "connect", "request_bytes"]

_STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)\r\n")
_PATIENCE_SECONDS = 60.0
_Headers = Iterable[tuple[str, str]]


@dataclass
class Answer:
    """What came back, down to the byte."""

    status: int
    reason: str
    version: str
    head: bytes
    headers: Fields
    interim: list[Answer] = field(default_factory=list)
    body: bytes = b""
    framing: str = "none"
    trailers: Fields = field(default_factory=Fields)
    cut: str | None = None
    """``closed`` or ``reset`` if the body ended before its framing said so."""

    def json(self) -> Any:
        return json.loads(self.body)


def request_bytes(
    method: str = "GET",
    target: str = "/",
    headers: _Headers = (),
    body: bytes | None = None,
    *,
    host: str | None = "sidecar.test",
    chunks: Iterable[bytes] | None = None,
) -> bytes:
    """One request, framed by Content-Length or, where ``chunks`` are given, chunked."""
    lines = [f"{method} {target} HTTP/1.1"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in headers]
    content = body or b""
    if chunks is not None:
        lines.append("Transfer-Encoding: chunked")
        content = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    elif body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


class Client:
    """One connection."""

    def __init__(self, channel: PlainChannel) -> None:
        self.channel = channel
        self.source = Buffered(channel)
        self._body: BodyReader | None = None

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await self.channel.send(data)

    async def ask(
        self,
        method: str = "GET",
        target: str = "/",
        headers: _Headers = (),
        body: bytes | None = None,
        *,
        host: str | None = "sidecar.test",
        chunks: Iterable[bytes] | None = None,
    ) -> Answer:
        """Sends one request and reads its answer."""
        data = request_bytes(method, target, headers, body, host=host, chunks=chunks)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            sending = asyncio.create_task(self.channel.send(data))
            try:
                return await self.answer(method)
            finally:
                sending.cancel()
                with contextlib.suppress(asyncio.CancelledError, Gone):
                    await sending

    async def answer(self, method: str = "GET") -> Answer:
        """The next final answer with its body; a cut body is noted in ``cut``, not raised."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            answer = await self.head(method)
            taken = bytearray()
            try:
                while data := await self.piece():
                    taken += data
            except Gone as gone:
                answer.cut = gone.how
            answer.body = bytes(taken)
            return answer

    async def head(self, method: str = "GET") -> Answer:
        """The next final head, and the interim ones before it; the body is read with ``piece``."""
        interim: list[Answer] = []
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while (answer := await self.one_head()).status < 200 and answer.status != 101:
                interim.append(answer)
        answer.interim = interim
        bodyless = method == "HEAD" or answer.status in (204, 304) or answer.status < 200
        if answer.status in (204,) or answer.status < 200:
            assert "content-length" not in answer.headers, "RFC 9110 section 8.6"
            assert "transfer-encoding" not in answer.headers, "RFC 9112 section 6.1"
        self._body = BodyReader(self.source, answer.headers, until_close=True, bodyless=bodyless)
        answer.framing = self._body.framing
        answer.trailers = self._body.trailers
        return answer

    async def one_head(self) -> Answer:
        """The next head, interim or final."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            head = await self.source.until(b"\r\n\r\n")
        line = _STATUS_LINE.match(head)
        if not line:
            raise Malformed(f"not a status line: {head[:200]!r}")
        fields = parse_fields(head[line.end() : -2])
        version, status, reason = line[1].decode(), int(line[2]), line[3].decode("latin-1")
        return Answer(status, reason, version, head, fields)

    async def piece(self) -> bytes:
        """Some bytes of the body as soon as they are there; empty at a clean end. Raises ``Gone``."""
        assert self._body is not None
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await self._body.piece()

    async def take(self, count: int) -> bytes:
        """At least ``count`` bytes of the body."""
        taken = b""
        while len(taken) < count:
            data = await self.piece()
            assert data, f"the body ended after {len(taken)} bytes"
            taken += data
        return taken

    async def rest_of_body(self) -> bytes:
        taken = bytearray()
        while data := await self.piece():
            taken += data
        return bytes(taken)

    async def ended(self) -> str:
        """Waits for the end of the connection; ``closed`` or ``reset``. Unread bytes fail the test."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                data = bytes(self.source.held) or await self.channel.recv(4096)
        except Gone as gone:
            return gone.how
        raise AssertionError(f"expected the end of the connection, got {data[:200]!r}")

    async def everything(self, patience_seconds: float = _PATIENCE_SECONDS) -> tuple[bytes, str]:
        """All bytes until the connection ends, and how it ended."""
        got = bytearray(self.source.held)
        self.source.held.clear()
        async with asyncio.timeout(patience_seconds):
            while True:
                try:
                    got += await self.channel.recv(65536)
                except Gone as gone:
                    return bytes(got), gone.how

    def end_sending(self) -> None:
        """Half close: FIN after the request."""
        self.channel.end()

    def close(self) -> None:
        self.channel.close()

    def reset(self) -> None:
        self.channel.reset()


@contextlib.asynccontextmanager
async def connect(host: str, port: int, *, receive_buffer_bytes: int | None = None) -> AsyncIterator[Client]:
    """One connection to the sidecar, closed at the end."""
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
        channel = PlainChannel(sock)
        yield Client(channel)
        channel.close()
    finally:
        sock.close()
