"""Status Service: what its documentation says, against the shipped policy ``status-svc``."""

from __future__ import annotations

import json

import pytest

from sidecar.demo.apis.status import NEXT_STATES, StatusApi
from tests.apis.conftest import Stage
from tests.emulators.scenario import Fact, Operation, Scenario, Then, ask, run
from tests.support.structured import dictionary

CREATE = Operation("POST", "/v1/incidents", 201, {"title": "t-{n}"}, is_keyed=True)
SUBSCRIBE = Operation("POST", "/v1/subscriptions", 201, {"email": "a{n}@example.org"}, is_keyed=True)
SCENARIO = Scenario(
    "status-svc",
    [
        CREATE,
        Operation("PATCH", "/v1/incidents/{n}", 200, {"status": "MONITORING"}, is_keyed=True),
        Operation("GET", "/v1/incidents/{n}", 200),
        SUBSCRIBE,
        Operation("PATCH", "/v1/incidents/{n}", 200, {"status": "RESOLVED"}, is_keyed=True),
    ],
    {
        "BAD_REQUEST": Fact(Then.NEVER),
        "UNAUTHORIZED": Fact(Then.NEVER),
        "FORBIDDEN": Fact(Then.NEVER),
        "NOT_FOUND": Fact(Then.NEVER),
        "CONFLICT": Fact(Then.NEVER),
        "VALIDATION": Fact(Then.NEVER),
        "RATE_LIMITED": Fact(Then.RETRY),
        "INTERNAL": Fact(Then.IF_SAFE),
        "DOWNSTREAM_FAILURE": Fact(Then.IF_SAFE),
    },
)


async def test_a_thousand_requests_end_as_the_documentation_says(stage: Stage) -> None:
    api, sidecar = await stage("status-svc")
    seen = await run(SCENARIO, api, sidecar)
    assert seen.wrong == []
    assert set(seen.planned) == {*api.troubles, "reset"}
    assert max(api.applied.values()) == 1
    assert api.came_too_soon() == []


async def test_a_write_gets_one_key_for_all_its_sends_and_the_app_is_told_it(stage: Stage) -> None:
    api, sidecar = await stage("status-svc")
    answer = await ask(SCENARIO.name, sidecar, CREATE, 1, ["after:INTERNAL", "after:reset", "DOWNSTREAM_FAILURE"])
    assert answer.status == 201
    keys = {call.headers["X-Idempotency-Key"] for call in api.calls_of("r-1")}
    assert keys == {answer.headers.get("X-Idempotency-Key")}
    assert (len(api.calls_of("r-1")), api.applied["r-1"]) == (4, 1)


async def test_the_apps_own_key_is_kept_and_returns_the_original_response_for_a_day(stage: Stage) -> None:
    api, sidecar = await stage("status-svc")
    headers = [("X-Idempotency-Key", "mine"), ("X-Request-Id", "a")]
    body = b'{"title":"x"}'

    async def create(data: bytes) -> tuple[int, object]:
        answer = await sidecar.ask("POST", "/status-svc/v1/incidents", headers, data)
        return answer.status, answer.json()

    first = await create(body)
    sidecar.clock.advance(23 * 3600)
    assert await create(body) == first
    assert api.applied.total() == 1
    status, document = await create(b'{"title":"y"}')
    assert status == 409
    assert isinstance(document, dict)
    assert document["error"]["code"] == "ERR_STATUS_CONFLICT"
    sidecar.clock.advance(2 * 3600)
    assert (await create(body))[0] == 201
    assert api.applied.total() == 2
    assert {call.headers["X-Idempotency-Key"] for call in api.calls} == {"mine"}


@pytest.mark.parametrize("before", NEXT_STATES)
async def test_an_invalid_transition_is_the_apps_to_know(stage: Stage, before: str) -> None:
    api, sidecar = await stage("status-svc")
    assert isinstance(api, StatusApi)
    for after in NEXT_STATES:
        api.incidents["i"] = before
        sent = json.dumps({"status": after}).encode()
        answer = await sidecar.ask("PATCH", "/status-svc/v1/incidents/i", [], sent)
        assert answer.status == (200 if after in NEXT_STATES[before] else 409)
        assert dictionary(answer.headers.get("Sidecar"))["attempts"] == 1


async def test_a_second_subscription_is_a_conflict_and_not_tried_again(stage: Stage) -> None:
    api, sidecar = await stage("status-svc")
    assert (await ask(SCENARIO.name, sidecar, SUBSCRIBE, 1)).status == 201
    answer = await ask(SCENARIO.name, sidecar, SUBSCRIBE, 1)
    assert answer.status == 409
    assert len(api.calls) == 2


async def test_what_support_needs_stands_in_the_record(stage: Stage) -> None:
    _, sidecar = await stage("status-svc")
    answer = await ask(SCENARIO.name, sidecar, CREATE, 1, ["INTERNAL"] * 5)
    assert answer.status == 500
    record = await sidecar.record()
    assert record.upstream_request_id == answer.json()["meta"]["request_id"]
    assert record.error_code == "ERR_STATUS_INTERNAL"
    line = 'sidecar_upstream_errors_total{upstream="status-svc",code="ERR_STATUS_INTERNAL"}'
    assert await sidecar.metric(line) == 5


async def test_our_own_answer_is_in_its_envelope(stage: Stage) -> None:
    _, sidecar = await stage("status-svc")
    answer = await ask(SCENARIO.name, sidecar, CREATE, 1, ["reset"] * 5)
    document = answer.json()
    assert (answer.status, document["data"], document["error"]["http"]) == (502, None, 502)
    assert document["error"]["code"].startswith("ERR_STATUS_")
    assert set(document["error"]) == {"code", "message", "http"}
    assert document["meta"]["request_id"] == answer.headers.get("X-Request-Id") == "r-1"
    assert set(document["meta"]) == {"request_id", "service", "timestamp"}
