"""Hedging: what is slow is learnt; a second send only where it is safe, paid for, and of use."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.hedge import Durations, HedgeRule, hedge_after
from tests.core.making import get, post, steady

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


def test_nothing_is_slow_before_enough_is_known() -> None:
    assert hedge_after(RULE, known(count=10), get(), 0.0, 10, calm=True) is None


def test_a_second_send_goes_after_the_learnt_time_or_the_fixed_one() -> None:
    assert hedge_after(RULE, known(), get(), 0.0, 10, calm=True) == pytest.approx(0.1, rel=0.11)
    assert hedge_after(HedgeRule(after_seconds=0.5), Durations(), get(), 0.0, 10, calm=True) == 0.5


def test_only_what_is_idempotent_or_keyed_is_hedged() -> None:
    assert hedge_after(RULE, known(), post(), 0.0, 10, calm=True) is None
    assert hedge_after(RULE, known(), post(keyed=True), 0.0, 10, calm=True) is not None


def test_nothing_is_hedged_without_a_rule_without_budget_or_in_trouble() -> None:
    assert hedge_after(None, known(), get(), 0.0, 10, calm=True) is None
    assert hedge_after(RULE, known(), get(), 0.0, 0.5, calm=True) is None
    assert hedge_after(RULE, known(), get(), 0.0, float("nan"), calm=True) is None
    assert hedge_after(RULE, known(), get(), 0.0, 10, calm=False) is None


def test_nothing_is_hedged_that_would_come_too_late() -> None:
    assert hedge_after(RULE, known(), get(deadline_at=0.15), 0.0, 10, calm=True) is None


@steady
@given(st.lists(st.floats(0, 1e9), min_size=50, max_size=100), st.floats(0, 1))
def test_any_durations_have_a_quantile(values: list[float], share: float) -> None:
    durations = Durations()
    for seconds in values:
        durations.add(seconds)
    found = durations.quantile(share)
    assert found is not None
    assert found > 0
