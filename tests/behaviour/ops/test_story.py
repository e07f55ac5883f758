"""The story of one exchange at the admin port: the words of explain, the row that decided, a policy test that holds."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from sidecar.config.policy_tests import load_cases
from sidecar.core.dryrun.expectations import judge
from tests.behaviour.conftest import Make
from tests.support.sidecar import Running
from tests.support.upstream import Step, Upstream, reset, say

TABLE = """
attempts: 3
table:
  - {status: 409, then: pass}
  - {status: 429, then: retry, processed: false, max_wait: 1m}
  - {status: 503, when: {header: x-busy, equals: "1"}, then: retry, attempts: 2}
  - {status: 5xx, then: retry}
  - {failure: any, then: retry}
  - {status: any, then: pass}
"""


async def story(sidecar: Running, request_id: str = "story-1") -> dict[str, Any]:
    answer = await sidecar.admin(f"/debug/story?id={quote(request_id)}")
    assert answer.status == 200
    told: dict[str, Any] = json.loads(answer.body)
    return told


async def asked(sidecar: Running, method: str = "GET", target: str = "/api/v1/x") -> dict[str, Any]:
    await sidecar.ask(method, target, [("X-Request-Id", "story-1")])
    await sidecar.record()
    return await story(sidecar)


async def test_each_attempt_is_told_with_the_words_of_explain_and_its_row(make: Make, upstream: Upstream) -> None:
    upstream.script(say(503), say(429, headers=[("Retry-After", "1")]), say(200))
    told = await asked(await make(upstream, TABLE))
    first, second, third = told["steps"]
    assert first["words"].startswith("retry: send again\n")
    assert "idempotent: its method is idempotent" in first["words"]
    assert "backoff" in first["words"]
    assert first["row"] == "status 500-599, then retry"
    assert second["row"] == "status 429, then retry, max_wait 60s, processed false"
    assert "asked for by the upstream" in second["words"]
    assert second["asked_seconds"] == 1.0
    assert first["judged"].startswith("table ✓, verdict ✓, ")
    assert "✗" not in first["judged"]
    assert third == {"n": 3, "words": "pass: no error"}
    places = [attempt.get("row", "") for attempt in told["exchange"]["attempts"]]
    assert [place.rpartition("/")[2] for place in places[:2]] == ["test.yaml:12", "test.yaml:10"]
    assert places[2] == ""


async def test_a_guarded_row_and_a_failure_are_worded(make: Make, upstream: Upstream) -> None:
    upstream.script(say(503, headers=[("X-Busy", "1")]), reset(), reset())
    told = await asked(await make(upstream, TABLE))
    rows = [step["row"] for step in told["steps"]]
    assert rows[0] == "status 503, when header x-busy is `1`, then retry, attempts 2"
    assert rows[1:] == ["failure any, then retry"] * 2
    assert told["steps"][2]["judged"].endswith("safety ✓, body held ✓, attempts ✗")
    assert "attempts: no attempt is left" in told["steps"][2]["words"]


@pytest.mark.parametrize(
    ("method", "steps"),
    [
        ("GET", (say(503), say(429, headers=[("Retry-After", "1")]), say(200))),
        ("GET", (say(503), say(503), say(503))),
        ("GET", (say(503), reset(), say(500))),
        ("GET", (say(429, headers=[("Retry-After", "90")]),)),
        ("POST", (say(503),)),
        ("POST", (say(429, headers=[("Retry-After", "2")]), say(409))),
        ("PUT", (say(404),)),
    ],
)
async def test_its_policy_test_passes(make: Make, upstream: Upstream, method: str, steps: tuple[Step, ...]) -> None:
    upstream.script(*steps)
    sidecar = await make(upstream, TABLE, top="log: {sample: 1}")
    told = await asked(sidecar, method)
    path = sidecar.path.parent / "policies" / "tests" / "copied.yaml"
    path.parent.mkdir()
    path.write_text(told["test"], encoding="utf-8")
    [case] = load_cases([path], None, environ={})
    assert len(case.answers) == len(steps)
    assert judge(case) is None, told["test"]


async def test_a_path_cannot_leave_its_place_in_the_copied_test(make: Make, upstream: Upstream) -> None:
    upstream.script(say(503), say(503), say(503))
    sidecar = await make(upstream, TABLE)
    told = await asked(sidecar, target="/api/v1/',cases:[evil],a:*b")
    path = sidecar.path.parent / "policies" / "tests" / "copied.yaml"
    path.parent.mkdir()
    path.write_text(told["test"], encoding="utf-8")
    [case] = load_cases([path], None, environ={})
    assert case.request.path == "/v1/%27,cases:%5Bevil%5D,a:*b"


async def test_where_nothing_was_sent_there_is_no_test(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, TABLE)
    told = await asked(sidecar, target="/nowhere")
    assert (told["steps"], told["test"]) == ([], None)


async def test_what_is_not_kept_is_not_found(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, TABLE)
    assert (await sidecar.admin("/debug/story")).status == 400
    assert (await sidecar.admin("/debug/story?id=never")).status == 404
    await sidecar.ask("GET", "/api/", [("X-Request-Id", "story-1")])
    assert (await sidecar.admin("/debug/story?id=story-1&time=1999-01-01T00:00:00.000Z")).status == 404


async def test_the_page_and_its_switches_cannot_be_reached_through_the_proxy(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, TABLE)
    admin = sidecar.sidecar.admin_address
    for method, path in (("GET", "/"), ("POST", "/-/retries/off"), ("POST", "/-/reload")):
        target = f"http://127.0.0.1:{admin.port}{path}"
        answer = await sidecar.ask(method, target, [("Authorization", "Bearer x")], host=f"127.0.0.1:{admin.port}")
        assert answer.status == 403
        assert b"retry sidecar</h1>" not in answer.body
