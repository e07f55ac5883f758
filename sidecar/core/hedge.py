"""Hedging: a second send when the first is slower than nearly all others; the first answer wins.

What "slow" means is learnt: a histogram of durations with logarithmic steps, whose old half fades. ``hedge_after`` says
how long to wait for the first attempt before the second is sent, or None for never. It is asked for only where a policy
switches hedging on. The loop sends, cancels the loser, and pays from the budget; here nothing acts.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from sidecar.core.exchange import Request
from sidecar.core.words import IDEMPOTENT_METHODS

__all__ = ["Durations", "HedgeRule", "hedge_after"]

STEP: Final = 1.1
"""Each bucket reaches a tenth further than the one before: the error of a quantile."""
BOUNDS: Final = tuple(0.0005 * STEP**n for n in range(130))
"""Seconds: from half a millisecond to about two minutes."""
FADE_AT: Final = 2000
"""When so many are counted, all counts are halved: what was long ago matters less and less."""
FEWEST_KNOWN: Final = 50
"""Durations, before anything counts as slow."""
LEAST_SECONDS: Final = 0.002


@dataclass(frozen=True, slots=True)
class HedgeRule:
    quantile: float = 0.95
    """A second send goes when the first has taken longer than this share of all."""
    after_seconds: float | None = None
    """A fixed time instead of a learnt one."""


class Durations:
    """How long answers took. Counting one costs a search among 130 numbers."""

    __slots__ = ("_counts", "total")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self.total = 0

    def add(self, seconds: float) -> None:
        """One answer took so long."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += 1
        if self.total >= FADE_AT:
            self._counts = [count // 2 for count in self._counts]
            self.total = sum(self._counts)

    def quantile(self, share: float) -> float | None:
        """Seconds that this share (0 … 1) of the answers did not exceed; None while too few are known."""
        if self.total < FEWEST_KNOWN:
            return None
        wanted = min(1.0, max(0.0, share)) * self.total
        index = next(n for n, seen in enumerate(accumulate(self._counts)) if seen >= wanted)
        return BOUNDS[min(index, len(BOUNDS) - 1)]


def hedge_after(
    rule: HedgeRule | None, durations: Durations, request: Request, now: float, tokens: float, calm: bool
) -> float | None:
    """Seconds after which a second send may go beside the first; None: not for this one.

    Only what is idempotent or keyed (the first may have been applied), only inside the budget, never toward an
    upstream in trouble, and never so late that the deadline leaves the second one no chance.
    """
    if rule is None or not calm or not tokens >= 1:  # written so that NaN does not pay
        return None
    if request.method not in IDEMPOTENT_METHODS and not request.keyed:
        return None
    seconds = durations.quantile(rule.quantile) if rule.after_seconds is None else rule.after_seconds
    if seconds is None:
        return None
    after = max(LEAST_SECONDS, seconds)
    return after if now + 2 * after < request.deadline_at else None
