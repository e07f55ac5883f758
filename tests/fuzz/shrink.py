"""A failing run, made smaller as long as it fails in the same way: delta debugging, greedy, over what it is made of."""

from __future__ import annotations

import re
import time

from tests.fuzz.plans import Run, simpler
from tests.fuzz.world import play

__all__ = ["kind_of", "shrink"]

MOST_SECONDS = 45.0


def kind_of(fault: str) -> str:
    """A fault without what differs between two runs that fail alike: names and numbers."""
    return re.sub(r"\b[tp]?\d[\w.]*|'[^']*'|b\"[^\"]*\"|\([^)]*\)", "#", fault)[:60]


def shrink(run: Run, fault: str) -> Run:
    """The smallest run that is found in ``MOST_SECONDS``."""
    wanted = kind_of(fault)
    until = time.monotonic() + MOST_SECONDS
    changed = True
    while changed:
        changed = False
        for candidate in simpler(run):
            if time.monotonic() > until:
                return run
            if any(kind_of(each) == wanted for each in play(candidate).faults):
                run, changed = candidate, True
                break
    return run
