"""Do no harm: counter-examples that were mended, and the property over the first seeds.

Each named model was harmed once; ``python -m benchmarks.harmless`` looks for others.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.load import load_policy
from sidecar.core.decision.policy import Policy
from sidecar.simulate.harmless import harm_of
from sidecar.simulate.models import Failing, Hint, Latency, Model, Refusal, Traffic, Who

DEFAULT = Path(__file__).resolve().parents[2] / "config" / "policies" / "default.yaml"

MENDED = {
    "half of the instances fail, and each retry that succeeds costs the budget": (
        81,
        Model(Traffic(rate=50.0, requests=500), failing=(Failing("instance", 0.5, status=502),)),
    ),
    "a hint longer than anybody waits holds others": (
        182,
        Model(
            Traffic(rate=31.1, requests=200, shape="poisson"),
            Latency("drift", 0.282),
            refusals=(Refusal(share=0.326, hint=Hint("decimal", "right", 600.0)),),
        ),
    ),
    "endpoints whose names hold a digit are taken for one": (
        258,
        Model(
            Traffic(rate=144.0, requests=667, shape="bursts"),
            Latency(seconds=0.0443),
            refusals=(Refusal(Who(endpoint=0)),),
        ),
    ),
}
"""What did the harm, with the seed of its dice."""


@pytest.fixture(name="policy", scope="module")
def _policy() -> Policy:
    return load_policy(DEFAULT).policy


@pytest.mark.parametrize("name", MENDED)
def test_what_was_mended_stays_mended(policy: Policy, name: str) -> None:
    seed, model = MENDED[name]
    harms, _ = harm_of(model, policy, seed)
    assert harms == []
