"""Devices API v3: what its documentation says, against the shipped policy ``devices-v3``."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.demo.apis.devices import DevicesApi
from tests.apis.conftest import Stage
from tests.emulators.scenario import Fact, Operation, Scenario, Then, ask, run
from tests.support.structured import dictionary

JOB = Operation("POST", "/v3/jobs", 201, {"device": "d-{n}"}, is_keyed=True)
SCENARIO = Scenario(
    "devices-v3",
    [
        JOB,
        Operation("GET", "/v3/devices/{n}", 200),
        Operation("PATCH", "/v3/devices/{n}", 200, {"name": "x"}, is_keyed=True),
    ],
    {
        "INVALID_TOKEN": Fact(Then.LOGIN),
        "INSUFFICIENT_PERMISSIONS": Fact(Then.NEVER),
        "DEVICE_NOT_FOUND": Fact(Then.NEVER),
        "JOB_NOT_FOUND": Fact(Then.NEVER),
        "MISSION_NOT_FOUND": Fact(Then.NEVER),
        "IDEMPOTENCY_CONFLICT": Fact(Then.NEVER),
        "WRONG_VERSION": Fact(Then.NEVER),
        "VALIDATION_ERROR": Fact(Then.NEVER),
        "RATE_LIMITED": Fact(Then.RETRY),
        "INTERNAL": Fact(Then.IF_SAFE),
        "UNAVAILABLE": Fact(Then.IF_SAFE),
        "DEVICE_OFFLINE": Fact(Then.IF_SAFE, sends=3),
    },
)


async def test_a_thousand_requests_end_as_the_documentation_says(stage: Stage) -> None:
    api, sidecar = await stage("devices-v3")
    seen = await run(SCENARIO, api, sidecar)
    assert seen.wrong == []
    assert set(seen.planned) == {*api.troubles, "reset"}
    assert max(api.applied.values()) == 1
    assert api.came_too_soon() == []


async def test_two_hundred_invalid_tokens_at_once_cause_one_login(stage: Stage) -> None:
    api, sidecar = await stage("devices-v3")
    assert isinstance(api, DevicesApi)
    assert (await ask(SCENARIO.name, sidecar, JOB, 1000)).status == 201
    api.tokens.revoke_all()
    answers = await asyncio.gather(*(ask(SCENARIO.name, sidecar, JOB, number) for number in range(200)))
    assert {answer.status for answer in answers} == {201}
    assert api.logins == 2
    assert set(api.applied.values()) == {1}


async def test_an_offline_device_is_tried_twice_more_and_never_at_once(stage: Stage) -> None:
    api, sidecar = await stage("devices-v3")
    await ask(SCENARIO.name, sidecar, JOB, 1)
    answer = await ask(SCENARIO.name, sidecar, Operation("GET", "/v3/devices/offline", 0), 2)
    assert (answer.status, answer.json()["code"]) == (503, "DEVICE_OFFLINE")
    assert len(api.calls_of("r-2")) == 3
    assert all(wait >= 2.5 for wait in sidecar.clock.waits)


async def test_a_wrong_version_is_handed_over(stage: Stage) -> None:
    api, sidecar = await stage("devices-v3")
    answer = await ask(SCENARIO.name, sidecar, Operation("GET", "/v2/devices/1", 0), 1)
    assert answer.status == 415
    assert [call.status for call in api.calls_of("r-1")] == [401, 415]


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        (b"grant_type=password", 400, "unsupported_grant_type"),
        (b"client_id=x", 400, "invalid_request"),
        (b"grant_type=client_credentials&client_id=x&client_secret=y", 401, "invalid_client"),
    ],
)
async def test_the_apps_own_token_requests_are_its_own(stage: Stage, form: bytes, status: int, error: str) -> None:
    api, sidecar = await stage("devices-v3")
    headers = [("Content-Type", "application/x-www-form-urlencoded")]
    answer = await sidecar.ask("POST", "/devices-v3/v3/auth/token", headers, form)
    assert (answer.status, answer.json()["error"], api.logins) == (status, error, 1)
    assert dictionary(answer.headers.get("Sidecar"))["outcome"] == "passed"
    assert (await sidecar.record()).error_code == error


async def test_our_own_answer_is_in_its_envelope(stage: Stage) -> None:
    _, sidecar = await stage("devices-v3")
    answer = await ask(SCENARIO.name, sidecar, JOB, 1, ["reset"] * 5)
    document = answer.json()
    assert answer.status == 502
    assert set(document) == {"error", "message", "code", "details", "requestId", "timestamp"}
    assert document["requestId"] == "r-1"
