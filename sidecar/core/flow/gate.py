"""The gate: an upstream asked for quiet, and until then nobody sends.

A frozen value; the holder (``limiter``) keeps one per gate key and passes ``now`` in. A hint only ever extends it:
a later answer that asks for less does not undo what an earlier one asked for. Nothing here sleeps or knows who waits;
how release goes on after it opens is told by ``rate_limit``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["LONGEST_SECONDS", "Gate", "close", "left_seconds"]

LONGEST_SECONDS: Final = 3600.0
"""No hint closes a gate for longer: the next answer renews a true one, an absurd one is over some day."""


@dataclass(frozen=True, slots=True)
class Gate:
    until: float = 0.0
    """Monotonic seconds; a gate is open at and after that moment."""
    closed_at: float = 0.0
    """Monotonic seconds of the answer that closed it last."""


def close(gate: Gate, until: float, now: float) -> Gate:
    """The gate after an answer that asks for quiet until then; never opened earlier, never for longer than an hour."""
    wished = min(until, now + LONGEST_SECONDS) if until == until else now  # NaN asks for nothing
    if wished <= now:
        return gate
    return Gate(max(wished, now + left_seconds(gate, now)), now)


def left_seconds(gate: Gate, now: float) -> float:
    """Seconds until it opens; 0 for an open one.

    A clock that jumped back cannot make the quiet longer than it was when it began.
    """
    if gate.until <= now:
        return 0.0
    return min(gate.until - now, gate.until - gate.closed_at, LONGEST_SECONDS)
