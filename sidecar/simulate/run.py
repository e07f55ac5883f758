"""Puts a side under a storm, on the virtual clock, and returns what happened.

``stand`` runs one side; every side of a comparison meets the same storm with the same seed. The upstream model is made
anew for each. Progress is told while it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count, cycle
from typing import Final

from sidecar.core.exchange import Request
from sidecar.core.policy import Policy
from sidecar.simulate.clock import Clock
from sidecar.simulate.sidecars import Budgeted, Door, Fixed, Side, Sidecar
from sidecar.simulate.storms import Storm
from sidecar.simulate.tally import Tally
from sidecar.simulate.upstream import Quota, Upstream

__all__ = ["Stood", "Team", "budgeted", "fixed", "replicas", "stand"]

LONGEST_SECONDS: Final = 600.0
"""Of virtual time, whatever is still under way."""
STEP_SECONDS: Final = 0.1

Team = Callable[[Clock, Upstream, Tally], list[Side]]
"""Makes the sidecars (or stand-ins) that stand before one upstream."""


@dataclass(frozen=True, slots=True)
class Stood:
    """One side after one storm."""

    name: str
    storm: Storm
    tally: Tally
    early: int
    """Arrivals before the moment until which the upstream had asked for quiet (quota only)."""

    def figures(self) -> dict[str, float | int]:
        """What sums it up: shares of 1, seconds, calls."""
        tally, (begin, end) = self.tally, self.storm.trouble
        return {
            "requests": tally.requests,
            "ok_share": round(tally.ok_share, 5),
            "calls_per_request": round(tally.calls_per_request, 4),
            "amplification_in_trouble": round(tally.amplification(begin, end), 4) if end > begin else 0.0,
            "p50_seconds": round(tally.latency(0.5), 4),
            "p99_seconds": round(tally.latency(0.99), 4),
            "p50_after_seconds": round(tally.latency(0.5, end + 2), 4) if end > begin else 0.0,
            "settled_seconds": round(tally.settled_after(end, SETTLED_SECONDS), 3) if end > begin else 0.0,
            "ended_seconds": round(tally.ended_at, 3),
            "early": self.early,
            "applied_twice": tally.applied_twice,
        }


SETTLED_SECONDS: Final = 0.5
"""An exchange that took longer, or failed, belongs to the trouble."""


def replicas(policy: Policy, count: int, *, shared: bool) -> Team:
    """So many sidecars. ``shared``: with one memory between them, at no distance; else each knows only its own."""

    def make(clock: Clock, upstream: Upstream, tally: Tally) -> list[Side]:
        gate = replace(policy.gate, queue=policy.gate.queue * count)
        door = Door(clock, policy.breaker, gate) if shared else None
        return [Sidecar(clock, policy, upstream, tally, door) for _ in range(count)]

    return make


def fixed(clock: Clock, upstream: Upstream, tally: Tally) -> list[Side]:
    """The stand-in with fixed retries and no budget."""
    return [Fixed(clock, upstream, tally)]


def budgeted(clock: Clock, upstream: Upstream, tally: Tally) -> list[Side]:
    """The stand-in with a budget of a fifth."""
    return [Budgeted(clock, upstream, tally)]


def stand(name: str, storm: Storm, team: Team, seed: int, progress: Callable[[float], None]) -> Stood:
    """Run it to its end. ``progress`` is told the share of the requests that have their answer."""
    clock, tally = Clock(seed), Tally(STEP_SECONDS)
    upstream = storm.upstream(clock)
    sides = team(clock, upstream, tally)
    total = _offer(clock, storm, sides)
    while clock.now < LONGEST_SECONDS and sum(tally.outcomes.values()) < total:
        tally.held.append(sum(side.held for side in sides))
        clock.run(clock.now + STEP_SECONDS)
        progress(sum(tally.outcomes.values()) / total)
    return Stood(name, storm, tally, upstream.early if isinstance(upstream, Quota) else 0)


def _offer(clock: Clock, storm: Storm, sides: list[Side]) -> int:
    """Set the load going; how many requests it is in all."""
    turn, request = cycle(sides), Request(storm.method)
    if storm.workers:
        numbers = count()

        def work() -> None:
            number = next(numbers)
            if number < storm.requests:
                next(turn).take(request, number, work)

        for _ in range(min(storm.workers, storm.requests)):
            clock.at(0.0, work)
        return storm.requests
    total = max(1, round(storm.rate * storm.seconds))

    def arrive(number: int) -> None:
        if number + 1 < total:
            clock.at((number + 1) / storm.rate, arrive, number + 1)
        next(turn).take(request, number, _nothing)

    clock.at(0.0, arrive, 0)
    return total


def _nothing() -> None:
    """Nobody waits for this one in particular."""
