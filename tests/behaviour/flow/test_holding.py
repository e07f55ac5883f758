"""One answer that asks for quiet holds everybody; one that is down is not hit by everybody. DESIGN section 5."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.config.load import load_deployment
from sidecar.core.flow.evidence import FEWEST
from sidecar.core.flow.keys import FIRST_CONTROL
from tests.behaviour.conftest import Make
from tests.support.client import Answer, request_bytes
from tests.support.sidecar import QUICK, Running
from tests.support.upstream import Live, Upstream, say

QUIET = 0.3


async def closed_gate(
    sidecar: Running, upstream: Upstream, seconds: str = str(QUIET), target: str = "/api/first"
) -> asyncio.Future[list[Answer]]:
    """Exchanges that have been told to wait, and wait: enough of them that the gate is closed for all others."""
    upstream.script(*[say(429, headers=[("Retry-After", seconds)]) for _ in range(FEWEST)])
    sidecar.clock.hold()
    first = asyncio.gather(*(sidecar.ask("GET", target) for _ in range(FEWEST)))
    await sidecar.clock.sleeping(FEWEST)
    return first


async def test_429s_in_numbers_hold_everybody_until_their_hint_is_over(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    first = await closed_gate(sidecar, upstream)
    answers = await asyncio.gather(*(sidecar.ask("GET", "/api/first") for _ in range(FIRST_CONTROL - 1)))
    assert [answer.status for answer in answers] == [200] * (FIRST_CONTROL - 1)
    at = [request.at for request in upstream.requests]
    assert len(at) == FEWEST + FIRST_CONTROL - 1
    assert at[FEWEST] >= at[FEWEST - 1] + QUIET
    sidecar.clock.release()
    await first
    assert (await sidecar.metric('sidecar_gates_closed{upstream="api",scope="upstream"}')) == 0


async def test_one_in_four_is_not_held_and_opens_the_gate_if_it_is_accepted(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    first = await closed_gate(sidecar, upstream, "20")
    answers = await asyncio.gather(*(sidecar.ask("GET", "/api/first") for _ in range(FIRST_CONTROL)))
    assert [answer.status for answer in answers] == [200] * FIRST_CONTROL
    at = [request.at for request in upstream.requests]
    assert at[-1] < at[FEWEST - 1] + 5, "nobody waits for a hint that does not hold for them"
    assert [record.held == () for record in sidecar.records].count(True) >= 1
    sidecar.clock.release()
    await first


async def test_what_is_refused_beside_a_closed_gate_keeps_it_closed_and_makes_it_rarer(
    make: Make, upstream: Upstream
) -> None:
    sidecar = await make(upstream, "deadline: 60s")
    first = await closed_gate(sidecar, upstream, "20")
    upstream.script(*[say(429, headers=[("Retry-After", "20")]) for _ in range(2)])
    asking: list[asyncio.Task[Answer]] = []

    async def more(count: int, held: int, sent: int) -> None:
        asking.extend(asyncio.create_task(sidecar.ask("GET", "/api/first")) for _ in range(count))
        await sidecar.until(lambda: sidecar.held("gate") == held)
        await upstream.until(lambda: len(upstream.requests) == FEWEST + sent)

    await more(FIRST_CONTROL, 3, 1)
    await sidecar.clock.sleeping(FEWEST + 1)  # it was refused, and waits for its own hint
    await more(4 * FIRST_CONTROL - 1, 18, 1)
    await more(1, 18, 2)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    sidecar.clock.release()
    await first


async def test_whoever_cannot_wait_so_long_is_told_at_once_and_how_long(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "deadline: 5s\nmax_wait: 100s")
    # Their own deadline forbids their wait, too; what they were told holds for everybody.
    upstream.script(*[say(429, headers=[("Retry-After", "60")]) for _ in range(FEWEST)])
    for _ in range(FEWEST):
        assert (await sidecar.ask("GET", "/api/first")).status == 429
    answer = await sidecar.ask("GET", "/api/first")
    assert answer.status == 429
    assert 55 <= int(answer.headers.get("Retry-After") or 0) <= 60
    assert "outcome=rejected" in (answer.headers.get("Sidecar") or "")
    assert "reason=gate" in (answer.headers.get("Sidecar") or "")
    assert len(upstream.requests) == FEWEST


@pytest.mark.parametrize(
    "change", ["breaker: {min_requests: 30}", "gate: {queue: 999}", "budget: {min_per_second: 11}"]
)
async def test_a_reload_keeps_a_closed_gate_closed(make: Make, upstream: Upstream, change: str) -> None:
    """Whatever it changes of the policy: what the upstream asked for holds on."""
    sidecar = await make(upstream, "deadline: 5s\nmax_wait: 100s")
    upstream.script(*[say(429, headers=[("Retry-After", "60")]) for _ in range(FEWEST)])
    for _ in range(FEWEST):
        assert (await sidecar.ask("GET", "/api/first")).status == 429
    policy = sidecar.path.parent / "policies" / "test.yaml"
    policy.write_text(policy.read_text(encoding="utf-8") + change + "\n", encoding="utf-8")
    sidecar.sidecar.apply(load_deployment(sidecar.path, environ={}).deployment)
    answer = await sidecar.ask("GET", "/api/first")
    assert (answer.status, "reason=gate" in str(answer.headers.get("Sidecar"))) == (429, True)
    assert len(upstream.requests) == FEWEST


@pytest.mark.parametrize("by", ["route", "reload"])
async def test_a_closed_gate_is_judged_by_the_max_wait_in_force(make: Make, upstream: Upstream, by: str) -> None:
    """That of the route's policy, or of the one that a reload has brought: a longer wait is answered at once."""
    base = f"extends: default\n{QUICK}\ndeadline: 30s\nmax_wait: 25s\n"
    sidecar = await make(
        upstream,
        policies={"test": base, "short": base.replace("25s", "2s")},
        more="    routes: [{path: /orders/2, policy: short}]" if by == "route" else "",
    )
    first = await closed_gate(sidecar, upstream, "8", "/api/orders/1")
    if by == "reload":
        (sidecar.path.parent / "policies" / "test.yaml").write_text(base.replace("25s", "2s"), encoding="utf-8")
        sidecar.sidecar.apply(load_deployment(sidecar.path, environ={}).deployment)
    before = len(upstream.requests)
    answer = await sidecar.ask("GET", "/api/orders/2" if by == "route" else "/api/orders/1")
    assert (answer.status, "reason=gate" in str(answer.headers.get("Sidecar"))) == (429, True)
    assert len(upstream.requests) == before
    sidecar.clock.release()
    await first


async def test_a_row_may_say_that_its_429_is_nobody_elses_business(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "table: [{status: 429, then: retry, processed: false, gate: false}]")
    first = await closed_gate(sidecar, upstream, "30")
    assert (await sidecar.ask("GET", "/api/other")).status == 200
    sidecar.clock.release()
    await first


async def test_one_tenants_quota_does_not_stop_another(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "gate: {key: [X-Tenant]}\ndeadline: 5s")
    upstream.script(*[say(429, headers=[("Retry-After", "60")]) for _ in range(FEWEST)])
    for _ in range(FEWEST):
        assert (await sidecar.ask("GET", "/api/x", [("X-Tenant", "a")])).status == 429
    assert (await sidecar.ask("GET", "/api/x", [("X-Tenant", "a")])).status == 429
    assert (await sidecar.ask("GET", "/api/x", [("X-Tenant", "b")])).status == 200
    assert len(upstream.requests) == FEWEST + 1


async def test_an_app_that_leaves_while_it_is_held_frees_its_place(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "gate: {queue: 1}")
    first = await closed_gate(sidecar, upstream)
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/first"))
        await upstream.until(lambda: sidecar.held("gate") == 1)
        full = await sidecar.ask("GET", "/api/first")
        assert (full.status, "reason=gate" in (full.headers.get("Sidecar") or "")) == (429, True)
    await upstream.until(lambda: sidecar.held("gate") == 0)
    assert (await sidecar.ask("GET", "/api/first")).status == 200
    sidecar.clock.release()
    await first
    assert len(upstream.requests) <= 2 * FEWEST + 1


async def test_an_upstream_that_is_down_is_asked_by_one_at_a_time(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempts: 1\nbreaker: {min_requests: 5, when_open: fail}")
    upstream.otherwise = lambda _: say(500, b"down")
    statuses = [(await sidecar.ask("GET", "/api/x")).status for _ in range(30)]
    assert statuses[:5] == [500] * 5
    assert 503 in statuses
    assert len(upstream.requests) < 15
    assert (await sidecar.metric('sidecar_breaker_state{upstream="api"}')) > 0
    upstream.otherwise = lambda _: say(200)
    async with asyncio.timeout(20):
        while (await sidecar.ask("GET", "/api/x")).status != 200:
            sidecar.clock.advance(1)


async def test_a_held_exchange_is_answered_when_the_sidecar_shuts_down(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    first = await closed_gate(sidecar, upstream, "20")
    held = asyncio.create_task(sidecar.ask("GET", "/api/first"))
    await upstream.until(lambda: sidecar.held("gate") == 1)
    sidecar.sidecar.listener.drain()
    answer = await held
    assert (answer.status, "reason=draining" in (answer.headers.get("Sidecar") or "")) == (503, True)
    sidecar.clock.release()
    await first


async def test_where_too_many_wait_for_a_place_the_next_is_told_at_once(make: Make, upstream: Upstream) -> None:
    sidecar = await make(
        upstream, "attempts: 1\nbreaker: {min_requests: 20}\ngate: {queue: 1}", quick="attempt: {head: 30s}"
    )
    lives = [Live() for _ in range(2)]
    upstream.script(*lives, *[say(503)] * 10)
    slow = [asyncio.create_task(sidecar.ask("GET", "/api/slow")) for _ in lives]
    connections = [await live.here() for live in lives]
    for connection in connections:
        await connection.read_request()
    for _ in range(10):
        await sidecar.ask("GET", "/api/x")
    held = asyncio.create_task(sidecar.ask("GET", "/api/x"))
    await sidecar.until(lambda: sidecar.held("concurrency") == 1)
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, "reason=concurrency" in str(answer.headers.get("Sidecar"))) == (503, True)
    for live, connection in zip(lives, connections, strict=True):
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        live.over()
    assert [answer.status for answer in await asyncio.gather(*slow, held)] == [200] * 3
