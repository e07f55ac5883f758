"""Backoff: within its documented bounds, whatever the number of the retry, and never an overflow."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.core.decision.backoff import FOREVER_SECONDS, backoff_range, backoff_seconds, backoff_value
from sidecar.core.decision.rows import Backoff
from sidecar.core.enums import Jitter
from tests.core.making import backoffs, chances, floats, steady

NUMBERS = [1, 2, 10, 1024, 1025, 10_000]
SKETCH = Backoff(base_seconds=0.25, factor=2, cap_seconds=30, jitter=Jitter.ADDITIVE)


@pytest.mark.parametrize(("retry", "n"), [(1, 0), (2, 1), (3, 2), (4, 3)])
def test_the_seeds_sketch_is_exactly_additive(retry: int, n: int) -> None:
    value = 0.25 * 2**n
    assert backoff_range(SKETCH, retry) == (value, 2 * value)
    for chance in (0.0, 0.25, 0.5, 1.0):
        assert backoff_seconds(SKETCH, retry, chance) == value + value * chance


@pytest.mark.parametrize(("retry", "bounds"), [(7, (16, 30)), (8, (30, 30)), (10_000, (30, 30))])
def test_the_cap_is_the_longest_wait_of_all(retry: int, bounds: tuple[float, float]) -> None:
    assert backoff_range(SKETCH, retry) == bounds


@pytest.mark.parametrize(
    ("jitter", "bounds"),
    [
        (Jitter.FULL, (0, 4)),
        (Jitter.EQUAL, (2, 4)),
        (Jitter.ADDITIVE, (4, 8)),
        (Jitter.PROPORTIONAL, (3, 5)),
        (Jitter.DECORRELATED, (1, 6)),
        (Jitter.NONE, (4, 4)),
    ],
)
def test_each_jitter_keeps_its_documented_bounds(jitter: Jitter, bounds: tuple[float, float]) -> None:
    rule = Backoff(base_seconds=1, factor=2, cap_seconds=30, jitter=jitter, ratio=0.25)
    assert backoff_range(rule, 3, previous_wait=2) == bounds
    assert backoff_seconds(rule, 3, 0.5, previous_wait=2) == sum(bounds) / 2


def test_decorrelated_begins_with_its_base() -> None:
    rule = Backoff(base_seconds=1, cap_seconds=2, jitter=Jitter.DECORRELATED)
    assert backoff_range(rule, 1) == (1, 2)
    assert backoff_range(Backoff(1, cap_seconds=0.5, jitter=Jitter.DECORRELATED), 1) == (0.5, 0.5)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("jitter", Jitter)
def test_no_retry_number_overflows(number: int, jitter: Jitter) -> None:
    least, most = backoff_range(Backoff(jitter=jitter), number, previous_wait=30)
    assert 0 <= least <= most <= 30


def test_a_base_or_a_factor_of_zero_waits_nothing() -> None:
    assert backoff_value(Backoff(base_seconds=0, factor=10), 10_000) == 0
    assert backoff_value(Backoff(base_seconds=0, factor=math.inf), 2) == 0
    assert backoff_value(Backoff(factor=0), 2) == 0


def test_without_a_cap_the_value_saturates() -> None:
    assert backoff_value(Backoff(cap_seconds=math.inf), 10_000) == FOREVER_SECONDS


@steady
@given(backoffs, st.one_of(st.sampled_from(NUMBERS), st.integers(1)), chances, st.floats(0, 1e6))
@example(Backoff(base_seconds=1e6, factor=100, cap_seconds=1e6), 10_000, 1.0, 1e6)
def test_every_wait_is_within_its_range_and_the_cap(rule: Backoff, number: int, chance: float, previous: float) -> None:
    least, most = backoff_range(rule, number, previous)
    seconds = backoff_seconds(rule, number, chance, previous)
    assert 0 <= least <= most <= rule.cap_seconds
    assert least <= seconds <= most or math.isclose(seconds, least) or math.isclose(seconds, most)
    assert seconds <= rule.cap_seconds


@steady
@given(st.builds(Backoff, floats, floats, floats, st.sampled_from(Jitter), floats), st.integers(), floats, floats)
def test_any_floats_at_all_give_a_finite_wait(rule: Backoff, number: int, chance: float, previous: float) -> None:
    assert 0 <= backoff_seconds(rule, number, chance, previous) <= FOREVER_SECONDS
    assert all(0 <= end <= FOREVER_SECONDS for end in backoff_range(rule, number, previous))
