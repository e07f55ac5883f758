"""ResQ Infrastructure API: what its documentation says, against the shipped policy ``resq-infrastructure``."""

from __future__ import annotations

import asyncio

from sidecar.demo.apis.resq import ResqApi
from tests.apis.conftest import Stage
from tests.emulators.resq import RESQ_FACTS
from tests.emulators.scenario import Operation, Scenario, ask, run
from tests.support.structured import dictionary

SCENARIO = Scenario(
    "resq-infrastructure",
    [
        Operation("PUT", "/v1/services/{n}", 200, {"size": 1}),
        Operation("POST", "/v1/deployments", 201, {"service": "{n}"}),
        Operation("PUT", "/v1/services/one", 200, {"size": 2}),
        Operation("DELETE", "/v1/services/{n}", 204),
        Operation("GET", "/v1/services/one", 200),
    ],
    RESQ_FACTS,
)
DEPLOY = SCENARIO.operations[1]


async def test_a_thousand_requests_end_as_the_documentation_says(stage: Stage) -> None:
    api, sidecar = await stage("resq-infrastructure")
    await ask(SCENARIO.name, sidecar, SCENARIO.operations[2], 9999)
    seen = await run(SCENARIO, api, sidecar)
    assert seen.wrong == []
    assert set(seen.planned) == {*api.troubles, "reset"}
    assert max(api.applied.values()) == 1
    assert api.came_too_soon() == []
    refused = sum(call.status == 401 for call in api.calls)
    lives = (api.calls[-1].at - api.calls[0].at) / 500  # of 600 s, renewed a minute ahead
    assert 0 < api.logins <= refused + lives + 1


async def test_two_hundred_expired_at_once_cause_one_login(stage: Stage) -> None:
    api, sidecar = await stage("resq-infrastructure")
    assert isinstance(api, ResqApi)
    assert (await ask(SCENARIO.name, sidecar, DEPLOY, 1000)).status == 201
    api.tokens.revoke_all()
    answers = await asyncio.gather(*(ask(SCENARIO.name, sidecar, DEPLOY, number) for number in range(200)))
    assert {answer.status for answer in answers} == {201}
    assert api.logins == 2
    assert set(api.applied.values()) == {1}
    assert len(api.applied) == 201


async def test_wrong_credentials_hand_the_401_over(stage: Stage) -> None:
    api, sidecar = await stage("resq-infrastructure")
    api.secret = "changed meanwhile"
    answer = await ask(SCENARIO.name, sidecar, DEPLOY, 1)
    assert (answer.status, answer.json()) == (401, {"error": "Token expired"})
    assert dictionary(answer.headers.get("Sidecar"))["reason"] == "login_failed"


async def test_the_apps_own_login_is_not_mended_by_another_one(stage: Stage) -> None:
    api, sidecar = await stage("resq-infrastructure")
    login = Operation("POST", "/auth/login", 200, {"username": "me", "password": "wrong"})
    answer = await ask(SCENARIO.name, sidecar, login, 1)
    assert (answer.status, answer.json(), api.logins) == (401, {"error": "Invalid credentials"}, 1)


async def test_a_missing_scope_is_surfaced(stage: Stage) -> None:
    api, sidecar = await stage("resq-infrastructure")
    answer = await ask(SCENARIO.name, sidecar, Operation("POST", "/v1/admin/users", 0, {}), 1)
    assert (answer.status, answer.json()["error"]) == (403, "Insufficient scope: infra:admin")
    assert [call.status for call in api.calls if call.path == "/v1/admin/users"] == [401, 403]


async def test_backoff_is_the_sketch_of_the_documentation(stage: Stage) -> None:
    """250 ms · 2^n plus random up to the same again: with chance in its middle, one and a half times."""
    _, sidecar = await stage("resq-infrastructure")
    operation = SCENARIO.operations[0]
    await ask(SCENARIO.name, sidecar, operation, 0)
    answer = await ask(SCENARIO.name, sidecar, operation, 1, ["UNAVAILABLE"] * 4)
    assert answer.status == 200
    assert [round(wait, 2) for wait in sidecar.clock.waits] == [0.38, 0.75, 1.5, 3.0]


async def test_our_own_answer_is_in_its_envelope(stage: Stage) -> None:
    _, sidecar = await stage("resq-infrastructure")
    answer = await ask(SCENARIO.name, sidecar, DEPLOY, 1, ["reset"])
    assert answer.status == 502
    assert set(answer.json()) == {"error"}
    assert isinstance(answer.json()["error"], str)
