"""Puts a side under a storm, on the virtual clock, and returns what happened.

``stand`` runs one side; every side of a comparison meets the same storm with the same seed. The upstream model is made
anew for each. Progress is told while it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count, cycle
from typing import Final

from sidecar.core.decision.attempt import Request
from sidecar.core.decision.policy import Policy
from sidecar.simulate.clock import Clock
from sidecar.simulate.contenders import Budgeted, Fixed, LimiterHost, Side, Sidecar
from sidecar.simulate.stats import Stats
from sidecar.simulate.storms import Storm
from sidecar.simulate.upstream import Quota, Upstream

__all__ = ["Stood", "Team", "budgeted", "fixed", "replicas", "stand"]

LONGEST_SECONDS: Final = 600.0
"""Of virtual time, whatever is still under way."""
STEP_SECONDS: Final = 0.1

Team = Callable[[Clock, Upstream, Stats], list[Side]]
"""Makes the sidecars (or stand-ins) that stand before one upstream."""


@dataclass(frozen=True, slots=True)
class Stood:
    """One side after one storm."""

    name: str
    storm: Storm
    stats: Stats
    early: int
    """Arrivals before the moment until which the upstream had asked for quiet (quota only)."""

    def figures(self) -> dict[str, float | int]:
        """What sums it up: shares of 1, seconds, calls."""
        stats, (begin, end) = self.stats, self.storm.trouble
        return {
            "requests": stats.requests,
            "ok_share": round(stats.ok_share, 5),
            "calls_per_request": round(stats.calls_per_request, 4),
            "amplification_in_trouble": round(stats.amplification(begin, end), 4) if end > begin else 0.0,
            "p50_seconds": round(stats.latency(0.5), 4),
            "p99_seconds": round(stats.latency(0.99), 4),
            "p50_after_seconds": round(stats.latency(0.5, end + 2), 4) if end > begin else 0.0,
            "settled_seconds": round(stats.settled_after(end, SETTLED_SECONDS), 3) if end > begin else 0.0,
            "ended_seconds": round(stats.ended_at, 3),
            "early": self.early,
            "applied_twice": stats.applied_twice,
        }


SETTLED_SECONDS: Final = 0.5
"""An exchange that took longer, or failed, belongs to the trouble."""


def replicas(policy: Policy, count: int, *, shared: bool) -> Team:
    """So many sidecars. ``shared``: with one memory between them, at no distance; else each knows only its own."""

    def make(clock: Clock, upstream: Upstream, stats: Stats) -> list[Side]:
        gate = replace(policy.gate, queue=policy.gate.queue * count)
        host = LimiterHost(clock, policy.breaker, gate) if shared else None
        return [Sidecar(clock, policy, upstream, stats, host) for _ in range(count)]

    return make


def fixed(clock: Clock, upstream: Upstream, stats: Stats) -> list[Side]:
    """The stand-in with fixed retries and no budget."""
    return [Fixed(clock, upstream, stats)]


def budgeted(clock: Clock, upstream: Upstream, stats: Stats) -> list[Side]:
    """The stand-in with a budget of a fifth."""
    return [Budgeted(clock, upstream, stats)]


def stand(name: str, storm: Storm, team: Team, seed: int, progress: Callable[[float], None]) -> Stood:
    """Run it to its end. ``progress`` is told the share of the requests that have their answer."""
    clock, stats = Clock(seed), Stats(STEP_SECONDS)
    upstream = storm.upstream(clock)
    sides = team(clock, upstream, stats)
    total = _offer(clock, storm, sides)
    while clock.now < LONGEST_SECONDS and sum(stats.outcomes.values()) < total:
        stats.held.append(sum(side.held for side in sides))
        clock.run(clock.now + STEP_SECONDS)
        progress(sum(stats.outcomes.values()) / total)
    return Stood(name, storm, stats, upstream.early if isinstance(upstream, Quota) else 0)


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
