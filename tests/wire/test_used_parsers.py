"""A parser that has served says the same as a new one, whatever came before: heads.py lends them again."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.wire import heads
from sidecar.wire.heads import BadHead, HeadMessage, parse_request_head, parse_response_head

FIELDS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "X-A",
                "x-b",
                "Content-Length",
                "Transfer-Encoding",
                "Connection",
                "Upgrade",
                "Host",
                "Via",
                "Content-Encoding",
            ]
        ),
        st.sampled_from(
            ["5", "0", "chunked", "close", "keep-alive", "upgrade", "websocket", "h2c", "a, b", "", "gzip", " x "]
        ),
    ),
    max_size=6,
)
REQUEST_LINES = st.sampled_from(
    ["GET / HTTP/1.1", "POST /a?b HTTP/1.1", "BREW /x HTTP/1.1", "GET http://h/x HTTP/1.1", "GET / HTTP/1.0",
     "HEAD / HTTP/1.1",      "CONNECT h:443 HTTP/1.1", "OPTIONS * HTTP/1.1", "nonsense", "GET  / HTTP/1.1"]
)  # fmt: skip
STATUS_LINES = st.sampled_from(
    ["HTTP/1.1 200 OK", "HTTP/1.1 204 No Content", "HTTP/1.1 304 x", "HTTP/1.0 200 OK", "HTTP/1.1 100 Continue",
     "HTTP/1.1 101 Switching", "HTTP/1.1 503", "nonsense"]
)  # fmt: skip


def head_of(line: str, fields: list[tuple[str, str]]) -> bytes:
    return "".join([f"{line}\r\n", *(f"{name}: {value}\r\n" for name, value in fields), "\r\n"]).encode()


def below_the_line(message: HeadMessage) -> tuple[object, ...]:
    return (
        tuple(message.version),
        message.raw_headers,
        list(message.headers.items()),
        message.should_close,
        message.upgrade,
        message.chunked,
    )


def request_said(head: bytes) -> object:
    try:
        message = parse_request_head(head, 65536, 100)
    except BadHead as bad:
        return bad.status, bad.kind
    return message.method, message.path, *below_the_line(message)


def response_said(head: bytes) -> object:
    try:
        message = parse_response_head(head)
    except BadHead as bad:
        return bad.status, bad.kind
    return message.code, message.reason, *below_the_line(message)


def forget() -> None:
    heads._spare_request_parsers.clear()
    heads._spare_response_parsers.clear()


@settings(derandomize=True, deadline=None, max_examples=400)
@given(st.lists(st.tuples(REQUEST_LINES, FIELDS), min_size=2, max_size=6))
def test_requests_are_read_the_same_by_a_used_parser(requests: list[tuple[str, list[tuple[str, str]]]]) -> None:
    raw = [head_of(line, [("Host", "h"), *fields]) for line, fields in requests]
    alone = []
    for head in raw:
        forget()
        alone.append(request_said(head))
    forget()
    assert [request_said(head) for head in raw] == alone


@settings(derandomize=True, deadline=None, max_examples=400)
@given(st.lists(st.tuples(STATUS_LINES, FIELDS), min_size=2, max_size=6))
def test_responses_are_read_the_same_by_a_used_parser(responses: list[tuple[str, list[tuple[str, str]]]]) -> None:
    raw = [head_of(line, fields) for line, fields in responses]
    alone = []
    for head in raw:
        forget()
        alone.append(response_said(head))
    forget()
    assert [response_said(head) for head in raw] == alone


def test_only_one_of_each_is_kept() -> None:
    forget()
    for _ in range(5):
        request_said(head_of("GET / HTTP/1.1", [("Host", "h")]))
        response_said(head_of("HTTP/1.1 200 OK", [("Content-Length", "0")]))
    assert len(heads._spare_request_parsers) == 1
    assert len(heads._spare_response_parsers) == 1


def test_what_ends_a_connection_ends_its_parser() -> None:
    forget()
    request_said(head_of("GET / HTTP/1.1", [("Host", "h"), ("Connection", "close")]))
    request_said(head_of("GET / HTTP/1.1", [("Host", "h"), ("Connection", "upgrade"), ("Upgrade", "websocket")]))
    response_said(head_of("HTTP/1.1 200 OK", []))
    assert not heads._spare_request_parsers
    assert not heads._spare_response_parsers
