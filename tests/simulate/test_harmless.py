"""The harness of "do no harm": its models, its dice and its judgement.

Whether the engine holds the property is told by ``python -m benchmarks.harmless``.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from sidecar.config.load import load_policy
from sidecar.core.decision.policy import Policy
from sidecar.simulate import models
from sidecar.simulate.clock import Clock, unit
from sidecar.simulate.composed import Composed
from sidecar.simulate.harmless import Compared, Pair, Ran, compared, harms, shrunk
from sidecar.simulate.models import (
    Hint,
    Latency,
    Limit,
    Model,
    Outage,
    Refusal,
    Traffic,
    Who,
    described,
    model_from,
    spelled,
)
from sidecar.simulate.random_models import ROWS, drawn, simpler
from sidecar.simulate.upstream import Answer, Call

DEFAULT = Path(__file__).resolve().parents[2] / "config" / "policies" / "default.yaml"


@pytest.fixture(name="policy", scope="module")
def _policy() -> Policy:
    return load_policy(DEFAULT).policy


def answers(model: Model, calls: list[tuple[float, int]]) -> list[Answer]:
    """What the model says to the first attempts of these requests at these moments."""
    clock, found = Clock(1), list[Answer]()
    upstream = Composed(clock, model, 1)
    callers = model.traffic.callers(1)
    for at, index in calls:
        call = Call(model.traffic.request(callers[index], index), index)
        clock.at(at, upstream.arrive, call, found.append)
    clock.run(1000.0)
    return found


def pair(mine: list[tuple[float, bool]], plains: list[tuple[float, bool]], sends: tuple[int, int]) -> Pair:
    sides = [
        Ran([took for took, _ in side], [good for _, good in side], sent, Counter(), Counter())
        for side, sent in zip((mine, plains), sends, strict=True)
    ]
    return Pair(sides[0], sides[1], Traffic(requests=len(mine)).callers(1))


def test_the_dice_hang_on_their_numbers_alone() -> None:
    assert unit(1, 2, 3) == unit(1, 2, 3)
    assert unit(1, 2, 3) != unit(1, 3, 2)
    found = [unit(7, index) for index in range(10_000)]
    assert all(0 <= one < 1 for one in found)
    assert abs(sum(found) / len(found) - 0.5) < 0.01


@pytest.mark.parametrize("seed", range(40))
def test_a_model_is_spelled_described_and_written(seed: int) -> None:
    model = drawn(seed)
    assert eval(spelled(model), vars(models)) == model  # noqa: S307 - our own words
    assert model_from(json.loads(json.dumps(models.model_json(model)))) == model
    assert described(model)
    assert all(smaller != model for smaller in simpler(model))


def test_every_dimension_is_drawn() -> None:
    found = [drawn(seed) for seed in range(600)]
    limits = [limit for model in found for limit in model.limits]
    refusals = [refusal for model in found for refusal in model.refusals]
    parts: list[Limit | Refusal] = [*limits, *refusals]
    hints = [part.hint for part in parts]
    assert {limit.kind for limit in limits} == {"bucket", "fixed", "sliding", "concurrent"}
    assert {limit.each for limit in limits} == {"all", "endpoint", "item", "tenant"}
    assert {limit.announced for limit in limits} == {"no", "draft", "x"}
    assert {bool(limit.others) for limit in limits} == {True, False}
    whos = [refusal.who for refusal in refusals]
    for name in ("endpoint", "item", "tenant", "larger_than"):
        assert any(getattr(who, name) is not None for who in whos)
    assert {part.status for part in parts} == {429, 503, 403}
    assert {hint.style for hint in hints} >= {"seconds", "none", "decimal", "date", "ms", "reset", "garbage"}
    assert {hint.says for hint in hints} == {"right", "wrong", "fixed"}
    assert {hint.seconds for hint in hints} >= {0.0, 600.0, 86_400.0}
    assert {one.how for model in found for one in model.failing} == {"independent", "bursts", "instance"}
    assert {model.latency.kind for model in found} == {"constant", "lognormal", "pareto", "bimodal", "drift"}
    assert {model.traffic.shape for model in found} == {"steady", "poisson", "bursts", "ramp", "waves"}
    assert {bool(model.traffic.workers) for model in found} == {True, False}
    for name in ("slots", "slow", "outage"):
        assert any(getattr(model, name) is not None for model in found)
    rates = [model.traffic.rate for model in found]
    assert min(rates) < 2
    assert max(rates) > 1000


def test_a_bucket_refuses_what_is_beyond_it() -> None:
    model = Model(limits=(Limit(rate=2.0, window=1.0, hint=Hint("decimal")),))
    found = answers(model, [(0.0, 0), (0.0, 1), (0.0, 2), (0.5, 3), (0.5, 4)])
    assert [one.status for one in found] == [429, 200, 200, 429, 200]  # a refusal is quicker than an answer
    assert found[0].headers.get("retry-after") == "0.500"


def test_windows_open_again() -> None:
    fixed = Model(limits=(Limit("fixed", rate=1.0, window=2.0),))
    assert [one.status for one in answers(fixed, [(0.1, 0), (0.2, 1), (1.9, 2), (2.1, 3)])] == [200, 200, 429, 200]
    sliding = Model(limits=(Limit("sliding", rate=1.0, window=2.0),))
    assert [one.status for one in answers(sliding, [(0.1, 0), (1.9, 1), (2.0, 2), (2.2, 3)])] == [200, 200, 429, 200]


def test_only_those_who_are_meant_are_refused() -> None:
    model = Model(Traffic(requests=200), refusals=(Refusal(Who(endpoint=0)),))
    callers = model.traffic.callers(1)
    found = answers(model, [(float(index), index) for index in range(200)])
    assert [one.status == 429 for one in found] == [caller.endpoint == 0 for caller in callers]
    assert {model.concerns(caller) for caller in callers if caller.endpoint} == {False}


def test_plain_is_the_policy_and_nothing_else(policy: Policy) -> None:
    ran = compared(Model(refusals=(Refusal(share=0.3, hint=Hint("none")),)), policy, [1]).pairs[0].plain
    assert sum(ran.good) / len(ran.good) > 0.99
    assert 1.38 < ran.sends / len(ran.good) < 1.48  # 1 + 0.3 + 0.09 + …


def test_without_trouble_both_sides_are_the_same_to_the_digit(policy: Policy) -> None:
    for seed in (1, 2):
        one = compared(Model(Traffic(requests=200, writes=0.3)), policy, [seed]).pairs[0]
        assert one.sidecar.took == one.plain.took
        assert one.sidecar.sends == one.plain.sends


def test_the_same_seed_is_the_same_run(policy: Policy) -> None:
    first, second = (compared(drawn(5), policy, [5]).pairs[0] for _ in range(2))
    assert (first.sidecar.took, first.plain.took) == (second.sidecar.took, second.plain.took)


GOOD = [(0.01, True)] * 1000


@pytest.mark.parametrize(
    ("mine", "sends", "word"),
    [
        (GOOD, (1000, 1000), None),
        (GOOD, (1090, 1000), None),
        (GOOD, (1110, 1000), "sends"),
        ([*GOOD[:996], *[(1.0, False)] * 4], (1000, 1000), None),
        ([*GOOD[:990], *[(1.0, False)] * 10], (1000, 1000), "ok"),
        ([(0.06, True)] * 1000, (1000, 1000), None),
        ([(0.07, True)] * 1000, (1000, 1000), "p50"),
        ([*GOOD[:800], *[(0.07, True)] * 200], (1000, 1000), "p90"),
        ([*GOOD[:950], *[(0.07, True)] * 50], (1000, 1000), None),
    ],
)
def test_harm_is_told(mine: list[tuple[float, bool]], sends: tuple[int, int], word: str | None) -> None:
    model = Model(refusals=(Refusal(),))
    found = Compared(model, 60.0, [pair(mine, GOOD, sends) for _ in range(8)])
    words = {harm.word for harm in harms(found)}
    assert words == (set() if word is None else {word}) or (word == "p50" and words == {"p50", "p90"})


def test_luck_is_no_harm() -> None:
    unlucky = pair([*GOOD[:940], *[(1.0, False)] * 60], GOOD, (1000, 1000))
    found = Compared(Model(refusals=(Refusal(),)), 60.0, [unlucky, *[pair(GOOD, GOOD, (1000, 1000))] * 7])
    assert harms(found) == []


def test_an_error_that_nobody_could_avoid_comes_no_later() -> None:
    plains = [*GOOD[:500], *[(2.0, False)] * 500]
    found = Compared(
        Model(refusals=(Refusal(),)),
        60.0,
        [pair([*GOOD[:500], *[(60.0, False)] * 500], plains, (1000, 1000)) for _ in range(8)],
    )
    assert [harm.word for harm in harms(found)] == ["error p90"]


def test_a_counter_example_becomes_simpler() -> None:
    """The parts that do not matter go, the others get their defaults where they may."""
    model = Model(
        Traffic(requests=150, tenants=3, shape="poisson"),
        Latency("pareto", 0.2),
        outage=Outage(1.0, 2.0),
        refusals=(Refusal(share=0.5, hint=Hint("none")), Refusal(Who(item=3))),
    )

    def is_harmed(candidate: Model) -> bool:
        return any(refusal.who.item == 3 for refusal in candidate.refusals) and candidate.traffic.tenants == 3

    expected = Model(Traffic(tenants=3), refusals=(Refusal(Who(item=3)),))
    assert shrunk(model, is_harmed) == expected
    assert shrunk(expected, is_harmed) == expected


def test_the_rows_are_what_they_say() -> None:
    assert len(ROWS) == 8
    for model in ROWS.values():
        assert described(model)
