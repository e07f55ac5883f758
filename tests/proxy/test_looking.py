"""A bounded look into a body: however it is coded, cut or meant to do harm."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.decision.conditions import LOOK_BYTES, MISSING, READABLE_CODINGS
from sidecar.proxy.message.peek import decoded, first_text, parsed, readable_codings
from sidecar.wire.heads import ResponseMessage, parse_response_head
from tests.core.making import short, steady

TEXT = json.dumps({"code": "QUOTA", "list": list(range(200))}).encode()


def message(coding: str | None = None) -> ResponseMessage:
    line = f"Content-Encoding: {coding}\r\n" if coding is not None else ""
    return parse_response_head(f"HTTP/1.1 503 Busy\r\n{line}\r\n".encode())


def raw_deflate(data: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return squeeze.compress(data) + squeeze.flush()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (None, TEXT),
        ("identity", TEXT),
        ("Identity", TEXT),
        ("gzip", gzip.compress(TEXT)),
        ("x-gzip", gzip.compress(TEXT)),
        ("GZIP", gzip.compress(TEXT)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", raw_deflate(TEXT)),
    ],
    ids=["none", "identity", "Identity", "gzip", "x-gzip", "GZIP", "deflate", "raw-deflate"],
)
def test_a_coding_that_is_known_is_undone(coding: str | None, body: bytes) -> None:
    assert decoded(message(coding), body) == TEXT
    assert first_text(parsed(message(coding), body), ("/code",)) == "QUOTA"


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "deflate, gzip", "made-up"])
def test_a_coding_that_is_not_known_is_not_looked_into(coding: str) -> None:
    assert decoded(message(coding), gzip.compress(TEXT)) is None
    assert parsed(message(coding), gzip.compress(TEXT)) is MISSING


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_bomb_costs_no_more_than_a_look(coding: str) -> None:
    huge = bytes(64 << 20)
    body = gzip.compress(huge, 9) if coding == "gzip" else zlib.compress(huge, 9)
    found = decoded(message(coding), body)
    assert found is not None
    assert len(found) == LOOK_BYTES


def test_a_plain_body_is_cut() -> None:
    assert decoded(message(), b"a" * (LOOK_BYTES + 1)) == b"a" * LOOK_BYTES


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress, raw_deflate])
def test_a_body_that_is_cut_is_decoded_as_far_as_it_goes(compress: object) -> None:
    assert callable(compress)
    whole = compress(TEXT)
    coding = "gzip" if compress is gzip.compress else "deflate"
    for at in (len(whole) // 2, len(whole) - 1):
        found = decoded(message(coding), whole[:at])
        assert found is not None
        assert TEXT.startswith(found)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("body", [b"", b"\x1f", b"\x1f\x8b", b"not compressed", b"\xff" * 100], ids=short)
def test_a_damaged_body_is_no_error(coding: str, body: bytes) -> None:
    assert decoded(message(coding), body) in (None, b"")


@steady
@given(st.sampled_from([None, "gzip", "deflate", "br"]), st.binary(max_size=200))
def test_no_bytes_raise(coding: str | None, body: bytes) -> None:
    found = decoded(message(coding), body)
    assert found is None or len(found) <= LOOK_BYTES
    first_text(parsed(message(coding), body), ("/code", ""))


@pytest.mark.parametrize(
    ("pointers", "text"),
    [
        (("/code",), "A"),
        (("/missing", "/code"), "A"),
        (("/number",), "7"),
        (("/half",), "0.50"),
        (("/yes", "/none", "/list", "/deep"), None),
        (("/deep/code",), "B"),
        (("/list/1",), "y"),
        (("/long",), "x" * 200),
        ((), None),
    ],
    ids=short,
)
def test_the_first_place_that_holds_a_text_or_a_number_counts(pointers: tuple[str, ...], text: str | None) -> None:
    body = (
        b'{"code": "A", "number": 7, "half": 0.50, "yes": true, "none": null, "list": ["x", "y"], '
        b'"deep": {"code": "B"}, "long": "' + b"x" * 300 + b'"}'
    )
    assert first_text(parsed(message(), body), pointers) == text


def test_what_is_not_json_leads_nowhere() -> None:
    for body in (b"", b"<html>", b"{", b"[" * LOOK_BYTES, b"\xff\xfe"):
        assert first_text(parsed(message(), body), ("/code", "")) is None


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("gzip, deflate", "gzip, deflate"),
        ("gzip, deflate, br, zstd", "gzip, deflate"),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", "gzip;q=0.8"),
        ("GZip ; q=0.5, BR", "GZip ; q=0.5"),
        ("br", "identity"),
        ("br, identity;q=0.5", "identity;q=0.5"),
        ("*", "gzip"),
        ("*;q=0.5, deflate", "gzip;q=0.5, deflate"),
        ("br, gzip;q=0", "identity, gzip;q=0"),
        ("", ""),
        ("br, identity;q=0", "br, identity;q=0"),
        ("zstd, *;q=0", "zstd, *;q=0"),
        ("gzip, br, *;q=0", "gzip, *;q=0"),
        ("compress, x-gzip", "x-gzip"),
    ],
)
def test_only_codings_that_can_be_undone_are_asked_for(asked: str, sent: str) -> None:
    assert readable_codings(asked) == sent


CODING = st.sampled_from(["gzip", "x-gzip", "deflate", "identity", "br", "zstd", "compress", "*", "GZIP", ""])
WEIGHT = st.sampled_from(["", ";q=0", ";q=0.0", ";q=1", "; q=0.5", ";q = 0.001"])


@steady
@given(st.lists(st.tuples(CODING, WEIGHT), max_size=5))
def test_nothing_is_asked_for_that_the_app_does_not_take(elements: list[tuple[str, str]]) -> None:
    """Unless the app excludes an unencoded body, nothing unreadable remains; each coding that remains was allowed."""

    def allowed(value: str) -> dict[str, bool]:
        pairs = [element.replace(" ", "").partition(";q=") for element in value.lower().split(",")]
        return {coding: weight.strip("0.") != "" or not weight for coding, _, weight in pairs if coding}

    asked = ", ".join(coding + weight for coding, weight in elements)
    before, after = allowed(asked), allowed(readable_codings(asked))
    takes = {coding for coding, yes in after.items() if yes}
    others = before.get("*", False)
    assert takes <= {coding for coding, yes in before.items() if yes} | ({"gzip"} if others else set()) | {"identity"}
    if before.get("identity", before.get("*", True)):
        assert takes <= READABLE_CODINGS
