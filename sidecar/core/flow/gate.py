"""The gate: the upstream asked for quiet, the evidence says that this concerns a whole scope, and nobody in it sends.

A frozen value; ``keys`` holds one for each scope. Algorithm: closed until the hint ends; a hint that is longer than
``LOOK_AGAIN_SECONDS`` is not simply believed, single probes look behind it, at pauses that double (as behind a
breaker). Invariant: no gate is closed for longer than an hour, and none for longer than a minute without a probe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

__all__ = ["LONGEST_SECONDS", "Gate", "close", "left_seconds", "probe", "probe_seconds"]

LONGEST_SECONDS: Final = 3600.0
"""No hint closes a gate for longer: the next answer renews a true one, an absurd one is over some day."""
LOOK_AGAIN_SECONDS: Final = 5.0
"""The pause before the first probe: shorter hints, the most common, are kept to by everybody."""
LONGEST_PAUSE_SECONDS: Final = 60.0
"""Between two probes: the default deadline, so that every exchange that waits sees one."""


@dataclass(frozen=True, slots=True)
class Gate:
    until: float = 0.0
    """Monotonic seconds; a gate is open at and after that moment."""
    closed_at: float = 0.0
    """Monotonic seconds of the answer that closed it last."""
    probe_at: float = 0.0
    """When the next probe may go."""
    pause_seconds: float = LOOK_AGAIN_SECONDS
    """Between this probe and the one after it."""


def close(gate: Gate, until: float, now: float) -> Gate:
    """The gate after an answer that asks for quiet until then; never opened earlier, never for longer than an hour."""
    wished = min(until, now + LONGEST_SECONDS) if until == until else now  # NaN asks for nothing
    if wished <= now:
        return gate
    if left_seconds(gate, now) > 0:
        return replace(gate, until=max(wished, now + left_seconds(gate, now)), closed_at=now)
    return Gate(wished, now, now + LOOK_AGAIN_SECONDS)


def left_seconds(gate: Gate, now: float) -> float:
    """Seconds until it opens; 0 for an open one.

    A clock that jumped back cannot make the quiet longer than it was when it began.
    """
    if gate.until <= now:
        return 0.0
    return min(gate.until - now, gate.until - gate.closed_at, LONGEST_SECONDS)


def probe_seconds(gate: Gate, now: float) -> float:
    """Seconds until somebody may go, be it as a probe; 0: now."""
    return max(0.0, min(left_seconds(gate, now), gate.probe_at - now))


def probe(gate: Gate, now: float) -> Gate:
    """One goes out to look."""
    pause = min(LONGEST_PAUSE_SECONDS, 2 * gate.pause_seconds)
    return replace(gate, probe_at=now + pause, pause_seconds=pause)
