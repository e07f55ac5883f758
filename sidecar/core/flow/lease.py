"""Moments at which one may go, as granted by a store that several sidecars share.

Where a lane has a lease, the store spaces the sends of all replicas, by the rate that was learnt; here is what it has
granted to this one, and what it has yet to be told. One moment more than there are exchanges that wait is kept in
hand, so that the next exchange need not wait for the store. Values only; who asks is ``shared.member``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Lease"]

SPARE: Final = 1
MOST_WANTED: Final = 64
"""Moments asked for at once: what a fast upstream takes while one question is under way."""
STALE_SECONDS: Final = 1.0
"""Moments that passed so long ago, because those who waited for them left, are not made up for."""
ASK_AGAIN_SECONDS: Final = 5.0
"""Until the store is asked again, whatever it says."""
NEEDED_FROM_SECONDS: Final = 0.002
"""A moment that lies further ahead means that somebody has to wait for the rate."""


@dataclass(slots=True)
class Lease:
    moments: deque[float] = field(default_factory=deque)
    """Monotonic seconds, soonest first."""
    untold: int = 0
    """Successes that the store has not been told of."""
    ask_at: float = 0.0
    """Not before this moment."""
    is_used: bool = False
    """Whether one has gone since the store was asked last; where none has, nothing is kept in hand."""

    def ready_at(self) -> float:
        """When the next one may go; infinity while nothing is granted."""
        return self.moments[0] if self.moments else float("inf")

    def take(self, now: float) -> bool:
        """Whether one may go now; then its moment is spent."""
        while len(self.moments) > SPARE and self.moments[0] < now - STALE_SECONDS:
            self.moments.popleft()
        if not self.moments or self.moments[0] > now:
            return False
        self.moments.popleft()
        self.is_used = True
        return True

    def wanted(self, waiting: int) -> int:
        """How many moments to ask for."""
        if not waiting and not self.is_used:
            return 0
        return min(MOST_WANTED, max(0, waiting + SPARE - len(self.moments)))

    def granted(self, seconds: Iterable[float], again_seconds: float, now: float) -> bool:
        """These moments, from now; ask again no sooner than after ``again_seconds``.

        True if they lie ahead, so that somebody has to wait for the rate.
        """
        before = len(self.moments)
        self.is_used = False
        self.moments.extend(now + max(0.0, later) for later in seconds)
        self.ask_at = now + min(ASK_AGAIN_SECONDS, max(0.0, again_seconds))
        is_scarce = len(self.moments) == before
        return is_scarce or self.moments[-1] > now + NEEDED_FROM_SECONDS

    def void(self) -> None:
        """What was granted does not hold any more: the gate was closed, or the rate is another."""
        self.moments.clear()
        self.ask_at = 0.0
