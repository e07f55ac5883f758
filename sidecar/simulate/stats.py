"""What happened in a run, by slices of virtual time; and the figures that sum it up.

Counts only. The pictures are made by ``page``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Series", "Stats"]


@dataclass(slots=True)
class Series:
    """One count for each slice of time."""

    slice_seconds: float
    values: list[int] = field(default_factory=list)

    def add(self, now: float, count: int = 1) -> None:
        index = int(now / self.slice_seconds)
        if index >= len(self.values):
            self.values.extend([0] * (index + 1 - len(self.values)))
        self.values[index] += count

    def between(self, begin: float, end: float) -> int:
        """The sum of the slices that begin in [begin, end)."""
        first, last = round(begin / self.slice_seconds), round(end / self.slice_seconds)
        return sum(self.values[first:last])


@dataclass(slots=True)
class Stats:
    """Everything that one side saw. Seconds are virtual."""

    slice_seconds: float = 0.1
    offered: Series = field(init=False)
    sent: Series = field(init=False)
    succeeded: Series = field(init=False)
    held: list[int] = field(default_factory=list)
    """The number waiting inside the sidecars at the beginning of each slice."""
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    durations: list[tuple[float, float, bool]] = field(default_factory=list)
    """When each exchange began, how long it took, and whether it succeeded."""
    applied_twice: int = 0
    ended_at: float = 0.0

    def __post_init__(self) -> None:
        self.offered = Series(self.slice_seconds)
        self.sent = Series(self.slice_seconds)
        self.succeeded = Series(self.slice_seconds)

    @property
    def requests(self) -> int:
        return sum(self.offered.values)

    @property
    def ok_share(self) -> float:
        return sum(self.succeeded.values) / self.requests if self.requests else 1.0

    @property
    def calls_per_request(self) -> float:
        return sum(self.sent.values) / self.requests if self.requests else 0.0

    def amplification(self, begin: float, end: float) -> float:
        """Sends per request offered in that time."""
        offered = self.offered.between(begin, end)
        return self.sent.between(begin, end) / offered if offered else 0.0

    def latency(self, share: float, begin: float = 0.0, end: float = float("inf")) -> float:
        """The duration that this share of the successful exchanges begun in that time did not exceed."""
        found = sorted(seconds for at, seconds, good in self.durations if good and begin <= at < end)
        return found[min(len(found) - 1, int(share * len(found)))] if found else 0.0

    def settled_after(self, moment: float, quick_seconds: float) -> float:
        """How long after that moment the last slow exchange ended."""
        slow = [at + took for at, took, good in self.durations if took > quick_seconds or not good]
        return max(0.0, max(slow, default=moment) - moment)
