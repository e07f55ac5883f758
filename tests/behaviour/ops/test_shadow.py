"""A shadow policy judges every answer as well: what it would have done is told, and nothing is done for it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from sidecar.config.load import load_deployment
from sidecar.config.text.problems import ConfigError
from sidecar.core.enums import Outcome, Verb
from sidecar.observe.families import UNREAD_BODY
from sidecar.observe.reports import markdown
from tests.behaviour.conftest import Make
from tests.support.sidecar import QUICK, Running, write_files, yaml_for
from tests.support.upstream import Upstream, close, say

PASSING = "extends: default\ntable:\n  - {status: any, then: pass}\n"
EAGER = "extends: default\nattempts: 3\ntable:\n  - {status: 404, then: retry}\n"
BY_BODY = "extends: default\ntable:\n  - {status: 404, when: {body: /code, equals: again}, then: retry}\n"


async def shadowed(make: Make, upstream: Upstream, shadow: str, policy: str = "") -> Running:
    more = "    shadow: second\n"
    return await make(upstream, policy, more=more, policies={"second": f"{shadow}{QUICK}"})


def counts(sidecar: Running) -> dict[tuple[str, str], int]:
    return sidecar.sidecar.metrics.upstream("api").shadow


async def test_what_it_would_have_sent_again_is_handed_over_and_told(make: Make, upstream: Upstream) -> None:
    sidecar = await shadowed(make, upstream, EAGER)
    upstream.script(say(404), say(200))
    assert (await sidecar.ask("GET", "/api/x")).status == 404
    assert len(upstream.requests) == 1
    record = await sidecar.record()
    assert (record.outcome, record.shadow) == (Outcome.PASSED, "second")
    told = record.attempts[0].shadow
    assert told is not None
    assert (told.verb, told.attempts_left) == (Verb.RETRY, 2)
    assert counts(sidecar) == {("pass", "retry"): 1}
    assert (await sidecar.ask("GET", "/api/x")).status == 200
    assert counts(sidecar) == {("pass", "retry"): 1}, "what neither would judge is not counted"


async def test_it_is_told_everywhere(make: Make, upstream: Upstream) -> None:
    sidecar = await shadowed(make, upstream, PASSING)
    upstream.script(say(503), say(200))
    assert (await sidecar.ask("GET", "/api/x")).status == 200
    assert len(upstream.requests) == 2
    sample = 'sidecar_shadow_decisions_total{actual="retry",shadow="pass",upstream="api"} 1.0'
    assert sample in (await sidecar.admin("/metrics")).body.decode()
    shown = json.loads((await sidecar.admin("/debug/exchanges")).body)["exchanges"][0]
    assert (shown["shadow"], shown["attempts"][0]["shadow"]) == ("second", "pass (not_retryable)")
    assert "shadow" not in shown["attempts"][1]
    numbers = json.loads((await sidecar.admin("/debug/numbers")).body)["upstreams"]
    (own,) = [each["shadow"] for each in numbers if each["name"] == "api"]
    assert own == {"judged": 1, "unread_body": 0, "differs": {"retry → pass": 1}}
    request_id = shown["request_id"]
    story = json.loads((await sidecar.admin(f"/debug/story?id={request_id}")).body)
    assert "not_retryable" in story["steps"][0]["shadow"]
    report = markdown(json.loads((await sidecar.admin(f"/debug/report?id={request_id}")).body))
    assert "| Shadow policy | `second` |" in report
    assert "`pass (not_retryable)`" in report


async def test_the_same_policy_never_differs(make: Make, upstream: Upstream) -> None:
    sidecar = await shadowed(make, upstream, "extends: default\n")
    date, soon = ("Retry-After", "Sat, 21 Nov 2026 21:00:00 GMT"), ("Retry-After", "0")
    upstream.script(say(503), say(429, headers=[soon]), say(200), say(404), say(503, headers=[date]), say(200))
    for _ in range(3):
        await sidecar.ask("GET", "/api/x")
    upstream.script(say(503))
    await sidecar.ask("POST", "/api/x", body=b"x")
    found = counts(sidecar)
    assert all(actual == shadow for actual, shadow in found), found
    assert sum(found.values()) >= 4
    assert not any(attempt.shadow for record in sidecar.records for attempt in record.attempts)


async def test_a_wait_that_would_be_longer_is_told(make: Make, upstream: Upstream) -> None:
    sidecar = await shadowed(
        make, upstream, "extends: default\ntable: [{status: 503, then: retry, wait: [{constant: 2s}]}]\n"
    )
    upstream.script(say(503), say(200))
    await sidecar.ask("GET", "/api/x")
    assert counts(sidecar) == {("retry", "retry"): 1}
    told = (await sidecar.record()).attempts[0].shadow
    assert told is not None
    assert told.wait is not None
    assert told.wait.min_seconds == 2.0


async def test_a_body_that_has_come_is_looked_into_and_none_is_held(make: Make, upstream: Upstream) -> None:
    sidecar = await shadowed(make, upstream, BY_BODY)
    packed = gzip.compress(b'{"code": "again"}')
    upstream.script(
        say(404, body=b'{"code": "again"}'),
        say(404, body=b'{"code": "no"}'),
        say(404, packed, headers=[("Content-Encoding", "gzip")]),
        say(404, b"\x0b\x02\x80{}\x03", headers=[("Content-Encoding", "br")]),
    )
    for _ in range(4):
        assert (await sidecar.ask("GET", "/api/x")).status == 404
    assert counts(sidecar) == {("pass", "retry"): 2, ("pass", "pass"): 1, ("pass", UNREAD_BODY): 1}


async def test_a_body_that_is_still_coming_goes_on_at_once(make: Make, upstream: Upstream) -> None:
    sidecar = await shadowed(make, upstream, BY_BODY)

    upstream.script(say(404, body=b'{"code": "again"}' + b" " * 300_000))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, len(answer.body)) == (404, 300_017)
    assert counts(sidecar) == {("pass", UNREAD_BODY): 1}
    assert len(upstream.requests) == 1


async def test_a_pressure_that_stops_ours_stops_it_as_well(make: Make, upstream: Upstream) -> None:
    sidecar = await shadowed(make, upstream, "extends: default\n")
    sidecar.sidecar.operator.turn_retries_off("api", None)
    upstream.script(say(503))
    assert (await sidecar.ask("GET", "/api/x")).status == 503
    assert counts(sidecar) == {("pass", "pass"): 1}


async def test_a_failure_is_judged_as_well(make: Make, upstream: Upstream) -> None:
    sidecar = await shadowed(make, upstream, "extends: default\ntable: [{failure: any, then: pass}]\n")
    upstream.script(close(), say(200))
    assert (await sidecar.ask("GET", "/api/x")).status == 200
    assert counts(sidecar) == {("retry", "pass"): 1}


async def test_routes_of_the_upstream_are_judged_as_well(make: Make, upstream: Upstream) -> None:
    more = "    shadow: second\n    routes: [{path: /v1/**, policy: strict}]\n"
    policies = {"second": f"extends: default\n{QUICK}", "strict": f"{PASSING}{QUICK}"}
    sidecar = await make(upstream, more=more, policies=policies)
    upstream.script(say(503))
    assert (await sidecar.ask("GET", "/api/v1/x")).status == 503
    assert counts(sidecar) == {("pass", "retry"): 1}


async def test_a_hostile_method_is_no_memory_and_no_label(make: Make, upstream: Upstream) -> None:
    sidecar = await shadowed(make, upstream, EAGER)
    upstream.otherwise = lambda _: say(404)
    for number in range(20):
        await sidecar.ask(f"M{number}", "/api/x")
    assert sum(counts(sidecar).values()) == 20
    assert len(counts(sidecar)) == 1


def test_an_unknown_shadow_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    path = write_files(tmp_path, yaml_for(1, more="    shadow: defualt\n"), {"test": "extends: default\n"})
    with pytest.raises(ConfigError, match="there is no policy `defualt`") as raised:
        load_deployment(path, environ={})
    assert "default" in str(raised.value)
    assert ":13:" in str(raised.value) or "sidecar.yaml:" in str(raised.value)
