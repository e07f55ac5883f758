"""The retries that an upstream's traffic has earned: a token bucket, as a value (Finagle's and tower's retry budget).

Every first send deposits ``ratio`` tokens, every second ``floor_per_second``; a retry withdraws its cost. The bucket
holds at most what ten seconds of floor and a hundred requests bring in, so a long quiet time earns no storm. A success
gives back what the retries of its exchange have paid, as in the retry quota of the AWS SDKs' standard mode: what is
bounded are retries in vain. Invariant: over any span, the retries of exchanges that did not succeed are at most
``ratio`` · requests + ``floor`` · seconds + one full bucket. Frozen: every step returns a new value; the holder keeps
the latest. No clock is read here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sidecar.core.decision.policy import BudgetRule

__all__ = ["Budget", "capacity", "deposit", "full_floor", "refill", "withdraw"]

FLOOR_SECONDS: Final = 10.0
"""Seconds of floor that the bucket holds: the window of Finagle's and tower's retry budgets."""
RATIO_REQUESTS: Final = 100
"""Requests whose deposits the bucket holds."""


@dataclass(frozen=True, slots=True)
class Budget:
    tokens: float
    """Negative only where several replicas share one budget and have paid more at the same time than it held."""
    at: float
    """Monotonic seconds of the last refill."""


def capacity(rule: BudgetRule) -> float:
    """The most tokens that the bucket can hold."""
    return max(0.0, rule.floor_per_second) * FLOOR_SECONDS + max(0.0, rule.ratio) * RATIO_REQUESTS


def full_floor(rule: BudgetRule, now: float) -> Budget:
    """The budget of a new upstream: a full floor, no deposits yet."""
    return Budget(max(0.0, rule.floor_per_second) * FLOOR_SECONDS, now)


def refill(budget: Budget, rule: BudgetRule, now: float, requests: int = 0) -> Budget:
    """The budget with what the time since the last refill and ``requests`` first sends have earned.

    Deposits may be counted in an integer and added later, at the next retry: the sum is the same. A clock that went
    backwards earns nothing, and nothing twice when it catches up.
    """
    at = max(budget.at, now)
    earned = (at - budget.at) * max(0.0, rule.floor_per_second) + max(0, requests) * max(0.0, rule.ratio)
    return Budget(min(capacity(rule), budget.tokens + earned), at)


def deposit(budget: Budget, rule: BudgetRule, tokens: float) -> Budget:
    """The budget with these tokens back; never more than the bucket holds."""
    return Budget(min(capacity(rule), budget.tokens + max(0.0, tokens)), budget.at)


def withdraw(budget: Budget, cost: float) -> Budget | None:
    """The budget after paying for a retry, or None if it holds less than the cost."""
    price = max(0.0, cost)
    return Budget(budget.tokens - price, budget.at) if budget.tokens >= price else None
