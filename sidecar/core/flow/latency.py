"""How long an answer of an upstream usually takes, while it gives no trouble.

A frozen value that is told once a second what the histogram of durations has counted so far. It is the median of the
last half minute's seconds: neither the first seconds of trouble, before anybody knows of it, nor a single odd answer
becomes what is usual. The median of a histogram is only known to a bucket; the mean of the same second says where in
it. The counterpart that needs it is ``concurrency_limit``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Latency", "median", "update"]

KEPT: Final = 31
"""Seconds in which there were answers."""


@dataclass(frozen=True, slots=True)
class Latency:
    recent: tuple[float, ...] = ()
    """The middle of each of the last seconds, oldest first."""
    counts: tuple[float, ...] = ()
    """What the histogram had counted when it was told last …"""
    total_seconds: float = 0.0
    """… and the sum of the durations."""

    @property
    def seconds(self) -> float:
        """0: nothing was answered yet."""
        return sorted(self.recent)[len(self.recent) // 2] if self.recent else 0.0


def update(
    known: Latency, bounds: Sequence[float], counts: Sequence[float], total_seconds: float, *, calm: bool
) -> Latency:
    """After one more second. What was counted in trouble is left out, and says nothing."""
    before = known.counts or (0.0,) * len(counts)
    new = [now - then for now, then in zip(counts, before, strict=True)]
    found = median(bounds, new, total_seconds - known.total_seconds) if calm else 0.0
    recent = (*known.recent, found)[-KEPT:] if found > 0 else known.recent
    return Latency(recent, tuple(counts), total_seconds)


def median(bounds: Sequence[float], counts: Sequence[float], total_seconds: float) -> float:
    """The median of a histogram, as far as its bucket and its mean tell; 0 of an empty one.

    ``counts``: up to each bound (inclusive) and above the one before; the last are above all bounds.
    """
    answers = sum(counts)
    if answers <= 0:
        return 0.0
    seen, low = 0.0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        seen += count
        if 2 * seen >= answers:
            return min(max(total_seconds / answers, low), bound)
        low = bound
    return low
