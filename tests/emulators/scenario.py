"""A scenario: operations, documented troubles, and what their documentation says must become of each request.

The oracle here knows neither the sidecar nor its policies: it is written from the documentation alone. What it
foretells is compared with what the app really got.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from sidecar.demo.apis.emulator import AFTER, PLAN, RESET, Emulator
from tests.support.client import Answer
from tests.support.sidecar import Running
from tests.support.structured import dictionary

__all__ = ["APART_SECONDS", "Fact", "Operation", "Scenario", "Then", "hurried", "run"]

SENDS = 5
"""In all, by every one of the five policies."""
APART_SECONDS = 11.0
"""On the clock that is moved by hand. The breaker looks at ten seconds, and has tests of its own."""


class Then(Enum):
    """What a documentation says about an error."""

    RETRY = "retry, whatever the method: the API did not act"
    IF_SAFE = "retry, if sending twice cannot act twice"
    LOGIN = "log in, then once more"
    LOOK = "look at the state, then once more"
    NEVER = "hand it over"


@dataclass(frozen=True)
class Fact:
    then: Then
    sends: int = SENDS
    """At most so many in all."""


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    """``{n}`` is the number of the request, so that each has a thing of its own."""
    success: int
    body: Mapping[str, object] | None = None
    is_keyed: bool = False
    """The API honours a key on it."""
    looks: bool = False
    """A conflict on it is worth a look at the state."""

    @property
    def is_repeatable(self) -> bool:
        return self.is_keyed or self.method in ("GET", "PUT", "DELETE")


@dataclass(frozen=True)
class Scenario:
    name: str
    operations: Sequence[Operation]
    facts: Mapping[str, Fact]


@dataclass
class Outcome:
    """What came of a scenario."""

    planned: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def foretell(operation: Operation, plan: Sequence[str], facts: Mapping[str, Fact], uncounted: int = 0) -> str | None:
    """The trouble that the app must get, or None: it must get its success. ``uncounted`` sends cost no attempt."""
    refreshed = looked = False
    for sends, step in enumerate(plan, 1 - uncounted):
        name = _name_of(step)
        fact = Fact(Then.IF_SAFE) if name == RESET else facts[name]
        stops = sends >= fact.sends
        if fact.then is Then.NEVER:
            stops = True
        elif fact.then is Then.IF_SAFE:
            stops = stops or not operation.is_repeatable
        elif fact.then is Then.LOGIN:
            stops = stops or refreshed
            refreshed = True
        elif fact.then is Then.LOOK:
            stops = stops or looked or not operation.looks
            looked = True
        if stops:
            return name
    return None


def _name_of(step: str) -> str:
    return step.removeprefix(AFTER).partition(";")[0]


def _plan(dice: random.Random, scenario: Scenario, number: int) -> list[str]:
    """Every trouble alone first, so that none is left out; then any one, two or three; half of all go untroubled."""
    names = [*scenario.facts, RESET]
    acting = [name for name, fact in scenario.facts.items() if fact.then is Then.IF_SAFE]
    every = [*names, *(AFTER + name for name in (*acting, RESET))]
    if number < len(every) * 4:
        return [every[number // 4]]
    if dice.random() < 0.5:
        return []
    hinted = [f"{name};{dice.choice((1, 3, 7))}" for name in names if "LIMIT" in name or "MANY" in name]
    return [dice.choice([*every, *hinted]) for _ in range(dice.choice((1, 1, 2, 3)))]


async def run(scenario: Scenario, emulator: Emulator, sidecar: Running, requests: int = 1000) -> Outcome:
    """One request after the other, each compared with what was foretold."""
    dice = random.Random(scenario.name)
    seen = Outcome()
    async with hurried(scenario.name, sidecar):
        await _ask_all(scenario, emulator, sidecar, dice, seen, requests)
    return seen


@contextlib.asynccontextmanager
async def hurried(upstream: str, sidecar: Running) -> AsyncIterator[None]:
    """While a gate or a breaker holds something, the clock goes on, and whoever holds looks at it."""
    destination = sidecar.sidecar.listener.router.destinations[upstream]

    async def hurry() -> None:
        while True:
            await asyncio.sleep(0.001)
            if destination.meters.held["gate"] or destination.meters.held["breaker"]:
                sidecar.clock.advance(0.1)
                destination.holding.look_again()

    task = asyncio.create_task(hurry())
    try:
        yield
    finally:
        task.cancel()


async def _ask_all(
    scenario: Scenario, emulator: Emulator, sidecar: Running, dice: random.Random, seen: Outcome, requests: int
) -> None:
    for number in range(requests):
        operation = scenario.operations[number % len(scenario.operations)]
        plan = _plan(dice, scenario, number)
        seen.planned.update(map(_name_of, plan))
        sidecar.clock.advance(APART_SECONDS)
        answer = await ask(scenario.name, sidecar, operation, number, plan)
        seen.outcomes[dictionary(answer.headers.get("Sidecar"))["outcome"]] += 1
        wrong = _compare(answer, foretell(operation, plan, scenario.facts), operation, emulator, number)
        if wrong and plan and _name_of(plan[0]) == RESET and operation.method in ("GET", "PUT", "DELETE"):
            # A pooled connection that ends under the first send of an idempotent request costs no attempt.
            later = foretell(operation, plan, scenario.facts, uncounted=1)
            wrong = _compare(answer, later, operation, emulator, number)
        if wrong:
            seen.wrong.append(f"{operation.method} {operation.path} {plan}: {wrong}; {answer.headers.get('Sidecar')}")


async def ask(api: str, sidecar: Running, operation: Operation, number: int, plan: Sequence[str] = ()) -> Answer:
    headers = [("X-Request-Id", f"r-{number}"), ("Content-Type", "application/json")]
    if plan:
        headers.append((PLAN, " ".join(plan)))
    body = None
    if operation.body is not None:
        body = json.dumps(operation.body).replace("{n}", str(number)).encode()
    target = f"/{api}{operation.path.replace('{n}', str(number))}"
    return await sidecar.ask(operation.method, target, headers, body)


def _compare(answer: Answer, trouble: str | None, operation: Operation, emulator: Emulator, number: int) -> str | None:
    """What is not as foretold."""
    if trouble is None:
        return None if answer.status == operation.success else f"{answer.status} {answer.body!r}"
    if trouble == RESET:
        return None if answer.status == 502 else f"{answer.status} in place of our own 502"
    wanted = emulator.troubles[trouble]
    if answer.status != wanted.status:
        return f"{answer.status} in place of {wanted.status} ({trouble})"
    last = [call for call in emulator.calls_of(f"r-{number}") if call.method == operation.method][-1]
    return None if answer.body == last.answered else "the body was touched"
