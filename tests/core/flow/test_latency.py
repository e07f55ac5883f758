"""What is usual: the middle of a histogram, followed slowly, and not in trouble."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.flow.latency import Latency, median, update
from tests.core.making import steady

BOUNDS = (0.01, 0.1, 0.25, 0.5, 1.0)


class Histogram:
    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total_seconds = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += times
        self.total_seconds += times * seconds


def after(known: Latency, histogram: Histogram, *, calm: bool = True) -> Latency:
    return update(known, BOUNDS, histogram.counts, histogram.total_seconds, calm=calm)


def test_answers_that_take_the_same_time_are_known_exactly_though_their_bucket_is_wide() -> None:
    histogram = Histogram()
    histogram.add(0.15, 200)
    assert after(Latency(), histogram).seconds == pytest.approx(0.15)


def test_a_few_very_slow_ones_move_it_no_further_than_to_the_end_of_the_bucket() -> None:
    histogram = Histogram()
    histogram.add(0.15, 200)
    histogram.add(30.0, 20)
    assert after(Latency(), histogram).seconds == 0.25


def test_the_first_seconds_of_trouble_do_not_become_usual() -> None:
    histogram, usual = Histogram(), Latency()
    for _ in range(5):
        histogram.add(0.15, 200)
        usual = after(usual, histogram)
    for _ in range(4):
        histogram.add(1.0, 200)
        usual = after(usual, histogram)
    assert usual.seconds == pytest.approx(0.15)


def test_one_odd_answer_before_the_load_came_says_little() -> None:
    """A health check is answered in a millisecond, and then come requests of another kind."""
    histogram = Histogram()
    histogram.add(0.001)
    usual = after(Latency(), histogram)
    for _ in range(2):
        histogram.add(0.15, 200)
        usual = after(usual, histogram)
    assert usual.seconds == pytest.approx(0.15)


def test_what_has_changed_for_good_becomes_usual_in_half_a_minute() -> None:
    histogram, usual = Histogram(), Latency()
    for seconds in [0.15] * 100 + [0.3] * 20:
        histogram.add(seconds, 200)
        usual = after(usual, histogram)
    assert usual.seconds == pytest.approx(0.3)


def test_what_was_counted_in_trouble_is_left_out_afterwards_too() -> None:
    histogram = Histogram()
    histogram.add(0.15, 200)
    usual = after(Latency(), histogram)
    histogram.add(1.0, 10_000)
    usual = after(usual, histogram, calm=False)
    histogram.add(0.15, 10)
    assert after(usual, histogram).seconds == pytest.approx(0.15)


def test_a_second_without_answers_says_nothing() -> None:
    histogram = Histogram()
    assert after(Latency(), histogram).seconds == 0
    histogram.add(0.15)
    usual = after(Latency(), histogram)
    assert after(usual, histogram).seconds == usual.seconds


@steady
@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_the_middle_lies_in_the_bucket_of_the_median(durations: list[float]) -> None:
    histogram = Histogram()
    for seconds in durations:
        histogram.add(seconds)
    found = median(BOUNDS, histogram.counts, histogram.total_seconds)
    place = bisect_left(BOUNDS, sorted(durations)[(len(durations) - 1) // 2])
    low, high = (0.0, *BOUNDS)[place], (*BOUNDS, BOUNDS[-1])[place]
    assert low <= found <= max(high, low)
