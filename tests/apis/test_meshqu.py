"""MeshQu: what its documentation says, against the shipped policy ``meshqu``."""

from __future__ import annotations

import pytest

from sidecar.core.decision.attempt import Attempt, Headers, Now, Pressure, Request
from sidecar.core.decision.decide import decide
from sidecar.core.enums import Verb
from tests.apis.conftest import Stage
from tests.emulators.scenario import Fact, Operation, Scenario, Then, ask, run
from tests.support.structured import dictionary

SCENARIO = Scenario(
    "meshqu",
    [
        Operation("POST", "/v1/decisions", 200, {"subject": "s-{n}"}),
        Operation("GET", "/v1/policies/{n}", 200),
        Operation("POST", "/v1/codes", 201, {"code": "c-{n}"}),
        Operation("POST", "/v1/webhooks/{n}/retry", 202, {}),
        Operation("GET", "/v1/policies/p", 200),
    ],
    {
        "VALIDATION_ERROR": Fact(Then.NEVER),
        "UNAUTHORIZED": Fact(Then.NEVER),
        "FORBIDDEN": Fact(Then.NEVER),
        "NOT_FOUND": Fact(Then.NEVER),
        "SNAPSHOT_NOT_FOUND": Fact(Then.NEVER),
        "REQUEST_TIMEOUT": Fact(Then.RETRY, sends=3),
        "DUPLICATE_CODE": Fact(Then.NEVER),
        "ALREADY_DELIVERED": Fact(Then.NEVER),
        "STILL_PENDING": Fact(Then.NEVER),
        "NO_ACTIVE_POLICIES": Fact(Then.NEVER),
        "NO_ACTIVE_RULES": Fact(Then.NEVER),
        "TOO_MANY_REQUESTS": Fact(Then.RETRY),
        "INTERNAL_ERROR": Fact(Then.IF_SAFE),
        "SERVICE_UNAVAILABLE": Fact(Then.IF_SAFE),
    },
)


async def test_a_thousand_requests_end_as_the_documentation_says(stage: Stage) -> None:
    api, sidecar = await stage("meshqu")
    seen = await run(SCENARIO, api, sidecar)
    assert seen.wrong == []
    assert set(seen.planned) == {*api.troubles, "reset"}
    assert max(api.applied.values()) == 1
    assert api.came_too_soon() == []


async def test_its_rate_limit_is_never_undercut(stage: Stage) -> None:
    """A hundred calls in ten seconds: the hundred and first waits for the next window, and succeeds."""
    api, sidecar = await stage("meshqu")
    for number in range(101):
        assert (await ask("meshqu", sidecar, SCENARIO.operations[1], number)).status == 200
    assert api.came_too_soon() == []
    assert [call.status for call in api.calls_of("r-100")] == [429, 200]


@pytest.mark.parametrize("code", ["ALREADY_DELIVERED", "STILL_PENDING", "DUPLICATE_CODE", "NO_ACTIVE_RULES"])
async def test_domain_codes_are_handed_over_at_once(stage: Stage, code: str) -> None:
    _, sidecar = await stage("meshqu")
    answer = await ask("meshqu", sidecar, SCENARIO.operations[3], 1, [code])
    assert answer.json()["error"]["code"] == code
    assert dictionary(answer.headers.get("Sidecar"))["attempts"] == 1
    line = f'sidecar_upstream_errors_total{{upstream="meshqu",code="{code}"}}'
    assert await sidecar.metric(line) == 1


async def test_a_pause_that_only_the_body_names_is_kept(stage: Stage) -> None:
    """Should ``Retry-After`` ever be missing."""
    _, sidecar = await stage("meshqu")
    policy = sidecar.sidecar.deployment.upstreams[0].policy
    attempt = Attempt(1, 429, Headers(), body=b'{"error":{"code":"TOO_MANY_REQUESTS"},"retryAfter":9}')
    decision = decide(policy, Request("POST"), (attempt,), Now(0, 0), 0.5, Pressure())
    assert decision.verb is Verb.RETRY
    assert decision.wait is not None
    assert decision.wait.min_seconds == 9


async def test_its_correlation_id_is_kept_on_every_answer_and_in_the_record(stage: Stage) -> None:
    _, sidecar = await stage("meshqu")
    fine = await ask("meshqu", sidecar, SCENARIO.operations[0], 1)
    assert fine.headers.all("x-correlation-id") == [fine.json()["correlation_id"]]
    await ask("meshqu", sidecar, SCENARIO.operations[0], 2, ["FORBIDDEN"])
    record = await sidecar.record(2)
    assert (record.error_code, record.upstream_correlation_id) == ("FORBIDDEN", "mesh-2")


async def test_our_own_answer_parses_as_its_sdk_would(stage: Stage) -> None:
    _, sidecar = await stage("meshqu")
    answer = await ask("meshqu", sidecar, SCENARIO.operations[0], 1, ["reset"])
    document = answer.json()
    assert (answer.status, set(document), set(document["error"])) == (
        502,
        {"error", "correlation_id"},
        {"code", "message", "details"},
    )
    assert document["correlation_id"] == answer.headers.get("X-Correlation-Id")
    assert isinstance(document["error"]["code"], str)
