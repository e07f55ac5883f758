"""What begins ends once, on every path: what is under way, what was paid, what is handed over when a send is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from sidecar.core.flow.queue import Ticket
from sidecar.proxy.routing.destination import Destination
from tests.behaviour.conftest import Make
from tests.support.client import Answer, request_bytes
from tests.support.clock import ManualClock
from tests.support.sidecar import SHORT, Running
from tests.support.upstream import Live, Upstream, head_bytes, reset, say

SLOW_DOWN = [("Retry-After", "0")]
PASSED = "table: [{status: 429, then: retry}, {status: 401, then: retry, processed: false}, {failure: any, then: pass}]"
KEYED = "idempotency: {header: X-Key, methods: [POST]}\n"


def api(sidecar: Running) -> Destination:
    return sidecar.sidecar.listener.router.destinations["api"]


async def test_an_exchange_that_is_cancelled_before_its_first_step_is_not_under_way(
    make: Make, upstream: Upstream
) -> None:
    """The answer needs a judgement, so its exchange gets a task; the app leaves in that very turn of the loop."""
    sidecar = await make(upstream, quick="attempt: {head: 5s}")
    limiter = api(sidecar).holding.limiter
    loop = asyncio.get_running_loop()
    born: list[asyncio.Task[Any]] = []

    def stillborn(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **more: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=loop, **more)
        task.cancel()
        born.append(task)
        return task

    async with sidecar.client() as client:
        assert (await client.ask()).status == 404
        assert (await client.ask("GET", "/api/x")).status == 200
        live = Live()
        upstream.script(live)
        await client.send(request_bytes("GET", "/api/x"))
        connection = await live.here()
        await connection.read_request()
        assert limiter.under_way == 1
        loop.set_task_factory(stillborn)  # type: ignore[arg-type]
        try:
            await connection.send(head_bytes(503, [("Content-Length", "0")]))
            await sidecar.until(lambda: bool(born))
        finally:
            loop.set_task_factory(None)
        assert await client.ended() in ("closed", "reset")
        live.over()
    assert (await sidecar.record(3)).outcome == "client_gone"
    assert (limiter.under_way, api(sidecar).pool.lent) == (0, 0)


async def test_apps_that_leave_near_the_answer_leave_nothing_under_way(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.otherwise = lambda _: say(503) if len(upstream.requests) % 2 else say(200)
    for number in range(60):
        async with sidecar.client() as client:
            await client.send(request_bytes("GET", "/api/x"))
            await upstream.received(number + 1)
            for _ in range(number % 6):
                await asyncio.sleep(0)
            client.reset()
    await sidecar.until(lambda: sidecar.sidecar.services.write_batch.under_way == 0)
    await sidecar.until(lambda: api(sidecar).holding.limiter.under_way == 0)
    assert api(sidecar).pool.lent == 0


async def test_attempts_that_no_exchange_has_any_more_hold_nobody(make: Make, upstream: Upstream) -> None:
    """Two of them once were enough that nothing was sent again after a short trouble, until a restart."""
    sidecar = await make(upstream, "attempts: 1\nbreaker: {min_requests: 20}")
    holding = api(sidecar).holding
    limiter = holding.limiter
    limiter.lent.update({object(), Ticket(0.0)})
    upstream.script(*[say(503)] * 10)
    for _ in range(10):
        assert (await sidecar.ask("GET", "/api/x")).status == 503
    assert limiter.concurrency is not None
    assert int(limiter.concurrency.limit) <= limiter.under_way == 2
    asking = asyncio.create_task(sidecar.ask("GET", "/api/held"))
    await sidecar.until(lambda: sidecar.held("concurrency") == 1)
    holding.tick()
    assert (await asking).status == 200
    assert limiter.under_way == 0
    assert await sidecar.metric('sidecar_attempts_lost_total{upstream="api"}') == 2
    assert '"event":"attempts_lost"' in sidecar.log.getvalue()


@pytest.mark.parametrize(
    ("policy", "earlier", "sends"),
    [("", 0, 1), ("", 1, 1), ("hedge: {after: 1ms}\n", 0, 2)],
    ids=["without a task", "sent again", "hedged"],
)
async def test_what_an_exchange_has_under_way_is_not_taken_back(
    make: Make, upstream: Upstream, policy: str, earlier: int, sends: int
) -> None:
    sidecar = await make(upstream, policy, quick="attempt: {head: 30s}")
    holding = api(sidecar).holding
    limiter = holding.limiter
    assert (await sidecar.ask("GET", "/api/x")).status == 200
    lives = [Live() for _ in range(sends)]
    upstream.script(*[say(503)] * earlier, *lives)
    async with sidecar.client() as client:
        await client.send(request_bytes("PUT", "/api/y", body=b"x"))
        connections = [await live.here() for live in lives]
        for connection in connections:
            await connection.read_request()
        limiter.calm = False
        holding.tick()
        assert len(limiter.lent) == sends
        for connection in connections:
            await connection.send(head_bytes(200, [("Content-Length", "0")]))
        assert (await client.answer()).status == 200
        for live in lives:
            live.over()
    await sidecar.until(lambda: not limiter.lent)
    assert await sidecar.metric('sidecar_attempts_lost_total{upstream="api"}') == 0


@pytest.mark.parametrize(
    ("policy", "fields"), [("", []), (KEYED, []), ("", [("X-Key", "of-the-app")])], ids=["plain", "our-key", "no-key"]
)
@pytest.mark.parametrize("earlier", [429, 401])
async def test_an_answer_from_before_a_send_that_may_have_been_applied_is_not_the_last_word(
    make: Make, upstream: Upstream, policy: str, fields: list[tuple[str, str]], earlier: int
) -> None:
    """Every client sends again after "nothing was done"; here something may have been."""
    sidecar = await make(upstream, policy + PASSED)
    upstream.script(say(earlier, b"not done", headers=SLOW_DOWN), reset("request"))
    answer = await sidecar.ask("POST", "/api/pay", fields, b"100")
    assert len(upstream.requests) == 2
    assert (answer.status, answer.json()["code"]) == (502, "reset")
    assert (await sidecar.record()).outcome == "failed"


@pytest.mark.parametrize(
    ("method", "policy", "fields"),
    [("PUT", "", []), ("POST", KEYED, [("X-Key", "of-the-app")]), ("POST", "resend_methods: [POST]\n", [])],
    ids=["idempotent", "keyed", "resend_methods"],
)
async def test_an_earlier_answer_is_handed_over_where_another_send_does_no_harm(
    make: Make, upstream: Upstream, method: str, policy: str, fields: list[tuple[str, str]]
) -> None:
    sidecar = await make(upstream, policy + PASSED)
    upstream.script(say(429, b"slow down", headers=SLOW_DOWN), reset("request"))
    answer = await sidecar.ask(method, "/api/x", fields, b"100")
    assert (answer.status, answer.body) == (429, b"slow down")
    assert (await sidecar.record()).outcome == "exhausted"


async def test_an_earlier_answer_is_handed_over_after_a_send_that_was_never_made(
    make: Make, upstream: Upstream
) -> None:
    sidecar = await make(upstream, PASSED)
    sidecar.clock.hold()
    upstream.script(say(429, b"slow down", headers=SLOW_DOWN, last=True))
    asking = asyncio.create_task(sidecar.ask("POST", "/api/pay", body=b"100"))
    await sidecar.clock.sleeping()
    await upstream.stop()
    sidecar.clock.release()
    answer = await asking
    assert (answer.status, answer.body) == (429, b"slow down")
    assert [attempt.failure for attempt in (await sidecar.record()).attempts] == [None, "refused"]


class LateClock(ManualClock):
    """Its timers ring late."""

    late_seconds = 0.0

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        self.advance(self.late_seconds)


@pytest.mark.parametrize("late", [0.85, 5.0])
async def test_nothing_is_sent_when_the_wait_has_outlasted_the_deadline(
    make: Make, upstream: Upstream, late: float
) -> None:
    clock = LateClock()
    clock.late_seconds = late
    sidecar = await make(
        upstream, "deadline: 1s\ntable: [{status: 429, then: retry, gate: false}]", quick=SHORT, clock=clock
    )
    upstream.script(say(429, b"slow down", headers=[("Retry-After", "0.15")]))
    answer = await sidecar.ask("POST", "/api/pay", body=b"100")
    assert (answer.status, answer.body) == (429, b"slow down")
    assert "reason=deadline" in str(answer.headers.get("Sidecar"))
    assert len(upstream.requests) == 1


async def test_a_send_that_is_not_made_is_neither_paid_nor_counted(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "budget: {ratio: 0, min_per_second: 0.1}")
    budget, now = api(sidecar).budget, asyncio.get_running_loop().time
    assert budget.peek(now()) == pytest.approx(1.0)
    upstream.script(say(503))
    sidecar.clock.hold()
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x"))
        await sidecar.clock.sleeping()
        assert budget.peek(now()) < 0.9
        client.reset()
    await sidecar.record()
    assert budget.peek(now()) == pytest.approx(1.0)
    assert await sidecar.metric('sidecar_retries_total{upstream="api",cause="503"}') == 0


async def test_a_wait_that_a_shutdown_cuts_short_is_stored_where_the_table_says_so(
    make: Make, upstream: Upstream
) -> None:
    policy = "table: [{status: 503, then: retry, processed: false, gate: false}, {failure: any, then: store}]"
    sidecar = await make(upstream, policy, top="outbox: {file: outbox.db}")
    upstream.otherwise = lambda _: say(503, headers=[("Retry-After", "20")])
    sidecar.clock.hold()
    asking = asyncio.create_task(sidecar.ask("POST", "/api/x", body=b"01"))
    await sidecar.clock.sleeping()
    sidecar.sidecar.listener.drain()
    answer = await asking
    assert (answer.status, "stored" in answer.json()) == (202, True)


async def race(sidecar: Running, upstream: Upstream, hint: str, failing: str) -> Answer:
    """Two sends: the second is refused with a hint, then the first fails without a word."""
    first, second = Live(), Live()
    upstream.script(first, second, say(200, b"fine"))
    asking = asyncio.create_task(sidecar.ask("GET", "/api/x"))
    one, two = await first.here(), await second.here()
    await one.read_request()
    await two.read_request()
    await two.send(head_bytes(429, [("Content-Length", "4"), ("Retry-After", hint)]) + b"wait")
    second.over()
    await sidecar.until(lambda: "429" in sidecar.sidecar.metrics.upstream("api").attempts)
    if failing == "reset":
        one.reset()
    else:
        await one.send(head_bytes(503, [("Content-Length", "0")]))
    first.over()
    return await asking


HEDGED = """
attempts: 4
hedge: {after: 20ms}
table: [{status: [429, 503], then: retry, gate: false}, {failure: any, then: retry}]
"""


@pytest.mark.parametrize("failing", ["503", "reset"])
async def test_a_hint_of_one_of_two_sends_holds_for_the_exchange(make: Make, upstream: Upstream, failing: str) -> None:
    sidecar = await make(upstream, HEDGED, quick="attempt: {head: 5s}")
    answer = await race(sidecar, upstream, "3", failing)
    assert (answer.status, answer.body) == (200, b"fine")
    assert sum(sidecar.clock.waits) == pytest.approx(3.0, abs=0.5)
    record = await sidecar.record()
    assert [attempt.wait_from for attempt in record.attempts] == [None, None, "hint"]


@pytest.mark.parametrize("hint", ["3600", "40"])
async def test_a_hint_of_one_of_two_sends_that_is_too_long_ends_the_exchange(
    make: Make, upstream: Upstream, hint: str
) -> None:
    """Longer than ``max_wait``, or than the deadline leaves: the answer with the hint is handed over."""
    sidecar = await make(upstream, HEDGED + "deadline: 30s", quick="attempt: {head: 5s}")
    answer = await race(sidecar, upstream, hint, "503")
    assert (answer.status, answer.body, answer.headers.get("Retry-After")) == (429, b"wait", hint)
    assert len(upstream.requests) == 2
