"""The breaker: an upstream is down, and single probes look whether it is back.

A frozen value; the holder (``limiter``) keeps the latest. Closed, it watches the share of failures among recent
attempts, and for ``of_at_least`` failures in a row (at 200 sends a second the share over ten seconds would take five to
show); open, it lets nothing through but probes, with growing pauses; a probe that succeeds closes it again, and how
many may follow at once is told by ``concurrency_limit``. A 429 is no failure: whoever refuses for the rate is not down.

It learns of successes late and in sum: the loop counts sends in an integer, and only a failure brings them in here. So
an untroubled exchange costs nothing. Each opening and closing begins a new **generation**; a result of an attempt
that was sent in an earlier one is late, and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from sidecar.core.decision.policy import BreakerRule

__all__ = [
    "Breaker",
    "State",
    "answered",
    "closed_elsewhere",
    "failed",
    "may_probe",
    "opened_elsewhere",
    "probe",
    "probe_lost",
    "share",
]

SLOTS: Final = 40
"""The rule's ``within`` is watched in so many pieces: 0.25 s of 10 s."""
SHAKY_FAILURES: Final = 3
"""While it has just closed again, so many failures in a row are enough."""
SHAKY_SECONDS: Final = 5.0

FLOOR_PER_SECOND: Final = 3
"""Successes a second that probes bring, too: an upstream that takes more than that is not down, and is not held."""

FIRST_PAUSE_SECONDS: Final = 0.1
PAUSE_GROWTH: Final = 1.5
STEADY_PAUSE_SECONDS: Final = 0.3
"""The pauses grow up to this …"""
PAUSE_SHARE: Final = 1 / 40
"""… and beyond it with the outage: after a minute 1.5 s …"""
LONGEST_PAUSE_SECONDS: Final = 5.0
"""… and never beyond that."""
PAUSE_JITTER: Final = 0.25
TOLD_SPREAD_SECONDS: Final = 0.1
UNANSWERED_SECONDS: Final = 1.0
"""A probe that hangs does not stand in the way of the next one for longer."""


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"
    """Open, and a probe is under way."""


@dataclass(frozen=True, slots=True)
class Breaker:
    state: State = State.CLOSED
    generation: int = 1
    slots: tuple[tuple[int, int, int], ...] = ()
    """Oldest first: number of the slot, attempts, failures."""
    in_a_row: int = 0
    """Failures since the last success."""
    opened_at: float = 0.0
    """Monotonic seconds, as all that ends in ``_at``."""
    closed_at: float = -1e9
    """When it last closed after having been open."""
    probe_at: float = 0.0
    """When the next probe may go."""
    probes: int = 0
    """Sent since it opened."""

    @property
    def is_open(self) -> bool:
        return self.state is not State.CLOSED


def failed(
    breaker: Breaker,
    rule: BreakerRule,
    now: float,
    chance: float,
    succeeded: int = 0,
    under_way: int = 0,
    quiet_until: float = 0.0,
) -> Breaker:
    """A failure of the current generation, and how many attempts succeeded since the last one that was told.

    ``quiet_until``: the hint of this failure, in monotonic seconds. ``under_way``: attempts without a result. An
    upstream that has many of ours in its hands and refuses more is crowded, not down: so many failures in a row as it
    holds are needed to open for that.

    Opens a closed breaker where the rule says so; where it is open, a probe has failed: the next pause is longer.
    """
    if breaker.is_open:
        return _quiet(_pause(replace(breaker, state=State.OPEN), now, chance), now, quiet_until)
    breaker = _count(breaker, rule, now, succeeded + 1, 1)
    breaker = replace(breaker, in_a_row=breaker.in_a_row + 1 if succeeded == 0 else 1)
    return _quiet(_open(breaker, now, chance), now, quiet_until) if _is_down(breaker, rule, now, under_way) else breaker


def _quiet(breaker: Breaker, now: float, until: float) -> Breaker:
    """No probe before the hint of the failure ends, or before the longest pause has passed."""
    return replace(breaker, probe_at=max(breaker.probe_at, min(until, now + LONGEST_PAUSE_SECONDS)))


def answered(breaker: Breaker, rule: BreakerRule, now: float) -> Breaker:
    """A success of the current generation. The first one closes an open breaker."""
    if breaker.is_open:
        return closed_elsewhere(breaker, now)
    return replace(_count(breaker, rule, now, 1, 0), in_a_row=0)


def may_probe(breaker: Breaker, now: float) -> bool:
    """Whether a probe may go now. Clocks that jump back cannot postpone it for longer than the longest pause."""
    return breaker.is_open and (now >= breaker.probe_at or breaker.probe_at - now > 2 * LONGEST_PAUSE_SECONDS)


def probe(breaker: Breaker, now: float, chance: float) -> Breaker:
    """A probe goes out now."""
    longer = _pause(replace(breaker, probes=breaker.probes + 1), now, chance)
    at = max(longer.probe_at, now + UNANSWERED_SECONDS)
    return replace(longer, state=State.PROBING, probe_at=at)


def probe_lost(breaker: Breaker, now: float) -> Breaker:
    """The exchange that probed was given up: another may probe at once."""
    return replace(breaker, state=State.OPEN, probe_at=now) if breaker.state is State.PROBING else breaker


def opened_elsewhere(
    breaker: Breaker, now: float, chance: float, *, open_seconds: float, probe_seconds: float, probes: int
) -> Breaker:
    """Another replica's has been open for so long, and its next probe is due after ``probe_seconds``.

    Whoever is told of a probe puts its own off until a little after that one: so one of many probes at a time.
    """
    probe_at = now + max(0.0, probe_seconds) + TOLD_SPREAD_SECONDS * min(1.0, max(0.0, chance))
    opened_at = now - max(0.0, open_seconds)
    if breaker.state is State.PROBING:
        return breaker
    if breaker.is_open:
        earlier = min(breaker.opened_at, opened_at)
        return replace(breaker, opened_at=earlier, probe_at=probe_at, probes=max(breaker.probes, probes))
    return Breaker(
        State.OPEN,
        breaker.generation + 1,
        opened_at=opened_at,
        closed_at=breaker.closed_at,
        probe_at=probe_at,
        probes=probes,
    )


def closed_elsewhere(breaker: Breaker, now: float) -> Breaker:
    """Another replica's probe was answered."""
    return Breaker(generation=breaker.generation + 1, closed_at=now) if breaker.is_open else breaker


def share(breaker: Breaker, rule: BreakerRule, now: float, seconds: float) -> tuple[int, float]:
    """Attempts of the last ``seconds`` (whole slots, the present one besides) and the share of failures among them."""
    first = _slot(rule, now) - max(1, round(seconds / _slot_seconds(rule)))
    attempts = sum(count for slot, count, _ in breaker.slots if slot >= first)
    failures = sum(bad for slot, _, bad in breaker.slots if slot >= first)
    return attempts, failures / attempts if attempts else 0.0


def _is_down(breaker: Breaker, rule: BreakerRule, now: float, under_way: int) -> bool:
    """Enough failures in a row; or too large a share, where it takes no more than probes would bring it (the floor)."""
    is_shaky = 0 <= now - breaker.closed_at < SHAKY_SECONDS
    is_floor = rule.when_open == "fail" or _succeeded(breaker, rule, now) <= FLOOR_PER_SECOND
    if breaker.in_a_row >= max(SHAKY_FAILURES if is_shaky and is_floor else rule.of_at_least, under_way):
        return True
    attempts, bad = share(breaker, rule, now, rule.within_seconds)
    return is_floor and attempts >= rule.of_at_least and bad >= rule.failures


def _succeeded(breaker: Breaker, rule: BreakerRule, now: float) -> int:
    """Within the last second."""
    first = int((now - 1.0) / _slot_seconds(rule))
    return sum(count - bad for slot, count, bad in breaker.slots if slot > first)


def _open(breaker: Breaker, now: float, chance: float) -> Breaker:
    opened = Breaker(State.OPEN, breaker.generation + 1, opened_at=now, closed_at=breaker.closed_at)
    return _pause(opened, now, chance)


def _pause(breaker: Breaker, now: float, chance: float) -> Breaker:
    """The next probe after a pause that grows with each, and slowly with the outage."""
    steady = max(STEADY_PAUSE_SECONDS, (now - breaker.opened_at) * PAUSE_SHARE)
    grown = FIRST_PAUSE_SECONDS * PAUSE_GROWTH ** min(breaker.probes, 20)
    pause = min(grown, steady, LONGEST_PAUSE_SECONDS)
    spread = 1 + PAUSE_JITTER * (2 * min(1.0, max(0.0, chance)) - 1)
    return replace(breaker, probe_at=now + pause * spread)


def _slot_seconds(rule: BreakerRule) -> float:
    return max(rule.within_seconds, 0.001) / SLOTS


def _slot(rule: BreakerRule, now: float) -> int:
    return int(now / _slot_seconds(rule))


def _count(breaker: Breaker, rule: BreakerRule, now: float, attempts: int, failures: int) -> Breaker:
    """These attempts in the present slot; what is older than the window is forgotten, and what is in the future."""
    slot = _slot(rule, now)
    kept = breaker.slots
    if kept and (kept[0][0] <= slot - SLOTS or kept[-1][0] > slot):
        kept = tuple(entry for entry in kept if slot - SLOTS < entry[0] <= slot)
    if kept and kept[-1][0] == slot:
        _, count, bad = kept[-1]
        return replace(breaker, slots=(*kept[:-1], (slot, count + attempts, bad + failures)))
    return replace(breaker, slots=(*kept, (slot, attempts, failures)))
