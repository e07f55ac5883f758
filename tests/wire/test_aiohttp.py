"""What ``sidecar/wire/heads.py`` takes for granted of aiohttp's C parsers, which aiohttp does not promise to anybody.

Each message says what has changed in aiohttp and which room relies on it. When one fails after an upgrade, read
``_http_parser.pyx`` of that version before touching the test.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from aiohttp import hdrs, http_exceptions, http_parser
from aiohttp.http_exceptions import BadHttpMethod, BadStatusLine, HttpProcessingError, InvalidURLError, LineTooLong
from aiohttp.streams import EmptyStreamReader

import sidecar
from tests.core.making import short

_Request: Any = http_parser.HttpRequestParser
_Response: Any = http_parser.HttpResponseParser
POSITIONS = (
    "protocol",
    "loop",
    "limit",
    "timer",
    "max_line_size",
    "max_headers",
    "max_field_size",
    "payload_exception",
    "response_with_body",
    "read_until_eof",
    "auto_decompress",
)
HEAD = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n"


def request_parser(line: int = 4096, headers: int = 100, field: int = 4096) -> Any:
    """As ``wire.heads`` makes one: by position."""
    return _Request(None, None, 1 << 16, None, line, headers, field, None, False, False, False)


def response_parser(line: int = 4096, headers: int = 100, field: int = 4096) -> Any:
    return _Response(None, None, 1 << 16, None, line, headers, field, None, False, True, False)


def only_message(parser: Any, data: bytes) -> Any:
    messages, _, _ = parser.feed_data(data)
    assert len(messages) == 1, "aiohttp: a whole head no longer gives exactly one message (wire.heads.parse_*_head)"
    return messages[0][0]


# -- what there is ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["HttpRequestParser", "HttpResponseParser"])
def test_the_parsers_are_those_of_the_c_extension(name: str) -> None:
    parser, python = getattr(http_parser, name), getattr(http_parser, f"{name}Py")
    assert parser is not python, f"aiohttp: {name} is the pure-Python twin: wire.heads would be slow and lenient"
    assert parser.__module__ == "aiohttp._http_parser", f"aiohttp: the C {name} has moved (wire.heads, app)"


@pytest.mark.parametrize("name", ["HttpRequestParser", "HttpResponseParser"])
def test_the_python_twin_still_tells_the_parameters(name: str) -> None:
    """The C constructors have no signature; each position is proved by its effect below."""
    twin = getattr(http_parser, f"{name}Py")
    known = set(inspect.signature(twin).parameters) | set(inspect.signature(http_parser.HttpParser.__init__).parameters)
    missing = set(POSITIONS) - known
    assert not missing, f"aiohttp: {name} no longer takes {sorted(missing)} (wire.heads passes them by position)"


@pytest.mark.parametrize("parser", [_Request, _Response], ids=["request", "response"])
def test_the_names_of_the_parameters_are_those_of_the_c_parsers(parser: Any) -> None:
    values = (None, None, 1 << 16, None, 4096, 100, 4096, None, False, False, False)
    try:
        parser(**dict(zip(POSITIONS, values, strict=True)))
    except TypeError as error:
        pytest.fail(f"aiohttp: a C parser's parameters have other names: {error} (wire.heads)")


@pytest.mark.parametrize(
    ("child", "parent"),
    [
        (LineTooLong, HttpProcessingError),
        (BadHttpMethod, HttpProcessingError),
        (BadStatusLine, HttpProcessingError),
        (InvalidURLError, HttpProcessingError),
        (http_exceptions.InvalidHeader, HttpProcessingError),
        (http_exceptions.TransferEncodingError, HttpProcessingError),
    ],
)
def test_the_parsers_exceptions_have_one_parent(child: type, parent: type) -> None:
    assert issubclass(child, parent), f"aiohttp: {child.__name__} is no HttpProcessingError (heads.refusal, intake)"


def test_a_bad_method_is_told_from_the_other_exceptions() -> None:
    for other in (LineTooLong, BadStatusLine, InvalidURLError):
        assert not issubclass(other, BadHttpMethod), (
            f"aiohttp: {other.__name__} is a BadHttpMethod (parse_request_head)"
        )
    assert hdrs.KEEP_ALIVE == "Keep-Alive", "aiohttp: hdrs.KEEP_ALIVE is another name (upstream.pool)"
    assert hdrs.TRANSFER_ENCODING == "Transfer-Encoding", "aiohttp: hdrs.TRANSFER_ENCODING is another name (framing)"


# -- what a position means -------------------------------------------------------------------------------


def test_the_fifth_argument_limits_the_target_alone() -> None:
    message = "aiohttp: the fifth argument no longer limits the request target (wire.heads._request_parser)"
    target, field = b"/" + b"t" * 60, b"v" * 60
    with pytest.raises(LineTooLong):
        request_parser(line=50).feed_data(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    found = only_message(request_parser(line=50), b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + field + b"\r\n\r\n")
    assert found.headers["X-A"] == field.decode(), message
    found = only_message(request_parser(line=61, field=10), b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert found.path == target.decode(), message


def test_the_sixth_argument_limits_the_number_of_fields() -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\nA: 1\r\nB: 2\r\n\r\n"
    assert len(only_message(request_parser(headers=3), head).raw_headers) == 3, "aiohttp: max_headers counts otherwise"
    with pytest.raises(HttpProcessingError) as caught:
        request_parser(headers=2).feed_data(head)
    assert "Too many headers" in caught.value.message, "aiohttp: says 'Too many headers' otherwise (heads.refusal)"


def test_the_seventh_argument_limits_one_field() -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"v" * 60 + b"\r\n\r\n"
    with pytest.raises(LineTooLong):
        request_parser(field=50).feed_data(head)
    assert only_message(request_parser(field=100), head).headers["X-A"] == "v" * 60


def test_the_limits_hold_for_responses_too() -> None:
    head = b"HTTP/1.1 200 OK\r\nA: 1\r\nB: " + b"v" * 60 + b"\r\n\r\n"
    only_message(response_parser(headers=2, field=100), head)
    with pytest.raises(HttpProcessingError):
        response_parser(headers=1).feed_data(head)
    with pytest.raises(LineTooLong):
        response_parser(field=50).feed_data(head)
    with pytest.raises(LineTooLong):
        response_parser(line=50).feed_data(b"HTTP/1.1 200 " + b"r" * 60 + b"\r\n\r\n")


@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 0\r\nContent-Encoding: gzip\r\n",
    ],
    ids=short,
)
def test_without_response_with_body_no_body_is_begun(fields: bytes) -> None:
    """Also: without ``auto_decompress`` no decompressor is put before it."""
    request, response = b"POST / HTTP/1.1\r\nHost: x\r\n", b"HTTP/1.1 200 OK\r\n"
    for parser, head in ((request_parser(), request), (response_parser(), response)):
        messages, upgraded, rest = parser.feed_data(head + fields + b"\r\n")
        assert len(messages) == 1, "aiohttp: a head with a body to come gives no message (wire.heads)"
        assert type(messages[0][1]) is EmptyStreamReader, (
            "aiohttp: the parser begins a body (wire.heads: ninth argument)"
        )
        assert (upgraded, rest) == (False, b"")


def test_without_response_with_body_a_decompressor_was_not_asked_for() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 9\r\n\r\n"
    ((_, payload),) = response_parser().feed_data(head)[0]
    assert type(payload) is EmptyStreamReader, "aiohttp: the eleventh argument is not auto_decompress (wire.heads)"


def test_a_head_in_pieces_gives_its_message_with_the_last_byte() -> None:
    parser = request_parser()
    for at in range(len(HEAD) - 1):
        messages, _, _ = parser.feed_data(HEAD[at : at + 1])
        assert not messages, "aiohttp: a message comes before the head is whole (proxy.intake feeds its probe so)"
    only_message(parser, HEAD[-1:])


# -- what a message says ---------------------------------------------------------------------------------


def test_a_request_message_has_the_fields_that_are_used() -> None:
    message = only_message(
        request_parser(),
        b"POST /a?b=c HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
    seen = (message.method, message.path, tuple(message.version), message.chunked, message.should_close)
    assert seen == ("POST", "/a?b=c", (1, 0), True, False), (
        "aiohttp: a RawRequestMessage says other things (wire.heads)"
    )
    assert message.upgrade is False
    assert message.headers.getall("transfer-encoding") == ["chunked"], "aiohttp: headers are no case-blind multidict"


@pytest.mark.parametrize(
    ("version", "connection", "closes"),
    [
        (b"1.1", b"", False),
        (b"1.1", b"Connection: close\r\n", True),
        (b"1.0", b"", True),
        (b"1.0", b"Connection: keep-alive\r\n", False),
    ],
    ids=short,
)
def test_should_close_follows_the_version_and_connection(version: bytes, connection: bytes, closes: bool) -> None:
    fields = b"Host: x\r\nContent-Length: 0\r\n" + connection + b"\r\n"
    for message in (
        only_message(request_parser(), b"GET / HTTP/" + version + b"\r\n" + fields),
        only_message(response_parser(), b"HTTP/" + version + b" 200 OK\r\n" + fields),
    ):
        assert message.should_close is closes, "aiohttp: should_close means something else (front, upstream.connection)"


def test_a_response_message_has_the_fields_that_are_used() -> None:
    message = only_message(
        response_parser(), b"HTTP/1.1 429 Slow down\r\nRetry-After: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    seen = (
        message.code,
        message.reason,
        tuple(message.version),
        message.chunked,
        message.should_close,
        message.upgrade,
    )
    assert seen == (429, "Slow down", (1, 1), True, False, False), "aiohttp: a RawResponseMessage says other things"
    assert message.headers.get("retry-after") == "1"


def test_a_response_without_a_length_is_taken_for_one_until_close() -> None:
    message = only_message(response_parser(), b"HTTP/1.1 200 OK\r\n\r\n")
    assert message.should_close is True, "aiohttp: framing.stays_open may be unnecessary now"


@pytest.mark.parametrize("kind", ["request", "response"])
def test_raw_headers_keep_order_case_repetition_and_bytes(kind: str) -> None:
    fields = ((b"hOsT", b"x"), (b"X-B", b"2"), (b"x-b", b"1"), (b"X-Raw", b"\xff\xe9 \xc3\xa9"), (b"X-Empty", b""))
    lines = b"".join(name + b": " + value + b" \t\r\n" for name, value in fields) + b"\r\n"
    if kind == "request":
        message = only_message(request_parser(), b"GET / HTTP/1.1\r\n" + lines)
    else:
        message = only_message(response_parser(), b"HTTP/1.1 200 OK\r\n" + lines)
    assert tuple(message.raw_headers) == fields, "aiohttp: raw_headers are not the bytes that came (proxy.headers)"


def test_a_connect_is_told_as_an_upgrade_and_keeps_its_target() -> None:
    message = only_message(request_parser(), b"CONNECT host:443 HTTP/1.1\r\nHost: host:443\r\n\r\n")
    assert (message.method, message.path) == ("CONNECT", "host:443"), "aiohttp: CONNECT's target changed (proxy.tunnel)"


@pytest.mark.parametrize("target", ["/", "//a", "/%2e%2e/%zz", "/a#b", "*", "http://h/p?q", "http://u:p@h/"], ids=short)
def test_a_target_is_handed_over_as_it_came(target: str) -> None:
    method = b"OPTIONS " if target == "*" else b"GET "
    message = only_message(request_parser(), method + target.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert message.path == target, "aiohttp: the parser changes targets (proxy.routing and preparation send them on)"


# -- what it refuses, and in which words -----------------------------------------------------------------

REFUSED_REQUESTS = [
    (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", BadHttpMethod, ""),
    (b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n", InvalidURLError, ""),
    (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", InvalidURLError, ""),
    (b"GET / HTTP/1.x\r\nHost: x\r\n\r\n", BadStatusLine, ""),
    (b"GET / HTTP/1.1\r\n\r\n", HttpProcessingError, "'Host'"),
    (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", HttpProcessingError, "'Host'"),
    (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        HttpProcessingError,
        "Content-Length",
    ),
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n", HttpProcessingError, "Content-Length"),
    (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        HttpProcessingError,
        "Transfer-Encoding",
    ),
    (b"GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n", HttpProcessingError, ""),
    (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", HttpProcessingError, ""),
    (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00\r\n\r\n", HttpProcessingError, ""),
    (b"GET / HTTP/1.1\nHost: x\n\n", HttpProcessingError, ""),
]


@pytest.mark.parametrize(("head", "kind", "word"), REFUSED_REQUESTS, ids=short)
def test_the_request_parser_is_strict(head: bytes, kind: type[HttpProcessingError], word: str) -> None:
    with pytest.raises(kind) as caught:
        request_parser().feed_data(head)
    assert word in caught.value.message, f"aiohttp: its refusal no longer says {word} (wire.heads.refusal looks for it)"


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 1\r\nContent-Length: 2\r\n",
        b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        b"A: \x00\r\n",
    ],
    ids=short,
)
def test_the_response_parser_is_lenient_only_where_framing_is_safe(fields: bytes) -> None:
    with pytest.raises(HttpProcessingError):
        response_parser().feed_data(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n")


# -- state -----------------------------------------------------------------------------------------------


def test_a_fresh_parser_holds_nothing_of_an_earlier_head() -> None:
    with pytest.raises(HttpProcessingError):
        request_parser().feed_data(b"GET / HTTP/1.1\r\nHost: evil\r\nX: \x00\r\n\r\n")
    request_parser().feed_data(b"POST /half HTTP/1.1\r\nHost: evil\r\nX-Half: ")
    message = only_message(request_parser(), HEAD)
    assert message.raw_headers == ((b"Host", b"x"),), "aiohttp: parsers share state (wire.heads makes one per head)"
    assert (message.method, message.path) == ("GET", "/a?b=c")


def test_parsers_are_made_by_position_in_one_place() -> None:
    """If ``wire.heads`` calls otherwise, the proofs above prove nothing."""
    source = "".join((Path(sidecar.__file__).parent / "wire" / "heads.py").read_text().split())
    assert "(None,None,_LIMIT,None,head_bytes,headers,head_bytes,None,False,False,False)" in source
    large = "MAX_RESPONSE_HEAD_BYTES"
    assert f"(None,None,_LIMIT,None,{large},1000,{large},None,False,True,False)" in source
