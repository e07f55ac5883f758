"""Chunked coding, RFC 9112 section 7.1: a strict decoder and the encoder's one line.

The decoder takes bytes as they arrive and gives the body's bytes; it never holds more than one unfinished
line. Extensions and trailers are read, bounded and dropped (RFC 9112 section 7.1.1, RFC 9110 section 6.5.1).
"""

from __future__ import annotations

import re
from typing import Final

from sidecar.wire.heads import BadHead

__all__ = ["LAST_CHUNK", "ChunkedDecoder", "encode_chunk"]

LAST_CHUNK: Final = b"0\r\n\r\n"

MAX_SIZE_LINE_BYTES = 1024
"""Bytes of a chunk size with its extensions; common clients and servers send no extensions."""
MAX_TRAILER_BYTES = 16 << 10

_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
_PLAIN = re.compile(rb"([0-9A-Fa-f]{1,6})\r\n")
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
_EXTENDED = re.compile(
    rb"[0-9A-Fa-f]{1,15}(?:[\t ]*+;[\t ]*+%b(?:[\t ]*+=[\t ]*+(?:%b|%b))?)++" % (_TOKEN, _TOKEN, _QUOTED)
)
"""A size with extensions (RFC 9112 section 7.1.1). Every repetition is possessive: it never backtracks."""
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")


def encode_chunk(data: bytes) -> bytes:
    """One chunk; ``data`` is not empty (an empty chunk would end the body)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class ChunkedDecoder:
    """Bytes of a chunked body in, bytes of the body out.

    ``done`` turns true after the last trailer; ``rest`` then holds what came behind the body. ``feed`` raises
    ``BadHead`` (400) at the first byte that cannot belong to a chunked body, and ends there for good.
    """

    __slots__ = ("_in_trailer", "_left", "_line", "_trailer_bytes", "done", "rest")

    def __init__(self) -> None:
        self._left = 0
        """Bytes of the current chunk still to come, with its CRLF; 0: a size line is due."""
        self._line = b""
        self._in_trailer = False
        self._trailer_bytes = 0
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces of the body in ``data``; they may be fewer or more than the chunks."""
        if self._line:
            data, self._line = self._line + data, b""
        pieces: list[bytes] = []
        at, size = 0, len(data)
        while at < size and not self.done:
            if self._left:
                at = self._take_data(data, at, pieces)
            else:
                if not self._in_trailer and (at := _take_whole(data, at, pieces)) == size:
                    break
                end = data.find(b"\n", at)
                if end < 0:
                    self._hold(data[at:])
                    break
                self._take_line(data[at : end + 1])
                at = end + 1
        if self.done:
            self.rest = data[at:]
        return pieces

    def _take_data(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        left = self._left
        take = min(left - 2, len(data) - at)
        if take > 0:
            pieces.append(data[at : at + take])
            at += take
            left -= take
        while left <= 2 and left and at < len(data):
            if data[at] != (13 if left == 2 else 10):
                raise _bad("a chunk is not as long as it says")
            at += 1
            left -= 1
        self._left = left
        return at

    def _hold(self, part: bytes) -> None:
        if len(part) > MAX_SIZE_LINE_BYTES and not (self._in_trailer and len(part) <= MAX_TRAILER_BYTES):
            raise _bad("a line of the chunked coding is too long")
        self._line = part

    def _take_line(self, line: bytes) -> None:
        if line[-2:-1] != b"\r":
            raise _bad("a line of the chunked coding does not end in CRLF")
        line = line[:-2]
        if self._in_trailer:
            self._take_trailer(line)
            return
        if len(line) > MAX_SIZE_LINE_BYTES:
            raise _bad("a line of the chunked coding is too long")
        if not (_SIZE.fullmatch(line) or _EXTENDED.fullmatch(line)):
            raise _bad("a chunk size or its extension is malformed")
        length = int(line.split(b";", 1)[0], 16)
        if length:
            self._left = length + 2
        else:
            self._in_trailer = True

    def _take_trailer(self, line: bytes) -> None:
        if not line:
            self.done = True
            return
        self._trailer_bytes += len(line)
        if self._trailer_bytes > MAX_TRAILER_BYTES:
            raise _bad("the trailers are too long")
        if not _TRAILER.fullmatch(line):
            raise _bad("a trailer is malformed")


def _take_whole(data: bytes, at: int, pieces: list[bytes]) -> int:
    """Take the plain chunks that have come whole in one go: many tiny ones must not hold up the loop."""
    match = _PLAIN.match
    while (found := match(data, at)) is not None:
        start = found.end()
        end = start + int(found[1], 16)
        if end == start or data[end : end + 2] != b"\r\n":
            break
        pieces.append(data[start:end])
        at = end + 2
    return at


def _bad(detail: str) -> BadHead:
    return BadHead(400, "framing", detail)
