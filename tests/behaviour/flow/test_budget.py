"""Retries are earned by traffic: an upstream that is down is not hit harder than that. DESIGN section 5."""

from __future__ import annotations

from tests.behaviour.conftest import Make
from tests.support.sidecar import QUICK
from tests.support.upstream import Upstream, close, say

AT_ONCE = QUICK.replace("base: 100ms, factor: 2, cap: 10s", "base: 1ms, factor: 1, cap: 1ms")

NEVER = "breaker: {min_requests: 1000000}"
"""It would hold everybody, and there would be nothing to count."""


async def test_retries_of_a_dead_upstream_stay_within_the_budget(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, f"attempts: 5\nbudget: {{ratio: 0.1, min_per_second: 1}}\n{NEVER}", quick=AT_ONCE)
    upstream.otherwise = lambda _: say(503, b"down")
    async with sidecar.client() as client:
        answers = [await client.ask("GET", f"/api/{number}") for number in range(300)]
    assert {answer.status for answer in answers} == {503}
    retries = len(upstream.requests) - 300
    assert 0 < retries < 300 * 0.1 + 40  # what a full purse may hold, and what the floor adds meanwhile
    reasons = {str(record.reason) for record in sidecar.records}
    assert "budget" in reasons
    assert reasons <= {"budget", "attempts"}


async def test_an_empty_budget_hands_over_at_once(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "budget: {ratio: 0.01, min_per_second: 1}\nattempts: 100", quick=AT_ONCE)
    upstream.otherwise = lambda _: say(503, b"down")
    for _ in range(20):
        answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.body) == (503, b"down")
    assert "reason=budget" in (answer.headers.get("Sidecar") or "")
    assert await sidecar.metric('sidecar_retries_suppressed_total{upstream="api",reason="budget"}') > 0


async def test_retries_that_lead_to_a_success_cost_nothing(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "budget: {ratio: 0.01, min_per_second: 1}", quick=AT_ONCE)
    for _ in range(40):
        upstream.script(say(503), say(200))
        assert (await sidecar.ask("GET", "/api/x")).status == 200


async def test_a_dead_pooled_connection_costs_nothing(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "budget: {ratio: 0.01, min_per_second: 1}", quick=AT_ONCE)
    upstream.otherwise = lambda _: say(200)
    for number in range(30):
        await sidecar.ask("GET", "/api/x")
        await upstream.close_idle()
        assert (await sidecar.ask("POST", f"/api/{number}", body=b"1")).status == 200
        await upstream.close_idle()


async def test_the_budget_of_one_upstream_is_not_spent_by_another(make: Make, upstream: Upstream) -> None:
    async with Upstream.start() as other:
        text = f"""
listen: 127.0.0.1:0
admin: 127.0.0.1:0
upstreams:
  - {{name: down, origin: "http://127.0.0.1:{other.port}", mount: /down, policy: test}}
  - {{name: up, origin: "http://127.0.0.1:{upstream.port}", mount: /up, policy: test}}
"""
        sidecar = await make(upstream, "budget: {ratio: 0.01, min_per_second: 1}", quick=AT_ONCE, text=text)
        other.otherwise = lambda _: close()
        for _ in range(20):
            await sidecar.ask("GET", "/down/x")
        upstream.script(say(503), say(200, b"yes"))
        assert (await sidecar.ask("GET", "/up/x")).body == b"yes"
