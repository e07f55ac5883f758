"""Chunked coding: what was encoded comes back however it is cut; garbage is refused, never misread."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire.chunked import LAST_CHUNK, MAX_SIZE_LINE_BYTES, MAX_TRAILER_BYTES, ChunkedDecoder, encode_chunk
from sidecar.wire.heads import BadHead
from tests.core.making import short, steady

PIECES = st.lists(st.binary(min_size=1, max_size=40), max_size=8)
CUTS = st.lists(st.integers(min_value=0, max_value=600), max_size=20)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)]


def decode(pieces: list[bytes]) -> tuple[bytes, bool, bytes]:
    """Body, whether it is whole, and what came behind it."""
    decoder, body, rest = ChunkedDecoder(), b"", b""
    for piece in pieces:
        if decoder.done:
            rest += piece
        else:
            body += b"".join(decoder.feed(piece))
    return body, decoder.done, decoder.rest + rest


@steady
@given(PIECES, CUTS, st.binary(max_size=20))
def test_what_was_encoded_comes_back_for_any_cut(chunks: list[bytes], places: list[int], behind: bytes) -> None:
    data = b"".join(map(encode_chunk, chunks)) + LAST_CHUNK + behind
    assert decode(cut(data, places)) == (b"".join(chunks), True, behind)


@steady
@given(
    PIECES,
    CUTS,
    st.sampled_from([b"", b";a", b";a=b", b' ; a="b;c"', b';a="\\"\xff";b', b"\t;\ta = b;c"]),
    st.lists(st.sampled_from([b"A: b\r\n", b"X-Y:\r\n", b"X: \xff\t\r\n"]), max_size=3),
    st.booleans(),
)
def test_extensions_and_trailers_are_dropped(
    chunks: list[bytes], places: list[int], extension: bytes, trailers: list[bytes], upper: bool
) -> None:
    form = b"%04X%b\r\n%b\r\n" if upper else b"%x%b\r\n%b\r\n"
    data = b"".join(form % (len(chunk), extension, chunk) for chunk in chunks)
    data += b"0" + extension + b"\r\n" + b"".join(trailers) + b"\r\n"
    assert decode(cut(data, places)) == (b"".join(chunks), True, b"")


@pytest.mark.parametrize(
    "extension",
    [
        b";",
        b"; ",
        b";\xff",
        b";a=",
        b";a;",
        b';a="b',
        b';a="b"c',
        b";a b",
        b";a=b c",
        b';"a"',
        b";a=(b)",
        b";a;=b",
        b" a",
        b" ",
    ],
)
@pytest.mark.parametrize("size", [b"5", b"0"])
def test_a_malformed_extension_is_refused(size: bytes, extension: bytes) -> None:
    """RFC 9112 section 7.1.1: a token, and perhaps a token or a quoted string as its value."""
    with pytest.raises(BadHead) as caught:
        ChunkedDecoder().feed(size + extension + b"\r\nhello\r\n")
    assert (caught.value.status, caught.value.kind) == (400, "framing")


@steady
@given(st.binary(max_size=300), CUTS)
def test_garbage_is_refused_or_decoded_and_nothing_else(data: bytes, places: list[int]) -> None:
    told = (400, "framing")
    try:
        decode(cut(data, places))
    except BadHead as bad:
        told = (bad.status, bad.kind)
    assert told == (400, "framing")


@steady
@given(st.text(alphabet="0123aF;= \r\n:XG", max_size=60).map(str.encode), CUTS)
def test_near_misses_are_judged_alike_for_any_cut(data: bytes, places: list[int]) -> None:
    def outcome(pieces: list[bytes]) -> object:
        try:
            return decode(pieces)
        except BadHead as bad:
            return bad.detail

    assert outcome(cut(data, places)) == outcome([data])


@steady
@given(PIECES, CUTS)
def test_never_more_than_one_line_is_held(chunks: list[bytes], places: list[int]) -> None:
    decoder = ChunkedDecoder()
    for piece in cut(b"".join(map(encode_chunk, chunks)) + b"0\r\nA: b\r\n\r\n", places):
        decoder.feed(piece)
        assert len(decoder._line) <= 6
        assert b"\n" not in decoder._line


def test_a_line_without_end_is_refused_before_it_costs_memory() -> None:
    decoder = ChunkedDecoder()
    decoder.feed(b"1;" + b"a" * (MAX_SIZE_LINE_BYTES - 2))
    with pytest.raises(BadHead, match="too long"):
        decoder.feed(b"a")
    decoder = ChunkedDecoder()
    decoder.feed(b"0\r\n")
    decoder.feed(b"A:" + b"a" * (MAX_TRAILER_BYTES - 2))
    with pytest.raises(BadHead, match="too long"):
        decoder.feed(b"a")


def test_trailers_are_bounded_in_sum() -> None:
    decoder = ChunkedDecoder()
    decoder.feed(b"0\r\n")
    line = b"A: " + b"a" * 1021
    for _ in range(MAX_TRAILER_BYTES // len(line)):
        decoder.feed(line + b"\r\n")
    with pytest.raises(BadHead, match="trailers are too long"):
        decoder.feed(line + b"\r\n")


BROKEN = [
    b"\r\n",
    b"\n",
    b" 1\r\na\r\n",
    b"1 \r\na\r\n",
    b"+1\r\n",
    b"-1\r\n",
    b"0x1\r\n",
    b"1_0\r\n",
    b"g\r\n",
    b"1\n",
    b"1\ra\r\n",
    b"1\r\nab",
    b"1\r\na\n",
    b"1\r\na\rb",
    b"1,2\r\n",
    b"1;\x00\r\n",
    b"1;a\r;b\r\n",
    b"ffffffffffffffff\r\n",
    b"\xd9\xa1\r\n",
    b"0\r\nno trailer\r\n",
    b"0\r\n folded\r\n",
    b"0\r\nA : b\r\n",
    b"0\r\nA: \x00\r\n",
    b"0\r\n\n",
    b"0\r\nA: b\n\r\n",
]


@pytest.mark.parametrize("data", BROKEN, ids=short)
@pytest.mark.parametrize("piece", [1, 1000])
def test_what_two_readers_could_read_differently_is_refused(data: bytes, piece: int) -> None:
    with pytest.raises(BadHead):
        decode([data[at : at + piece] for at in range(0, len(data), piece)])


@pytest.mark.parametrize(
    "data", [b"", b"1", b"1\r\n", b"1\r\na", b"1\r\na\r\n", b"0\r\n", b"0\r\nA: b\r\n", b"0\r\n\r"]
)
def test_a_cut_body_is_never_whole(data: bytes) -> None:
    assert decode([data])[1] is False


def test_a_chunk_is_its_size_in_hexadecimal_and_its_bytes() -> None:
    assert encode_chunk(b"a" * 26) == b"1a\r\n" + b"a" * 26 + b"\r\n"
