"""Hints: every place and unit, garbage never obeyed and never raising."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.decision.attempt import Attempt, Headers, Now, Request
from sidecar.core.decision.retry_after import Hint, read_hint
from sidecar.core.decision.rows import Condition, HintSource
from sidecar.core.enums import Unit, WaitFrom
from tests.core.making import (
    NOW,
    answered,
    attempts,
    floats,
    get,
    headers,
    latin,
    requests,
    short,
    some_sources,
    steady,
)

RETRY_AFTER = HintSource("header", "retry-after")
WALL = NOW.wall


def seconds(source: HintSource, *fields: tuple[str, str], body: bytes | None = None, now: Now = NOW) -> float | None:
    hint = read_hint((source,), get(), answered(503, *fields, body=body), now)
    return None if hint is None else hint.seconds


def retry_after(*values: str) -> float | None:
    return seconds(RETRY_AFTER, *(("Retry-After", value) for value in values))


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("20", 20),
        ("1.5", 1.5),
        ("0", 0),
        (" 7\t", 7),
        (formatdate(WALL + 30, usegmt=True), 30),
        (formatdate(WALL - 30, usegmt=True), 0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0),
        ("Sun Nov  6 08:49:37 1994", 0),
        ("9" * 1_000_000, float("inf")),
    ],
    ids=short,
)
def test_retry_after_is_seconds_or_a_date(value: str, wanted: float) -> None:
    assert retry_after(value) == wanted


@pytest.mark.parametrize(
    "value",
    [
        *("", "-1", "+1", "1e3", "1_0", "1,5", "5s", "5;5", "soon", "NaN", "inf", "Infinity", "0x5"),
        *("2023-09-29T16:26:37Z", "6m0s", "\xb2", "5 5", '"5"', "x" * 1_000_000),
    ],
    ids=short,
)
def test_a_retry_after_outside_its_grammar_is_ignored(value: str) -> None:
    assert retry_after(value) is None


def test_of_a_hint_that_is_repeated_the_longest_counts() -> None:
    """A hint is a minimum: two that differ are both kept to."""
    assert retry_after("5", "5 ") == 5
    assert retry_after("5", "7") == 7
    assert retry_after("5, 7") == 7
    assert retry_after("0", formatdate(WALL + 30, usegmt=True)) == 30
    assert retry_after(f"{formatdate(WALL + 30, usegmt=True)}, 3") == pytest.approx(3)
    assert retry_after("5", "soon", "-9", "") == 5
    assert retry_after("1,5") is None
    assert retry_after("soon, later") is None
    assert retry_after("", " ") is None


def test_a_field_with_an_open_quote_is_ignored() -> None:
    source = HintSource("field", "ratelimit", "t", Unit.S)
    assert seconds(source, ("RateLimit", '"default";r=0;t=5')) == 5
    assert seconds(source, ("RateLimit", '"default;r=0;t=5')) is None
    assert seconds(source, ("RateLimit", '"a";r=0;t=5, "b;r=0;t=50')) is None


@pytest.mark.parametrize(
    ("unit", "value", "wanted"),
    [
        (Unit.S, "2.5", 2.5),
        (Unit.S, "-2", None),
        (Unit.MS, "1500", 1.5),
        (Unit.MS, "soon", None),
        (Unit.EPOCH_S, str(WALL + 9), 9),
        (Unit.EPOCH_S, "0", 0),
        (Unit.EPOCH_S, "-5", None),
        (Unit.EPOCH_MS, str(int(WALL + 9) * 1000), 9),
        (Unit.EPOCH_MS, "x", None),
        (Unit.HTTP_DATE, formatdate(WALL + 9, usegmt=True), 9),
        (Unit.HTTP_DATE, "9", None),
        (Unit.ISO8601, "2023-09-29T16:26:46Z", 9),
        (Unit.ISO8601, "2023-09-29T16:27Z", 23),
        (Unit.ISO8601, "9", None),
        (Unit.DURATION, "6m0s", 360),
        (Unit.DURATION, "9", None),
        (Unit.AUTO, "9", 9),
        (Unit.AUTO, "999999999", 999999999),
        (Unit.AUTO, str(WALL + 9), 9),
        (Unit.AUTO, str(int(WALL + 9) * 1000), 9),
        (Unit.AUTO, formatdate(WALL + 9, usegmt=True), 9),
        (Unit.AUTO, "2023-09-29T16:26:46Z", 9),
        (Unit.AUTO, "120ms", 0.12),
        (Unit.AUTO, "-9", None),
        (Unit.AUTO, "9" * 30, float("inf")),
    ],
)
def test_every_unit_has_its_own_grammar(unit: Unit, value: str, wanted: float | None) -> None:
    found = seconds(HintSource("header", "x", unit=unit), ("X", value))
    assert found == (wanted if wanted is None else pytest.approx(wanted))


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("t", '"default";r=0;t=5', 5),
        ("t", '"default"; r=0; t=5', 5),
        ("T", '"default";R=0;T=5', 5),
        ("t", '"a";r=0;t=5, "b";r=0;t=9, "c";r=3;t=4000', 9),
        ("t", '"a";r=3;t=5, "b";r=3;t=9', None),
        ("t", '"a";t=5, "b";t=9', 9),
        ("t", '"a";r=3;t=5', 5),
        ("t", '"a,b;t=7";r=0;t=5', 5),
        ("t", '"default";r=0', None),
        ("t", '"default";r=0;t=soon', None),
        ("t", '"a";r=0;t=soon, "b";r=0;t=9', 9),
        ("t", '"a";r=soon;t=5, "b";r=0;t=3', 5),
        ("t", "t", None),
        ("t", "", None),
        ("reset", "limit=100, remaining=0, reset=5", 5),
        ("reset", "limit=100; remaining=0; reset=5", 5),
        ("reset", 'reset="5"', 5),
        ("resets", "resets=50", 50),
        ("t", "," * 1_000_000, None),
        ("t", '"' * 8000 + "t=5", None),
        ("t", ";" * 8000, None),
        ("t", "t=1," * 1_000_000, None),
    ],
    ids=short,
)
def test_a_field_inside_a_header_is_read_in_every_form(field: str, value: str, wanted: float | None) -> None:
    source = HintSource("field", "ratelimit", field=field, unit=Unit.S)
    assert seconds(source, ("RateLimit", value)) == wanted


def test_a_field_is_read_over_several_lines() -> None:
    source = HintSource("field", "ratelimit", field="t", unit=Unit.S)
    assert seconds(source, ("RateLimit", '"a";r=0;t=5'), ("RateLimit", '"b";r=0;t=7')) == 7


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b'{"wait": 5}', 5),
        (b'{"wait": 2.5}', 2.5),
        (b'{"wait": 2e1}', 20),
        (b'{"wait": "5"}', 5),
        (b'{"wait": -5}', None),
        (b'{"wait": "-5"}', None),
        (b'{"wait": true}', None),
        (b'{"wait": null}', None),
        (b'{"wait": [5]}', None),
        (b'{"wait": NaN}', None),
        (b'{"wait": 1e999}', float("inf")),
        (b'{"wait": ' + b"9" * 60_000 + b"}", float("inf")),
        (b'{"other": 5}', None),
        (b"{", None),
        (b"\xff", None),
        (None, None),
    ],
    ids=short,
)
def test_a_body_is_read_as_number_or_text(body: bytes | None, wanted: float | None) -> None:
    assert seconds(HintSource("body", "/wait", unit=Unit.S), body=body) == wanted


def test_a_constant_is_told_apart_from_a_wish_of_the_upstream() -> None:
    assert read_hint((HintSource("constant", constant_seconds=30),), get(), answered(503), NOW) == Hint(
        30, WaitFrom.CONSTANT
    )
    assert read_hint((RETRY_AFTER,), get(), answered(503, ("Retry-After", "3")), NOW) == Hint(3, WaitFrom.HINT)


def test_the_first_usable_source_wins() -> None:
    sources = (
        RETRY_AFTER,
        HintSource("header", "x-ms", unit=Unit.MS),
        HintSource("constant", constant_seconds=9),
    )
    both = answered(503, ("Retry-After", "nonsense"), ("X-Ms", "2500"))
    assert read_hint(sources, get(), both, NOW) == Hint(2.5, WaitFrom.HINT)
    assert read_hint(sources, get(), answered(503), NOW) == Hint(9, WaitFrom.CONSTANT)
    assert read_hint(sources[:2], get(), answered(503), NOW) is None
    assert read_hint((), get(), both, NOW) is None


def test_a_source_is_asked_only_when_its_conditions_hold() -> None:
    guarded = HintSource("constant", constant_seconds=9, when=(Condition("header", "x-left", "equals", ("0",)),))
    assert seconds(guarded, ("X-Left", "0")) == 9
    assert seconds(guarded, ("X-Left", "1")) is None


@pytest.mark.parametrize(("value", "wanted"), [("0", 2), ("1", 2), ("5", 6)])
def test_plus_is_added_and_at_least_is_the_floor(value: str, wanted: float) -> None:
    source = HintSource("header", "x", unit=Unit.S, plus_seconds=1, at_least_seconds=2)
    assert seconds(source, ("X", value)) == wanted


def test_garbage_is_not_made_usable_by_plus_or_at_least() -> None:
    source = HintSource("header", "x", unit=Unit.S, plus_seconds=10, at_least_seconds=2)
    assert seconds(source, ("X", "-1")) is None


@pytest.mark.parametrize(
    ("dates", "wanted"),
    [
        ([formatdate(WALL - 100, usegmt=True)], 109),
        ([formatdate(WALL - 100, usegmt=True)] * 2, 109),
        ([formatdate(WALL - 100, usegmt=True), formatdate(WALL, usegmt=True)], 9),
        (["nonsense"], 9),
        ([], 9),
    ],
)
def test_the_servers_clock_is_its_date_and_ours_where_that_is_unusable(dates: list[str], wanted: float) -> None:
    source = HintSource("header", "x", unit=Unit.EPOCH_S, clock="server")
    assert seconds(source, ("X", str(WALL + 9)), *(("Date", date) for date in dates)) == wanted


@pytest.mark.parametrize("wall", [float("nan"), float("inf"), float("-inf"), -1e300])
def test_a_broken_clock_gives_no_negative_wait(wall: float) -> None:
    found = seconds(RETRY_AFTER, ("Retry-After", formatdate(WALL, usegmt=True)), now=Now(0, wall))
    assert found is None or found >= 0


@steady
@given(some_sources, requests, attempts, floats)
def test_no_input_raises_and_no_hint_is_negative_or_below_its_floor(
    sources: tuple[HintSource, ...], request: Request, attempt: Attempt, wall: float
) -> None:
    hint = read_hint(sources, request, attempt, Now(0, wall))
    if hint is not None:
        assert hint.seconds >= 0
        assert hint.seconds >= min(source.at_least_seconds for source in sources)


@steady
@given(st.sampled_from(Unit), latin)
def test_no_header_text_raises_in_any_unit(unit: Unit, text: str) -> None:
    found = [
        seconds(HintSource("header", "x", unit=unit), ("x", text)),
        seconds(HintSource("field", "x", field="t", unit=unit), ("x", f"t={text}")),
    ]
    assert all(value is None or value >= 0 for value in found)


@steady
@given(st.binary(max_size=200))
def test_no_bytes_raise_anywhere(noise: bytes) -> None:
    attempt = Attempt(1, status=429, headers=Headers(((b"retry-after", noise), (b"date", noise))), body=noise)
    sources = (RETRY_AFTER, HintSource("field", "retry-after", field="t"), HintSource("body", "/a"))
    hint = read_hint(sources, Request("GET", headers=headers()), attempt, NOW)
    assert hint is None or hint.seconds >= 0


def test_of_the_places_that_a_star_finds_the_longest_counts() -> None:
    body = b'{"error": {"details": [{"@type": "x"}, {"retryDelay": "3s"}, {"retryDelay": "7.5s"}, {"retryDelay": {}}]}}'
    assert seconds(HintSource("body", "/error/details/*/retryDelay", unit=Unit.DURATION), body=body) == 7.5
    assert seconds(HintSource("body", "/error/*/retryDelay", unit=Unit.DURATION), body=body) is None
