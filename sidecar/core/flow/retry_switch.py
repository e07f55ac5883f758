"""Retries that an operator has turned off for a while: for all upstreams, or for one.

A mapping from names to moments; the widest word comes first, a word for one upstream overrules it. Nothing is learnt
here and nothing turns itself off. Invariant: after ``turn_on(None)`` nothing is off. Time is an argument; the
counterpart is ``proxy.operator``, which acts on it, tells it and counts it.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LONGEST_SECONDS", "RetrySwitch"]

LONGEST_SECONDS: Final = 7 * 86400.0
"""A time for which retries are off is a week at most: what has to stay longer belongs into the policy."""


class RetrySwitch:
    """Everything that ends in ``_until`` is in monotonic seconds; infinity lasts until somebody turns them on."""

    __slots__ = ("_all_until", "_until")

    def __init__(self) -> None:
        self._all_until = 0.0
        self._until: dict[str, float] = {}
        """By upstream, where something else than for all was said; 0 is on."""

    def turn_off(self, upstream: str | None, until: float) -> None:
        """Until this moment; None: every upstream, also those that a reload brings."""
        if upstream is None:
            self._all_until = until
            self._until.clear()
        else:
            self._until[upstream] = until

    def turn_on(self, upstream: str | None) -> None:
        """As before ``turn_off``; None: every upstream."""
        self.turn_off(upstream, 0.0)

    def off_until(self, upstream: str, now: float) -> float | None:
        """When the retries of this upstream are on again; None if they are."""
        until = self._until.get(upstream, self._all_until)
        return until if until > now else None

    def is_off(self, upstream: str, now: float) -> bool:
        """Whether nothing of this upstream may be sent again now."""
        return self._until.get(upstream, self._all_until) > now
