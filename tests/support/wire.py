"""A strict reader of HTTP/1.1 for tests: it takes nothing that a correct peer would not send.

It shares no code with ``sidecar.wire``: a fault there must not hide itself here. Bytes come through
``Channel``, over a plain socket or over TLS; a channel reads only when it is asked to, so that a test
decides about back-pressure.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from dataclasses import dataclass, field
from typing import Protocol

__all__ = [
    "BodyReader",
    "Buffered",
    "Channel",
    "Fields",
    "Gone",
    "Malformed",
    "PlainChannel",
    "TlsChannel",
    "parse_fields",
]

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})")


class Malformed(AssertionError):
    """The peer sent something that is not HTTP/1.1."""


class Gone(Exception):
    """The peer ended the connection. ``how`` is ``closed`` (FIN) or ``reset`` (RST)."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class Channel(Protocol):
    async def recv(self, limit: int) -> bytes:
        """Up to ``limit`` bytes. Raises ``Gone``."""

    async def send(self, data: bytes) -> None: ...

    def close(self) -> None:
        """FIN."""

    def reset(self) -> None:
        """RST, if the transport can say it."""

    def end(self) -> None:
        """FIN of our side only."""


class PlainChannel:
    """Over a non-blocking socket; nothing is read ahead."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock

    async def recv(self, limit: int) -> bytes:
        try:
            data = await asyncio.get_running_loop().sock_recv(self.sock, limit)
        except (ConnectionError, OSError) as error:
            raise Gone("reset") from error
        if not data:
            raise Gone("closed")
        return data

    async def send(self, data: bytes) -> None:
        try:
            await asyncio.get_running_loop().sock_sendall(self.sock, data)
        except (ConnectionError, OSError) as error:
            raise Gone("reset") from error

    def close(self) -> None:
        if (number := self.sock.fileno()) >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(number)
            loop.remove_writer(number)
            self.sock.close()

    def reset(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)


class TlsChannel:
    """Over asyncio's TLS streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def recv(self, limit: int) -> bytes:
        try:
            data = await self._reader.read(limit)
        except (ConnectionError, OSError) as error:
            raise Gone("reset") from error
        if not data:
            raise Gone("closed")
        return data

    async def send(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except (ConnectionError, OSError) as error:
            raise Gone("reset") from error

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        self._writer.transport.abort()

    def end(self) -> None:
        self._writer.close()


class Buffered:
    """Reads lines and counted bytes from a channel; what was read too far stays for the next call."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.held = bytearray()

    async def more(self) -> None:
        self.held += await self.channel.recv(65536)

    async def until(self, mark: bytes, *, limit: int = 8 << 20) -> bytes:
        """Everything up to and with ``mark``."""
        start = 0
        while (at := self.held.find(mark, start)) < 0:
            if len(self.held) > limit:
                raise Malformed(f"no {mark!r} within {limit} bytes")
            start = max(0, len(self.held) - len(mark))
            await self.more()
        return self._take(at + len(mark))

    async def some(self, limit: int = 65536) -> bytes:
        if not self.held:
            await self.more()
        return self._take(min(limit, len(self.held)))

    async def exactly(self, count: int) -> bytes:
        while len(self.held) < count:
            await self.more()
        return self._take(count)

    def _take(self, count: int) -> bytes:
        taken = bytes(self.held[:count])
        del self.held[:count]
        return taken


@dataclass
class Fields:
    """Header fields in order, with their case and repeats."""

    pairs: list[tuple[bytes, bytes]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.pairs if key.lower() == wanted]

    def get(self, name: str) -> str | None:
        """The only value; a repeated field is an error of the test."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))

    @property
    def names(self) -> list[str]:
        return [key.decode("latin-1") for key, _ in self.pairs]


def parse_fields(block: bytes) -> Fields:
    """Header lines, each ended by CRLF, without the empty line (RFC 9112 section 5)."""
    pairs = []
    for line in block.split(b"\r\n")[:-1]:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name):
            raise Malformed(f"not a header line: {line[:200]!r}")
        value = value.strip(b" \t")
        if not _VALUE.fullmatch(value):
            raise Malformed(f"control bytes in the value of {name!r}: {value[:200]!r}")
        pairs.append((name, value))
    return Fields(pairs)


class BodyReader:
    """Reads one body by the framing rules of RFC 9112 section 6.3, piece by piece.

    ``raw`` keeps the bytes as they were on the wire; ``trailers`` what followed the last chunk.
    """

    def __init__(self, source: Buffered, fields: Fields, *, until_close: bool, bodyless: bool = False) -> None:
        self._source = source
        self._left = 0
        self.keep_raw = True
        self.raw = bytearray()
        self.trailers = Fields()
        self.framing = self._framing(fields, until_close=until_close, bodyless=bodyless)
        self.done = self.framing == "none" or (self.framing == "length" and self._left == 0)

    def _framing(self, fields: Fields, *, until_close: bool, bodyless: bool) -> str:
        lengths, codings = fields.all("content-length"), fields.all("transfer-encoding")
        if len(lengths) > 1 or len(codings) > 1 or (lengths and codings):
            raise Malformed(f"framing is not clear: {lengths} {codings}")
        if lengths and not re.fullmatch(r"[0-9]+", lengths[0]):
            raise Malformed(f"not a length: {lengths[0]!r}")
        if bodyless:
            return "none"
        if codings:
            if codings[0].lower() != "chunked":
                raise Malformed(f"transfer coding {codings[0]!r}")
            return "chunked"
        if lengths:
            self._left = int(lengths[0])
            return "length"
        return "close" if until_close else "none"

    async def piece(self) -> bytes:
        """The next bytes of the body; empty at its end. Raises ``Gone`` if it is cut."""
        if self.done:
            return b""
        if self.framing == "length":
            return await self._sized()
        if self.framing == "chunked":
            return await self._chunk()
        return await self._rest()

    async def whole(self) -> bytes:
        pieces = bytearray()
        while data := await self.piece():
            pieces += data
        return bytes(pieces)

    def _note(self, data: bytes) -> bytes:
        if self.keep_raw:
            self.raw += data
        return data

    async def _sized(self) -> bytes:
        data = self._note(await self._source.some(min(self._left, 65536)))
        self._left -= len(data)
        self.done = self._left == 0
        return data

    async def _chunk(self) -> bytes:
        if not self._left:
            line = self._note(await self._source.until(b"\r\n"))
            size = _CHUNK.fullmatch(line[:-2])
            if not size:
                raise Malformed(f"not a chunk size: {line[:100]!r}")
            self._left = int(size[1], 16)
            if not self._left:
                await self._end_of_chunks()
                return b""
        data = self._note(await self._source.some(min(self._left, 65536)))
        self._left -= len(data)
        if not self._left and self._note(await self._source.exactly(2)) != b"\r\n":
            raise Malformed("chunk data is not ended by CRLF")
        return data

    async def _end_of_chunks(self) -> None:
        block = bytearray()
        while (line := self._note(await self._source.until(b"\r\n"))) != b"\r\n":
            block += line
        self.trailers = parse_fields(bytes(block))
        self.done = True

    async def _rest(self) -> bytes:
        try:
            return self._note(await self._source.some())
        except Gone as gone:
            if gone.how == "reset":
                raise
            self.done = True
            return b""
