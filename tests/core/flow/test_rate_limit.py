"""The rate limit: slow start, the floor, and letting go what does not depend on the rate."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.flow.rate_limit import (
    RateLimit,
    begin,
    held_until,
    informed,
    is_useless,
    rate_at,
    ready_at,
    refused,
    scaled,
    succeeded,
    take,
)
from sidecar.core.flow.ratelimit_headers import RateLimitHeaders
from tests.core.making import steady

NOW = 1000.0


def held(rate: float = 50.0, share: float = 0.5) -> RateLimit:
    return begin(NOW, NOW, rate, share, slow_start=False)


def test_slow_start_doubles_each_second() -> None:
    limit = replace(begin(NOW, NOW + 1, 10.0, 1.0, slow_start=True), recent=1000.0)
    assert rate_at(limit, NOW + 1) == pytest.approx(10)
    assert rate_at(limit, NOW + 3) == pytest.approx(40)


def test_nothing_goes_before_the_gate_opens() -> None:
    limit = begin(NOW, NOW + 5, 10.0, 1.0, slow_start=True)
    assert take(limit, NOW + 4.9) is None
    assert ready_at(limit, NOW) == NOW + 5
    assert take(limit, NOW + 5) is not None


def test_growth_is_slow_first_and_fast_later() -> None:
    limit = replace(held(), recent=1e6)
    assert rate_at(limit, NOW + 1) == pytest.approx(51)
    assert rate_at(limit, NOW + 6) > 100


def test_it_grows_no_further_than_twice_what_is_taken() -> None:
    assert rate_at(held(), NOW + 1000) == pytest.approx(100)


def accepting(limit: RateLimit, count: int, seconds: float) -> RateLimit:
    for n in range(count):
        limit = succeeded(limit, NOW + seconds * n / count, NOW + seconds * n / count)
    return limit


def test_the_floor_is_what_was_accepted_of_late() -> None:
    limit = accepting(held(40.0), 200, 4.0)
    lowered = refused(limit, NOW + 4, NOW + 4)
    assert lowered.generation == limit.generation + 1
    assert lowered.rate >= 0.95 * 50


def test_refusals_that_become_no_rarer_do_not_depend_on_the_rate() -> None:
    limit = held(share=0.3)
    for n in range(40):
        at = NOW + n / 50
        limit = succeeded(limit, at, at) if n % 10 < 7 else refused(limit, at, at)
        if is_useless(limit):
            return
    raise AssertionError("held on")


def test_a_late_refusal_slows_nothing_down_a_second_time() -> None:
    limit = accepting(held(), 30, 1.0)
    assert refused(limit, NOW + 1, NOW - 0.1) == limit


def test_an_announced_quota_is_the_rate_until_it_is_refused_below_it() -> None:
    limit = informed(held(5.0), RateLimitHeaders(50.0), NOW)
    assert rate_at(limit, NOW) == pytest.approx(49)
    limit = refused(accepting(limit, 30, 1.0), NOW + 1, NOW + 1)
    assert limit.is_quota_shared
    assert rate_at(limit, NOW + 1) <= 49


def test_what_remains_is_spread_over_the_time_until_it_is_renewed() -> None:
    limit = informed(held(50.0), RateLimitHeaders(None, 2.0, 10.0), NOW)
    assert rate_at(limit, NOW + 5) == pytest.approx(2)
    assert rate_at(limit, NOW + 11) > 2


def test_alone_it_takes_its_share() -> None:
    assert scaled(held(50.0), 0.1).rate == pytest.approx(5)


moments = st.floats(-100, 1e5, allow_nan=False)


@steady
@given(st.lists(st.tuples(st.sampled_from(["ok", "no", "take", "hold"]), moments), max_size=60))
def test_no_story_leads_to_an_absurd_rate(story: list[tuple[str, float]]) -> None:
    limit = held()
    for what, after in story:
        now = NOW + after
        if what == "ok":
            limit = succeeded(limit, now, now)
        elif what == "no":
            limit = refused(limit, now, now)
        elif what == "take":
            limit = take(limit, now) or limit
        else:
            limit = held_until(limit, now)
        assert 0.1 <= rate_at(limit, now) <= 1e6
        assert ready_at(limit, now) >= now
