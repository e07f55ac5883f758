"""Notes between replicas: what goes out comes back the same by another clock, and garbage is nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.flow import rate_limit as rate_limits
from sidecar.core.flow.breaker import Breaker, State
from sidecar.core.flow.gate import Gate, left_seconds
from sidecar.core.flow.rate_limit import RateLimit, rate_at
from sidecar.core.flow.shared_state import breaker_note, closed_note, just_begun, key_note, read_breaker, read_key
from tests.core.making import steady

HERE, THERE = 1000.0, 77.0
"""Monotonic seconds of two processes at the same moment."""

GATE = Gate(HERE + 5, HERE - 1)
PACE = replace(
    rate_limits.begin(HERE - 2, HERE - 1, 40, 0.5, slow_start=True), quota=50.0, left=3.0, left_until=HERE + 4
)


def there() -> tuple[Gate, RateLimit]:
    found = read_key(key_note(GATE, PACE, HERE), THERE)
    assert found is not None
    gate, pace = found
    assert pace is not None
    return gate, pace


def test_a_gate_stays_closed_for_as_long_by_another_clock() -> None:
    gate, _ = there()
    assert left_seconds(gate, THERE) == pytest.approx(5)
    assert left_seconds(gate, THERE + 6) == 0


@pytest.mark.parametrize("later", [0.0, 0.5, 1.0, 3.0])
def test_a_pace_allows_as_much_by_another_clock(later: float) -> None:
    _, pace = there()
    assert rate_at(pace, THERE + later) == pytest.approx(rate_at(PACE, HERE + later), rel=1e-4)
    assert (pace.generation, pace.share, pace.slow_start, pace.quota) == (PACE.generation, 0.5, True, 50.0)


def test_a_lane_may_have_no_pace_and_an_open_gate() -> None:
    assert read_key(key_note(Gate(), None, HERE), THERE) == (Gate(), None)


BAD = [
    {},
    {"@until": ""},
    {"@until": "soon"},
    {"@until": "nan"},
    {"@until": "inf"},
    {"@until": "1e9"},
    {"@until": "9" * 50},
    {"@until": "1", "generation": "1"},
    {**key_note(GATE, PACE, HERE), "rate": "-1"},
    {**key_note(GATE, PACE, HERE), "rate": "1e300"},
    {**key_note(GATE, PACE, HERE), "generation": "0"},
    {**key_note(GATE, PACE, HERE), "@since": "1e12"},
    {**key_note(GATE, PACE, HERE), "quota": "-1"},
    {**key_note(GATE, PACE, HERE), "recent": "many"},
]


@pytest.mark.parametrize("note", BAD, ids=str)
def test_what_is_no_lane_is_nothing(note: dict[str, str]) -> None:
    assert read_key(note, THERE) is None


@steady
@given(st.dictionaries(st.sampled_from(sorted(key_note(GATE, PACE, HERE))), st.text(max_size=12)))
def test_garbage_never_raises_and_never_leads_to_an_absurd_pace(garbage: dict[str, str]) -> None:
    found = read_key({**key_note(GATE, PACE, HERE), **garbage}, THERE)
    read_breaker(garbage)
    just_begun(garbage)
    if found is not None and found[1] is not None:
        gate, pace = found
        assert 0 <= left_seconds(gate, THERE) <= 3600
        assert pace is not None
        assert 0.1 <= rate_at(pace, THERE) <= 1e6


def test_an_open_breaker_is_told_with_its_age_and_its_next_probe() -> None:
    note = breaker_note(Breaker(State.OPEN, 3, opened_at=HERE - 10, probe_at=HERE + 0.25, probes=4), HERE)
    assert not closed_note(note)
    assert read_breaker(note) == pytest.approx((10, 0.25, 4))


def test_a_closed_one_is_told_as_closed() -> None:
    note = breaker_note(Breaker(), HERE)
    assert closed_note(note)
    assert read_breaker(note) is None


@pytest.mark.parametrize(
    "note",
    [{"open": "1"}, {"open": "1", "@opened": "-1", "@probe": "x", "probes": "1"}, {"open": "yes"}, {"@probe": "1"}],
    ids=str,
)
def test_what_is_no_breaker_is_nothing(note: dict[str, str]) -> None:
    assert read_breaker(note) is None


def test_only_a_pace_that_began_a_moment_ago_is_new() -> None:
    assert just_begun({"@begun": "-0.1"})
    assert not just_begun({"@begun": "-2"})
    assert not just_begun({})
    assert not just_begun({"@begun": "now"})
