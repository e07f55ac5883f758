"""``make fuzz``: runs from random seeds until the time is over; a failing one is shrunk and printed."""

from __future__ import annotations

import argparse
import random
import sys
import time

from tests.fuzz.corpus import CORPUS
from tests.fuzz.plans import make
from tests.fuzz.shrink import shrink
from tests.fuzz.world import play


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, help="only the run of this seed")
    parser.add_argument("--start", type=int, help="the first seed; random without it")
    parser.add_argument("--most", type=int, default=1, help="end after so many failing runs")
    parser.add_argument("--no-shrink", action="store_true")
    options = parser.parse_args()
    first = options.seed if options.seed is not None else options.start
    seed = first if first is not None else random.randrange(1 << 40)
    print(f"fuzz: from seed {seed}", flush=True)
    begun = time.monotonic()
    runs = requests = sends = turns = failed = 0
    virtual = 0.0
    first_ones = [] if options.seed is not None else list(reversed(CORPUS))
    while time.monotonic() - begun < options.seconds:
        run = first_ones.pop() if first_ones else make(seed)
        played = play(run)
        runs, requests, sends, turns = runs + 1, requests + played.requests, sends + played.sends, turns + played.turns
        virtual += played.seconds
        faults = played.faults
        if faults:
            failed += 1
            print(f"\nseed {run.seed} fails, after {runs} runs, {time.monotonic() - begun:.1f} s:", flush=True)
            small = run if options.no_shrink else shrink(run, faults[0])
            for fault in play(small).faults:
                print(f"  {fault}")
            print(f"{small}\n", flush=True)
        if failed >= options.most or options.seed is not None:
            break
        seed += not first_ones
    print(
        f"fuzz: {runs} runs, {requests} requests, {sends} sends, {turns} turns of the loop, "
        f"{virtual / 3600:.1f} hours of virtual time in {time.monotonic() - begun:.0f} s; {failed} failed"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
