"""How many at once: slow start after an outage, a third less when crowded; slow is not crowded."""

from __future__ import annotations

from heapq import heappop, heappush

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.flow.concurrency_limit import (
    FEWEST,
    FIRST,
    ConcurrencyLimit,
    after_outage,
    answered,
    failed,
    overloaded,
)
from tests.core.making import steady


def rounds(
    crowd: ConcurrencyLimit, count: int, seconds: float, now: float = 100.0, was_full: bool = True
) -> tuple[ConcurrencyLimit, float]:
    """So many rounds, in each of which as many answers come at once as the limit allows, after so many seconds."""
    for _ in range(count):
        now += seconds
        for _ in range(int(crowd.limit)):
            crowd = answered(crowd, now, seconds, was_full)
    return crowd, now


def test_after_an_outage_it_doubles_with_each_round_of_answers() -> None:
    crowd, _ = rounds(after_outage(100.0, 0.1, 0.0), 5, 0.1)
    assert crowd.limit == FIRST * 2**5


def test_it_begins_with_fewer_than_were_usual() -> None:
    assert after_outage(100.0, 0.5, 100.0).limit == 70


def test_it_does_not_grow_where_nobody_waits() -> None:
    crowd, _ = rounds(after_outage(100.0, 0.1, 0.0), 5, 0.1, was_full=False)
    assert crowd.limit == FIRST


def test_answers_that_queue_end_the_doubling() -> None:
    crowd, now = rounds(after_outage(100.0, 0.1, 0.0), 4, 0.1)
    before = crowd.limit
    crowd, _ = rounds(crowd, 2, 0.3, now)
    assert not crowd.doubling
    assert crowd.limit < 1.5 * before


def test_a_crowded_upstream_gets_a_third_less() -> None:
    assert overloaded(100.0, 240, 0.15).limit == 168


def test_a_few_failures_in_a_row_make_it_smaller_at_once_and_only_once_for_one_crowd() -> None:
    crowd = overloaded(100.0, 100, 0.1)
    crowd = failed(crowd, 101.0, 0.01, 3)
    assert crowd.limit == 49
    assert failed(crowd, 101.001, 0.01, 4).limit == 49


def test_a_smaller_limit_that_costs_answers_is_taken_back() -> None:
    """Forty slots that have become four times slower: below forty at once each cut costs answers per second."""
    crowd, now = overloaded(100.0, 60, 0.15), 100.0
    limits = []
    for _ in range(30):
        now += 0.6
        for _ in range(min(40, int(crowd.limit))):
            crowd = answered(crowd, now, 0.6, True)
        limits.append(crowd.limit)
    assert min(limits[5:]) > 15
    assert max(limits[-5:]) > 30


@steady
@given(st.lists(st.tuples(st.booleans(), st.floats(-3600, 3600), st.floats(0, 100), st.booleans()), max_size=80))
def test_no_story_makes_it_less_than_two_or_endless(story: list[tuple[bool, float, float, bool]]) -> None:
    crowd, now = after_outage(1e5, 0.0, 0.0), 1e5
    for good, jump, seconds, full in story:
        now += jump
        crowd = answered(crowd, now, seconds, full) if good else failed(crowd, now, seconds, 3)
        assert FEWEST <= crowd.limit <= 1e6


def served(
    slots: int, service: float, crowd: ConcurrencyLimit, now: float, seconds: float
) -> tuple[ConcurrencyLimit, float, list[float]]:
    """An upstream with so many slots and a queue behind them, always asked for as much as the limit allows.

    The latencies that its answers had.
    """
    until, latencies = now + seconds, list[float]()
    free = [now + service * slot / slots for slot in range(slots)]
    under_way: list[tuple[float, float]] = []
    while now < until:
        while len(under_way) < int(crowd.limit):
            begins = max(now, heappop(free))
            heappush(free, begins + service)
            heappush(under_way, (begins + service, now))
        now, sent_at = heappop(under_way)
        crowd = answered(crowd, now, now - sent_at, True)
        latencies.append(now - sent_at)
    return crowd, now, latencies


@pytest.mark.parametrize(("slots", "service"), [(40, 0.15), (10, 0.5), (200, 0.05), (8, 0.02)])
def test_the_limit_settles_where_the_upstream_is_busy_and_nothing_queues(slots: int, service: float) -> None:
    seconds = 40 * service + 12
    _, _, latencies = served(slots, service, overloaded(100.0, 6 * slots, service), 100.0, seconds)
    late = sorted(latencies[-int(10 * slots / service) :])
    assert late[len(late) // 2] <= 1.15 * service
    assert len(latencies) >= 0.95 * seconds * slots / service


def test_more_slots_are_found_though_a_limit_was_known() -> None:
    crowd, now, _ = served(20, 0.1, overloaded(100.0, 100, 0.1), 100.0, 10.0)
    crowd, now, _ = served(60, 0.1, crowd, now, 25.0)
    assert crowd.limit >= 50


def test_an_upstream_that_was_slow_and_is_quick_again_is_not_left_with_a_queue() -> None:
    crowd, now, _ = served(40, 0.6, overloaded(100.0, 60, 0.15), 100.0, 30.0)
    _, _, latencies = served(40, 0.15, crowd, now, 20.0)
    late = sorted(latencies[len(latencies) // 2 :])
    assert late[len(late) // 2] <= 0.25  # not 0.75: a quarter more than what had become usual meanwhile


def test_a_few_milliseconds_of_our_own_are_no_queue_of_theirs() -> None:
    crowd, _ = rounds(after_outage(100.0, 0.001, 0.0), 6, 0.004)
    assert crowd.doubling
    assert crowd.limit >= FIRST * 2**6
