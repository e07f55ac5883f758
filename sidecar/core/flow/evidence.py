"""Evidence: which share of the answers of late were refusals, and whether that is more than chance.

Algorithm: the lower bound of Wilson's score interval (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927) of the refused share.
Invariant: a few refusals among many successes are never evidence, however they are ordered; what is older than ten
seconds is none. Values and counts only; what follows from them is said in ``keys`` and ``limiter``.
"""

from __future__ import annotations

from collections import deque
from math import sqrt
from typing import Final

__all__ = ["FEWEST", "WORTH", "Evidence", "is_evidence", "wilson"]

Z: Final = 2.0
"""Standard deviations of the bound: one verdict in forty is wrong by chance."""
WORTH: Final = 0.15
"""Share of refusals from which on holding can save anything: below it each exchange's own wait costs less."""
FEWEST: Final = 20
"""Answers, before anything is concluded, and those that make the last second alone a sample: with five, a random 3 %
of refusals would close a scope within minutes; below two answers a second holding saves hardly a send."""
RECENT_SECONDS: Final = 1.0
KEPT_SECONDS: Final = 10.0
"""An upstream that is asked once a second still has a sample of ten."""
SLOT_SECONDS: Final = 0.1
"""Answers are counted together in pieces of this length: at most a hundred pieces for each scope."""


def wilson(refused: int, answers: int) -> float:
    """The share of refusals that is at least to be believed; 0 without answers."""
    if answers <= 0:
        return 0.0
    share, z = refused / answers, Z * Z
    spread = Z * sqrt(max(0.0, share * (1 - share) / answers + z / (4.0 * answers * answers)))
    return max(0.0, (share + z / (2 * answers) - spread) / (1 + z / answers))


def is_evidence(accepted: int, refused: int, under_way: int = 0) -> bool:
    """Whether so many refusals among these answers say that the scope is being refused.

    ``under_way``: sends without an answer yet, which count as not refused: refusals come sooner than successes do.
    """
    answers = accepted + refused
    return answers >= FEWEST and wilson(refused, answers + under_way) > WORTH


class Evidence:
    """The answers of the last ten seconds, accepted and refused."""

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots: deque[list[int]] = deque()
        """Oldest first: number of the slot, accepted, refused."""

    def add(self, now: float, accepted: int, refused: int) -> None:
        slot, slots = int(now / SLOT_SECONDS), self._slots
        if slots and slots[-1][0] > slot:
            slots.clear()  # the clock was set back
        if slots and slots[-1][0] == slot:
            slots[-1][1] += accepted
            slots[-1][2] += refused
        else:
            slots.append([slot, accepted, refused])
        while slots[0][0] <= slot - int(KEPT_SECONDS / SLOT_SECONDS):
            slots.popleft()

    def recent(self, now: float) -> tuple[int, int, float]:
        """Accepted, refused, and the seconds from the first of them until now: of the last second, or of all."""
        found = self._since(now, RECENT_SECONDS)
        return found if found[0] + found[1] >= FEWEST else self._since(now, KEPT_SECONDS)

    def _since(self, now: float, seconds: float) -> tuple[int, int, float]:
        oldest = int((now - seconds) / SLOT_SECONDS) + 1
        accepted = refused = 0
        first = now
        for slot, good, bad in reversed(self._slots):
            if slot < oldest:
                break
            accepted, refused, first = accepted + good, refused + bad, slot * SLOT_SECONDS
        return accepted, refused, max(0.0, now - first)

    def most_per_second(self) -> float:
        """Acceptances in the busiest second of those that are kept: a burst is not thinned by the quiet after it."""
        slots, most, total, first = self._slots, 0, 0, 0
        for slot, good, _ in slots:
            total += good
            while slots[first][0] <= slot - int(RECENT_SECONDS / SLOT_SECONDS):
                total -= slots[first][1]
                first += 1
            most = max(most, total)
        return most / RECENT_SECONDS

    def accepted(self, now: float, since: float) -> int:
        """Acceptances from that moment on, of those that are kept."""
        return self._since(now, min(KEPT_SECONDS, max(0.0, now - since) + SLOT_SECONDS))[0]

    def has_answers(self, now: float) -> bool:
        accepted, refused, _ = self._since(now, KEPT_SECONDS)
        return accepted + refused > 0

    def has_refusals(self, now: float) -> bool:
        return self._since(now, KEPT_SECONDS)[1] > 0

    def clear(self) -> None:
        self._slots.clear()
