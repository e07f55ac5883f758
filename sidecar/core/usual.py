"""How long an answer of an upstream usually takes, while it gives no trouble.

A frozen value that is told once a second what the histogram of durations has counted so far. It follows slowly (by a
fiftieth a second), so that the first seconds of trouble, before anybody knows of it, do not become what is usual. The
median of a histogram is only known to a bucket; the mean of the same second says where in it. The counterpart that
needs it is ``crowd``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

__all__ = ["Usual", "middle", "told"]

FOLLOWS: Final = 1.02
"""By so much at the most it changes with one telling."""


@dataclass(frozen=True, slots=True)
class Usual:
    seconds: float = 0.0
    """0: nothing was answered yet."""
    counts: tuple[float, ...] = ()
    """What the histogram had counted when it was told last …"""
    total_seconds: float = 0.0
    """… and the sum of the durations."""


def told(usual: Usual, bounds: Sequence[float], counts: Sequence[float], total_seconds: float, *, calm: bool) -> Usual:
    """After one more second. What was counted in trouble is left out, and says nothing."""
    before = usual.counts or (0.0,) * len(counts)
    latest = replace(usual, counts=tuple(counts), total_seconds=total_seconds)
    recent = [now - then for now, then in zip(counts, before, strict=True)]
    found = middle(bounds, recent, total_seconds - usual.total_seconds) if calm else 0.0
    if found <= 0:
        return latest
    known = usual.seconds
    return replace(latest, seconds=min(max(found, known / FOLLOWS), known * FOLLOWS) if known else found)


def middle(bounds: Sequence[float], counts: Sequence[float], total_seconds: float) -> float:
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
