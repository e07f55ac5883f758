"""The pace: learns a quota from what is taken and refused, trusts an announced one, and is late for nobody twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.flow.rate_limit import (
    LEAST_PER_SECOND,
    MOST_PER_SECOND,
    RateLimit,
    begin,
    informed,
    rate_at,
    ready_at,
    refused,
    succeeded,
    take,
)
from sidecar.core.flow.ratelimit_headers import RateLimitHeaders
from tests.core.making import steady


class Bucket:
    """An upstream that takes so many a second, and a burst."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate, self.burst, self.tokens, self.at = rate, burst, 0.0, now

    def takes(self, now: float) -> bool:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def against(bucket: Bucket, seconds: float, hint: float = 1.0) -> tuple[int, int]:
    """How many are taken and how many refused, of an endless queue, in that time."""
    now = bucket.at
    pace, end, taken, refusals = begin(now, now + hint, int(bucket.burst), 1.0), now + seconds, 0, 0
    while now < end:
        now = max(now, ready_at(pace, now))
        charged = take(pace, now)
        if charged is None:
            now += 1e-4
        elif bucket.takes(now):
            pace, taken = succeeded(charged, now, pace.generation), taken + 1
        else:
            pace, refusals = refused(charged, now, now + hint, pace.generation, now), refusals + 1
    return taken, refusals


@pytest.mark.parametrize(("rate", "burst"), [(5, 5), (20, 20), (50, 10), (50, 50), (50, 100), (200, 20), (500, 50)])
def test_it_learns_the_rate_that_an_upstream_takes(rate: float, burst: float) -> None:
    taken, refusals = against(Bucket(rate, burst, 100.0), 40.0)
    assert taken >= 0.8 * rate * 40
    assert refusals <= 6


def test_nothing_goes_before_the_gate_opens() -> None:
    pace = begin(100.0, 130.0, 10, 1.0)
    assert ready_at(pace, 100.0) >= 130.0
    assert take(pace, 129.999) is None


def test_it_begins_with_what_was_taken_and_doubles_each_second() -> None:
    pace = begin(100.0, 101.0, 10, 1.0)
    pace = RateLimit(**{**{f: getattr(pace, f) for f in pace.__slots__}, "recent": 1e5})
    assert [round(rate_at(pace, 101.0 + n)) for n in range(4)] == [10, 20, 40, 80]


def test_it_does_not_grow_beyond_twice_what_is_asked_for() -> None:
    pace = begin(100.0, 101.0, 10, 1.0)
    assert rate_at(pace, 161.0) == 20


def test_one_burst_of_refusals_slows_it_down_once() -> None:
    pace = begin(100.0, 101.0, 10, 1.0)
    once = refused(pace, 102.0, 103.0, pace.generation, 102.0)
    late = refused(once, 102.01, 103.5, pace.generation, 102.0)
    assert (late.low, late.high, late.generation) == (once.low, once.high, once.generation)
    assert ready_at(late, 102.1) >= 103.5


def test_a_refusal_below_an_announced_quota_shows_that_others_use_it_too() -> None:
    pace = informed(begin(100.0, 101.0, 5, 1.0), RateLimitHeaders(quota_per_second=50.0), 101.0)
    for n in range(30):
        pace = succeeded(pace, 101.0 + n / 50, pace.generation)
    pace = refused(pace, 101.6, 102.6, pace.generation, 101.6)
    assert rate_at(pace, 102.6) < 0.9 * 49.0
    for seconds in range(300):
        for _ in range(60):
            pace = succeeded(pace, 102.6 + seconds, pace.generation)
    assert rate_at(pace, 402.0) == pytest.approx(49.0), "no more than the quota, however long it goes well"


def test_an_announced_quota_is_the_rate() -> None:
    pace = informed(begin(100.0, 101.0, 1, 1.0), RateLimitHeaders(50.0), 100.0)
    assert rate_at(pace, 101.0) == pytest.approx(49.0)


def test_a_share_that_remains_holds_until_it_is_renewed() -> None:
    pace = informed(begin(100.0, 101.0, 100, 1.0), RateLimitHeaders(None, 2.0, 30.0), 100.0)
    assert rate_at(pace, 110.0) == 2.0
    assert rate_at(pace, 131.0) > 2.0


def test_a_clock_that_jumps_an_hour_back_holds_nobody_for_long() -> None:
    pace = take(begin(10_000.0, 10_000.0, 50, 1.0), 10_010.0)
    assert pace is not None
    assert ready_at(pace, 10_010.0 - 3600) - (10_010.0 - 3600) < 60


@steady
@given(
    st.integers(0, 10_000),
    st.lists(
        st.tuples(st.sampled_from(["take", "ok", "no", "told"]), st.floats(-3600, 3600), st.floats(0, 1e6)), max_size=60
    ),
)
def test_no_story_makes_a_rate_that_is_none(taken: int, story: list[tuple[str, float, float]]) -> None:
    now = 1e5
    pace = begin(now, now + 1, taken, 1.0)
    for what, jump, number in story:
        now += jump
        if what == "take":
            pace = take(pace, now) or pace
        elif what == "ok":
            pace = succeeded(pace, now, pace.generation)
        elif what == "no":
            pace = refused(pace, now, now + number / 1e4, pace.generation, now - number / 1e5)
        else:
            pace = informed(pace, RateLimitHeaders(number or None, number or None, number), now)
        assert LEAST_PER_SECOND <= rate_at(pace, now) <= MOST_PER_SECOND
        assert ready_at(pace, now) < float("inf")
