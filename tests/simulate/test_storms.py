"""What the engine promises of storms, held in the model: the shipped ones, and other rates, durations and hints.

The policy is the shipped default, the same for all. Real sockets are measured by ``benchmarks``; here each run takes a
fraction of a second of real time and is the same every time.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.load import load_policy
from sidecar.core.decision.policy import Policy
from sidecar.simulate.run import Stood, budgeted, fixed, replicas, stand
from sidecar.simulate.storms import STORMS, Storm

DEFAULT = Path(__file__).resolve().parents[2] / "config" / "policies" / "default.yaml"


@pytest.fixture(name="policy", scope="module")
def _policy() -> Policy:
    return load_policy(DEFAULT).policy


def stood(storm: Storm, policy: Policy, count: int = 1, shared: bool = False, seed: int = 1) -> Stood:
    return stand("sidecar", storm, replicas(policy, count, shared=shared), seed, lambda share: None)


def varied(name: str, parameters: dict[str, Any] | None = None, **more: Any) -> Storm:
    storm = STORMS[name]
    trouble = storm.trouble
    if parameters and "ends" in parameters:
        trouble = (parameters.get("begins", 5.0), parameters["ends"])
    return replace(storm, parameters={**storm.parameters, **(parameters or {})}, **{"trouble": trouble, **more})


@pytest.mark.parametrize("seed", range(5))
def test_flaky(policy: Policy, seed: int) -> None:
    figures = stood(STORMS["flaky"], policy, seed=seed).figures()
    assert figures["ok_share"] >= 0.999
    assert figures["calls_per_request"] <= 1.30
    assert figures["p99_seconds"] <= 0.70


def test_quota_meets_an_unknown_limit_once_and_then_keeps_to_it(policy: Policy) -> None:
    found = stood(STORMS["quota"], policy)
    figures = found.figures()
    assert figures["ok_share"] == 1
    assert figures["calls_per_request"] <= 1.15
    assert figures["ended_seconds"] <= 26
    assert figures["early"] == 0


@pytest.mark.parametrize(
    "parameters",
    [
        {"style": "decimal"},
        {"style": "none"},
        {"style": "ms"},
        {"style": "reset"},
        {"hint": 0.2, "style": "decimal"},
        {"burst": 50},
        {"announces": True},
    ],
)
def test_quota_with_other_hints_and_bursts(policy: Policy, parameters: dict[str, Any]) -> None:
    figures = stood(varied("quota", parameters), policy).figures()
    assert figures["ok_share"] == 1
    assert figures["calls_per_request"] <= 1.15
    rounding = parameters.get("style") == "reset"  # a moment in whole seconds asks for up to one more
    assert figures["ended_seconds"] <= 26 + rounding
    assert figures["early"] == 0


@pytest.mark.parametrize(("rate", "burst", "requests"), [(20, 20, 400), (200, 20, 4000), (500, 50, 10_000)])
def test_quotas_of_other_sizes(policy: Policy, rate: float, burst: float, requests: int) -> None:
    found = stood(varied("quota", {"rate": rate, "burst": burst}, requests=requests), policy)
    assert found.stats.ok_share == 1
    assert found.stats.ended_at <= 1.3 * requests / rate


@pytest.mark.parametrize(
    ("rate", "parameters"), [(55, {}), (60, {}), (60, {"style": "none"}), (100, {}), (60, {"burst": 50})]
)
def test_a_limit_that_is_met_in_full_flow_is_found_too(policy: Policy, rate: float, parameters: dict[str, Any]) -> None:
    figures = stood(varied("quota", parameters, workers=0, rate=rate, seconds=30.0), policy).figures()
    assert figures["ok_share"] == 1
    assert figures["calls_per_request"] <= 1.05
    assert figures["ended_seconds"] <= 1.35 * rate * 30 / 50


def test_below_the_limit_nobody_notices_anything(policy: Policy) -> None:
    found = stood(varied("quota", workers=0, rate=45.0, seconds=30.0), policy)
    assert sum(found.stats.sent.values) == found.stats.requests
    assert max(found.stats.held) == 0


def test_a_second_thousand_finds_what_the_first_has_learnt(policy: Policy) -> None:
    first = stood(STORMS["quota"], policy).stats
    both = stood(varied("quota", requests=2000), policy).stats
    assert both.ended_at - first.ended_at <= 22
    assert sum(both.sent.values) - sum(first.sent.values) <= 1050


@pytest.mark.parametrize("seed", range(5))
def test_outage(policy: Policy, seed: int) -> None:
    figures = stood(STORMS["outage"], policy, seed=seed).figures()
    assert figures["ok_share"] >= 0.999
    assert figures["amplification_in_trouble"] <= 0.5
    assert figures["settled_seconds"] <= 1.0


@pytest.mark.parametrize(
    ("rate", "parameters"),
    [
        (50, {}),
        (100, {"ends": 5.5}),
        (100, {"ends": 10.0}),
        (200, {"hint": 1.0}),
        (200, {"hint": 0.5, "style": "decimal"}),
        (200, {"latency": 0.05}),
        (200, {"status": 500}),
    ],
)
def test_outages_of_other_rates_durations_and_hints(policy: Policy, rate: float, parameters: dict[str, Any]) -> None:
    figures = stood(varied("outage", parameters, rate=rate), policy).figures()
    assert figures["ok_share"] >= 0.999
    assert figures["amplification_in_trouble"] <= 0.5
    assert figures["settled_seconds"] <= 1.0


def test_date_is_not_undercut(policy: Policy) -> None:
    found = stood(STORMS["date"], policy)
    assert found.stats.ok_share == 1
    assert found.stats.sent.between(5.2, 8.0) == 0


def test_post_applies_nothing_twice(policy: Policy) -> None:
    found = stood(STORMS["post"], policy)
    assert found.stats.applied_twice == 0
    assert set(found.stats.reasons) == {"not_safe"}


def test_brownout(policy: Policy) -> None:
    figures = stood(STORMS["brownout"], policy).figures()
    assert figures["ok_share"] >= 0.98
    assert figures["calls_per_request"] <= 1.15
    assert figures["p50_after_seconds"] <= 0.3


@pytest.mark.parametrize(
    "parameters", [{"queue": 50}, {"slow": 1.5}, {"slots": 8, "service": 0.02, "slow": 0.08}, {"hint": 1.0}]
)
def test_other_brownouts(policy: Policy, parameters: dict[str, Any]) -> None:
    figures = stood(varied("brownout", parameters), policy).figures()
    assert figures["ok_share"] >= 0.98
    assert figures["calls_per_request"] <= 1.15
    assert figures["p50_after_seconds"] <= 0.5


def test_replicas_that_share_what_they_know_are_as_good_as_one(policy: Policy) -> None:
    figures = stood(STORMS["quota"], policy, count=8, shared=True).figures()
    assert figures["ok_share"] == 1
    assert figures["calls_per_request"] <= 1.15
    alone = stood(STORMS["quota"], policy, count=8).figures()
    assert alone["ended_seconds"] > figures["ended_seconds"]


@pytest.mark.parametrize("storm", STORMS.values(), ids=lambda storm: storm.name)
def test_the_same_seed_is_the_same_run(policy: Policy, storm: Storm) -> None:
    assert stood(storm, policy, seed=7).figures() == stood(storm, policy, seed=7).figures()


def test_retries_stay_within_the_budget(policy: Policy) -> None:
    storm = varied("flaky", {"share": 1.0}, workers=0, rate=50.0, seconds=10.0)
    found = stood(storm, policy)
    retries = sum(found.stats.sent.values) - found.stats.requests
    rule = policy.budget
    assert retries <= rule.ratio * found.stats.requests + rule.floor_per_second * found.stats.ended_at + 101


def test_the_stand_ins_do_what_they_are_for() -> None:
    outage = STORMS["outage"]
    without = stand("fixed", outage, fixed, 1, lambda share: None).figures()
    with_budget = stand("budget", outage, budgeted, 1, lambda share: None).figures()
    assert without["amplification_in_trouble"] > 4
    assert with_budget["amplification_in_trouble"] < 1.5
    assert with_budget["ok_share"] < 0.9
