"""One peer in one storm: the upstream up, the peer in front of it, the load, and both logs to the judge.

The upstream has one core, the peer another, as in ``benchmarks``; the load runs in this process.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import uvloop

from benchmarks.http1 import get, wait_for_answer
from benchmarks.peers import Peer, free_port
from benchmarks.process import CORE_LOAD, Process
from benchmarks.running import peer_running
from benchmarks.storms.apps import load
from benchmarks.storms.goals import Figures, Goal
from benchmarks.storms.judge import Arrival, Trial, stood
from benchmarks.storms.scenarios import Scenario
from sidecar.simulate.run import Stood
from sidecar.simulate.storms import Storm

__all__ = ["AGAIN", "Row", "medians", "stand"]

AGAIN = ", again"
WORST = {"early", "early_again", "applied_twice", "untold"}
"""Of several rounds the worst counts; of everything else the median."""
SETTLE_SECONDS = 0.3
"""For what a peer still sends of its own accord after the last answer."""


@dataclass(frozen=True)
class Row:
    """One peer after one storm; one line of the table."""

    name: str
    peer: str
    goals: tuple[Goal, ...]
    figures: Figures
    complaints: str = ""
    stood: Stood | None = None


def stand(peer: Peer, scenario: Scenario, folder: Path, seed: int = 1) -> list[Row]:
    """The whole scenario: one row, or two where the load comes once more. TimeoutError when one does not start."""
    place = folder / f"{scenario.name}-{peer.name}-{time.monotonic_ns()}"
    place.mkdir(parents=True)
    port = free_port()
    described = place / "storm.json"
    described.write_text(json.dumps({"model": scenario.storm.model, "parameters": dict(scenario.storm.parameters)}))
    command = [sys.executable, "-m", "benchmarks.storms.upstream", str(port), str(described), str(seed)]
    with Process(command, CORE_LOAD, place / "upstream.log") as upstream:
        wait_for_answer("/", port, upstream.is_running)
        with peer_running(peer, place, port) as running:
            trial = _trial(running.port, port, scenario, "a", is_first=True)
            rows = [_row(scenario.name, peer, scenario.goals, trial, scenario.storm)]
            if scenario.again is not None:
                trial = _trial(running.port, port, scenario, "b", is_first=False)
                rows.append(_row(scenario.name + AGAIN, peer, scenario.again, trial, scenario.storm))
    return rows


def _trial(port: int, upstream: int, scenario: Scenario, prefix: str, *, is_first: bool) -> Trial:
    def begin() -> None:
        get("/begin", upstream)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        began_at, replies = runner.run(
            load(port, scenario.storm, scenario.keyed_posts, prefix, begin if is_first else None)
        )
    time.sleep(SETTLE_SECONDS if scenario.again is None else 0)
    arrivals = [Arrival(*row) for row in json.loads(get("/log", upstream).body)]
    return Trial(began_at, replies, arrivals)


def _row(name: str, peer: Peer, goals: tuple[Goal, ...], trial: Trial, storm: Storm) -> Row:
    found = stood(peer.name, replace(storm, name=name), trial)
    figures = dict(found.figures())
    figures["early_again"], figures["untold"], figures["told"] = trial.early_again, trial.untold, trial.told
    complaints = ", ".join(f"{count} × {what}" for what, count in trial.complaints.most_common(3))
    return Row(name, peer.name, goals, figures, complaints, found)


def medians(rounds: Sequence[Row]) -> Row:
    """One row of the same storm and peer in several rounds."""
    figures = {
        name: (max if name in WORST else median)(row.figures[name] for row in rounds) for name in rounds[0].figures
    }
    return replace(rounds[-1], figures=figures, complaints=next((r.complaints for r in rounds if r.complaints), ""))
