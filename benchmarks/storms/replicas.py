"""``python -m benchmarks.storms.replicas``: several sidecars before one quota, each alone and then sharing a Redis.

The *quota* storm, its load dealt out over all of them. One table; of those that share, 100 % ok with at most 1.10 calls
per request is asked. Exit code 0: met; 1: missed, or redis-server is not installed (named); 2: usage.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvloop

from benchmarks.http1 import get, wait_for_answer
from benchmarks.peers import Place, free_port, sidecar_python
from benchmarks.process import ANY_CORE, Process, raise_file_limit
from benchmarks.storms.apps import load
from benchmarks.storms.goals import Goal, always, at_most
from benchmarks.storms.judge import Arrival, Trial, stood
from benchmarks.storms.report import SIDECAR, Report
from benchmarks.storms.scenarios import SHIPPED, varied
from benchmarks.storms.standing import Row, medians
from sidecar.simulate.storms import Storm

ALONE, SHARING = "each alone", SIDECAR
GOALS: tuple[Goal, ...] = (always("ok_share", 1.0), always("early_again"), at_most("calls_per_request", 1.10))
SETTLE_SECONDS = 2.0
"""For all of them to be up, and to know the store."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storms.replicas", description=__doc__)
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--workers", type=int, help="in all")
    parser.add_argument("--requests", type=int, help="in all")
    parser.add_argument("--rate", type=float, help="of the quota, a second")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    storm = {name: value for name in ("workers", "requests") if (value := getattr(given, name)) is not None}
    quota = {} if given.rate is None else {"rate": given.rate}
    scenario = varied(SHIPPED["quota"], storm, quota)
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    raise_file_limit()
    rows = []
    with tempfile.TemporaryDirectory(prefix="sidecar-replicas-") as folder:
        for name in [ALONE, SHARING] if program else [ALONE]:
            rounds = []
            for number in range(given.rounds):
                print(
                    f"{given.replicas} sidecars, {'sharing' if name == SHARING else name} · round {number + 1}",
                    flush=True,
                )
                place = Path(folder) / f"{name}-{number}"
                rounds.append(_stand(name, scenario.storm, given.replicas, place, program if name == SHARING else None))
            rows.append(medians(rounds))
    missing = [] if program else ["Missing: redis-server is not installed (apt install redis-server)."]
    report = Report(rows, missing)
    print("\n" + report.markdown(), flush=True)
    return 1 if missing or report.misses() else 0


def _stand(name: str, storm: Storm, replicas: int, folder: Path, program: str | None) -> Row:
    """All of them, up, before the quota, and down again. ``program``: of the store; None: each alone."""
    with ExitStack() as stack:
        store = None if program is None else stack.enter_context(_store(program, folder))
        upstream = stack.enter_context(_upstream(folder, dict(storm.parameters)))
        ports = [stack.enter_context(_sidecar(folder, number, upstream, store)) for number in range(replicas)]
        time.sleep(SETTLE_SECONDS)

        def begin() -> None:
            get("/begin", upstream)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            begun, replies = runner.run(load(ports, storm, 0.0, "a", begin))
        arrivals = [Arrival(*row) for row in json.loads(get("/log", upstream).body)]
    trial = Trial(begun, replies, arrivals)
    found = stood(name, storm, trial)
    figures = {**found.figures(), "early_again": trial.early_again, "untold": trial.untold}
    return Row(f"quota, {replicas} replicas", name, GOALS if name == SHARING else (), figures, "", found)


@contextmanager
def _store(program: str, folder: Path) -> Iterator[int]:
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with Process(command, ANY_CORE, folder / "store.log") as process:
        for _ in range(500):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.01)
        assert process.is_running(), (folder / "store.log").read_text()
        yield port


@contextmanager
def _upstream(folder: Path, parameters: dict[str, object]) -> Iterator[int]:
    folder.mkdir(parents=True, exist_ok=True)
    port, described = free_port(), folder / "storm.json"
    described.write_text(json.dumps({"model": "quota", "parameters": parameters}))
    command = [sys.executable, "-m", "benchmarks.storms.upstream", str(port), str(described), "1"]
    with Process(command, ANY_CORE, folder / "upstream.log") as process:
        wait_for_answer("/", port, process.is_running)
        yield port


@contextmanager
def _sidecar(folder: Path, number: int, upstream: int, store: int | None) -> Iterator[int]:
    place = Place(folder / f"sidecar-{number}", free_port(), upstream, free_port())
    place.folder.mkdir(parents=True)
    written = place.write("storms-sidecar.yaml")
    if store is not None:
        written.write_text(f"shared: redis://127.0.0.1:{store}\n" + written.read_text())
    command = [sidecar_python(), "-P", "-m", "sidecar", "serve", "-c", str(written)]
    with Process(command, ANY_CORE, folder / f"sidecar-{number}.log") as process:
        wait_for_answer("/livez", place.admin, process.is_running)
        yield place.port


if __name__ == "__main__":
    sys.exit(main())
