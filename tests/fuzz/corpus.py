"""Small runs that once failed, or come close to where something did: played first, before random ones."""

from __future__ import annotations

from collections.abc import Iterator

from tests.fuzz.plans import SNAP, Act, Plan, Request, Run, Site, Talk

__all__ = ["CORPUS"]

ABSURD = 1_784_000_000
"""Seconds: a date in place of a pause, which is a usual mistake."""
STORES = Site(outbox=True, keys=False)


def _stored(*plans: Plan, count: int = 1, size_bytes: int = 2) -> tuple[Request, ...]:
    return tuple(Request(f"t{n + 1}", "store", "POST", size_bytes, plans=plans) for n in range(count))


def _near_misses() -> Iterator[Run]:
    """An app that leaves in the turn in which its answer comes, one that wants judging."""
    for seed in range(12):
        warm = Talk(0.0, tuple(Request(f"t{n}") for n in range(2)))
        judged = Plan(status=503, after=1.0 - seed % 6 * 1e-5)
        talks = (Talk(2.0, (Request(f"t{5 + n}", plans=(judged,)),), "reset", 1.0) for n in range(3))
        yield Run(seed, Site(attempts=3), (warm, *talks))


def _shutdowns() -> Iterator[Run]:
    """A shutdown at each of many moments in the middle of deliveries: three turns of the loop lie between two."""
    requests = _stored(Plan(), count=12)
    for seed in range(1, 25):
        yield Run(seed, STORES, (Talk(0.0, requests),), (Act(seed * 3e-5, "restart", 1.0),))


CORPUS = (
    Run(1, STORES, (Talk(0.0, _stored(Plan(status=503))),), (Act(1.0, "reload", 90.0, "renamed"),)),
    Run(
        2, Site(outbox=True, max_age=8.0, table="hinted"), (Talk(0.0, _stored(Plan(status=503, hint=ABSURD), Plan())),)
    ),
    Run(3, STORES, (Talk(0.0, _stored(Plan(status=429, hint=30), Plan())),), (Act(5.0, "restart", 1.0),)),
    Run(
        4,
        STORES,
        (Talk(1.0, (Request("t1", "store", "POST", 2, timeout=1.0),)),),
        (Act(0.5, "disk", 3.0),),
    ),
    Run(
        5,
        Site(keys=False, table="pass"),
        (Talk(0.0, (Request("t1", "mount", "POST", 2, plans=(Plan(status=429, hint=0), Plan("cut", resets=True))),)),),
    ),
    *_near_misses(),
    Run(
        7,
        Site(deadline=1.0, head=1.0, table="hinted", base=0.01, attempts=3, keys=False),
        (
            # Two connections in the pool: a new one would take time, and be seen to be too late.
            *(Talk(0.0, (Request(f"t{n}", plans=(Plan(after=0.2),)),)) for n in (2, 3)),
            Talk(
                2.0,
                (
                    Request(
                        "t1", "mount", "POST", 2, plans=(Plan(status=429, size_bytes=10, after=0.85, gap=3.0), Plan())
                    ),
                ),
            ),
        ),
    ),
    Run(
        14,
        Site(hedge=0.2, table="hinted", base=0.01),
        (Talk(0.0, (Request("t1", plans=(Plan(status=503, after=0.6), Plan(status=429, hint=3), Plan())),)),),
    ),
    Run(15, Site(), (Talk(0.0, (Request("t1"), Request("t2")), "half"),)),
    Run(
        20,
        Site(deadline=60.0, outbox=True, table="store", keys=False),
        (Talk(0.0, (Request("t1", "mount", "POST", 2, plans=(Plan(status=503, hint=20), Plan())),)),),
        (Act(1.0, "restart", 1.0),),
    ),
    Run(23, Site(), (Talk(0.0, (Request("t1", "unknown"), Request("t2", "unknown", after=31.0))),)),
    Run(25, Site(), (Talk(0.0, (Request("t1", timeout=1.0, plans=(Plan(after=0.85, gap=0.3),)),)),)),
    *_shutdowns(),
    Run(32, Site(), (Talk(0.0, (Request("t1", "tunnel", "LIST"),)),)),
    Run(40, Site(outbox=True, max_age=8.0, table="hinted"), (Talk(0.0, _stored(Plan(status=429, hint=30))),)),
    Run(41, Site(idle=1.0), (Talk(0.0, (Request("t1", size_bytes=1, pause=2.0),)),)),
    Run(
        43,
        Site(outbox=True),
        (Talk(0.0, (Request("t1", "store", "POST", plans=(Plan(status=503, hint=3), Plan())),)),),
        (Act(1.0, "restart", 0.5),),
    ),
    Run(
        44,
        Site(table="store", hedge=0.2, outbox=True),
        (Talk(0.0, (Request("t1", method="PATCH", timeout=0.5, plans=(Plan(status=503, after=0.49, hint=2),)),)),),
    ),
    Run(
        45,
        Site(outbox=True),
        (Talk(0.0, (Request("t1", "store", "POST", plans=(Plan(status=429, hint=30), Plan())),)),),
        (Act(1.0, "clock", 3600.0),),
    ),
    Run(
        46,
        Site(table="store", outbox=True, keys=False),
        (Talk(1.0, _stored(Plan())),),
        (Act(0.5, "outage", 20.0, "hole"), Act(1.2, "kill", 3.0)),
    ),
    Run(
        47,
        Site(head=0.5, table="store", outbox=True),
        (
            Talk(0.0, (Request("t5", method="PUT", plans=(Plan(after=1.85),)),)),
            Talk(
                0.0,
                (Request("t6", "mount", "POST", 500, timeout=0.5, pause=0.3, after=0.05, plans=(Plan(after=0.2),)),),
            ),
        ),
    ),
    Run(
        48,
        Site(deadline=60.0),
        (Talk(0.0, (Request("t1", plans=(Plan(after=59.85),)), Request("t2", size_bytes=70_000)), "reset", SNAP),),
    ),
    Run(42, Site(hedge=0.2), (Talk(0.0, (Request("t1", plans=(Plan(status=503, after=SNAP),)),), "close", SNAP),)),
)
