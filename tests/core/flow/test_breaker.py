"""The breaker: opens for an upstream that is down, not for one that is flaky; probes singly; ignores what is late."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.decision.policy import BreakerRule
from sidecar.core.flow.breaker import Breaker, State, answered, failed, may_probe, probe, probe_lost, share
from tests.core.making import chances, steady

RULE = BreakerRule(failures=0.5, of_at_least=20, within_seconds=10.0)


def after(text: str, rule: BreakerRule = RULE, step: float = 0.1) -> Breaker:
    """``x`` is a failure, anything else a success; ``step`` seconds apart, until one opens it."""
    breaker, now = Breaker(), 100.0
    for result in text:
        now += step
        breaker = failed(breaker, rule, now, 0.5) if result == "x" else answered(breaker, rule, now)
        if breaker.is_open:
            break
    return breaker


def test_enough_failures_in_a_row_open_it_however_many_succeeded_before() -> None:
    assert not after("." * 2000 + "x" * 19, step=0.001).is_open
    assert after("." * 2000 + "x" * 20, step=0.001).is_open


def test_the_share_of_failures_in_the_window_opens_it() -> None:
    assert after(".x" * 10, step=0.45).is_open
    assert not after("..x" * 30).is_open


def test_an_upstream_that_takes_more_than_probes_would_bring_is_not_down() -> None:
    assert not after(".x" * 200, step=0.05).is_open


def test_too_few_attempts_open_nothing() -> None:
    assert not after("x" * 19).is_open


def test_what_is_older_than_the_window_is_forgotten() -> None:
    assert not after("x.." * 6 + "x" * 7, step=0.8).is_open


def test_successes_that_are_told_in_sum_count_the_same() -> None:
    breaker = Breaker()
    for n in range(30):
        breaker = failed(breaker, RULE, 100.0 + n * 0.1, 0.5, succeeded=2)
    assert not breaker.is_open
    attempts, failures = share(breaker, RULE, 103.0, 10.0)
    assert (attempts, round(failures, 3)) == (90, 0.333)


def test_one_that_holds_many_of_ours_is_crowded_and_not_down() -> None:
    breaker = Breaker()
    for n in range(100):
        breaker = answered(breaker, RULE, 100.0 + n * 0.001)
    for n in range(60):
        breaker = failed(breaker, RULE, 100.1 + n * 0.001, 0.5, under_way=200)
    assert not breaker.is_open


@pytest.mark.parametrize("seed", range(20))
def test_a_fifth_failing_by_chance_never_opens_it(seed: int) -> None:
    dice = random.Random(seed)
    text = "".join("x" if dice.random() < 0.2 else "." for _ in range(3000))
    assert not after(text, step=0.003).is_open


def test_probes_go_one_by_one_with_growing_pauses() -> None:
    breaker, now, pauses = after("x" * 20), 102.0, []
    for _ in range(8):
        at = max(breaker.probe_at, now)
        pauses.append(at - now)
        assert may_probe(breaker, at)
        breaker = probe(breaker, at, 0.5)
        assert breaker.state is State.PROBING
        assert not may_probe(breaker, at)
        now = at
        breaker = failed(breaker, RULE, now, 0.5)
        assert breaker.state is State.OPEN
    assert pauses[1:4] == sorted(pauses[1:4])
    assert max(pauses) == pytest.approx(0.3)


def test_after_a_long_outage_the_pauses_are_longer_but_never_beyond_five_seconds() -> None:
    breaker = after("x" * 20)
    for age, longest in ((60.0, 1.5), (86_400.0, 5.0)):
        now = breaker.opened_at + age
        for _ in range(30):
            breaker = failed(probe(breaker, now, 0.5), RULE, now, 0.5)
        assert breaker.probe_at - now == pytest.approx(longest)


def test_the_first_probe_that_succeeds_closes_it_and_a_new_generation_begins() -> None:
    opened = after("x" * 20)
    closed = answered(probe(opened, 103.0, 0.5), RULE, 103.1)
    assert closed.state is State.CLOSED
    assert closed.generation == opened.generation + 1
    assert closed.in_a_row == 0


def test_while_it_has_just_closed_three_failures_in_a_row_open_it_again() -> None:
    breaker = answered(probe(after("x" * 20), 103.0, 0.5), RULE, 103.1)
    for n in range(3):
        assert not breaker.is_open
        breaker = failed(breaker, RULE, 103.2 + n / 100, 0.5)
    assert breaker.is_open


def test_a_probe_that_is_given_up_makes_way_for_another() -> None:
    breaker = probe_lost(probe(after("x" * 20), 103.0, 0.5), 103.1)
    assert may_probe(breaker, 103.1)


def test_a_probe_that_hangs_does_not_stand_in_the_way_for_longer_than_a_second() -> None:
    assert may_probe(probe(after("x" * 20), 103.0, 0.5), 104.0)


@steady
@given(
    st.lists(st.tuples(st.sampled_from(["fail", "ok", "probe", "lost"]), st.floats(-3600, 3600), chances), max_size=60)
)
def test_no_order_of_events_and_no_clock_postpones_a_probe_for_long(story: list[tuple[str, float, float]]) -> None:
    breaker, now = Breaker(), 1e5
    for what, jump, chance in story:
        now += jump
        if what == "fail":
            breaker = failed(breaker, RULE, now, chance, succeeded=0)
        elif what == "ok":
            breaker = answered(breaker, RULE, now)
        elif what == "probe" and may_probe(breaker, now):
            breaker = probe(breaker, now, chance)
        elif what == "lost":
            breaker = probe_lost(breaker, now)
        assert len(breaker.slots) <= 41
    if breaker.is_open:
        assert may_probe(breaker, now) or may_probe(breaker, now + 10.0)
