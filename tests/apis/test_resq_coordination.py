"""ResQ Coordination API: what its documentation says, against the shipped policy ``resq-coordination``."""

from __future__ import annotations

from sidecar.demo.apis.resq import CoordinationApi
from tests.apis.conftest import Stage
from tests.emulators.resq import RESQ_FACTS
from tests.emulators.scenario import Operation, Scenario, ask, run
from tests.support.structured import dictionary

APPROVE = Operation("POST", "/v1/missions/{n}/approve", 200, {}, looks=True)
REPORT = Operation("POST", "/v1/reports", 201, {"text": "{n}"})
SCENARIO = Scenario(
    "resq-coordination",
    [APPROVE, Operation("GET", "/v1/missions/{n}", 200), REPORT, APPROVE, Operation("POST", "/v1/telemetry", 202, {})],
    RESQ_FACTS,
)


async def test_a_thousand_requests_end_as_the_documentation_says(stage: Stage) -> None:
    api, sidecar = await stage("resq-coordination")
    seen = await run(SCENARIO, api, sidecar)
    assert seen.wrong == []
    assert set(seen.planned) == {*api.troubles, "reset"}
    assert max(api.applied.values()) == 1
    assert api.came_too_soon() == []


async def test_a_mission_that_is_approved_already_answers_its_409(stage: Stage) -> None:
    api, sidecar = await stage("resq-coordination")
    assert isinstance(api, CoordinationApi)
    api.approved.add("7")
    answer = await ask(SCENARIO.name, sidecar, APPROVE, 7)
    assert (answer.status, answer.json()) == (409, {"error": "Mission already approved"})
    told = dictionary(answer.headers.get("Sidecar"))
    assert (told["outcome"], told["attempts"], told["reason"]) == ("passed", 2, "not_retryable")
    assert [(call.method, call.path) for call in api.calls_of("r-7")][-1] == ("GET", "/v1/missions/7")


async def test_a_mission_that_still_waits_is_approved_after_a_look(stage: Stage) -> None:
    api, sidecar = await stage("resq-coordination")
    await ask(SCENARIO.name, sidecar, REPORT, 1)
    answer = await ask(SCENARIO.name, sidecar, APPROVE, 7, ["CONFLICT"])
    assert (answer.status, answer.json()["status"]) == (200, "approved")
    assert [call.method for call in api.calls_of("r-7")] == ["POST", "GET", "POST"]
    assert api.applied["r-7"] == 1


async def test_both_forms_of_its_errors_are_read(stage: Stage) -> None:
    _, sidecar = await stage("resq-coordination")
    await ask(SCENARIO.name, sidecar, REPORT, 1, ["VALIDATION"])
    await ask(SCENARIO.name, sidecar, REPORT, 2, ["FORBIDDEN"])
    rich, short = await sidecar.record(1), await sidecar.record(2)
    assert (rich.error_code, rich.error_message) == ("validation_failed", "The request is not valid")
    assert short.error_message == "Insufficient scope: infra:write"
    errors = 'sidecar_upstream_errors_total{upstream="resq-coordination",code='
    assert await sidecar.metric(errors + '"validation_failed"}') == 1
    assert await sidecar.metric(errors + '"other"}') == 1


async def test_our_own_answer_is_in_its_richer_envelope(stage: Stage) -> None:
    _, sidecar = await stage("resq-coordination")
    answer = await ask(SCENARIO.name, sidecar, REPORT, 1, ["reset"])
    document = answer.json()
    assert (answer.status, set(document), document["details"]) == (502, {"error", "message", "details"}, [])
