"""Which storms, how each can be varied, and what is asked of the sidecar in each.

The storms themselves are those of ``sidecar.simulate``; here are their goals, what a real load adds to them, and the
variations that show whether a result holds for other rates, durations and hints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.storms.goals import Goal, always, at_least, at_most, no_worse_than
from sidecar.simulate.storms import STORMS, BadStorm, Storm, storm_from, storm_from_file

__all__ = ["SHIPPED", "VARIATIONS", "Scenario", "chosen", "quicker", "varied"]


@dataclass(frozen=True, slots=True)
class Scenario:
    storm: Storm
    goals: tuple[Goal, ...]
    again: tuple[Goal, ...] | None = None
    """The same load once more, against the same processes: what is asked of it then. None: not once more."""
    keyed_posts: float = 0.0
    """This share of the requests are POSTs with an idempotency key."""

    @property
    def name(self) -> str:
        return self.storm.name


NEVER = (always("applied_twice"), always("early_again"))
QUOTA = (always("ok_share", 1.0), *NEVER, at_most("calls_per_request", 1.15))
OUTAGE = (
    always("ok_share", 0.999),
    *NEVER,
    at_most("amplification_in_trouble", 0.5),
    at_most("settled_seconds", 1.0),
)
FLAKY = (*NEVER, at_least("ok_share", 0.999), at_most("calls_per_request", 1.28), at_most("p99_seconds", 0.65))
BROWNOUT = (
    *NEVER,
    at_least("ok_share", 0.98),
    at_most("calls_per_request", 1.15),
    no_worse_than("envoy", "p50_after_seconds"),
)


FLAKY_AT_MOST = 0.2
MOST_CALLS = 1.45
"""The shipped budget: a quarter, ten a second, and what was saved up before."""


def storm(name: str, model: str, parameters: Mapping[str, Any], **load: Any) -> Storm:
    found = {"model": model, "parameters": {**STORMS[model].parameters, **parameters}, **load}
    return storm_from(found, name, name)


def quota(name: str, parameters: Mapping[str, Any], **load: Any) -> Scenario:
    """Another quota: a tenth more than its rate allows, and four times the quiet that it asks for."""
    shaped = storm(name, "quota", parameters, **load)
    found = shaped.parameters
    quiet = 0.0 if found.get("style") == "none" else found.get("hint", 1.0) + (found.get("style") in ("date", "reset"))
    seconds = 1.1 * shaped.requests / found.get("rate", 50.0) + 4 * max(1.0, quiet)
    return Scenario(shaped, (*QUOTA, at_most("ended_seconds", round(seconds, 3))))


def flaky(name: str, share: float, **load: Any) -> Scenario:
    """Five sends at the most: what chance leaves is all that can be asked, and the calls that it takes.

    Where more than a fifth fail the budget says how many calls there may be, and many errors are handed over.
    """
    calls = (1 - share**5) / (1 - share)
    shaped = storm(name, "flaky", {"share": share}, **load)
    if share > FLAKY_AT_MOST:
        return Scenario(shaped, (*NEVER, at_most("calls_per_request", MOST_CALLS)))
    likely = at_least("ok_share", round(0.999 - 1.5 * share**5, 5))
    return Scenario(shaped, (*NEVER, likely, at_most("calls_per_request", round(1.03 * calls, 3))))


def outage(name: str, parameters: Mapping[str, Any], **load: Any) -> Scenario:
    return Scenario(storm(name, "outage", parameters, **load), OUTAGE)


SHIPPED = {
    one.name: one
    for one in (
        Scenario(STORMS["flaky"], FLAKY),
        Scenario(
            STORMS["quota"],
            (*QUOTA, at_most("ended_seconds", 26.0)),
            again=(
                always("ok_share", 1.0),
                *NEVER,
                at_most("calls_per_request", 1.05),
                at_most("ended_seconds", 22.0),
            ),
        ),
        Scenario(
            storm("quota-announced", "quota", {"announces": True}),
            (*QUOTA, at_most("ended_seconds", 26.0)),  # cold: what no answer has announced yet cannot be known
            again=(
                always("ok_share", 1.0),
                *NEVER,
                at_most("calls_per_request", 1.02),
                at_most("ended_seconds", 22.0),
            ),
        ),
        Scenario(STORMS["outage"], OUTAGE),
        Scenario(STORMS["post"], (always("applied_twice"), always("untold"))),
        Scenario(STORMS["date"], (always("ok_share", 1.0), *NEVER)),
        Scenario(STORMS["brownout"], BROWNOUT),
    )
}
"""The six, by name; the quota in its two forms."""

VARIATIONS = {
    one.name: one
    for one in (
        quota("quota-20", {"rate": 20, "burst": 5}, workers=40, requests=400),
        quota("quota-200", {"rate": 200, "burst": 50}, workers=150, requests=4000),
        quota("quota-decimal", {"hint": 0.3, "style": "decimal"}),
        quota("quota-date", {"hint": 2.0, "style": "date"}),
        quota("quota-ms", {"hint": 0.5, "style": "ms"}),
        quota("quota-reset", {"style": "reset"}),
        quota("quota-none", {"style": "none"}),
        outage("outage-long", {"ends": 11.0}, rate=100.0, seconds=18.0),
        outage("outage-short", {"ends": 5.7}),
        outage("outage-refused", {"how": "refused"}),
        outage("outage-reset", {"how": "reset"}),
        outage("outage-hint", {"hint": 1.0}),
        outage("outage-500", {"status": 500, "latency": 0.05}, rate=60.0),
        flaky("flaky-5", 0.05),
        flaky("flaky-40", 0.4),
        Scenario(
            storm("brownout-mild", "brownout", {"slow": 0.4, "queue": 100}, rate=200.0),
            BROWNOUT,
        ),
        Scenario(
            storm("mix-outage", "outage", {"how": "reset"}),
            (*NEVER, always("untold"), at_most("amplification_in_trouble", 0.5), at_most("settled_seconds", 1.0)),
            keyed_posts=0.3,
        ),
        Scenario(storm("mix-quota", "quota", {}), (*QUOTA, at_most("ended_seconds", 26.0)), keyed_posts=0.3),
    )
}
"""The same goals for other rates, durations, hints, kinds of failure and mixes."""


def chosen(names: Iterable[str], with_variations: bool) -> list[Scenario]:
    """By name, or from a JSON file; all shipped ones (or all variations) where none is named. Raises BadStorm."""
    known = {**SHIPPED, **VARIATIONS}
    found = []
    for name in names or (VARIATIONS if with_variations else SHIPPED):
        if name in known:
            found.append(known[name])
        elif Path(name).exists():
            read = storm_from_file(Path(name))
            found.append(replace(_like(read.model), storm=read))
        else:
            raise BadStorm(f"`{name}` is neither a file nor one of {', '.join(known)}")
    return found


def varied(
    scenario: Scenario, load: Mapping[str, Any], parameters: Mapping[str, Any], keyed_posts: float | None = None
) -> Scenario:
    """With another load (``rate seconds workers requests method``) or upstream. Raises BadStorm."""
    before = scenario.storm
    share = scenario.keyed_posts if keyed_posts is None else keyed_posts
    if not load and not parameters:
        return replace(scenario, keyed_posts=share)
    described = {"model": before.model, "parameters": {**before.parameters, **parameters}}
    kept = {name: getattr(before, name) for name in ("method", "rate", "seconds", "workers", "requests")}
    if "rate" in load and "workers" not in load:
        kept["workers"] = 0
    kept = {name: value for name, value in kept.items() if name not in load}
    storm = storm_from({**described, **load}, before.name, before.name)
    return replace(scenario, storm=replace(storm, **kept), keyed_posts=share)


def quicker(scenario: Scenario) -> Scenario:
    """A small one to try things out: only what holds at any size is asked of it."""
    storm = scenario.storm
    begin, end = storm.trouble
    if end > begin:
        parameters = {**storm.parameters, "begins": 1.0, "ends": 2.5}
        smaller = replace(storm, parameters=parameters, trouble=(1.0, 2.5), seconds=min(storm.seconds, 5.0))
    else:
        smaller = replace(storm, requests=min(storm.requests, max(20, storm.requests // 5)))
    again = None if scenario.again is None else _lasting(scenario.again)
    return replace(scenario, storm=smaller, goals=_lasting(scenario.goals), again=again)


def _lasting(goals: tuple[Goal, ...]) -> tuple[Goal, ...]:
    return tuple(goal for goal in goals if goal.always)


def _like(model: str) -> Scenario:
    """The shipped scenario of this model, for its goals."""
    return replace(SHIPPED[model], again=None)
