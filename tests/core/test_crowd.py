"""How many at once: slow start after an outage, a third less when crowded; slow is not crowded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.crowd import FEWEST, FIRST, Crowd, after_outage, answered, failed, overloaded
from tests.core.making import steady


def rounds(crowd: Crowd, count: int, seconds: float, now: float = 100.0, was_full: bool = True) -> tuple[Crowd, float]:
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
    assert min(limits[3:]) > 15
    assert max(limits[-5:]) > 30


@steady
@given(st.lists(st.tuples(st.booleans(), st.floats(-3600, 3600), st.floats(0, 100), st.booleans()), max_size=80))
def test_no_story_makes_it_less_than_two_or_endless(story: list[tuple[bool, float, float, bool]]) -> None:
    crowd, now = after_outage(1e5, 0.0, 0.0), 1e5
    for good, jump, seconds, full in story:
        now += jump
        crowd = answered(crowd, now, seconds, full) if good else failed(crowd, now, seconds, 3)
        assert FEWEST <= crowd.limit <= 1e6
