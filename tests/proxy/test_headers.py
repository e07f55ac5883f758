"""Which fields travel: RFC 9110 section 7.6.1 and our own, as tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.proxy.message.headers import (
    ASK,
    CONNECTION,
    DROP,
    FORBIDDEN_TO_NAME,
    HOST,
    KEEP,
    NO_NAMES,
    careful_fields,
    named_by_connection,
    request_rules,
    response_rules,
)
from sidecar.wire.heads import RequestMessage, parse_request_head, parse_response_head, status_line
from tests.core.making import short, steady

ASKED = frozenset({b"x-request-id", b"traceparent", b"sidecar-timeout"})


def request(*lines: bytes) -> RequestMessage:
    return parse_request_head(
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n", 9999, 99
    )


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        (b"Accept", KEEP),
        (b"Content-Length", KEEP),
        (b"Content-Type", KEEP),
        (b"Authorization", KEEP),
        (b"Cookie", KEEP),
        (b"Via", KEEP),
        (b"Sidecarx", KEEP),
        (b"X-Sidecar-A", KEEP),
        (b"Connection", CONNECTION),
        (b"Keep-Alive", DROP),
        (b"Proxy-Connection", DROP),
        (b"Proxy-Authorization", DROP),
        (b"TE", DROP),
        (b"Trailer", DROP),
        (b"Transfer-Encoding", DROP),
        (b"Upgrade", DROP),
        (b"HTTP2-Settings", DROP),
        (b"Expect", DROP),
        (b"Sidecar-Anything", DROP),
        (b"Host", HOST),
        (b"X-Request-Id", ASK),
        (b"Traceparent", ASK),
        (b"Sidecar-Timeout", ASK),
    ],
    ids=short,
)
def test_a_field_of_a_request_is_judged_by_its_name_in_any_case(name: bytes, verdict: int) -> None:
    rules = request_rules(ASKED)
    for spelling in (name, name.lower(), name.upper()):
        assert rules.judge(spelling) == verdict
        assert rules.memory[spelling] == verdict


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        (b"Content-Length", KEEP),
        (b"Set-Cookie", KEEP),
        (b"Retry-After", KEEP),
        (b"Proxy-Authenticate", KEEP),
        (b"Sidecar-Other", KEEP),
        (b"Host", KEEP),
        (b"Sidecar", DROP),
        (b"Connection", CONNECTION),
        (b"Keep-Alive", DROP),
        (b"Transfer-Encoding", DROP),
        (b"Upgrade", DROP),
        (b"Trailer", DROP),
        (b"X-Request-Id", ASK),
    ],
    ids=short,
)
def test_a_field_of_a_response_is_judged_by_its_name_in_any_case(name: bytes, verdict: int) -> None:
    rules = response_rules(ASKED)
    assert [rules.judge(spelling) for spelling in (name, name.lower(), name.upper())] == [verdict] * 3


def test_only_so_many_spellings_are_remembered() -> None:
    rules = request_rules(ASKED)
    for number in range(5000):
        assert rules.judge(b"X-%d" % number) == KEEP
    assert rules.judge(b"Upgrade") == DROP
    assert len(rules.memory) == 4096


def test_what_is_meant_for_us_alone_is_told_from_what_travels() -> None:
    assert request_rules(ASKED).is_ours(b"Sidecar-TIMEOUT")
    assert not request_rules(ASKED).is_ours(b"X-Request-Id")
    assert not response_rules(ASKED).is_ours(b"Sidecar-Timeout")


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ((), set()),
        ((b"Connection: keep-alive",), set()),
        ((b"Connection: close",), set()),
        ((b"Connection: X-A",), {b"x-a"}),
        ((b"Connection: close, X-A , x-B",), {b"close", b"x-a", b"x-b"}),
        ((b"Connection: X-A", b"connection: X-B"), {b"x-a", b"x-b"}),
        ((b"Connection: Host, Content-Length, transfer-encoding, CONTENT-TYPE",), set()),
        ((b"Connection: \xff, X-A",), {b"?", b"x-a"}),
    ],
    ids=["absent", "keep-alive", "close", "one", "several", "two-lines", "framing", "not-ascii"],
)
def test_connection_names_further_fields_but_never_the_framing(lines: tuple[bytes, ...], named: set[bytes]) -> None:
    assert named_by_connection(request(*lines)) - {b""} == named


@steady
@given(st.lists(st.binary(max_size=12).map(lambda raw: bytes(c for c in raw if c >= 32 and c != 127)), max_size=3))
def test_whatever_connection_says_framing_stays(values: list[bytes]) -> None:
    found = named_by_connection(request(*(b"Connection: " + value.strip() for value in values)))
    assert not found & FORBIDDEN_TO_NAME
    assert found == NO_NAMES or values


def test_what_travels_keeps_order_case_repetition_and_bytes() -> None:
    message = request(
        b"X-B: 2",
        b"x-b: 1",
        b"Connection: X-Gone",
        b"X-Gone: 1",
        b"x-gone: 2",
        b"TE: trailers",
        b"Sidecar-Timeout: 5",
        b"Sidecar-New: 5",
        b"X-Request-Id: r",
        b"X-Raw: \xff",
        b"Empty:",
    )
    fields = b"".join(careful_fields(message, request_rules(ASKED), frozenset({b"x-gone"})))
    assert fields == b"X-B: 2\r\nx-b: 1\r\nX-Request-Id: r\r\nX-Raw: \xff\r\nEmpty: \r\n"


def test_what_the_caller_writes_anew_is_left_out() -> None:
    message = request(b"X-Request-Id: r", b"Content-Length: 0", b"A: b")
    assert b"".join(careful_fields(message, request_rules(ASKED), frozenset({b"x-request-id"}))) == (
        b"Content-Length: 0\r\nA: b\r\n"
    )


@pytest.mark.parametrize("reason", [b"OK", b"", b"Not \xff Plain", b"a  b"], ids=short)
def test_a_status_line_carries_the_upstreams_own_reason(reason: bytes) -> None:
    message = parse_response_head(b"HTTP/1.0 299 " + reason + b"\r\n\r\n")
    for _ in range(2):
        assert status_line(message.code, message.reason) == b"HTTP/1.1 299 " + reason + b"\r\n"
