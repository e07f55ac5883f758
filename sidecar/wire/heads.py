"""The bytes of one head → a parsed head, or a refusal with the status that the peer should see (RFC 9112 sections 2 to
5).

Every head is parsed whole by aiohttp's C parser, in the mode that stops after the head: bodies never pass through it,
and their framing is ours (``framing``, ``chunked``). Parsers are strict toward apps, and lenient toward upstreams only
in what cannot change the framing.
"""

# Compiled in the wheel.

from __future__ import annotations

import re
from typing import Any, Final, Protocol

from aiohttp.http_exceptions import BadHttpMethod, BadStatusLine, HttpProcessingError, InvalidURLError, LineTooLong
from aiohttp.http_parser import HttpRequestParser, HttpResponseParser

__all__ = [
    "HEAD_END",
    "BadHead",
    "HeadMessage",
    "RequestMessage",
    "ResponseMessage",
    "altered",
    "cannot_be_a_head",
    "has_later_version",
    "line_too_long",
    "parse_request_head",
    "parse_response_head",
    "plain_response_head",
    "refusal",
    "request_probe",
    "response_head_end",
    "status_line",
]

HEAD_END: Final = b"\r\n\r\n"
"""The end of a request's head: an app must end its lines with CRLF."""
MAX_RESPONSE_HEAD_BYTES: Final = 256 << 10
"""Bytes of an upstream's head, at most. nginx allows 4-8 KiB, HAProxy 16 KiB, Envoy 60 KiB."""

MAX_LINE_LOOK: Final = 32 << 10
# As the C extension defines them; the declared types are those of the pure-Python versions, which ``app`` refuses.
_RequestParser: Final[Any] = HttpRequestParser
_ResponseParser: Final[Any] = HttpResponseParser
_spare_request_parsers: Final[dict[tuple[int, int], Any]] = {}
_spare_response_parsers: Final[list[Any]] = []
"""A parser that has parsed one whole head of a connection that stays open can parse the next: it is used again, which
costs a quarter less than a new one. One of each is kept, since nothing else runs between taking and returning it.
``tests/wire`` holds that a used one and a new one agree.
"""
_LIMIT: Final = 1 << 16
"""Bytes for the parser's body reader, which is never used: bodies are framed by ourselves."""

_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64} ")
_LONG_METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{65}")
_LATER_REQUEST: Final = re.compile(rb"([^\x00-\x20]+ [^\x00-\x20]+ HTTP/1\.)[2-9]\r\n")
_LATER_RESPONSE: Final = re.compile(rb"HTTP/1\.[2-9] ")
_FOLD: Final = re.compile(rb"\r?\n[\t ]+")
_LENGTHS: Final = re.compile(rb"(?i)(?<=\n)content-length:([\t 0-9,]+)\r?\n")
_CONTROLS: Final = bytes(c for c in range(32) if c not in b"\t\r\n") + b"\x7f"

MOST_STATUS_LINES: Final = 4096
LONGEST_REASON: Final = 64
"""Characters of a reason phrase whose status line is remembered; longer ones are written anew each time."""
_status_lines: Final[dict[tuple[int, str], bytes]] = {}


class HeadMessage(Protocol):
    """What aiohttp's parser gives for any head."""

    @property
    def version(self) -> tuple[int, int]: ...
    @property
    def headers(self) -> Any: ...
    @property
    def raw_headers(self) -> tuple[tuple[bytes, bytes], ...]: ...
    @property
    def should_close(self) -> bool: ...
    @property
    def upgrade(self) -> bool: ...
    @property
    def chunked(self) -> bool: ...


class RequestMessage(HeadMessage, Protocol):
    """A request's head (aiohttp's ``RawRequestMessage``)."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...


class ResponseMessage(HeadMessage, Protocol):
    """A response's head (aiohttp's ``RawResponseMessage``)."""

    @property
    def code(self) -> int: ...
    @property
    def reason(self) -> str: ...


class BadHead(Exception):
    """A head that must not be acted upon.

    ``status`` is the answer for an app (400, 414, 431, 501, 505); ``kind`` a word for the counter; the text
    says what is wrong without quoting the peer's bytes.
    """

    def __init__(self, status: int, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail


def request_probe(head_bytes: int) -> Any:
    """A parser to be fed piece by piece while a head is incomplete: it raises as soon as it cannot become valid."""
    return _request_parser(head_bytes, 10_000)


def parse_request_head(head: bytes, head_bytes: int, headers: int) -> RequestMessage:
    """One whole head, up to and including the empty line.

    Raises ``BadHead``: 414 a target, 431 a field longer than ``head_bytes`` or more than ``headers`` fields
    (RFC 6585 section 5), 505 another major version (RFC 9110 section 15.6.6), else 400 (RFC 9112 section 2.2).
    """
    key = (head_bytes, headers)
    parser = _spare_request_parsers.pop(key, None) or _request_parser(head_bytes, headers)
    try:
        messages, _, _ = parser.feed_data(head)
    except BadHttpMethod:
        return _unknown_method(head, head_bytes, headers)
    except HttpProcessingError as exc:
        later = _LATER_REQUEST.match(head)
        if later is not None:
            return parse_request_head(later[1] + b"1" + head[later.end() - 2 :], head_bytes, headers)
        raise refusal(exc, head) from None
    if len(messages) != 1:
        raise BadHead(400, "request_line", "this is not an HTTP request")
    message: RequestMessage = messages[0][0]
    if head.count(b" ", 0, head.find(b"\r\n")) != 2:
        # The parser skips further spaces; a server that splits at each of them sees another target (RFC 9112 section
        # 3).
        raise BadHead(400, "request_line", "the request line is not valid")
    if message.version[0] != 1:
        raise BadHead(505, "version", "only versions 1.0 and 1.1 of HTTP are spoken here")
    if not (message.should_close or message.upgrade):
        _spare_request_parsers[key] = parser
    return message


def has_later_version(head: bytes) -> bool:
    """Whether it begins with a request line of a later HTTP/1.x, which is served as 1.1 (RFC 9110 section 2.5)."""
    return _LATER_REQUEST.match(head) is not None


def altered(message: RequestMessage, **fields: Any) -> RequestMessage:
    """The same head with other values of these attributes (``method``, ``path``, ``headers``, ``raw_headers``)."""
    copy: RequestMessage = message._replace(**fields)  # type: ignore[attr-defined]  # of aiohttp's
    return copy


def _unknown_method(head: bytes, head_bytes: int, headers: int) -> RequestMessage:
    """RFC 9110 section 9.1: methods are an open list of tokens. A proxy passes on what it does not know."""
    token = _TOKEN.match(head)
    if token is None:
        raise _no_method(head)
    message = parse_request_head(b"POST " + head[token.end() :], head_bytes, headers)
    return altered(message, method=token.group()[:-1].decode("ascii"))


def refusal(exc: HttpProcessingError, head: bytes) -> BadHead:
    """A parser's error in our words: its own text quotes the peer's bytes, which must not be logged."""
    if isinstance(exc, LineTooLong):
        if b"\r\n" not in head[:MAX_LINE_LOOK]:
            return line_too_long(head)
        return BadHead(431, "head_too_large", "a header field is too long")
    if isinstance(exc, BadHttpMethod):
        return _no_method(head)
    if isinstance(exc, InvalidURLError):
        return BadHead(400, "target", "the request target is not valid")
    if isinstance(exc, BadStatusLine):
        return BadHead(400, "request_line", "the request line is not valid")
    if "Too many headers" in exc.message:
        return BadHead(431, "head_too_large", "there are too many header fields")
    if "'Host'" in exc.message:
        return BadHead(400, "host", "there must be exactly one Host field")
    if "Content-Length" in exc.message or "Transfer-Encoding" in exc.message:
        return BadHead(400, "framing", "the length of the body is ambiguous")
    return BadHead(400, "header", "the header is not valid")


def line_too_long(head: bytes) -> BadHead:
    """The refusal of a long request line: 414 for its target, 501 for its method (RFC 9112 section 3)."""
    if _LONG_METHOD.match(head):
        return _no_method(head)
    return BadHead(414, "target_too_long", "the request line is too long")


def _no_method(head: bytes) -> BadHead:
    if _LONG_METHOD.match(head):
        return BadHead(501, "method", "the method is longer than any that is known here")
    return BadHead(400, "method", "the request line does not begin with a method")


def _request_parser(head_bytes: int, headers: int) -> Any:
    # By position, since this runs for every request: protocol, loop, limit, timer, max_line_size, max_headers,
    # max_field_size, payload_exception, response_with_body, read_until_eof, auto_decompress.
    return _RequestParser(None, None, _LIMIT, None, head_bytes, headers, head_bytes, None, False, False, False)


def plain_response_head(data: bytes) -> tuple[ResponseMessage, int] | None:
    """A head as nearly every upstream writes it, and where it ends; None: whole or not, it needs a closer look
    (``response_head_end``, ``parse_response_head``).

    As many LF as there are fields, a status line and an empty line prove that no line is folded and that no earlier
    line is empty: one count in place of four searches, each of which costs a twentieth of reading the head.
    """
    end = data.find(HEAD_END) + 4
    if end < 4 or end > MAX_RESPONSE_HEAD_BYTES:
        return None
    head = data if end == len(data) else data[:end]
    parser = _spare_response_parsers.pop() if _spare_response_parsers else _response_parser()
    try:
        messages, _, _ = parser.feed_data(head)
    except HttpProcessingError:
        return None
    if len(messages) != 1:
        return None
    message: ResponseMessage = messages[0][0]
    if head.count(b"\n") != len(message.raw_headers) + 2 or not _is_sound(message, head):
        return None
    if message.code >= 200 and not (message.should_close or message.upgrade):
        _spare_response_parsers.append(parser)
    return message, end


def _is_sound(message: ResponseMessage, head: bytes) -> bool:
    """Checks that the parser omits: blanks before a colon (RFC 9112 section 5.1), control bytes (RFC 9110 section 5.5),
    another major version, a status below 100.
    """
    if head.count(b" :") and any(name != name.strip() for name, _ in message.raw_headers):
        return False
    return message.version[0] == 1 and message.code >= 100 and len(head.translate(None, _CONTROLS)) == len(head)


def parse_response_head(head: bytes) -> ResponseMessage:
    """One whole head of an upstream. Raises ``BadHead`` (its status is 502) for anything that must not be passed on.

    RFC 9112 section 4. A line may end with LF alone (section 2.2), a folded one is joined by a space (section 5.2),
    a later HTTP/1.x is read as HTTP/1.1 (RFC 9110 section 2.5), a length that is repeated with the same value as one
    (RFC 9110 section 8.6). Control bytes in a value are refused (RFC 9110 section 5.5), and so is a status outside
    100 … 999.
    """
    if head.find(b"\n ") >= 0 or head.find(b"\n\t") >= 0:
        head = _unfolded(head)
    parser = _spare_response_parsers.pop() if _spare_response_parsers else _response_parser()
    try:
        messages, _, _ = parser.feed_data(head)
    except HttpProcessingError as exc:
        if _LATER_RESPONSE.match(head):
            return parse_response_head(b"HTTP/1.1" + head[8:])
        single = _with_one_length(head)
        if single is not None:
            return parse_response_head(single)
        raise BadHead(502, "upstream", "the upstream's response head is not valid HTTP/1.1") from exc
    if len(messages) != 1:
        raise BadHead(502, "upstream", "the upstream's answer is not an HTTP response")
    message: ResponseMessage = messages[0][0]
    if not _is_sound(message, head):
        raise BadHead(502, "upstream", "the upstream's response head is not valid HTTP/1.1")
    if message.code >= 200 and not (message.should_close or message.upgrade):
        _spare_response_parsers.append(parser)
    return message


def _with_one_length(head: bytes) -> bytes | None:
    """The head with one Content-Length where it has several of the same value (RFC 9110 section 8.6), else None."""
    values = [value.strip() for line in _LENGTHS.findall(head) for value in line.split(b",")]
    first = _LENGTHS.search(head)
    if first is None or len(values) < 2 or len(set(values)) != 1 or not values[0].isdigit():
        return None
    rest = _LENGTHS.sub(b"", head[first.end() - 1 :])[1:]
    single: bytes = head[: first.start()] + b"Content-Length: " + values[0] + b"\r\n" + rest
    return single


def _unfolded(head: bytes) -> bytes:
    """The head without obsolete line folding, before any field of it is interpreted (RFC 9112 section 5.2)."""
    if head[head.find(b"\n") + 1] in b"\t ":
        # It would continue the status line (RFC 9112 section 2.2: reject).
        raise BadHead(502, "upstream", "the upstream's response head begins with a blank")
    return _FOLD.sub(b" ", head)


def _response_parser() -> Any:
    return _ResponseParser(
        None, None, _LIMIT, None, MAX_RESPONSE_HEAD_BYTES, 1000, MAX_RESPONSE_HEAD_BYTES, None, False, True, False
    )


def response_head_end(data: bytes, seen_bytes: int = 0) -> int:
    """Where the body begins, behind the first empty line; -1 if that has not come yet.

    A line of a response ends with LF, whether a CR stands before it or not (RFC 9112 section 2.2); a CR alone ends
    nothing. ``seen_bytes`` have been looked at before: a head that comes byte by byte is scanned once.
    """
    start = seen_bytes - 2 if seen_bytes > 2 else 0
    end = data.find(b"\n\r\n", start)
    bare = data.find(b"\n\n", start, len(data) if end < 0 else end + 1)
    if bare >= 0:
        return bare + 2
    return -1 if end < 0 else end + 3


def status_line(code: int, reason: str) -> bytes:
    """The status line with the upstream's own reason phrase. The version is ours (RFC 9110 section 6.2)."""
    line = _status_lines.get((code, reason))
    if line is None:
        line = b"HTTP/1.1 %d %b\r\n" % (code, reason.encode("utf-8", "surrogateescape"))
        if len(_status_lines) < MOST_STATUS_LINES and len(reason) <= LONGEST_REASON:
            _status_lines[code, reason] = line
    return line


def cannot_be_a_head(data: bytes) -> bool:
    """Whether an unfinished response head can no longer become a valid one."""
    return not (data.startswith(b"HTTP/1.") or b"HTTP/1.".startswith(data[:7]))
