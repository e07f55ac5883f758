"""The rate limit: slow start, the floor, and letting go what does not depend on the rate."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.flow.rate_limit import (
    FIRST_NEEDED,
    LEAST_TRIAL_SECONDS,
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


def test_it_grows_no_further_than_half_as_much_again_as_is_taken() -> None:
    assert rate_at(held(), NOW + 1000) == pytest.approx(75)


def test_a_trial_of_a_higher_rate_is_taken_back_by_one_refusal_and_not_made_again_soon() -> None:
    limit = accepting(held(), 10, 0.2)
    assert limit.rate > 1.2 * 50
    failed = refused(limit, NOW + 0.21, NOW + 0.21)
    assert failed.rate == pytest.approx(50, rel=0.05)
    assert failed.needed == 2 * FIRST_NEEDED
    assert succeeded(failed, NOW + 0.3, NOW + 0.3).rate == failed.rate


def test_a_slow_rate_does_not_stay_slow_where_everything_is_accepted() -> None:
    limit, now, sent = begin(NOW, NOW, 2.0, 0.5, slow_start=False), NOW, 0
    while rate_at(limit, now) < 200:
        now += 1 / rate_at(limit, now)
        limit, sent = succeeded(take(limit, now) or limit, now, now), sent + 1
    assert now - NOW < 10


def test_what_is_saved_up_is_accepted_in_an_instant_and_is_no_sign_of_a_higher_rate() -> None:
    assert accepting(held(), 10 * FIRST_NEEDED, LEAST_TRIAL_SECONDS / 2).rate == held().rate


def test_a_rate_that_is_not_in_the_way_is_not_raised() -> None:
    limit = held()
    for n in range(20):  # two a second, where fifty may go
        limit = succeeded(take(limit, NOW + n / 2) or limit, NOW + n / 2, NOW + n / 2)
    assert (limit.rate, limit.tried_from) == (held().rate, 0)


def accepting(limit: RateLimit, count: int, seconds: float, *, tries: bool = True) -> RateLimit:
    for n in range(count):
        now = NOW + seconds * (n + 1) / count
        limit = succeeded(take(limit, now) or limit, now, now, tries=tries)
    return limit


def test_the_floor_is_what_was_accepted_of_late() -> None:
    limit = accepting(held(40.0), 200, 4.0, tries=False)
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


def test_refusals_that_stay_are_no_reason_to_let_go_where_no_less_is_sent() -> None:
    limit = replace(held(share=0.3), rate=90.0, share_rate=100.0)
    for n in range(30):
        limit = replace(limit, accepted=14, refused=6) if n == 0 else limit
    assert not is_useless(limit)
    assert is_useless(replace(limit, rate=70.0))


def test_what_a_quota_would_leave_is_no_reason_to_let_go() -> None:
    """100 a second with 60 % refused is a quota of 40: at 80 a second it refuses a half, others would still be 60 %."""
    limit = replace(held(share=0.6), rate=80.0, share_rate=100.0)
    assert not is_useless(replace(limit, accepted=50, refused=50))
    assert is_useless(replace(limit, accepted=40, refused=60))
