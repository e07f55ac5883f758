"""``python -m benchmarks.guards``: what gate, breaker and budget add to an exchange without trouble, in microseconds.

An untroubled exchange meets them in the statements below, copied from where they stand (``proxy.exchange``): a test of
``calm`` before the send and after the answer, and three counters. Timed by themselves, in the best of several rounds,
less an empty loop; the objects are the real ones. A once-a-second tick per upstream comes on top.
"""

from __future__ import annotations

import asyncio
import sys
import timeit

from sidecar.core.decision.policy import Policy
from sidecar.core.decision.table import Table
from sidecar.observe.metrics import Metrics
from sidecar.proxy.routing.clock import SystemClock, random_unit
from sidecar.proxy.routing.destination import RetryBudget
from sidecar.proxy.routing.limiter import Holding

MOST_MICROSECONDS = 3.0
TIMES = 200_000
ROUNDS = 7

STATEMENTS = """
purse.requests += 1
limiter = holding.limiter
if limiter.calm:
    limiter.sends += 1
holding.ended += 1
if code >= 500 or not holding.limiter.calm:
    raise AssertionError
"""


def main() -> int:
    with asyncio.Runner() as runner:
        loop, policy = runner.get_loop(), Policy("measured", Table(()))
        holding = Holding(loop, SystemClock(), random_unit, policy, Metrics().upstream("measured"))
        names = {"holding": holding, "purse": RetryBudget(policy.budget, 0.0), "code": 200}
        added = (_seconds(STATEMENTS, names) - _seconds("pass", names)) * 1e6
        tick = _seconds("holding.tick()", names) * 1e6
    print(f"gate, breaker and budget add {added:.2f} µs to an untroubled exchange (asked: at most {MOST_MICROSECONDS})")
    print(f"and a tick of {tick:.1f} µs a second to each upstream")
    return 0 if added <= MOST_MICROSECONDS else 1


def _seconds(statement: str, names: dict[str, object]) -> float:
    return min(timeit.repeat(statement, globals=names, number=TIMES, repeat=ROUNDS)) / TIMES


if __name__ == "__main__":
    sys.exit(main())
