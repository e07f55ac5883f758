"""One round: every chosen peer, one after the other, through every chosen case. Numbers come out, no words.

A peer that fails a case is recorded with what went wrong; the round goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.cases import Case
from benchmarks.crowd import Plan
from benchmarks.load import Sample, drive, drive_newcomers, drive_steadily
from benchmarks.parked import Crowd, Parked
from benchmarks.peers import DIRECT, Peer, free_port
from benchmarks.process import raise_file_limit
from benchmarks.running import Running, peer_running

__all__ = ["Round", "measure_round"]

WARM_SECONDS = 1.0
FILES_PER_PARKED = 1.2
"""Its connection, and its share of those toward the upstream."""
Say = Callable[[str], None]


@dataclass
class Round:
    """What one round brought, by peer and by case."""

    samples: dict[tuple[str, str], Sample] = field(default_factory=dict)
    parked: dict[str, Parked] = field(default_factory=dict)
    start_seconds: dict[str, float] = field(default_factory=dict)
    rss_rest_bytes: dict[str, int] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)


def measure_round(peers: list[Peer], cases: list[Case], upstream: int, folder: Path, hurry: float, say: Say) -> Round:
    """``hurry`` shortens every load: 1 is the full length."""
    found = Round()
    loads = [case for case in cases if case.kind != "parked"]
    _direct(loads, upstream, folder, hurry, found)
    for peer in peers:
        say(f"  {peer.name}")
        try:
            if loads:
                _one_peer(peer, loads, upstream, folder, hurry, found)
            if len(loads) < len(cases) and peer.honours_retry_after:
                _parked(peer, folder, hurry, found)
        except (OSError, RuntimeError, ValueError) as error:
            found.troubles.append(f"{peer.name}: {error}")
            say(f"    {error}")
    return found


def _direct(cases: Iterable[Case], upstream: int, folder: Path, hurry: float, found: Round) -> None:
    for case in cases:
        if case.name.endswith("-1") or case.kind == "steady":
            found.samples[DIRECT, case.name] = _drive(case, upstream, None, folder, hurry)


def _one_peer(peer: Peer, cases: list[Case], upstream: int, folder: Path, hurry: float, found: Round) -> None:
    with peer_running(peer, folder, upstream) as running:
        found.start_seconds[peer.name] = running.start_seconds
        found.rss_rest_bytes[peer.name] = running.rss_rest_bytes
        drive(cases[0].load, running.port, running.process, WARM_SECONDS, folder)
        for case in cases:
            found.samples[peer.name, case.name] = _drive(case, running.port, running, folder, hurry)


def _drive(case: Case, port: int, running: Running | None, folder: Path, hurry: float) -> Sample:
    process = running.process if running else None
    seconds = max(case.seconds * hurry, 1.0)
    if case.kind == "newcomers":
        return drive_newcomers(case.load, port, process)
    if case.kind == "steady":
        return drive_steadily(case.load.path, port, process, case.rate, seconds, case.load.connections)
    return drive(case.load, port, process, seconds, folder)


def _parked(peer: Peer, folder: Path, hurry: float, found: Round) -> None:
    """Arrivals over 5 s, woken 8 s after their own; a shorter run parks fewer, at the same pace."""
    share = 1.0 if hurry >= 1.0 else 0.2
    plan = Plan(round(10_000 * share), 5.0 * share, 8 if share == 1.0 else 3)
    if (limit := raise_file_limit()) < plan.count * FILES_PER_PARKED:
        raise RuntimeError(f"{plan.count} parked exchanges need more open files than {limit}: raise `ulimit -Hn`")
    upstream, port = free_port(), free_port()
    with (
        Crowd(upstream, port, plan) as crowd,
        peer_running(peer, folder, upstream, port=port, parked=True) as running,
    ):
        found.parked[peer.name] = crowd.measure(running.process)
