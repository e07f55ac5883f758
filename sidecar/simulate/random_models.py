"""Models drawn from a seed, the named ones, and how a model is made simpler.

``drawn`` combines every dimension that ``models`` has; nothing is tuned to what the engine can do. ``simpler`` lists
the next smaller models, for shrinking a counter-example. ``ROWS`` are the cases in which a sidecar once did harm.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, Final

from sidecar.simulate.models import Failing, Hint, Latency, Limit, Model, Outage, Refusal, Slots, Slow, Traffic, Who

__all__ = ["ROWS", "drawn", "simpler"]

LONGEST_SECONDS: Final = 200.0
"""Of a load in open loop."""
FEWEST, MOST = 150, 1200
"""Requests of a run."""

ROWS: Final[dict[str, Model]] = {
    "random-3%": Model(
        Traffic(rate=100, requests=2000), refusals=(Refusal(share=0.03, hint=Hint("seconds", "fixed")),)
    ),
    "random-0.2%": Model(
        Traffic(rate=100, requests=2000), refusals=(Refusal(share=0.002, hint=Hint("seconds", "fixed")),)
    ),
    "random-2%-no-hint": Model(Traffic(rate=50, requests=1000), refusals=(Refusal(share=0.02, hint=Hint("none")),)),
    "random-503-1%": Model(
        Traffic(rate=50, requests=1000),
        refusals=(Refusal(share=0.01, status=503, hint=Hint("seconds", "fixed", 2.0)),),
    ),
    "endpoint-always": Model(
        Traffic(rate=50, requests=1000, first=0.05),
        refusals=(Refusal(Who(endpoint=0), hint=Hint("seconds", "fixed", 30.0)),),
    ),
    "endpoint-quota": Model(Traffic(rate=50, requests=1000, first=0.2), limits=(Limit(rate=2.0, who=Who(endpoint=0)),)),
    "object-once": Model(
        Traffic(rate=50, requests=1000),
        refusals=(Refusal(Who(endpoint=0, item=0), at_most=1, hint=Hint("seconds", "fixed", 600.0)),),
    ),
    "tenant-refused": Model(
        Traffic(rate=50, requests=1000, tenants=10, credential="x-tenant"),
        refusals=(Refusal(Who(tenant=0), hint=Hint("seconds", "fixed", 5.0)),),
    ),
}
"""Each once turned harmless refusals into an outage."""


def drawn(seed: int) -> Model:
    """The model of this seed."""
    return Drawing(random.Random(seed)).model()


class Drawing:
    """One model being drawn."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    def model(self) -> Model:
        traffic = self._traffic()
        latency = self._latency(traffic)
        seconds = max(1.0, traffic.seconds)
        model = Model(traffic, latency)
        causes = self._dice.choices((1, 2, 3, 0), (60, 25, 10, 5))[0]
        for _ in range(causes):
            model = self._with_cause(model, seconds)
        return model

    def _maybe(self, share: float) -> bool:
        return self._dice.random() < share

    def _between(self, low: float, high: float) -> float:
        """Evenly by magnitude, with three digits."""
        return float(f"{low * (high / low) ** self._dice.random():.3g}")

    def _traffic(self) -> Traffic:
        dice = self._dice
        rate = self._between(1, 2000)
        requests = round(min(MOST, LONGEST_SECONDS * rate, max(FEWEST, rate * self._between(4, 30))))
        is_closed = self._maybe(0.35)
        return Traffic(
            rate=rate,
            requests=requests,
            workers=round(self._between(1, 150)) if is_closed else 0,
            think=self._between(0.01, 0.5) if is_closed and self._maybe(0.4) else 0.0,
            shape=dice.choice(("steady", "steady", "poisson", "bursts", "ramp", "waves")),
            endpoints=dice.choice((1, 2, 2, 3, 8, 40)),
            first=dice.choice((0.05, 0.2, 0.5, 0.8)),
            items=dice.choice((1, 5, 20, 200, 5000)),
            tenants=dice.choice((1, 1, 3, 10, 50)),
            credential=dice.choice(("authorization", "x-api-key", "x-tenant")),
            writes=dice.choice((0.0, 0.0, 0.3)),
            posts=dice.choice((0.0, 0.0, 0.0, 0.2)),
        )

    def _latency(self, traffic: Traffic) -> Latency:
        kind: Any = self._dice.choice(("constant", "constant", "lognormal", "pareto", "bimodal", "drift"))
        return Latency(kind, self._between(0.002, 0.4), self._dice.choice((0.5, 1.0, 1.5)))

    def _with_cause(self, model: Model, seconds: float) -> Model:
        kind = self._dice.choices(
            ("limit", "share", "who", "time", "failing", "outage", "slots", "slow"), (24, 14, 18, 8, 14, 10, 8, 4)
        )[0]
        if kind == "limit":
            return replace(model, limits=(*model.limits, self._limit(model)))
        if kind == "share":
            share = self._between(0.002, 0.35)
            return replace(model, refusals=(*model.refusals, Refusal(share=share, **self._answer())))
        if kind == "who":
            share = 1.0 if self._maybe(0.6) else self._between(0.02, 0.8)
            at_most = self._dice.choice((0, 0, 0, 1, 3))
            who = self._who(model.traffic)
            return replace(
                model, refusals=(*model.refusals, Refusal(who, share=share, at_most=at_most, **self._answer()))
            )
        if kind == "time":
            return replace(model, refusals=(*model.refusals, self._by_time(model, seconds)))
        if kind == "failing":
            return replace(model, failing=(*model.failing, self._failing()))
        if kind == "outage":
            begins, ends = self._window(seconds)
            status = self._dice.choice((503, 500, 502, 0))
            return replace(model, outage=Outage(begins, ends, status, self._hint() if status == 503 else Hint("none")))
        if kind == "slots":
            return replace(model, slots=self._slots(model))
        begins, ends = self._window(seconds)
        return replace(model, slow=Slow(begins, ends, self._dice.choice((2.0, 4.0, 10.0))))

    def _window(self, seconds: float) -> tuple[float, float]:
        begins = round(self._dice.uniform(0.0, 0.7) * seconds, 3)
        return begins, round(begins + self._between(0.1, 20.0), 3)

    def _offered(self, model: Model) -> float:
        """Roughly how many a second come, where nothing stands in their way."""
        traffic = model.traffic
        if not traffic.workers:
            return traffic.rate
        return traffic.workers / (model.latency.seconds + traffic.think)

    def _limit(self, model: Model) -> Limit:
        dice, traffic = self._dice, model.traffic
        who = self._who(traffic) if self._maybe(0.3) else Who()
        kind: Any = dice.choices(("bucket", "fixed", "sliding", "concurrent"), (40, 25, 15, 20))[0]
        concerned = self._offered(model) * _share_of(who, traffic)
        each: Any = dice.choices(("all", "endpoint", "item", "tenant"), (70, 10, 10, 10))[0]
        if each != "all":
            concerned /= {"endpoint": traffic.endpoints, "item": traffic.items, "tenant": traffic.tenants}[each]
        # From far too little to more than anybody asks for.
        rate = max(0.05, float(f"{min(concerned, 1000) * self._between(0.2, 3.0):.3g}"))
        if kind == "concurrent":
            rate = max(1.0, round(concerned * model.latency.seconds * self._between(0.3, 3.0)))
        window = dice.choice((1.0, 1.0, 2.0, 10.0)) if kind != "bucket" else dice.choice((0.1, 0.5, 1.0, 5.0))
        announced: Any = dice.choice(("no", "no", "draft", "x"))
        others = dice.choice((0.0, 0.0, 0.2, 0.5))
        return Limit(kind, rate, window, who, each, others, announced, **self._answer())

    def _who(self, traffic: Traffic) -> Who:
        kind = self._dice.choice(("endpoint", "item", "tenant", "size"))
        if kind == "item":
            return Who(endpoint=0, item=0)
        if kind == "tenant" and traffic.tenants > 1:
            return Who(tenant=0)
        if kind == "size" and traffic.writes:
            return Who(larger_than=self._dice.choice((1_000, 10_000, 300_000)))
        return Who(endpoint=0)

    def _by_time(self, model: Model, seconds: float) -> Refusal:
        begins, ends = self._window(seconds)
        every = 0.0
        if self._maybe(0.4):
            begins, ends = 0.0, self._between(0.05, 3.0)
            every = round(ends * self._dice.choice((2, 5, 10)), 3)
        who = self._who(model.traffic) if self._maybe(0.3) else Who()
        return Refusal(who, begins=begins, ends=ends, every=every, **self._answer())

    def _failing(self) -> Failing:
        how: Any = self._dice.choice(("independent", "bursts", "instance"))
        share = self._dice.choice((0.5, 0.25, 0.1)) if how == "instance" else self._between(0.002, 0.4)
        return Failing(how, share, self._between(0.05, 2.0), self._dice.choice((503, 500, 502, 0)))

    def _slots(self, model: Model) -> Slots:
        busy = self._offered(model) * model.latency.seconds
        slots = max(1, min(200, round(busy * self._between(0.5, 3.0))))
        return Slots(slots, round(slots * self._between(1.0, 10.0)), self._hint())

    def _answer(self) -> dict[str, Any]:
        return {"status": self._dice.choices((429, 503, 403), (75, 22, 3))[0], "hint": self._hint()}

    def _hint(self) -> Hint:
        dice = self._dice
        style: Any = dice.choices(
            ("seconds", "none", "decimal", "date", "ms", "reset", "garbage"), (40, 22, 8, 8, 5, 7, 10)
        )[0]
        says: Any = dice.choices(("right", "wrong", "fixed"), (60, 15, 25))[0]
        return Hint(style, says, dice.choice((0.0, 1.0, 1.0, 5.0, 30.0, 600.0, 86_400.0)))


def _share_of(who: Who, traffic: Traffic) -> float:
    """Of the requests, that are covered."""
    share = 1.0
    if who.endpoint is not None and traffic.endpoints > 1:
        share *= traffic.first
    if who.item is not None:
        share /= traffic.items
    if who.tenant is not None:
        share /= traffic.tenants
    return share * traffic.writes if who.larger_than is not None else share


# -- simpler ---------------------------------------------------------------------------------------------


def simpler(model: Model) -> Iterator[Model]:
    """Smaller ones, the boldest steps first: without a part, then with parts nearer to their defaults."""
    for changed in _steps(model):
        yield replace(model, **changed)


def _steps(model: Model) -> Iterator[dict[str, Any]]:
    for name in ("limits", "refusals", "failing"):
        parts = getattr(model, name)
        for index in range(len(parts)):
            yield {name: parts[:index] + parts[index + 1 :]}
    for name in ("slots", "slow", "outage"):
        if getattr(model, name) is not None:
            yield {name: None}
    for entry in fields(model):
        part = getattr(model, entry.name)
        if isinstance(part, tuple):
            for index, one in enumerate(part):
                for plainer in _plainer(one):
                    yield {entry.name: (*part[:index], plainer, *part[index + 1 :])}
        elif part is not None:
            for plainer in _plainer(part):
                yield {entry.name: plainer}


def _plainer(part: Any) -> Iterator[Any]:
    default = type(part)()
    for entry in fields(part):
        value, usual = getattr(part, entry.name), getattr(default, entry.name)
        if value != usual:
            yield replace(part, **{entry.name: usual})
