"""Hedged requests (Dean and Barroso, *The Tail at Scale*, 2013): a second send when the first is slower than nearly all
others.

What "slow" means is learnt: a histogram of durations with logarithmic buckets, halved as it fills. ``hedge_after``: how
long to wait before the second send, or None; ``may_hedge``: whether it may go at that time; ``settles``: which of two
responses ends the race. Asked only where a policy has a ``hedge``. Nothing acts here. Counterpart:
``proxy.exchange.hedge``, which sends and cuts the loser.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from itertools import accumulate
from typing import Final

from sidecar.core.decision.attempt import Attempt, Pressure, Replay, Request
from sidecar.core.decision.decide import LEAST_ATTEMPT_SECONDS, NO_WAIT, Decision
from sidecar.core.decision.policy import HedgeRule
from sidecar.core.enums import IDEMPOTENT_METHODS, Reason, Verb, WaitFrom

__all__ = ["COST", "Durations", "can_be_hedged", "hedge_after", "may_hedge", "outlast", "settles"]

STEP: Final = 1.1
"""Ratio of one bucket's bound to the one before: the relative error of a quantile."""
BOUNDS: Final = tuple(0.0005 * STEP**n for n in range(130))
"""Upper bounds of the buckets in seconds: from half a millisecond to about two minutes."""
FADE_AT: Final = 2000
"""Durations at which all counts are halved, so that old ones matter less."""
FEWEST_KNOWN: Final = 50
"""Durations needed before any send counts as slow."""
LEAST_SECONDS: Final = 0.002
COST: Final = 1.0
"""Budget tokens that a second send costs."""


class Durations:
    """A histogram of the durations of first sends. Adding one costs a search among 130 numbers."""

    __slots__ = ("_counts", "total")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self.total = 0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += 1
        if self.total >= FADE_AT:
            self._counts = [count // 2 for count in self._counts]
            self.total = sum(self._counts)

    def quantile(self, share: float) -> float | None:
        """Seconds that this share (0 … 1) of the sends did not exceed; None while fewer than ``FEWEST_KNOWN`` are
        counted.
        """
        if self.total < FEWEST_KNOWN:
            return None
        wanted = min(1.0, max(0.0, share)) * self.total
        index = next(n for n, seen in enumerate(accumulate(self._counts)) if seen >= wanted)
        return BOUNDS[min(index, len(BOUNDS) - 1)]


def can_be_hedged(request: Request) -> bool:
    """Only an idempotent or keyed request: the first send may have been applied. ``resend_methods`` does not allow
    this.
    """
    return request.method in IDEMPOTENT_METHODS or request.keyed


def hedge_after(rule: HedgeRule | None, durations: Durations, request: Request, now: float) -> float | None:
    """Seconds after which a second send may go beside the first; None: not for this exchange.

    Never so late that the deadline leaves the second send no time.
    """
    if rule is None or not can_be_hedged(request):
        return None
    seconds = durations.quantile(rule.quantile) if rule.after_seconds is None else rule.after_seconds
    if seconds is None:
        return None
    after = max(LEAST_SECONDS, seconds)
    return after if now + 2 * after < request.deadline_at else None


def may_hedge(pressure: Pressure, left_seconds: float, *, calm: bool) -> bool:
    """Whether a second send may go at this moment: within the budget, with a body that is held whole, with some of the
    deadline left, and never toward an upstream in trouble (``calm``: no gate, breaker or limit holds any exchange).
    """
    if left_seconds < LEAST_ATTEMPT_SECONDS:
        return False
    if not calm or pressure.breaker_open or not pressure.budget_tokens >= COST:  # so that NaN does not pay
        return False
    if pressure.draining or pressure.switched_off or pressure.client_gone:
        return False
    return pressure.replay is Replay.HELD and not pressure.response_started


def settles(decision: Decision, attempt: Attempt) -> bool:
    """Whether this response is taken while another send is under way: one that the table hands over, or for which the
    upstream's verdict forbids a retry. A failure never is, nor a response that would be retried.
    """
    if attempt.status is None or attempt.failure is not None or decision.verb is not Verb.PASS:
        return False
    return decision.reason in (None, Reason.NOT_RETRYABLE, Reason.SERVER_SAYS_NO)


def outlast(decision: Decision, earlier: Decision, elapsed_seconds: float, room_seconds: float) -> Decision:
    """The decision about the second response of a race, bound by the first one's hint: a hint is a minimum for the
    exchange, whichever of its two sends got it.

    ``elapsed_seconds``: since the first was judged. ``room_seconds``: the longest wait that the deadline allows.
    """
    hint = earlier.hint_seconds
    if hint is None or decision.verb in (Verb.PASS, Verb.STORE):
        return decision
    if earlier.verb is Verb.PASS:
        # The hint is too long to be followed, or another objection stands; it still does.
        return earlier
    if earlier.wait is None or earlier.wait.source is WaitFrom.BACKOFF:
        return decision
    least = earlier.wait.min_seconds - elapsed_seconds
    wait = NO_WAIT if decision.wait is None else decision.wait
    if least <= wait.min_seconds:
        return decision
    if least > room_seconds:
        return replace(decision, verb=Verb.PASS, reason=Reason.DEADLINE, wait=None, safe_because=None, cost=0.0)
    return replace(decision, wait=replace(wait.moved_to(least).cut_at(room_seconds), source=earlier.wait.source))
