"""Heads and chunked framing, made from the grammar of RFC 9112 and then damaged; read by a second reader.

The second reader is h11: what the sidecar sends on must be what h11 reads in the same bytes, message for message. Where
the sidecar refuses what h11 would take, that is its right; the other way round it is a way to smuggle.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

import h11

from tests.fuzz.reader import Malformed, Reader

__all__ = ["Read", "Speaker", "Taker", "answer", "read_all", "request"]

_METHODS = (b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"LIST", b"G=T", b"")
_NAMES = (
    b"X-A",
    b"Accept",
    b"Cookie",
    b"X_B",
    b"Content-Type",
    b"Connection",
    b"Expect",
    b"Via",
    b"TE",
    b"Trailer",
    b"x",
)
_VALUES = (
    b"",
    b"a",
    b"a, b",
    b"close",
    b"keep-alive, X-A",
    b"100-continue",
    b"\xff\xfe",
    b'"q\\"',
    b"a\tb",
    b"x" * 300,
)
_LENGTHS = (b"5", b"05", b"+5", b"-5", b"0x5", b"5_0", b"5 5", b"5, 5", b"", b"\xd9\xa5", b"99999999999999999999", b"0")
_CODINGS = (
    b"chunked",
    b"CHUNKED",
    b"xchunked",
    b"identity",
    b"chunked, chunked",
    b"gzip, chunked",
    b"",
    b"\x0bchunked",
    b"chunked;x=1",
)
_SIZES = (b"5", b"05", b"5;a=b", b"5 ", b" 5", b"+5", b"-1", b"0x5", b"5_0", b"", b"G", b"F" * 17, b'5;a="\n"', b"5;")
_ENDS = (b"\r\n", b"\n", b"\r", b"\r\r\n", b"")
_BYTES = b'\x00\x07\x0b\x0c\r\n \t:;,"\x7f\x80\xff0A{'


def _lines(dice: random.Random, body: bytes) -> tuple[list[bytes], bytes]:
    """Field lines, and the body framed as they say (nearly always)."""
    lines = [dice.choice(_NAMES) + b": " + dice.choice(_VALUES) for _ in range(dice.choice((0, 1, 1, 2, 5)))]
    framing = dice.choice(
        ("none", "length", "length", "chunked", "chunked", "both", "odd length", "odd coding", "twice")
    )
    size = b"%d" % len(body)
    if framing in ("length", "both", "twice"):
        lines.append(b"Content-Length: " + size)
    if framing == "twice":
        lines.append(b"content-length: " + dice.choice((size, b"0", b"7")))
    if framing == "odd length":
        lines.append(b"Content-Length:" + dice.choice((b" ", b"")) + dice.choice(_LENGTHS))
    if framing in ("chunked", "both"):
        lines.append(dice.choice((b"Transfer-Encoding", b"transfer-encoding")) + b": chunked")
    if framing == "odd coding":
        name = dice.choice((b"Transfer-Encoding", b"Transfer-Encoding ", b"Transfer_Encoding"))
        lines.append(name + b":" + dice.choice(_CODINGS))
    dice.shuffle(lines)
    if framing in ("chunked", "both", "odd coding"):
        body = _chunked(dice, body)
    return lines, b"" if framing == "none" else body


def _chunked(dice: random.Random, body: bytes) -> bytes:
    odd = dice.random() < 0.3
    size = dice.choice(_SIZES) if odd else b"%x" % len(body)
    end = dice.choice(_ENDS) if odd and dice.random() < 0.3 else b"\r\n"
    first = size + end + body + b"\r\n" if body else b""
    trailers = dice.choice((b"", b"", b"", b"X-T: 1\r\n", b"Content-Length: 5\r\n", b"bad\r\n"))
    return first + b"0\r\n" + trailers + b"\r\n"


def _damaged(dice: random.Random, data: bytes) -> bytes:
    for _ in range(dice.choice((0, 0, 0, 1, 1, 2))):
        at = dice.randrange(len(data) + 1)
        how = dice.choice(("insert", "delete", "replace", "repeat"))
        byte = bytes([dice.choice(_BYTES)])
        if how == "insert":
            data = data[:at] + byte + data[at:]
        elif how == "delete":
            data = data[:at] + data[at + 1 :]
        elif how == "replace":
            data = data[:at] + byte + data[at + 1 :]
        else:
            data = data[:at] + data[max(0, at - 8) : at] + data[at:]
    return data


def request(seed: int) -> bytes:
    """Bytes of one or two requests, perhaps damaged."""
    dice = random.Random(seed)
    data = b""
    for number in range(dice.choice((1, 1, 2))):
        target = dice.choice(
            (b"/up/a%d", b"/up/a%d?q=1", b"http://up.example/a%d", b"/up/%%0d%%0a%d", b"/up//x/../a%d", b"*%d")
        )
        lines, body = _lines(dice, dice.choice((b"", b"hello", b"GET /up/evil HTTP/1.1\r\nHost: a\r\n\r\n")))
        host = (
            [b"Host: up.example"]
            if dice.random() < 0.95
            else dice.choice(([], [b"Host: a", b"Host: b"], [b"Host: a,b"]))
        )
        end = dice.choice(_ENDS) if dice.random() < 0.05 else b"\r\n"
        start = (
            dice.choice(_METHODS) + b" " + target % number + b" HTTP/1." + dice.choice((b"1", b"1", b"1", b"0", b"2"))
        )
        data += end.join([start, *host, *lines]) + b"\r\n\r\n" + body
    return _damaged(dice, data)


def answer(seed: int) -> bytes:
    """Bytes of an answer, perhaps damaged."""
    dice = random.Random(seed)
    status = dice.choice((b"200", b"201", b"204", b"304", b"404", b"299", b"99", b"1000", b"2OO"))
    lines, body = _lines(dice, dice.choice((b"", b"hello", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")))
    start = (
        b"HTTP/1." + dice.choice((b"1", b"1", b"1", b"0")) + b" " + status + dice.choice((b" OK", b" ", b"", b" a\tb"))
    )
    end = dice.choice(_ENDS) if dice.random() < 0.05 else b"\r\n"
    return _damaged(dice, end.join([start, b"X-Answer: 1", *lines]) + b"\r\n\r\n" + body)


@dataclass
class Read:
    """What h11 has read: start lines and bodies of whole messages, and whether it refused what came then."""

    messages: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    """Method or status, target or nothing, body."""
    refused: bool = False


def read_all(data: bytes, *, answers: bool, method: bytes = b"GET") -> Read:
    """Every whole message in ``data``, which the end of the connection follows."""
    connection = h11.Connection(h11.CLIENT if answers else h11.SERVER)
    found = Read()
    start: tuple[bytes, bytes] = (b"", b"")
    body = b""
    try:
        if answers:
            connection.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"a")]))
            connection.send(h11.EndOfMessage())
        connection.receive_data(data)
        connection.receive_data(b"")
        while True:
            event: Any = connection.next_event()
            if isinstance(event, h11.Request):
                start, body = (event.method, event.target), b""
            elif isinstance(event, h11.Response):
                start, body = (b"%d" % event.status_code, b""), b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.messages.append((*start, body))
                if answers:
                    return found
            elif event is h11.PAUSED and not answers:
                if connection.our_state is not h11.SEND_RESPONSE:
                    return found
                connection.send(h11.Response(status_code=200, headers=[(b"Content-Length", b"0")]))
                connection.send(h11.EndOfMessage())
                if connection.states != {h11.SERVER: h11.DONE, h11.CLIENT: h11.DONE}:
                    return found
                connection.start_next_cycle()
            elif event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                return found
    except h11.RemoteProtocolError:
        found.refused = True
    return found


class Taker(asyncio.Protocol):
    """An upstream that answers whatever is a request, with bytes of ours; strict with what it is sent."""

    def __init__(self, taken: list[tuple[bytes, bytes, bytes]], faults: list[str], says: bytes | None = None) -> None:
        self._reader = Reader(answers=False)
        self._taken = taken
        self._faults = faults
        self._says = says
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
        except Malformed as exc:
            self._faults.append(f"sent on what is no HTTP: {exc}")
            self._transport.abort()
            return
        while self._reader.done:
            message = self._reader.done.pop(0)
            self._taken.append((message.start[0].encode(), message.start[1].encode(), bytes(message.body)))
            if self._says is None:
                self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            else:
                self._transport.write(self._says)
                self._transport.close()


class Speaker(asyncio.Protocol):
    """An app that sends bytes, and keeps what comes."""

    def __init__(self, says: bytes) -> None:
        self._says = says
        self.came = b""
        self.is_over = False
        self.was_reset = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self._says)  # type: ignore[attr-defined]  # a stream transport

    def data_received(self, data: bytes) -> None:
        self.came += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = True
        self.was_reset = exc is not None
