"""An app's bytes: however they are cut, the same requests come out; whatever they are, nothing is raised."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.settings.deployment import Limits
from sidecar.proxy.client.request_reader import EMPTY_LINES, RequestReader
from tests.core.making import short, steady

LIMITS = Limits(head_bytes=4096, headers=50)
CUTS = st.lists(st.integers(min_value=0, max_value=1500), max_size=25)


@dataclass
class Reader:
    """Takes each request as soon as it is whole, as a connection does."""

    limits: Limits = LIMITS
    requests: list[tuple[str, str, bytes, bytes]] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    broke: int = 0

    def __post_init__(self) -> None:
        self.reader = RequestReader(self.limits, self._on_request, self._on_broken)
        self._over = False

    def _on_request(self) -> None:
        if self.reader.bad is not None:
            self.refused.append(self.reader.bad.status)
        self._over = True

    def _on_broken(self) -> None:
        self.broke += 1

    @property
    def is_done(self) -> bool:
        return self.reader.bad is not None

    def feed(self, data: bytes) -> None:
        if self.is_done:
            return
        self.reader.feed(data)
        while self._over and not self.is_done and not self.reader.is_receiving:
            self._take()
            self._over = False
            self.reader.next()

    def _take(self) -> None:
        message = self.reader.message
        assert message is not None
        trace = message.headers.get("X-N", "").encode()
        self.requests.append((message.method, message.path, trace, b"".join(self.reader.pieces)))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)]


@dataclass(frozen=True)
class InFlight:
    method: str
    body: bytes
    chunks: int
    """0: with a length; else the size of the chunks."""
    empty_lines: int

    def wire(self, number: int) -> bytes:
        head = b"\r\n" * self.empty_lines
        head += f"{self.method} /{number} HTTP/1.1\r\nHost: x\r\nX-N: n{number}\r\n".encode()
        if self.chunks:
            parts = [self.body[at : at + self.chunks] for at in range(0, len(self.body), self.chunks)]
            coded = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
            return head + b"Transfer-Encoding: chunked\r\n\r\n" + coded + b"0\r\n\r\n"
        if self.body:
            head += b"Content-Length: %d\r\n" % len(self.body)
        return head + b"\r\n" + self.body

    def seen(self, number: int) -> tuple[str, str, bytes, bytes]:
        return self.method, f"/{number}", f"n{number}".encode(), self.body


SENT = st.lists(
    st.builds(
        InFlight,
        st.sampled_from(["GET", "POST", "DELETE", "BREW", "M-SEARCH", "x"]),
        st.binary(max_size=60) | st.sampled_from([b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: evil\r\n\r\n"]),
        st.sampled_from([0, 1, 7, 1000]),
        st.integers(min_value=0, max_value=2),
    ),
    min_size=1,
    max_size=5,
)


@steady
@given(SENT, CUTS)
def test_any_cut_of_a_pipelined_stream_gives_the_same_requests(sent: list[InFlight], places: list[int]) -> None:
    reader = Reader()
    for piece in cut(b"".join(each.wire(number) for number, each in enumerate(sent)), places):
        reader.feed(piece)
    assert reader.requests == [each.seen(number) for number, each in enumerate(sent)]
    assert (reader.refused, reader.broke, reader.reader.has_part) == ([], 0, False)


@steady
@given(SENT)
def test_byte_by_byte_gives_the_same_requests(sent: list[InFlight]) -> None:
    reader = Reader()
    for byte in b"".join(each.wire(number) for number, each in enumerate(sent)):
        reader.feed(bytes((byte,)))
    assert reader.requests == [each.seen(number) for number, each in enumerate(sent)]


PARTS = [
    *(b"GET ", b"BREW ", b"/ ", b"HTTP/1.1", b"HTTP/9.9", b"\r\n", b"\n", b"\r", b"Host: x\r\n", b"Host: y\r\n"),
    *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n\r\n", b"A : b", b" ", b"abc", b"0", b"\x00"),
    *(b"GET / HTTP/1.1\r\nHost: x\r\n", b"POST / HTTP/1.1\r\nHost: x\r\n", b"\xff", b"Expect: 100-continue\r\n"),
]
HEADISH = st.lists(
    st.sampled_from(PARTS),
    max_size=12,
).map(b"".join)
GARBAGE = st.binary(max_size=300) | HEADISH


@steady
@given(GARBAGE, CUTS)
def test_no_bytes_at_all_raise(data: bytes, places: list[int]) -> None:
    reader = Reader()
    for piece in cut(data, places):
        reader.feed(piece)
    assert all(status in (400, 414, 431, 501, 505) for status in reader.refused)


@steady
@given(GARBAGE, CUTS)
def test_garbage_behind_a_request_does_not_change_it(data: bytes, places: list[int]) -> None:
    reader = Reader()
    for piece in cut(b"POST /first HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" + data, places):
        reader.feed(piece)
    assert reader.requests[0] == ("POST", "/first", b"", b"abc")


@steady
@given(HEADISH, CUTS)
def test_a_refusal_does_not_depend_on_the_cut(data: bytes, places: list[int]) -> None:
    """Whoever sees a request in some bytes sees it in whatever pieces they come."""
    whole, pieces = Reader(), Reader()
    data += b"\r\n\r\n"
    whole.feed(data)
    for piece in cut(data, places):
        pieces.feed(piece)
    assert pieces.requests == whole.requests
    assert pieces.is_done == whole.is_done


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /" + b"a" * 4096, 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"b" * 4096, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 1000, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 50 + b"\r\n", 431),
        (b"\x16\x03\x01\x02\x00", 400),
        (b"GET / HTTP/1.1\nHost: x\n", 400),
        (b"GET / HTTP/1.1\r\nA : b\r\n", 400),
        (b"\r\n" * (EMPTY_LINES + 1), 400),
        (b"(not) ", 400),
        (b"BREW\x00", 400),
        (b"M" * 65, 501),
    ],
    ids=short,
)
@pytest.mark.parametrize("piece", [1, 100_000])
def test_what_cannot_become_a_request_is_refused_at_once(data: bytes, status: int, piece: int) -> None:
    reader = Reader()
    for at in range(0, len(data), piece):
        reader.feed(data[at : at + piece])
    assert reader.refused == [status]


@pytest.mark.parametrize("body", [b"g\r\n", b"1\r\nab", b"1\n", b"ffffffffffffffff\r\n"], ids=short)
def test_a_body_that_turns_out_malformed_is_told_apart_from_a_bad_head(body: bytes) -> None:
    reader = Reader()
    reader.feed(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert reader.reader.message is not None
    reader.feed(body)
    assert (reader.broke, reader.refused) == (1, [])
    assert reader.is_done


@pytest.mark.parametrize(
    ("version", "value", "sent_ahead", "expects"),
    [
        (b"1.1", b"100-continue", b"", True),
        (b"1.1", b"100-Continue", b"", True),
        (b"1.1", b"100-continue", b"a", False),
        (b"1.0", b"100-continue", b"", False),
        (b"1.1", b"tea", b"", False),
    ],
    ids=short,
)
def test_who_waits_for_a_100_is_known(version: bytes, value: bytes, sent_ahead: bytes, expects: bool) -> None:
    reader = RequestReader(LIMITS, lambda: None, lambda: None)
    reader.feed(
        b"POST / HTTP/" + version + b"\r\nHost: x\r\nContent-Length: 3\r\nExpect: " + value + b"\r\n\r\n" + sent_ahead
    )
    assert reader.is_receiving
    assert reader.expects_continue is expects


def test_what_comes_behind_a_request_waits_for_its_turn() -> None:
    seen: list[str] = []
    reader = RequestReader(LIMITS, lambda: seen.append(reader.message.path if reader.message else "bad"), lambda: None)
    reader.feed(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\n")
    reader.feed(b"Host: x\r\n\r\nGARBAGE\x00")
    assert seen == ["/1"]
    reader.next()
    assert seen == ["/1", "/2"]
    reader.next()
    assert seen == ["/1", "/2", "bad"]


def calls(size: int) -> int:
    """Python and C calls that a head of ``size`` bytes costs, byte by byte."""
    head = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"b" * 60 + b"\r\n"
    head += b"".join(b"X-%05d: %b\r\n" % (number, b"v" * 300) for number in range((size - len(head)) // 312))
    reader = Reader(Limits(head_bytes=64 << 10, headers=1000))
    count = 0

    def tell(_frame: object, _event: str, _argument: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(tell)
    try:
        for byte in head + b"\r\n":
            reader.reader.feed(bytes((byte,)))
    finally:
        sys.setprofile(None)
    assert reader.reader.message is not None
    return count


def test_a_head_byte_by_byte_costs_in_proportion_to_its_size() -> None:
    half, whole = calls(30 << 10), calls(60 << 10)
    assert whole < 2.2 * half, f"{half} calls for 30 KiB, {whole} for 60 KiB: some bytes are looked at again and again"


def test_each_byte_of_an_unfinished_head_is_parsed_once() -> None:
    """The parser is the real one; what stands before it only counts."""

    class Counting:
        def __init__(self, parser: Any) -> None:
            self.parser = parser
            self.fed = 0

        def feed_data(self, data: bytes) -> object:
            self.fed += len(data)
            return self.parser.feed_data(data)

    reader = RequestReader(Limits(), lambda: None, lambda: None)
    reader.feed(b"G")
    reader._probe = counting = Counting(reader._probe)
    head = b"ET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100
    for byte in head:
        reader.feed(bytes((byte,)))
    assert reader._probe is counting
    assert counting.fed == len(head)
