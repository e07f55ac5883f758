"""Heads: what is accepted comes out as it was, what is refused has the status that the peer should see."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire.heads import (
    BadHead,
    cannot_be_a_head,
    parse_request_head,
    parse_response_head,
    plain_response_head,
    response_head_end,
)
from tests.core.making import short, steady

TOKEN = st.text(alphabet="!#$%&'*+.^_`|~09azAZ-", min_size=1, max_size=20).map(str.encode)
VALUE = st.binary(max_size=30).map(lambda raw: bytes(c for c in raw if c >= 32 and c != 127).strip(b" \t"))
FRAMING = {b"host", b"content-length", b"transfer-encoding", b"upgrade", b"connection", b"sec-websocket-key1"}
SINGLE = {b"content-type", b"content-location", b"date", b"from", b"etag", b"last-modified", b"max-forwards"}
"""aiohttp refuses some names twice; here each name comes once."""


def status_of(head: bytes, head_bytes: int = 4096, headers: int = 100) -> int:
    with pytest.raises(BadHead) as caught:
        parse_request_head(head, head_bytes, headers)
    assert caught.value.detail
    return caught.value.status


def lines(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(name + b": " + value + b"\r\n" for name, value in fields) + b"\r\n"


FIELDS = st.lists(st.tuples(TOKEN, VALUE), max_size=8, unique_by=lambda field: field[0].lower()).map(
    lambda fields: [field for field in fields if field[0].lower() not in FRAMING]
)


@steady
@given(TOKEN, FIELDS)
def test_any_method_and_fields_come_out_as_they_were(method: bytes, fields: list[tuple[bytes, bytes]]) -> None:
    sent = [(b"Host", b"x"), *fields]
    message = parse_request_head(method + b" /a HTTP/1.1\r\n" + lines(sent), 4096, 100)
    assert message.method == method.decode()
    assert message.raw_headers == tuple(sent)


@steady
@given(st.integers(min_value=100, max_value=599), FIELDS)
def test_any_status_and_fields_come_out_as_they_were(code: int, fields: list[tuple[bytes, bytes]]) -> None:
    message = parse_response_head(b"HTTP/1.1 %d Some reason\r\n" % code + lines(fields))
    assert (message.code, message.reason) == (code, "Some reason")
    assert message.raw_headers == tuple(fields)


HEADISH = st.text(alphabet="GETPOSHTP/1.0123: \r\n\t\x00\x0bé#?@[]", max_size=80).map(str.encode)


@steady
@given(st.binary(max_size=200) | HEADISH, st.booleans())
def test_garbage_is_refused_with_a_status_or_is_a_request(data: bytes, led: bool) -> None:
    head = (b"GET / HTTP/1.1\r\nHost: x\r\n" if led else b"") + data + b"\r\n\r\n"
    try:
        message = parse_request_head(head, 4096, 100)
        status, values = 400, [value for _, value in message.raw_headers]
    except BadHead as bad:
        status, values = bad.status, []
    assert status in (400, 414, 431, 501, 505)
    assert not any(c in value for value in values for c in b"\r\n\x00")


@steady
@given(st.binary(max_size=200) | HEADISH, st.booleans())
def test_an_upstreams_garbage_is_a_502_or_a_response(data: bytes, led: bool) -> None:
    try:
        message = parse_response_head((b"HTTP/1.1 200 OK\r\n" if led else b"") + data + b"\r\n\r\n")
        code, values = message.code, [value for _, value in message.raw_headers]
    except BadHead as bad:
        code, values = bad.status, []
    assert code == 502 or 100 <= code <= 599
    assert not any(c in value for value in values for c in b"\r\n\x00\x0b\x7f")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n", 400),
        (b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.x\r\nHost: x\r\n\r\n", 400),
        (b"GET / http/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\r\n\r\n", 400),
        (b"G T / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"(GET) / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"M" * 65 + b" / HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /" + b"a" * 33_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 4097 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100 + b"\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\n", 400),
    ],
    ids=short,
)
def test_a_request_head_is_refused_with(head: bytes, status: int) -> None:
    assert status_of(head) == status


def test_a_refusal_never_quotes_the_peer() -> None:
    for head in (b"GET / HTTP/1.1\r\nHost: x\r\nX: hunter2\x00\r\n\r\n", b"hunter2 hunter2\r\n\r\n"):
        with pytest.raises(BadHead) as caught:
            parse_request_head(head, 4096, 100)
        assert "hunter2" not in str(caught.value)


def test_a_method_that_only_the_parser_does_not_know_keeps_everything_else() -> None:
    message = parse_request_head(b"BREW /pot HTTP/1.0\r\nX-A: 1\r\nContent-Length: 3\r\n\r\n", 4096, 100)
    assert (message.method, message.path, tuple(message.version)) == ("BREW", "/pot", (1, 0))
    assert message.headers.get("content-length") == "3"
    assert message.should_close is True


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 099 No\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
        b"HTTP/1.1 200 OK\n\tA: b\nB: c\n\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\r\n\r\n",
        b"HTTP/1.1 200 OK\nA: b\rB: c\n\n",
        b"HTTP/1.1 200 OK\nA: b\0c\n\n",
        b"HTTP/1.1 200 OK\nA : b\n\n",
        b"HTTP/1.1 200 OK\nA\n : b\n\n",
        b"HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 6\n\n",
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\t6\n\n",
        b"HTTP/1.1 99 No\r\n\r\n",
        b"HTTP/1.1 2000 No\r\n\r\n",
        b"HTTP/1.1 abc No\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \x0b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \x7f\r\n\r\n",
        b"HTTP/1.1 200 O\x1bK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\n\r\n",
    ],
    ids=short,
)
def test_a_response_head_is_refused(head: bytes) -> None:
    with pytest.raises(BadHead) as caught:
        parse_response_head(head)
    assert caught.value.status == 502


@pytest.mark.parametrize(
    ("fold", "joined"),
    [
        (b"b\r\n  c", b"b c"),
        (b"b\r\n\tc", b"b c"),
        (b"b\n\tc", b"b c"),
        (b"b\r\n \t \r\n\tc", b"b  c"),
        (b"\r\n\tc", b"c"),
        (b"b\r\n ", b"b"),
        (b"b\tc", b"b\tc"),
    ],
)
def test_a_folded_field_of_an_upstream_is_joined_by_spaces(fold: bytes, joined: bytes) -> None:
    """RFC 9112 section 5.2; a tab inside a line is the field's own."""
    message = parse_response_head(b"HTTP/1.1 200 OK\r\nA: " + fold + b"\r\nD: e\r\n\r\n")
    assert message.raw_headers == ((b"A", joined), (b"D", b"e"))


@pytest.mark.parametrize("code", [100, 103, 200, 599, 600, 777, 999])
def test_a_status_of_three_digits_is_taken_as_it_is(code: int) -> None:
    assert parse_response_head(b"HTTP/1.1 %d Odd\r\n\r\n" % code).code == code


def test_a_later_minor_version_is_read_as_1_1() -> None:
    """RFC 9110 section 2.5."""
    message = parse_response_head(b"HTTP/1.2 200 OK\r\nA: b\r\n\r\n")
    assert (tuple(message.version), message.raw_headers) == ((1, 1), ((b"A", b"b"),))
    request = parse_request_head(b"BREW /a?b HTTP/1.9\r\nHost: x\r\nContent-Length: 1\r\n\r\n", 4096, 100)
    assert (request.method, request.path, tuple(request.version)) == ("BREW", "/a?b", (1, 1))
    assert request.headers.get("content-length") == "1"


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody", 25),
        (b"HTTP/1.1 200 OK\nA: b\n\nbody\r\n\r\n", 22),
        (b"HTTP/1.1 200 OK\nA: b\n\r\nbody\n\n", 23),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n\nbody", 24),
        (b"HTTP/1.1 200 OK\n\n\r\nbody", 17),
        (b"HTTP/1.1 200 OK\r\n\r\n\n\n", 19),
        (b"HTTP/1.1 200 OK\r\nA: b\r\r\r\n", -1),
        (b"HTTP/1.1 200 OK\nA: b\n \nC: d\n", -1),
    ],
)
def test_the_head_of_a_response_ends_with_its_first_empty_line(data: bytes, end: int) -> None:
    assert response_head_end(data) == end
    found = [response_head_end(data[:size], max(0, size - 1)) for size in range(len(data) + 1)]
    assert next((at for at in found if at >= 0), -1) == end


@steady
@given(st.lists(st.tuples(TOKEN, VALUE), max_size=6, unique_by=lambda field: field[0].lower()), st.randoms())
def test_a_line_of_an_upstream_may_end_with_lf_alone(fields: list[tuple[bytes, bytes]], random: Random) -> None:
    """RFC 9112 section 2.2: whatever the ends are, the fields are the same."""
    fields = [(name, value) for name, value in fields if name.lower() not in FRAMING | SINGLE]
    lines_ = [b"HTTP/1.1 200 OK", *(name + b": " + value for name, value in fields), b""]
    head = b"".join(line + random.choice((b"\n", b"\r\n")) for line in lines_)
    assert response_head_end(head + b"body\n\n") == len(head)
    assert parse_response_head(head).raw_headers == tuple(fields)


@pytest.mark.parametrize("data", [b"", b"H", b"HTTP/1.", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nA: b\r", b"HTTP/1.0 2"])
def test_a_head_that_may_still_come_is_waited_for(data: bytes) -> None:
    assert not cannot_be_a_head(data)


@pytest.mark.parametrize("data", [b"X", b"HTTP/2", b"\r\n", b"\n", b"220 ftp ready\r\n"])
def test_a_hopeless_head_is_not_waited_for(data: bytes) -> None:
    assert cannot_be_a_head(data)


@steady
@given(FIELDS, st.integers(min_value=0, max_value=200))
def test_no_beginning_of_a_good_head_is_hopeless(fields: list[tuple[bytes, bytes]], at: int) -> None:
    assert not cannot_be_a_head((b"HTTP/1.1 200 OK\r\n" + lines(fields))[:at])


# fmt: off
LINES = st.sampled_from(
    [b"a: b", b"a : b", b" c", b"\tc", b"", b"Content-Length: 0", b"Content-Length: 3", b"x\x01: y", b"b:"]
)
STARTS = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 100 Continue", b"HTTP/1.2 204 x", b"HTTP/2.0 200 OK", b"HTTP/1.1 99 x"]
)
# fmt: on
ENDINGS = st.sampled_from([b"\r\n", b"\r\n", b"\n"])


@given(STARTS, st.lists(st.tuples(LINES, ENDINGS), max_size=6), st.binary(max_size=4))
def test_the_quick_look_at_a_head_says_what_the_careful_one_says(
    start: bytes, lines: list[tuple[bytes, bytes]], behind: bytes
) -> None:
    data = start + b"\r\n" + b"".join(line + ending for line, ending in lines) + b"\r\n" + behind
    plain = plain_response_head(data)
    if plain is None:
        return
    message, end = plain
    assert end == response_head_end(data)
    careful = parse_response_head(data[:end])
    assert (message.code, message.raw_headers) == (careful.code, careful.raw_headers)
    assert (message.should_close, message.chunked) == (careful.should_close, careful.chunked)
