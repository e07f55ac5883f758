"""A lease: moments that were granted are spent in order, and one is kept in hand where there is traffic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.flow.lease import MOST_WANTED, Lease
from tests.core.making import steady


def test_nothing_goes_before_a_moment_was_granted() -> None:
    lease = Lease()
    assert lease.ready_at() == float("inf")
    assert not lease.take(1e9)


def test_moments_are_spent_once_and_not_before_their_time() -> None:
    lease = Lease()
    lease.granted([0.5, 0.7], 0.0, 100.0)
    assert not lease.take(100.4)
    assert lease.ready_at() == pytest.approx(100.5)
    assert [lease.take(100.8), lease.take(100.8), lease.take(100.8)] == [True, True, False]


def test_one_is_kept_in_hand_where_there_is_traffic_and_none_where_there_is_not() -> None:
    lease = Lease()
    assert lease.wanted(0) == 0
    assert lease.wanted(3) == 4
    lease.granted([0.0], 0.0, 100.0)
    assert lease.wanted(0) == 0
    assert lease.take(100.0)
    assert lease.wanted(0) == 1
    lease.granted([0.0], 0.0, 100.0)
    assert lease.wanted(1) == 1
    assert lease.wanted(10**6) == MOST_WANTED


@pytest.mark.parametrize(("seconds", "scarce"), [([], True), ([0.0], False), ([0.0, 0.5], True), ([0.001], False)])
def test_it_is_scarce_where_somebody_has_to_wait(seconds: list[float], scarce: bool) -> None:
    assert Lease().granted(seconds, 0.0, 100.0) is scarce


def test_what_was_granted_for_another_rate_is_void_and_may_be_asked_for_at_once() -> None:
    lease = Lease()
    lease.granted([0.0, 0.1], 5.0, 100.0)
    assert lease.ask_at == pytest.approx(105.0)
    lease.void()
    assert not lease.take(200.0)
    assert lease.ask_at == 0.0


@steady
@given(st.lists(st.lists(st.floats(-1, 10), max_size=5), max_size=10), st.lists(st.floats(0, 20), max_size=60))
def test_no_more_goes_than_was_granted_and_nothing_early(grants: list[list[float]], asks: list[float]) -> None:
    lease = Lease()
    given_moments: list[float] = []
    for seconds in grants:
        lease.granted(seconds, 0.0, 100.0)
        given_moments += [100.0 + max(0.0, later) for later in seconds]
    went = sum(lease.take(100.0 + now) for now in sorted(asks))
    last = 100.0 + max(asks, default=0.0)
    assert went <= sum(moment <= last for moment in given_moments)


def test_moments_that_passed_long_ago_are_not_made_up_for() -> None:
    lease = Lease()
    lease.granted([0.01 * n for n in range(20)], 0.0, 100.0)
    assert [lease.take(130.0) for _ in range(3)] == [True, False, False]


def test_the_store_is_asked_again_soon_whatever_it_says() -> None:
    lease = Lease()
    lease.granted([], 1e14, 100.0)
    assert lease.ask_at <= 105.0
