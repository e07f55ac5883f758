"""The length of a body: RFC 9112 section 6.3 as a table, for both directions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire.framing import CHUNKED, UNTIL_CLOSE, request_length, response_length, stays_open
from sidecar.wire.heads import BadHead, RequestMessage, ResponseMessage, parse_request_head, parse_response_head
from tests.core.making import short, steady


def request(fields: bytes, method: bytes = b"POST", version: bytes = b"1.1") -> RequestMessage:
    head = method + b" / HTTP/" + version + b"\r\nHost: x\r\n" + fields + b"\r\n"
    return parse_request_head(head, 65536, 200)


def response(fields: bytes = b"", code: int = 200, version: bytes = b"1.1") -> ResponseMessage:
    return parse_response_head(b"HTTP/%b %d Fine\r\n%b\r\n" % (version, code, fields))


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        (b"", 0),
        (b"Content-Length: 0\r\n", 0),
        (b"Content-Length: 7\r\n", 7),
        (b"content-LENGTH:7\r\n", 7),
        (b"Content-Length: 9223372036854775807\r\n", 2**63 - 1),
        (b"Transfer-Encoding: chunked\r\n", CHUNKED),
        (b"transfer-encoding: CHUNKED\r\n", CHUNKED),
    ],
    ids=short,
)
@pytest.mark.parametrize("method", [b"POST", b"GET", b"HEAD", b"DELETE", b"BREW"])
def test_a_request_says_its_length(fields: bytes, length: int, method: bytes) -> None:
    assert request_length(request(fields, method)) == length


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"Content-Length: 1\r\nContent-Length: 1\r\n", 400),
        (b"Content-Length: 1\r\nContent-Length: 2\r\n", 400),
        (b"Content-Length: 1, 1\r\n", 400),
        (b"Content-Length: -1\r\n", 400),
        (b"Content-Length: +1\r\n", 400),
        (b"Content-Length: 1_0\r\n", 400),
        (b"Content-Length: 0x1\r\n", 400),
        (b"Content-Length: 010\r\n", 400),
        (b"Content-Length: 1 0\r\n", 400),
        (b"Content-Length: \xd9\xa1\r\n", 400),
        (b"Content-Length: 99999999999999999999\r\n", 400),
        (b"Content-Length:\r\n", 400),
        (b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", 400),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        (b"Transfer-Encoding: chunked, chunked\r\n", 400),
        (b"Transfer-Encoding: gzip, chunked\r\n", 400),
        (b"Transfer-Encoding: chunked, gzip\r\n", 400),
        (b"Transfer-Encoding: chunked;a=b\r\n", 400),
        (b"Transfer-Encoding: xchunked\r\n", 400),
        (b"Transfer-Encoding: \x0bchunked\r\n", 400),
        (b"Transfer-Encoding:\r\n", 400),
        (b"Transfer-Encoding: gzip\r\n", 501),
        (b"Transfer-Encoding: identity\r\n", 501),
    ],
    ids=short,
)
def test_a_request_whose_length_is_ambiguous_is_refused(fields: bytes, status: int) -> None:
    with pytest.raises(BadHead) as caught:
        request_length(request(fields))
    assert caught.value.status == status


def test_chunked_does_not_exist_in_http_1_0() -> None:
    with pytest.raises(BadHead, match=r"HTTP/1\.0"):
        request_length(request(b"Transfer-Encoding: chunked\r\n", version=b"1.0"))


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        (b"", UNTIL_CLOSE),
        (b"Content-Length: 0\r\n", 0),
        (b"Content-Length: 7\r\n", 7),
        (b"Transfer-Encoding: chunked\r\n", CHUNKED),
        (b"Transfer-Encoding: Chunked\r\n", CHUNKED),
    ],
    ids=short,
)
@pytest.mark.parametrize("code", [200, 201, 206, 301, 404, 429, 500, 503])
def test_a_response_says_its_length(fields: bytes, length: int, code: int) -> None:
    assert response_length(response(fields, code), "GET") == length


@pytest.mark.parametrize("fields", [b"", b"Content-Length: 7\r\n", b"Transfer-Encoding: chunked\r\n"], ids=short)
@pytest.mark.parametrize(("method", "code"), [("HEAD", 200), ("HEAD", 503), ("GET", 204), ("POST", 204), ("GET", 304)])
def test_some_responses_have_no_body_whatever_their_head_says(fields: bytes, method: str, code: int) -> None:
    assert response_length(response(fields, code), method) == 0


@pytest.mark.parametrize(
    "fields",
    [
        b"Transfer-Encoding: gzip\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked, gzip\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 1\r\nContent-Length: 2\r\n",
        b"Content-Length: +1\r\n",
        b"Content-Length: 010\r\n",
        b"Content-Length: 1, 2\r\n",
        b"Content-Length: 1,\r\n",
        b"Content-Length: 01, 01\r\n",
    ],
    ids=short,
)
def test_a_response_whose_length_is_ambiguous_is_no_response(fields: bytes) -> None:
    with pytest.raises(BadHead) as caught:
        response_length(response(fields), "GET")
    assert caught.value.status == 502


@steady
@given(st.text(alphabet="0123456789+-_ ,.xe\t", max_size=22))
def test_a_length_is_plain_digits_or_refused(text: str) -> None:
    value = text.strip(" \t")
    plain = value.isdigit() and (value == "0" or value[0] != "0") and len(value) <= 19 and int(value) < 2**64
    try:
        assert request_length(request(b"Content-Length: " + text.encode() + b"\r\n")) == int(value)
    except BadHead:
        assert not plain
    else:
        assert plain


@pytest.mark.parametrize(
    ("fields", "version", "stays"),
    [
        (b"", b"1.1", True),
        (b"Connection: keep-alive\r\n", b"1.1", True),
        (b"Connection: Close\r\n", b"1.1", False),
        (b"Connection: x\r\nConnection: close\r\n", b"1.1", False),
        (b"", b"1.0", False),
        (b"Connection: keep-alive\r\n", b"1.0", False),
    ],
    ids=short,
)
def test_an_upstream_keeps_a_connection_or_says_that_it_does_not(fields: bytes, version: bytes, stays: bool) -> None:
    assert stays_open(response(fields, version=version)) is stays
