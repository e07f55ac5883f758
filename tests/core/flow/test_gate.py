"""The gate: closed until a moment, only ever extended, harmless whatever the clock or the hint says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.flow.gate import LONGEST_SECONDS, Gate, close, left_seconds
from tests.core.making import floats, steady

OPEN = Gate()


def test_a_new_gate_is_open() -> None:
    assert left_seconds(OPEN, 0.0) == 0
    assert left_seconds(OPEN, 1e9) == 0


def test_it_is_closed_until_the_moment_that_was_asked_for() -> None:
    gate = close(OPEN, 130.0, 100.0)
    assert left_seconds(gate, 100.0) == 30
    assert left_seconds(gate, 129.0) == 1
    assert left_seconds(gate, 130.0) == 0


def test_a_later_answer_that_asks_for_less_opens_nothing() -> None:
    gate = close(close(OPEN, 130.0, 100.0), 105.0, 101.0)
    assert left_seconds(gate, 101.0) == 29


def test_a_hint_of_ten_years_closes_it_for_an_hour() -> None:
    assert left_seconds(close(OPEN, 100.0 + 10 * 365 * 86400, 100.0), 100.0) == LONGEST_SECONDS


def test_a_past_moment_and_a_number_that_is_none_close_nothing() -> None:
    assert close(OPEN, 99.0, 100.0) == OPEN
    assert close(OPEN, float("nan"), 100.0) == OPEN


def test_a_clock_that_jumps_an_hour_back_does_not_lengthen_the_quiet() -> None:
    gate = close(OPEN, 10_030.0, 10_000.0)
    assert left_seconds(gate, 10_000.0 - 3600) == 30
    assert left_seconds(gate, 10_000.0 + 3600) == 0


@steady
@given(st.lists(st.tuples(floats, st.floats(-1e6, 1e6)), max_size=8), st.floats(-1e6, 1e6))
def test_no_order_of_hints_closes_it_for_longer_than_an_hour(hints: list[tuple[float, float]], now: float) -> None:
    gate = OPEN
    for until, at in hints:
        gate = close(gate, until, at)
    assert 0 <= left_seconds(gate, now) <= LONGEST_SECONDS
