"""The pause before a retry: a hint or backoff, its jitter, and the bound that the policy sets.

A hint is a **minimum**: chance only adds to it. It adds a share that is small against the hint (``hint_spread``), so
that clients with the same hint do not come back at the same moment; a rule without jitter adds nothing. ``max_wait``
bounds the hint itself, without that addition. Backoff is our own and never longer than ``max_wait``. Counterpart:
``decide``, which judges deadlines and gates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from sidecar.core.decision.attempt import Attempt
from sidecar.core.decision.backoff import backoff_range, backoff_seconds
from sidecar.core.decision.policy import Policy
from sidecar.core.decision.retry_after import Hint
from sidecar.core.decision.rows import Backoff, Row
from sidecar.core.enums import Jitter, OverMax, WaitFrom

__all__ = ["Wait", "expected_backoff_seconds", "hint_spread", "limits_of", "plan_wait"]

SPREAD_SHARE: Final = 0.1
"""Share of a hint that is added at most: 20 s become 20 … 22 s."""
LONGEST_SPREAD_SECONDS: Final = 5.0
BACKOFF_SPREAD_SECONDS: Final = 1.0
"""Seconds of the backoff's range that may be added to a hint, a zero one in particular."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A pause, in seconds, and the range that chance could have chosen from."""

    source: WaitFrom
    seconds: float
    min_seconds: float
    max_seconds: float

    def moved_to(self, least_seconds: float) -> Wait:
        """The same range, begun later if it would begin before ``least_seconds``."""
        shift = max(0.0, least_seconds - self.min_seconds)
        return replace(
            self,
            seconds=self.seconds + shift,
            min_seconds=self.min_seconds + shift,
            max_seconds=self.max_seconds + shift,
        )

    def cut_at(self, most_seconds: float) -> Wait:
        """The same wait, nowhere longer than ``most_seconds``."""
        return replace(
            self,
            seconds=min(self.seconds, most_seconds),
            min_seconds=min(self.min_seconds, most_seconds),
            max_seconds=min(self.max_seconds, most_seconds),
        )


def plan_wait(policy: Policy, row: Row | None, hint: Hint | None, attempt: Attempt, chance: float) -> Wait | None:
    """The pause before the retry that follows this attempt; None if the hint is over ``max_wait`` and is to pass.

    ``over_max: clamp`` waits ``max_wait`` and no spread; ``backoff`` forgets the hint.
    """
    rule = policy.backoff if row is None or row.backoff is None else row.backoff
    max_wait, over_max = limits_of(policy, row)
    if hint is not None and hint.seconds <= max_wait:
        return _hinted(rule, hint, attempt, chance)
    if hint is None or over_max is OverMax.BACKOFF:
        return _backed_off(rule, attempt, chance).cut_at(max_wait)
    if over_max is OverMax.CLAMP:
        return Wait(hint.source, max_wait, max_wait, max_wait)
    return None


def limits_of(policy: Policy, row: Row | None) -> tuple[float, OverMax]:
    """The longest wait in seconds, and what to do about a longer hint: the row's own, else the policy's."""
    max_wait = policy.max_wait_seconds if row is None or row.max_wait_seconds is None else row.max_wait_seconds
    return max_wait, policy.over_max if row is None or row.over_max is None else row.over_max


def hint_spread(rule: Backoff, hint_seconds: float, retry_number: int) -> tuple[float, float]:
    """The least and the most that chance adds to a hint, in seconds.

    To a hint of zero: the backoff's own range at this retry, at most a second, so that "at once" is still a small
    jittered pause. To a longer one: from nothing up to a tenth of the hint (at most 5 s), or up to the backoff's upper
    end (at most a second) where that is more.
    """
    least, most = (min(end, BACKOFF_SPREAD_SECONDS) for end in backoff_range(rule, retry_number))
    if hint_seconds <= 0:
        return least, most
    if rule.jitter is Jitter.NONE:
        return 0.0, 0.0
    return 0.0, max(most, min(hint_seconds * SPREAD_SHARE, LONGEST_SPREAD_SECONDS))


def expected_backoff_seconds(policy: Policy) -> float:
    """What the retries of an exchange wait by themselves on average, where no hint asks for more."""
    total = 0.0
    for retry in range(1, policy.attempts):
        total += sum(backoff_range(policy.backoff, retry, policy.backoff.cap_seconds)) / 2
        if total >= policy.deadline_seconds:
            return policy.deadline_seconds
    return total


def _hinted(rule: Backoff, hint: Hint, attempt: Attempt, chance: float) -> Wait:
    least, most = hint_spread(rule, hint.seconds, attempt.number)
    added = least + (most - least) * min(1.0, max(0.0, chance))
    return Wait(hint.source, hint.seconds + added, hint.seconds + least, hint.seconds + most)


def _backed_off(rule: Backoff, attempt: Attempt, chance: float) -> Wait:
    least, most = backoff_range(rule, attempt.number, attempt.waited_seconds)
    seconds = backoff_seconds(rule, attempt.number, chance, attempt.waited_seconds)
    return Wait(WaitFrom.BACKOFF, seconds, least, most)
