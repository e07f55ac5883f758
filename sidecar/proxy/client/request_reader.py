"""An app's bytes → requests: heads whole and valid, bodies framed, everything else refused (RFC 9112).

One request at a time: the bytes behind it wait, bounded. It holds no socket and sends nothing. Counterpart:
``connection``, which feeds it and acts on what it finds.
"""

# Compiled in the wheel.

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from aiohttp import hdrs
from aiohttp.http_exceptions import HttpProcessingError

from sidecar.core.settings.deployment import Limits
from sidecar.proxy.client.body import Body
from sidecar.wire.chunked import ChunkedDecoder
from sidecar.wire.framing import CHUNKED, request_length
from sidecar.wire.heads import (
    HEAD_END,
    BadHead,
    RequestMessage,
    has_later_version,
    line_too_long,
    parse_request_head,
    refusal,
    request_probe,
)

__all__ = ["RequestReader"]

EMPTY_LINES: Final = 8
"""Stray CRLFs accepted before a request line (RFC 9112 section 2.2 asks for one)."""
_METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}(?: |\Z)")
"""A token (RFC 9110 section 9.1), or the beginning of one."""


class RequestReader:
    """The reading half of one connection.

    ``on_request`` is called when a request's head is there (``message``) or cannot be (``bad``); ``on_broken``
    when its body turns out to be malformed after that.
    """

    __slots__ = (
        "_busy",
        "_decoder",
        "_empty_lines",
        "_left",
        "_limits",
        "_on_broken",
        "_on_request",
        "_probe",
        "_probed",
        "bad",
        "behind",
        "body",
        "expects_continue",
        "is_receiving",
        "length",
        "message",
        "parts",
        "pieces",
    )

    def __init__(self, limits: Limits, on_request: Callable[[], None], on_broken: Callable[[], None]) -> None:
        self._limits = limits
        self._on_request = on_request
        self._on_broken = on_broken
        self._probe: Any = None
        self._probed = 0
        self._empty_lines = 0
        self.parts = 0
        """How many heads have arrived in pieces: distinguishes one unfinished head from the next."""
        self.behind = b""
        """Bytes behind the current request, or of an unfinished head."""
        self.bad: BadHead | None = None
        self._reset()

    def _reset(self) -> None:
        self._busy = False
        self._decoder: ChunkedDecoder | None = None
        self._left = 0
        self.message: RequestMessage | None = None
        self.length = 0
        """Declared length of the body in bytes, or ``CHUNKED``."""
        self.pieces: list[bytes] = []
        """Body bytes that arrived before ``record`` was called."""
        self.body: Body | None = None
        """Records the body from then on, in place of ``pieces``."""
        self.expects_continue = False
        self.is_receiving = False
        """Whether the body of the current request is still coming."""

    @property
    def has_part(self) -> bool:
        """Whether a head has begun that is not whole yet."""
        return not self._busy and bool(self.behind)

    @property
    def has_next(self) -> bool:
        """Whether bytes have come behind the current request."""
        return self._busy and bool(self.behind)

    def hand_to(self, on_request: Callable[[], None]) -> None:
        """From now on requests go to another call."""
        self._on_request = on_request

    def close(self) -> None:
        """The connection is gone: no callback is called any more."""
        self._on_request = self._on_broken = _ignore
        self._probe = None

    def feed(self, data: bytes) -> None:
        if self.is_receiving:
            self._take_body(data)
        elif self._busy or self.bad is not None:
            self.behind += data
        else:
            self._take_head(data)

    def next(self) -> None:
        """The current request is over; go on with what has come behind it."""
        if self.length:
            self._reset()
        else:
            # Nothing else was touched.
            self._busy = False
            self.message = None
        data = self.behind
        if data:
            self.behind = b""
            self._take_head(data)

    # -- heads -------------------------------------------------------------------------------------------

    def _take_head(self, data: bytes) -> None:
        if self.behind:
            data, self.behind = self.behind + data, b""
        if data[:2] == b"\r\n":
            data = self._skip_empty_lines(data)
            if not data:
                return
        end = data.find(HEAD_END, self._probed - 3 if self._probed > 3 else 0)
        limits = self._limits
        if end < 0 or end > limits.head_bytes:
            self._take_part(data)
            return
        end += 4
        self._probe = None
        self._probed = 0
        self._empty_lines = 0
        try:
            message = parse_request_head(data if end == len(data) else data[:end], limits.head_bytes, limits.headers)
            length = request_length(message)
        except BadHead as bad:
            # Its traceback would hold this frame, and so the connection.
            bad.__traceback__ = bad.__context__ = None
            self._refuse(bad)
            return
        self.message = message
        self._busy = True
        rest_bytes = len(data) - end
        if rest_bytes and rest_bytes == length:
            # The body came whole with its head, as most bodies do.
            self.length = length
            self.pieces.append(data[end:])
        elif length or rest_bytes:
            self._begin_body(message, length, data[end:])
        self._on_request()

    def _skip_empty_lines(self, data: bytes) -> bytes:
        self._probe = None
        self._probed = 0
        while data.startswith(b"\r\n") and self._empty_lines <= EMPTY_LINES:
            data = data[2:]
            self._empty_lines += 1
        if self._empty_lines > EMPTY_LINES:
            self._refuse(BadHead(400, "request_line", "there are too many empty lines before the request line"))
            return b""
        return data

    def _take_part(self, data: bytes) -> None:
        """An unfinished head: refuse it as soon as it cannot become a valid one."""
        limit = self._limits.head_bytes
        if len(data) > limit:
            line = data.find(b"\r\n")
            if line < 0 or line > limit:
                self._refuse(line_too_long(data))
            else:
                self._refuse(BadHead(431, "head_too_large", "the request head is too large"))
            return
        if not self._probed:
            self.parts += 1
        if self._probe is None:
            self._probe = request_probe(limit)
            self._probed = 0
        try:
            self._probe.feed_data(data[self._probed :])
        except HttpProcessingError as exc:
            bad = refusal(exc, data)
            # A method or a later version that the parser does not know is checked when the head is whole.
            if not (has_later_version(data) or (bad.kind == "method" and _may_be_a_method(data))):
                self._refuse(bad)
                return
            self._probe = None
        self._probed = len(data)
        self.behind = data

    def _refuse(self, bad: BadHead) -> None:
        self.bad = bad
        self._on_request()

    # -- bodies ------------------------------------------------------------------------------------------

    def _begin_body(self, message: RequestMessage, length: int, rest: bytes) -> None:
        self.length = length
        if length == 0:
            self.behind = rest
            return
        expect = message.headers.get(hdrs.EXPECT)
        if expect is not None:
            self.expects_continue = expect.lower() == "100-continue" and message.version[1] > 0 and not rest
        self.is_receiving = True
        if length == CHUNKED:
            self._decoder = ChunkedDecoder()
        else:
            self._left = length
        if rest:
            self._take_body(rest)

    def _take_body(self, data: bytes) -> None:
        decoder = self._decoder
        if decoder is not None:
            self._take_chunks(decoder, data)
            return
        left = self._left - len(data)
        if left > 0:
            self._left = left
            self._give(data)
            return
        self._left = 0
        self.is_receiving = False
        if left < 0:
            self._give(data[:left])
            self.behind = data[left:]
        else:
            self._give(data)
        if self.body is not None:
            self.body.finish()

    def _take_chunks(self, decoder: ChunkedDecoder, data: bytes) -> None:
        try:
            pieces = decoder.feed(data)
        except BadHead as bad:
            self._decoder = None
            self.is_receiving = False
            bad.__traceback__ = bad.__context__ = None
            self.bad = bad
            self._on_broken()
            return
        if pieces:
            self._give(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if decoder.done:
            self._decoder = None
            self.is_receiving = False
            self.behind = decoder.rest
            if self.body is not None:
                self.body.finish()

    def _give(self, data: bytes) -> None:
        if self.body is not None:
            self.body.append(data)
        else:
            self.pieces.append(data)

    def record(self, body: Body) -> None:
        """Send the body to ``body`` from here on; first what has come already."""
        pieces, self.pieces = self.pieces, []
        self.body = body
        for piece in pieces:
            body.append(piece)
        if not self.is_receiving:
            body.finish()


def _may_be_a_method(data: bytes) -> bool:
    return _METHOD.match(data) is not None


def _ignore() -> None:
    """Replaces the callbacks of a closed reader."""
