"""traceparent: what is valid, what a child keeps, what a new one looks like."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.observe.trace import TraceParent, child, create, parse

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{SPAN}-01"


def test_the_parts_of_a_valid_header_are_read() -> None:
    assert parse(VALID) == TraceParent(TRACE, SPAN, 1)


@pytest.mark.parametrize(
    "header",
    [f"01-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-what-ever", f"fe-{TRACE}-{SPAN}-00-"],
)
def test_a_later_version_is_read_as_far_as_it_is_known(header: str) -> None:
    parsed = parse(header)
    assert parsed is not None
    assert (parsed.trace_id, parsed.parent_id) == (TRACE, SPAN)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01 ",
        f" 00-{TRACE}-{SPAN}-01",
        f"00_{TRACE}-{SPAN}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"00-{TRACE[:-1]}--{SPAN}-01",
        f"00-{TRACE[:-1]}_-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0x",
        f"0x-{TRACE}-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01more",
        f"{VALID}, {VALID}",
        "０" * 55,
    ],
)
def test_an_invalid_header_is_none(header: str) -> None:
    assert parse(header) is None
    assert child(header, 1) is None


def test_a_child_keeps_trace_and_flags_and_has_its_own_span() -> None:
    assert child(VALID, 0xABCDEF) == f"00-{TRACE}-0000000000abcdef-01"
    assert child(f"00-{TRACE}-{SPAN}-00", 1) == f"00-{TRACE}-0000000000000001-00"
    assert child(f"00-{TRACE}-{SPAN}-03", 1) == f"00-{TRACE}-0000000000000001-03"


def test_a_child_of_a_later_version_is_version_00_without_unknown_flags() -> None:
    assert child(f"cc-{TRACE}-{SPAN}-ff-more", 1) == f"00-{TRACE}-0000000000000001-03"


def test_no_chance_makes_an_all_zero_id() -> None:
    assert child(VALID, 0) == f"00-{TRACE}-0000000000000001-01"
    assert parse(create(0)) is not None


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 2**192 - 1))
def test_whatever_is_made_is_valid(bits: int) -> None:
    made = create(bits)
    parsed = parse(made)
    assert parsed is not None
    sent = child(made, bits)
    assert sent is not None
    assert sent[:36] == made[:36]


@settings(deadline=None, derandomize=True)
@given(st.text(alphabet="0123456789abcdef-fFgx _", max_size=70))
def test_no_text_raises(text: str) -> None:
    parse(text)
