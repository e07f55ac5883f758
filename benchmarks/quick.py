"""The check of a minute: CPU per request of the sidecar over that of the bare aiohttp proxy, in one run.

Both run at once, each on the proxy's core, in turns; only one has work at a time. The value is the median of
the rounds' ratios, so it does not depend on how fast this machine is. ``python -m benchmarks.quick`` exits
with 1 when it is above the limit (0.35).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.load import Load, drive
from benchmarks.machine import missing_tools
from benchmarks.peers import by_name
from benchmarks.running import Running, peer_running, upstream_running

__all__ = ["ratios"]

LIMIT = 0.35
ROUNDS = 7
SECONDS = 2.0
WARM_SECONDS = 1.0
SMALL_GET = Load("/small", 32)


def ratios(rounds: int, seconds: float) -> list[float]:
    """One ratio a round. RuntimeError or TimeoutError when a proxy does not run."""
    (sidecar,), (bare,) = by_name("sidecar"), by_name("bare aiohttp")
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
        folder = Path(name)
        with (
            upstream_running(folder) as upstream,
            peer_running(sidecar, folder, upstream) as ours,
            peer_running(bare, folder, upstream) as theirs,
        ):
            for running in (ours, theirs):
                _cpu_us(running, WARM_SECONDS, folder)
            return [_one_round(ours, theirs, seconds, folder) for _ in range(rounds)]


def _one_round(ours: Running, theirs: Running, seconds: float, folder: Path) -> float:
    mine, other = _cpu_us(ours, seconds, folder), _cpu_us(theirs, seconds, folder)
    print(f"  sidecar {mine:6.1f} µs   bare aiohttp {other:6.1f} µs   ratio {mine / other:.3f}", flush=True)
    return mine / other


def _cpu_us(running: Running, seconds: float, folder: Path) -> float:
    sample = drive(SMALL_GET, running.port, running.process, seconds, folder)
    if sample.bad_status or sample.socket_errors:
        lost = f"{sample.bad_status} error answers, {sample.socket_errors} broken connections"
        raise RuntimeError(f"{running.peer.name}: {lost} in {sample.requests} requests; nothing to compare")
    return sample.cpu_us


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quick", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--limit", type=float, default=LIMIT)
    given = parser.parse_args()
    if missing := missing_tools():
        print(f"Nothing can be measured without: {', '.join(missing)}. Try: apt-get install {' '.join(missing)}")
        return 1
    print("CPU per request, small GET, 32 connections:")
    try:
        value = median(ratios(given.rounds, given.seconds))
    except (OSError, RuntimeError) as error:
        print(f"Could not measure: {error}")
        return 1
    held = value <= given.limit
    print(f"Median ratio {value:.3f}, limit {given.limit:g}: {'held' if held else 'MISSED'}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
