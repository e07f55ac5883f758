"""The retry budget: earned by traffic and time, bounded, never negative."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.decision.budget import Budget, capacity, deposit, full_floor, refill, withdraw
from sidecar.core.decision.policy import BudgetRule
from tests.core.making import floats, steady

RULE = BudgetRule(ratio=0.25, floor_per_second=10)


def test_a_new_upstream_begins_with_its_floor() -> None:
    assert full_floor(RULE, 5.0) == Budget(100, 5.0)
    assert full_floor(BudgetRule(0.25, 0), 5.0) == Budget(0, 5.0)


def test_requests_and_time_earn_retries() -> None:
    assert refill(Budget(0, 5.0), RULE, 5.0, requests=8) == Budget(2, 5.0)
    assert refill(Budget(0, 5.0), RULE, 7.0) == Budget(20, 7.0)


def test_the_bucket_is_bounded() -> None:
    assert capacity(RULE) == 125
    assert refill(Budget(0, 0.0), RULE, 1e9, requests=10**9).tokens == 125


def test_a_retry_pays_or_does_not_happen() -> None:
    assert withdraw(Budget(1, 0.0), 1) == Budget(0, 0.0)
    assert withdraw(Budget(0.9, 0.0), 1) is None
    assert withdraw(Budget(0, 0.0), 0) == Budget(0, 0.0)
    assert withdraw(Budget(1, 0.0), -5) == Budget(1, 0.0)


def test_what_comes_back_never_makes_more_than_the_bucket_holds() -> None:
    assert deposit(Budget(3, 7.0), RULE, 2) == Budget(5, 7.0)
    assert deposit(Budget(124, 7.0), RULE, 2) == Budget(125, 7.0)
    assert deposit(Budget(3, 7.0), RULE, -2) == Budget(3, 7.0)


def test_a_clock_that_jumps_back_earns_nothing_and_nothing_twice() -> None:
    budget = refill(refill(Budget(0, 100.0), RULE, 40.0), RULE, 101.0)
    assert budget == Budget(10, 101.0)


@pytest.mark.parametrize("rule", [RULE, BudgetRule(0, 0), BudgetRule(1, 0), BudgetRule(0, 1)])
def test_late_deposits_are_the_same_as_one_by_one(rule: BudgetRule) -> None:
    one_by_one = Budget(0, 0.0)
    for _ in range(50):
        one_by_one = refill(one_by_one, rule, 0.0, requests=1)
    assert refill(Budget(0, 0.0), rule, 0.0, requests=50).tokens == pytest.approx(one_by_one.tokens)


steps = st.lists(st.tuples(st.floats(0, 60), st.integers(0, 50), st.floats(0, 5), st.booleans()), max_size=60)


@steady
@given(st.builds(BudgetRule, st.floats(0, 2), st.floats(0, 20)), steps)
def test_retries_never_exceed_what_was_earned(rule: BudgetRule, story: list[tuple[float, int, float, bool]]) -> None:
    budget, now, requests, spent = full_floor(rule, 0.0), 0.0, 0, 0.0
    for pause, arrived, cost, backwards in story:
        now += pause
        requests += arrived
        budget = refill(budget, rule, now - 1000 if backwards else now, arrived)
        paid = withdraw(budget, cost)
        if paid is not None:
            budget, spent = paid, spent + cost
        assert 0 <= budget.tokens <= capacity(rule)
    earned = rule.ratio * requests + rule.floor_per_second * now
    assert spent <= earned + full_floor(rule, 0.0).tokens + 1e-6


@steady
@given(
    floats, st.builds(BudgetRule, floats, floats), floats, st.integers(), st.builds(Budget, st.floats(0, 1e9), floats)
)
def test_no_number_makes_it_negative(cost: float, rule: BudgetRule, now: float, requests: int, budget: Budget) -> None:
    for after in (refill(budget, rule, now, requests), withdraw(budget, cost)):
        assert after is None or not after.tokens < 0
