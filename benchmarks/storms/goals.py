"""What is asked of the sidecar in a storm: a figure, a limit, and whether it was met.

A goal is judged on the figures of one row of the table; one that names a peer is judged against that peer in the same
run, and is open where that peer is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["Figures", "Goal", "always", "at_least", "at_most", "no_worse_than"]

Figures = Mapping[str, float]

WORDS = {
    "ok_share": "ok",
    "calls_per_request": "calls/request",
    "amplification_in_trouble": "calls per offered request in trouble",
    "p50_after_seconds": "p50 from 2 s after the trouble",
    "p99_seconds": "p99",
    "settled_seconds": "settled after the trouble",
    "ended_seconds": "total",
    "early": "early sends",
    "early_again": "sent again before its own hint",
    "applied_twice": "applied twice",
    "untold": "applied without an answer, and the app not told",
}


@dataclass(frozen=True, slots=True)
class Goal:
    figure: str
    relation: Literal["at least", "at most", "no worse than"]
    limit: float = 0.0
    peer: str = ""
    """With ``no worse than``."""
    always: bool = False
    """Also of a storm that was made smaller: it does not depend on how long there was to learn."""

    def is_met(self, mine: Figures, others: Mapping[str, Figures]) -> bool | None:
        """None: the peer that it is judged against did not run."""
        value = mine[self.figure]
        if self.relation == "at least":
            return value >= self.limit
        if self.relation == "at most":
            return value <= self.limit
        other = others.get(self.peer)
        return None if other is None else value <= other[self.figure]

    @property
    def asked(self) -> str:
        """In words, with its limit."""
        what = WORDS[self.figure]
        if self.peer:
            return f"{what} no worse than {self.peer}'s"
        if self.relation == "at most" and self.limit == 0:
            return f"{what}: none"
        return f"{what} {'≥' if self.relation == 'at least' else '≤'} {told(self.figure, self.limit)}"


def told(figure: str, value: float) -> str:
    """The figure as people read it."""
    if figure == "ok_share":
        return f"{value * 100:.4g} %"
    if figure.endswith("_seconds"):
        return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"
    return f"{value:.4g}"


def at_least(figure: str, limit: float) -> Goal:
    return Goal(figure, "at least", limit)


def at_most(figure: str, limit: float) -> Goal:
    return Goal(figure, "at most", limit)


def no_worse_than(peer: str, figure: str) -> Goal:
    return Goal(figure, "no worse than", peer=peer)


def always(figure: str, limit: float = 0.0) -> Goal:
    """Held whatever the size of the storm; shares of ok at least, counts at most."""
    return Goal(figure, "at least" if figure == "ok_share" else "at most", limit, always=True)
