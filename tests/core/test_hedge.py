"""Hedging: what is slow is learnt; a second send only where it is safe, paid for, and of use."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.decision.attempt import Attempt, Pressure, Replay
from sidecar.core.decision.decide import decide
from sidecar.core.decision.hedge import COST, Durations, hedge_after, may_hedge, settles
from sidecar.core.decision.policy import HedgeRule
from sidecar.core.decision.rows import Row
from sidecar.core.enums import FailureKind, Reason, Verb
from tests.core.making import ANY_FAILURE, CALM, NOW, get, policy, post, steady

RULE = HedgeRule()


def known(seconds: float = 0.1, count: int = 100) -> Durations:
    durations = Durations()
    for _ in range(count):
        durations.add(seconds)
    return durations


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.99])
def test_a_quantile_is_right_within_a_tenth(share: float) -> None:
    dice, durations, all_of_them = random.Random(1), Durations(), []
    for _ in range(1900):
        seconds = dice.lognormvariate(-3, 1)
        durations.add(seconds)
        all_of_them.append(seconds)
    exact = sorted(all_of_them)[int(share * len(all_of_them))]
    assert durations.quantile(share) == pytest.approx(exact, rel=0.11)


def test_what_was_long_ago_fades() -> None:
    durations = known(1.0, 1000)
    for _ in range(20_000):
        durations.add(0.01)
    assert durations.quantile(0.95) == pytest.approx(0.01, rel=0.11)


def test_an_upstream_that_is_slower_as_a_whole_is_soon_not_slow_any_more() -> None:
    """Else each of its answers would cost it a second request."""
    durations = known(0.1, 1000)
    needed = 0
    while (durations.quantile(0.95) or 0.0) < 1.0:
        durations.add(1.0)
        needed += 1
    assert needed <= 60


def test_nothing_is_slow_before_enough_is_known() -> None:
    assert hedge_after(RULE, known(count=49), get(), 0.0) is None
    assert hedge_after(RULE, known(count=50), get(), 0.0) is not None


def test_a_second_send_goes_after_the_learnt_time_or_the_fixed_one() -> None:
    assert hedge_after(RULE, known(), get(), 0.0) == pytest.approx(0.1, rel=0.11)
    assert hedge_after(HedgeRule(after_seconds=0.5), Durations(), get(), 0.0) == 0.5


def test_only_what_is_idempotent_or_keyed_is_hedged() -> None:
    assert hedge_after(RULE, known(), post(), 0.0) is None
    assert hedge_after(RULE, known(), post(keyed=True), 0.0) is not None


def test_nothing_is_hedged_without_a_rule() -> None:
    assert hedge_after(None, known(), get(), 0.0) is None


def test_nothing_is_hedged_that_would_come_too_late() -> None:
    assert hedge_after(RULE, known(), get(deadline_at=0.15), 0.0) is None


def test_a_second_send_may_go_in_calm_and_inside_the_budget() -> None:
    assert may_hedge(Pressure(budget_tokens=COST), 1.0, calm=True)
    assert not may_hedge(Pressure(), 1.0, calm=False)
    assert not may_hedge(Pressure(budget_tokens=0.99), 1.0, calm=True)
    assert not may_hedge(Pressure(budget_tokens=float("nan")), 1.0, calm=True)
    assert not may_hedge(Pressure(), 0.001, calm=True)


@pytest.mark.parametrize(
    "pressure",
    [
        Pressure(breaker_open=True),
        Pressure(draining=True),
        Pressure(switched_off=True),
        Pressure(client_gone=True),
        Pressure(response_started=True),
        Pressure(replay=Replay.TOO_LARGE),
        Pressure(replay=Replay.CONSUMED),
    ],
)
def test_whatever_forbids_a_retry_forbids_a_second_send(pressure: Pressure) -> None:
    assert not may_hedge(pressure, 1.0, calm=True)


@pytest.mark.parametrize(
    ("status", "settled"), [(200, True), (404, True), (503, False), (429, False)], ids=["ok", "error", "503", "429"]
)
def test_an_answer_that_the_table_hands_over_ends_the_race(status: int, settled: bool) -> None:
    attempt = Attempt(1, status)
    decision = decide(policy(attempts=5), get(), (attempt,), NOW, 0.5, CALM)
    assert settles(decision, attempt) is settled


@pytest.mark.parametrize("why", [{"budget_tokens": 0.0}, {"draining": True}])
def test_an_error_that_merely_cannot_be_retried_does_not(why: dict[str, Any]) -> None:
    attempt = Attempt(1, 503)
    decision = decide(policy(), get(), (attempt,), NOW, 0.5, Pressure(**why))
    assert decision.verb is Verb.PASS
    assert not settles(decision, attempt)


def test_a_failure_never_does_even_where_the_table_hands_it_over() -> None:
    attempt = Attempt(1, failure=FailureKind.RESET)
    decision = decide(policy(Row(Verb.PASS, failures=ANY_FAILURE)), get(), (attempt,), NOW, 0.5, CALM)
    assert decision.reason is Reason.NOT_RETRYABLE
    assert not settles(decision, attempt)


@steady
@given(st.lists(st.floats(0, 1e9), min_size=50, max_size=100), st.floats(0, 1))
def test_any_durations_have_a_quantile(values: list[float], share: float) -> None:
    durations = Durations()
    for seconds in values:
        durations.add(seconds)
    found = durations.quantile(share)
    assert found is not None
    assert found > 0
