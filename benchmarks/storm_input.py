"""What one connection feels while another sends bad input: its p50, p99 and longest answer, and the proxy's memory.

A bystander asks 200 times a second on connections of its own, first in quiet, then during each attack of
``attacks``. ``python -m benchmarks.storm_input`` does this to the sidecar and to Envoy.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.attacks import ATTACKS
from benchmarks.load import Sample, drive_steadily
from benchmarks.machine import missing_tools
from benchmarks.peers import by_name, free_port
from benchmarks.process import CORE_LOAD, Process, on_core
from benchmarks.report import megabytes, table
from benchmarks.running import Running, peer_running, upstream_running

__all__ = ["Felt"]

QUIET = "quiet"
RATE = 200.0
CONNECTIONS = 4
HEAD_START_SECONDS = 0.3


@dataclass(frozen=True)
class Felt:
    """One attack on one proxy, as the bystander felt it."""

    peer: str
    attack: str
    bystander: Sample
    rss_before_bytes: int
    got: str
    """What the attacker got, in words."""


def felt(running: Running, attack: str, seconds: float) -> Felt:
    """RuntimeError when the proxy does not survive."""
    before = running.process.rss_bytes()
    if attack == QUIET:
        sample = drive_steadily("/small", running.port, running.process, RATE, seconds, CONNECTIONS)
        return Felt(running.peer.name, attack, sample, before, "")
    command = [sys.executable, "-m", "benchmarks.attacks", attack, str(running.port), "--seconds", str(seconds + 1)]
    with subprocess.Popen(on_core(CORE_LOAD, command), stdout=subprocess.PIPE, text=True) as attacker:
        time.sleep(HEAD_START_SECONDS)
        sample = drive_steadily("/small", running.port, running.process, RATE, seconds, CONNECTIONS)
        output, _ = attacker.communicate(timeout=60)
    return Felt(running.peer.name, attack, sample, before, _got(output))


def _got(output: str) -> str:
    if not output.strip():
        return "nothing: the attacker failed"
    found = json.loads(output)
    counts = ", ".join(f"{number:,} × {what}" for what, number in sorted(found["statuses"].items()))
    return f"{found['sent']:,} sent: {counts or 'no answer'}"


@contextmanager
def _dripping(folder: Path) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.attacks", "dripping", str(port)]
    with Process(command, CORE_LOAD, folder / "dripping.log"):
        yield port


def measured(names: str, seconds: float) -> list[Felt]:
    found = []
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
        folder = Path(name)
        with _dripping(folder) as drip, upstream_running(folder, drip=drip) as upstream:
            for peer in by_name(names):
                if peer.find() is None:
                    print(f"Missing: {peer.name} is not installed ({peer.how_to_get}).")
                    continue
                with peer_running(peer, folder, upstream) as running:
                    for attack in (QUIET, *ATTACKS):
                        print(f"  {peer.name}: {attack}", flush=True)
                        found.append(felt(running, attack, seconds))
    return found


def told(found: list[Felt]) -> str:
    header = [
        "proxy",
        "meanwhile",
        "p50, ms",
        "p99, ms",
        "max, ms",
        "lost",
        "RSS before",
        "RSS peak",
        "CPU",
        "attacker",
    ]
    rows = [
        [
            one.peer,
            one.attack,
            f"{one.bystander.p50_us / 1e3:.2f}",
            f"{one.bystander.p99_us / 1e3:.2f}",
            f"{one.bystander.max_us / 1e3:.2f}",
            str(one.bystander.socket_errors),
            megabytes(one.rss_before_bytes),
            megabytes(one.bystander.rss_peak_bytes),
            f"{one.bystander.cpu_seconds / one.bystander.seconds:.0%}",
            one.got,
        ]
        for one in found
    ]
    return table(header, rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storm_input", description=__doc__)
    parser.add_argument("--peers", default="sidecar,envoy")
    parser.add_argument("--seconds", type=float, default=4.0)
    given = parser.parse_args()
    if missing := missing_tools():
        print(f"Nothing can be measured without: {', '.join(missing)}. Try: apt-get install {' '.join(missing)}")
        return 1
    try:
        found = measured(given.peers, given.seconds)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"Could not measure: {error}")
        return 1
    print("\n" + told(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
