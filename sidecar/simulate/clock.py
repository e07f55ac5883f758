"""The virtual clock: what is due next, and a time that jumps there. No real time passes.

Seeded chance lives beside it, so that a run with the same seed is the same run.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

__all__ = ["Clock"]

EPOCH: Final = 1_696_004_797.0
"""The wall clock at virtual second 0."""


class Clock:
    """Seconds since the run began."""

    __slots__ = ("_count", "_due", "chance", "dice", "now")

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.dice = random.Random(seed)
        self.chance: Callable[[], float] = self.dice.random
        self._due: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    @property
    def wall(self) -> float:
        return EPOCH + self.now

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
