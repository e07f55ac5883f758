"""``python -m benchmarks``: the sidecar and its peers, side by side; the table, and a dated file of it.

A peer that is not installed is named as missing. A result goes to ``benchmarks/results/YYYY-MM-DD.md`` unless
``--no-file``; one made with ``--quick`` or with part of the cases says so in its first lines.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from pathlib import Path

from benchmarks.cases import CASES, Case, chosen
from benchmarks.machine import busy_share, described, missing_tools
from benchmarks.measure import Round, measure_round
from benchmarks.peers import PEERS, Peer, by_name
from benchmarks.report import Report
from benchmarks.running import upstream_running

RESULTS = Path(__file__).parent / "results"
BUSY_SHARE = 0.25
QUICK_HURRY = 0.3


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--cases", default="", help=f"of: {', '.join(case.name for case in CASES)}")
    parser.add_argument("--peers", default="", help=f"of: {', '.join(peer.name for peer in PEERS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--no-file", action="store_true", help="write no result file")
    given = parser.parse_args()
    try:
        peers, cases = by_name(given.peers), chosen(given.cases)
    except ValueError as error:
        parser.error(str(error))
    if missing := missing_tools():
        say(f"Nothing can be measured without: {', '.join(missing)}. Try: apt-get install {' '.join(missing)}")
        return 1
    return compare(peers, cases, 1 if given.quick else given.rounds, given.quick, not given.no_file)


def compare(peers: list[Peer], cases: list[Case], rounds: int, quick: bool, to_file: bool) -> int:
    busy = busy_share()
    if busy > BUSY_SHARE:
        say(f"Note: this machine is already {busy:.0%} busy; the numbers will be unsteady.")
    for peer in peers:
        if peer.find() is None:
            say(f"Missing: {peer.name} is not installed ({peer.how_to_get}).")
    report = Report(all_rounds(peers, cases, rounds, QUICK_HURRY if quick else 1.0), peers, cases)
    text = report.markdown()
    say("\n" + text)
    if to_file:
        heading = head(peers, cases, rounds, quick, busy)
        say(f"Written to benchmarks/results/{write(heading + text).name}")
    return 1 if any(round_.troubles for round_ in report.rounds) else 0


def all_rounds(peers: list[Peer], cases: list[Case], rounds: int, hurry: float) -> list[Round]:
    """Each round begins with another peer, so that none is always the first on a cold machine."""
    found = []
    installed = [peer for peer in peers if peer.find() is not None]
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name, upstream_running(Path(name)) as upstream:
        for number in range(rounds):
            say(f"Round {number + 1} of {rounds}")
            write_batch = number % max(len(installed), 1)
            order = installed[write_batch:] + installed[:write_batch]
            found.append(measure_round(order, cases, upstream, Path(name), hurry, say))
    return found


def head(peers: list[Peer], cases: list[Case], rounds: int, quick: bool, busy: float) -> str:
    today = datetime.datetime.now(tz=datetime.UTC).date()
    lines = [f"# Measured on {today}", ""]
    if quick or len(cases) < len(CASES):
        lines += [
            f"A part only: {'one short round' if quick else f'{rounds} rounds'}, {len(cases)} of {len(CASES)} cases.",
            "",
        ]
    lines += [described(peers, busy), f"- Rounds: {rounds}; every number is a median over them", ""]
    lines += ["The method is in [docs/performance.md](../../docs/performance.md).", "", ""]
    return "\n".join(lines)


def write(text: str) -> Path:
    """Never over another result of the day: the second gets ``-2``."""
    RESULTS.mkdir(exist_ok=True)
    today = str(datetime.datetime.now(tz=datetime.UTC).date())
    names = [today, *[f"{today}-{number}" for number in range(2, 1000)]]
    path = next(path for name in names if not (path := RESULTS / f"{name}.md").exists())
    path.write_text(text)
    return path


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
