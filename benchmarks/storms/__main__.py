"""``python -m benchmarks.storms``: six storms, the sidecar beside Envoy and HAProxy; one table, and what was asked.

A peer that is not installed is named as missing. The result goes to ``benchmarks/results/storms-YYYY-MM-DD.md``, or to
``--output``. Exit code 0: every goal of the sidecar met; 1: a goal missed (named), or nothing could be run; 2: usage.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import busy_share, described
from benchmarks.peers import Peer
from benchmarks.process import raise_file_limit
from benchmarks.storms.peers import STANDING, named
from benchmarks.storms.report import SIDECAR, Report
from benchmarks.storms.scenarios import SHIPPED, VARIATIONS, Scenario, chosen, quicker, varied
from benchmarks.storms.standing import Row, medians, stand
from sidecar.simulate.page import html_page
from sidecar.simulate.storms import BadStorm

RESULTS = Path(__file__).parents[1] / "results"
LOAD = {"rate": float, "seconds": float, "workers": int, "requests": int, "method": str}


def main() -> int:
    parser = _parser()
    given = parser.parse_args()
    try:
        peers = named(given.against)
        load = {name: value for name in LOAD if (value := getattr(given, name)) is not None}
        found = chosen(given.storm, given.variations)
        scenarios = [varied(one, load, dict(given.upstream), given.keyed_posts) for one in found]
    except (BadStorm, ValueError) as error:
        parser.error(str(error))
    if given.quick:
        scenarios = [quicker(one) for one in scenarios]
    raise_file_limit()
    busy = busy_share()
    rows = _all_rows(scenarios, [peer for peer in peers if peer.find()], given.rounds, given.seed)
    missing = [f"Missing: {peer.name} is not installed ({peer.how_to_get})." for peer in peers if not peer.find()]
    report = Report(rows, missing)
    say("\n" + report.markdown())
    if not given.no_file:
        path = given.output or _free_path()
        path.write_text(_head(peers, given.rounds, busy, sys.argv[1:]) + report.markdown())
        say(f"Written to {path.name}")
    if given.html:
        given.html.write_text(html_page(list(_by_storm(rows)), "Over real sockets."))
    return _verdict(report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storms", description=__doc__)
    names = ", ".join([*SHIPPED, *VARIATIONS])
    parser.add_argument("--storm", action="append", default=[], help=f"{names}, or a JSON file; may be repeated")
    peers = ", ".join(peer.name for peer in STANDING)
    parser.add_argument("--against", action="append", default=[], help=f"only this one of {peers}; may be repeated")
    parser.add_argument("--variations", action="store_true", help="other rates, durations and hints")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1, help="of the upstream's chance; each round has its own")
    parser.add_argument("--quick", action="store_true", help="small ones; only what holds at any size is judged")
    for name, kind in LOAD.items():
        parser.add_argument(f"--{name}", type=kind, help="of the load")
    parser.add_argument(
        "--upstream",
        action="append",
        default=[],
        type=_setting,
        metavar="NAME=VALUE",
        help="of the upstream: rate burst hint style announces share slots service slow queue begins ends latency …",
    )
    parser.add_argument("--keyed-posts", type=float, help="share of the requests that are POSTs with a key")
    parser.add_argument("--output", type=Path, help="write the result here")
    parser.add_argument("--no-file", action="store_true", help="write no result file")
    parser.add_argument("--html", type=Path, help="write pictures here, as `sidecar simulate` draws them")
    return parser


def _setting(text: str) -> tuple[str, Any]:
    """``hint=0.5``, ``style=date``, ``hint=null``."""
    name, found, value = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"{text} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _all_rows(scenarios: Sequence[Scenario], peers: Sequence[Peer], rounds: int, seed: int) -> list[Row]:
    """Each round of a storm begins with another peer; the table has them in their own order."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="sidecar-storms-") as folder:
        for scenario in scenarios:
            found: dict[tuple[str, str], list[Row]] = {}
            for number in range(rounds):
                write_batch = number % max(1, len(peers))
                for peer in [*peers[write_batch:], *peers[:write_batch]]:
                    say(f"{scenario.name} · {peer.name}" + (f" · round {number + 1}" if rounds > 1 else ""))
                    for row in stand(peer, scenario, Path(folder), seed + number):
                        found.setdefault((row.name, row.peer), []).append(row)
            order = {peer.name: index for index, peer in enumerate(peers)}
            rows += [medians(found[key]) for key in sorted(found, key=lambda key: (key[0], order[key[1]]))]
    return rows


def _by_storm(rows: Iterable[Row]) -> Iterable[list[Any]]:
    names = dict.fromkeys(row.name for row in rows)
    for name in names:
        yield [row.stood for row in rows if row.name == name and row.stood is not None]


def _head(peers: Sequence[Peer], rounds: int, busy: float, arguments: Sequence[str]) -> str:
    today = datetime.datetime.now(tz=datetime.UTC).date()
    asked = " ".join(_without_places(arguments))
    lines = [f"# Storms over real sockets, measured on {today}", ""]
    if asked:
        lines += [f"A run of its own: `{asked}`.", ""]
    lines += [described(peers, busy), f"- Rounds: {rounds}; of several, medians, and the worst of what must not happen"]
    lines += ["", "The method is in [benchmarks/README.md](../README.md#storms).", "", ""]
    return "\n".join(lines)


def _without_places(arguments: Sequence[str]) -> Iterable[str]:
    """What was asked for, without where it was written."""
    before = ""
    for word in arguments:
        if word not in ("--output", "--html", "--no-file") and before not in ("--output", "--html") and "/" not in word:
            yield word
        before = word


def _free_path() -> Path:
    """Never over another result of the day: the second gets ``-2``."""
    today = datetime.datetime.now(tz=datetime.UTC).date()
    names = [f"storms-{today}", *[f"storms-{today}-{number}" for number in range(2, 1000)]]
    return next(path for name in names if not (path := RESULTS / f"{name}.md").exists())


def _verdict(report: Report) -> int:
    if not any(row.peer == SIDECAR for row in report.rows):
        return 0 if report.rows else 1
    misses = report.misses()
    for miss in misses:
        say(f"MISSED: {miss}")
    return 1 if misses else 0


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
