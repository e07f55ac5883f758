"""The virtual clock: what is due next, and a time that jumps there. No real time passes.

Seeded chance lives beside it, so that a run with the same seed is the same run.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

__all__ = ["Clock", "unit"]

EPOCH: Final = 1_696_004_797.0
"""The wall clock at virtual second 0."""
MASK: Final = (1 << 64) - 1


def unit(*numbers: int) -> float:
    """A number in [0, 1) that depends on these numbers alone: the finalizer of SplitMix64 (Steele, Lea, Flood 2014).

    Two sides of a comparison that ask for the same thing get the same luck, whatever else either of them does
    (common random numbers).
    """
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
        state ^= state >> 31
    return (state >> 11) / (1 << 53)


class Clock:
    """Seconds since the run began."""

    __slots__ = ("_count", "_due", "chance", "dice", "now", "seed")

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.seed = seed
        self.dice = random.Random(seed)
        self.chance: Callable[[], float] = self.dice.random
        self._due: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    @property
    def wall(self) -> float:
        return EPOCH + self.now

    def chance_of(self, index: int, attempt: int) -> float:
        """The chance of one attempt of one request: the same on every side of a comparison."""
        return unit(self.seed, index, attempt)

    def at(self, moment: float, act: Callable[..., None], *arguments: Any) -> None:
        """Call it at that moment, or now if that is past."""
        self._count += 1
        heappush(self._due, (max(moment, self.now), self._count, act, arguments))

    def after(self, seconds: float, act: Callable[..., None], *arguments: Any) -> None:
        self.at(self.now + seconds, act, *arguments)

    def run(self, until: float) -> None:
        """Everything that is due up to that moment, in order."""
        due = self._due
        while due and due[0][0] <= until:
            self.now, _, act, arguments = heappop(due)
            act(*arguments)
        self.now = max(self.now, until)
