"""A strict reader of HTTP/1.1 that is fed bytes, for scripted peers: it takes only what a correct peer would send.

It shares no code with ``sidecar.wire``. RFC 9112 sections 3 to 7.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Malformed", "Message", "Reader"]

_REQUEST = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) HTTP/1\.1")
_STATUS = re.compile(rb"HTTP/1\.1 ([1-9][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)")
_VALUE = rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?"
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(" + _VALUE + rb")[ \t]*")
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")


class Malformed(AssertionError):
    """The peer sent something that is not HTTP/1.1."""


@dataclass(eq=False)
class Message:
    """One request or answer, as far as it has come."""

    start: tuple[str, ...]
    """Method and target, or status and reason."""
    fields: list[tuple[str, str]]
    body: bytearray = field(default_factory=bytearray)
    framing: Literal["none", "length", "chunked", "close"] = "none"
    is_whole: bool = False

    def get(self, name: str) -> str | None:
        """The only value of that name."""
        values = [value for key, value in self.fields if key.lower() == name]
        if len(values) > 1:
            raise Malformed(f"{name} came {len(values)} times: {values}")
        return values[0] if values else None


class Reader:
    """Feed it; ``message`` is the one that is being read, ``done`` those that are whole, in order."""

    def __init__(self, *, answers: bool) -> None:
        self._answers = answers
        self._held = bytearray()
        self._left = 0
        self._part: Literal["head", "body", "size", "data", "trailers"] = "head"
        self.message: Message | None = None
        self.done: list[Message] = []
        self.interim: list[int] = []
        self.methods: list[str] = []
        """Of the requests whose answers are still to come: an answer to HEAD has no body."""
        self.taken_bytes = 0

    @property
    def is_between(self) -> bool:
        """Whether not a byte of a further message has come."""
        return self.message is None and not self._held

    @property
    def rest(self) -> bytes:
        """What has come and is not read: after a switch of protocols it is not HTTP."""
        return bytes(self._held)

    def feed(self, data: bytes) -> None:
        self._held += data
        self.taken_bytes += len(data)
        while self._step():
            pass

    def eof(self) -> None:
        """The peer has closed in an orderly way."""
        if self.message is not None and self.message.framing == "close":
            self._whole()

    def _step(self) -> bool:
        if self._part == "head":
            return self._head()
        if self._part == "body":
            return self._body()
        if self._part == "data":
            return self._data()
        return self._line()

    def _take(self, count: int) -> bytes:
        data = bytes(self._held[:count])
        del self._held[:count]
        return data

    def _head(self) -> bool:
        end = self._held.find(b"\r\n\r\n")
        if end < 0:
            return False
        lines = self._take(end + 4)[:-4].split(b"\r\n")
        start = (_STATUS if self._answers else _REQUEST).fullmatch(lines[0])
        if start is None:
            raise Malformed(f"not a start line: {lines[0][:200]!r}")
        fields = []
        for line in lines[1:]:
            match = _FIELD.fullmatch(line)
            if match is None:
                raise Malformed(f"not a field line: {line[:200]!r}")
            fields.append((match[1].decode("latin-1"), match[2].decode("latin-1")))
        message = Message((start[1].decode("latin-1"), start[2].decode("latin-1")), fields)
        if self._answers and message.start[0].startswith("1") and message.start[0] != "101":
            self.interim.append(int(message.start[0]))
            return True
        self.message = message
        self._frame(message)
        return True

    def _frame(self, message: Message) -> None:
        length, coding = message.get("content-length"), message.get("transfer-encoding")
        if length is not None and (coding is not None or not re.fullmatch(r"[0-9]{1,15}", length)):
            raise Malformed(f"framing is not clear: {length!r}, {coding!r}")
        if coding is not None and coding.lower() != "chunked":
            raise Malformed(f"transfer coding {coding!r}")
        bodyless = False
        if self._answers:
            method = self.methods.pop(0) if self.methods else ""
            status = message.start[0]
            tunnel = method == "CONNECT" and status.startswith("2")
            if (status in ("204", "101") or tunnel) and (length or coding):
                raise Malformed(f"a {status} with {length!r}, {coding!r}")
            bodyless = method == "HEAD" or status in ("204", "304", "101") or tunnel
        if bodyless:
            self._whole()
        elif coding is not None:
            message.framing, self._part = "chunked", "size"
        elif length is not None:
            message.framing, self._part, self._left = "length", "body", int(length)
            if not self._left:
                self._whole()
        elif self._answers:
            message.framing, self._part, self._left = "close", "body", -1
        else:
            self._whole()

    def _body(self) -> bool:
        message = self.message
        if message is None or not self._held:
            return False
        data = self._take(len(self._held) if self._left < 0 else self._left)
        message.body += data
        if self._left > 0:
            self._left -= len(data)
            if not self._left:
                self._whole()
        return True

    def _data(self) -> bool:
        message = self.message
        if message is None or not self._held:
            return False
        if self._left > 2:
            data = self._take(self._left - 2)
            message.body += data
            self._left -= len(data)
            return True
        if len(self._held) < 2:
            return False
        if self._take(2) != b"\r\n":
            raise Malformed("chunk data is not ended by CRLF")
        self._part = "size"
        return True

    def _line(self) -> bool:
        end = self._held.find(b"\r\n")
        if end < 0:
            return False
        line = self._take(end + 2)[:-2]
        if self._part == "trailers":
            if not line:
                self._whole()
            elif _FIELD.fullmatch(line) is None:
                raise Malformed(f"not a trailer: {line[:200]!r}")
            return True
        if _SIZE.fullmatch(line) is None:
            raise Malformed(f"not a chunk size: {line[:100]!r}")
        self._left = int(line, 16) + 2
        self._part = "data" if self._left > 2 else "trailers"
        return True

    def _whole(self) -> None:
        message, self.message = self.message, None
        self._part = "head"
        if message is not None:
            message.is_whole = True
            self.done.append(message)
