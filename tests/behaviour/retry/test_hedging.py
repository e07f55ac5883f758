"""A second send beside a first that is slow: when it goes, who answers, and that nothing of the loser is left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sidecar.proxy.routing.destination import Destination
from tests.behaviour.conftest import Make
from tests.support.client import Answer, request_bytes
from tests.support.process import Processes
from tests.support.refusals import FEWEST, refused_for_good
from tests.support.sidecar import QUICK, Running, write_files, yaml_for
from tests.support.upstream import Connection, Live, Upstream, hang, head_bytes, say

PATIENT = QUICK.replace("2s", "30s").replace("400ms", "30s")
SOON = "hedge: {after: 20ms}"
KEYED = "idempotency: {header: X-Key, methods: [POST]}"


def api(sidecar: Running) -> Destination:
    return sidecar.sidecar.listener.router.destinations["api"]


def nothing_is_left(sidecar: Running) -> bool:
    """No send is counted as under way, and no connection is lent."""
    destination = api(sidecar)
    return not destination.holding.limiter.lent and destination.pool.lent == 0


async def hedges(sidecar: Running) -> dict[str, float]:
    ends = {
        end: await sidecar.metric(f'sidecar_hedges_total{{upstream="api",result="{end}"}}')
        for end in ("won", "lost", "failed", "abandoned")
    }
    return {end: count for end, count in ends.items() if count}


async def answer(live: Live, status: int, body: bytes = b"") -> None:
    connection = await live.here()
    await connection.send(head_bytes(status, [("Content-Length", str(len(body)))]) + body)
    live.over()


async def taken(live: Live) -> Connection:
    """The connection, once the whole request is there."""
    connection = await live.here()
    await connection.read_request()
    return connection


async def test_a_slow_first_is_overtaken_and_cut(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, SOON, quick=PATIENT)
    upstream.script(hang(), say(200, b"second"))
    got = await sidecar.ask("GET", "/api/x", [("X-Request-Id", "r-1")])
    assert (got.status, got.body) == (200, b"second")
    assert got.headers.get("Sidecar") == "outcome=ok, attempts=2"
    first, second = upstream.requests
    await upstream.until(first.gone.is_set)
    assert first.connection != second.connection
    assert first.headers.get("X-Request-Id") == second.headers.get("X-Request-Id") == "r-1"
    assert nothing_is_left(sidecar)
    assert len(upstream.requests) == 2


async def test_it_is_told_in_the_record_the_metrics_and_the_log(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, SOON, quick=PATIENT)
    upstream.script(hang(), say(200, b"second"))
    await sidecar.ask("GET", "/api/x")
    record = await sidecar.record()
    one, two = record.attempts
    assert (one.number, one.status, one.failure, one.cancelled, one.hedge) == (1, None, None, True, False)
    assert (two.number, two.status, two.cancelled, two.hedge) == (2, 200, False, True)
    assert one.duration_seconds >= 0.02 - 0.001  # uvloop's timers count in whole milliseconds
    assert record.outcome == "ok"
    assert await hedges(sidecar) == {"won": 1}
    assert await sidecar.metric('sidecar_attempts_total{upstream="api",result="hedge_cancelled"}') == 1
    assert await sidecar.metric('sidecar_attempts_total{upstream="api",result="200"}') == 1
    [told] = (await sidecar.admin("/debug/exchanges")).json()["exchanges"]
    assert [sorted({"hedge", "cancelled"} & set(attempt)) for attempt in told["attempts"]] == [["cancelled"], ["hedge"]]
    assert '"hedge":true' in sidecar.log.getvalue()


async def test_a_first_that_comes_after_all_is_taken_and_the_second_cut(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, SOON, quick=PATIENT)
    first = Live()
    upstream.script(first, hang())
    asking = asyncio.create_task(sidecar.ask("GET", "/api/x"))
    await taken(first)
    second = await upstream.received(2)
    await answer(first, 200, b"first")
    got = await asking
    assert (got.body, got.headers.get("Sidecar")) == (b"first", "outcome=ok, attempts=2")
    await upstream.until(second.gone.is_set)
    assert await hedges(sidecar) == {"lost": 1}
    assert nothing_is_left(sidecar)


async def test_nothing_is_hedged_that_is_quick(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "hedge: {after: 5s}", quick=PATIENT)
    got = await sidecar.ask("GET", "/api/x")
    assert got.headers.get("Sidecar") == "outcome=ok, attempts=1"
    assert len(upstream.requests) == 1
    assert await hedges(sidecar) == {}
    assert nothing_is_left(sidecar)


async def test_without_a_hedge_in_the_policy_a_slow_first_is_waited_for(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, quick=PATIENT)
    assert api(sidecar).compiled.allows_fast_path
    first = Live()
    upstream.script(first)
    asking = asyncio.create_task(sidecar.ask("GET", "/api/x"))
    await taken(first)
    await overdue(await make(upstream, SOON, quick=PATIENT), upstream)
    assert len(upstream.requests) == 3
    await answer(first, 200)
    await asking


async def overdue(sidecar: Running, upstream: Upstream) -> None:
    """Returns when the time for a hedge is over that began before the call: another exchange has had its own."""
    upstream.script(hang(), say(200))
    assert (await sidecar.ask("GET", "/api/other")).headers.get("Sidecar") == "outcome=ok, attempts=2"


async def test_an_unkeyed_post_is_never_hedged(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, f"{SOON}\nresend_methods: [POST]", quick=PATIENT)
    first = Live()
    upstream.script(first)
    asking = asyncio.create_task(sidecar.ask("POST", "/api/x", body=b"one"))
    await taken(first)
    await overdue(sidecar, upstream)
    await answer(first, 201)
    assert (await asking).status == 201
    assert [request.target for request in upstream.requests] == ["/x", "/other", "/other"]


async def test_a_keyed_post_is_hedged_with_the_same_key_and_body(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, f"{SOON}\n{KEYED}", quick=PATIENT)
    upstream.script(hang(), say(201))
    assert (await sidecar.ask("POST", "/api/x", body=b"one")).status == 201
    first, second = upstream.requests
    assert first.headers.get("X-Key") == second.headers.get("X-Key") is not None
    assert bytes(first.body) == bytes(second.body) == b"one"


async def test_a_body_that_came_in_pieces_goes_out_whole_a_second_time(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, SOON, quick=PATIENT)
    upstream.script(hang(), say(200))
    async with sidecar.client() as client:
        await client.send(request_bytes("PUT", "/api/x", [("Content-Length", "6")]))
        await upstream.received()
        await client.send(b"sixsix")
        got = await client.answer()
    assert got.headers.get("Sidecar") == "outcome=ok, attempts=2"
    assert [bytes(request.body) for request in upstream.requests] == [b"sixsix", b"sixsix"]
    await upstream.until(upstream.requests[0].gone.is_set)
    assert nothing_is_left(sidecar)


async def test_a_first_that_wins_has_its_body_whatever_became_of_the_second(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, SOON, quick=PATIENT)
    first = Live()
    upstream.script(first, hang(), say(200, b"next"))
    async with sidecar.client() as client:
        await client.send(request_bytes("PUT", "/api/x", [("Content-Length", "6")]))
        connection = await first.here()
        await client.send(b"sixsix")
        request = await connection.read_request()
        await upstream.received(2)
        await answer(first, 200, b"first")
        assert (await client.answer()).body == b"first"
        assert (await client.ask("GET", "/api/y")).body == b"next"
    assert bytes(request.body) == b"sixsix"


async def test_a_second_that_answers_early_still_gets_the_rest_of_the_body(make: Make) -> None:
    """To cut the first must not stop what goes to the second."""
    size = 8 << 20

    async def early(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(head_bytes(200, [("Content-Length", "4")]))
        await connection.read_body()
        await connection.send(b"done")

    async with Upstream.start(receive_buffer_bytes=64 << 10) as upstream:
        upstream.keep_bodies = False
        # By then the first has it all.
        sidecar = await make(upstream, "hedge: {after: 500ms}", quick=PATIENT)
        upstream.script(hang(), early)
        async with sidecar.client() as client:
            await client.send(request_bytes("PUT", "/api/x", [("Content-Length", str(size))]))
            await client.send(bytes(size))
            assert (await client.answer()).body == b"done"
        assert [request.body_bytes for request in upstream.requests] == [size, size]


async def test_an_upload_that_is_still_arriving_is_never_hedged(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, SOON, quick=PATIENT)
    first = Live()
    upstream.script(first)
    async with sidecar.client() as client:
        await client.send(request_bytes("PUT", "/api/x", [("Content-Length", "6")]) + b"six")
        connection = await first.here()
        await connection.read_head()
        await overdue(sidecar, upstream)
        await client.send(b"six")
        await connection.read_body()
        await answer(first, 200, b"done")
        assert (await client.answer()).headers.get("Sidecar") == "outcome=ok, attempts=1"
    assert [request.target for request in upstream.requests] == ["/x", "/other", "/other"]


async def test_a_hedge_is_paid_from_the_budget(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, f"{SOON}\nbudget: {{ratio: 0.5, min_per_second: 0}}\nattempts: 2")
    upstream.script(hang(), hang(), say(200))
    assert (await sidecar.ask("GET", "/api/x")).status == 504  # half a token: neither a hedge nor a retry
    assert len(upstream.requests) == 1
    assert (await sidecar.ask("GET", "/api/x")).status == 200
    assert [record.attempts[-1].hedge for record in sidecar.records] == [False, True]
    assert await sidecar.metric('sidecar_budget_tokens{upstream="api"}') == 0


@pytest.mark.parametrize("status", [503, 429])
async def test_an_error_of_the_first_waits_for_the_second(make: Make, upstream: Upstream, status: int) -> None:
    sidecar = await make(upstream, SOON, quick=PATIENT)
    first, second = Live(), Live()
    upstream.script(first, second)
    asking = asyncio.create_task(sidecar.ask("GET", "/api/x"))
    await taken(first)
    await taken(second)
    await answer(first, status, b"busy")
    await sidecar.until(lambda: str(status) in sidecar.sidecar.metrics.upstream("api").attempts)
    await answer(second, 200, b"second")
    got = await asking
    assert (got.body, got.headers.get("Sidecar")) == (b"second", "outcome=recovered, attempts=2")
    assert [attempt.status for attempt in (await sidecar.record()).attempts] == [status, 200]
    assert sidecar.clock.waits == []
    assert await hedges(sidecar) == {"won": 1}
    assert nothing_is_left(sidecar)


async def test_a_failure_of_the_second_waits_for_the_first(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, SOON, quick=PATIENT)
    first, second = Live(), Live()
    upstream.script(first, second)
    asking = asyncio.create_task(sidecar.ask("GET", "/api/x"))
    await taken(first)
    (await taken(second)).reset()
    second.over()
    await sidecar.until(lambda: "reset" in sidecar.sidecar.metrics.upstream("api").attempts)
    await answer(first, 200, b"first")
    assert (await asking).body == b"first"
    one, two = (await sidecar.record()).attempts
    assert (one.status, two.failure, two.hedge) == (200, "reset", True)
    assert await hedges(sidecar) == {"lost": 1}
    assert nothing_is_left(sidecar)


async def both_fail(sidecar: Running, upstream: Upstream) -> Answer:
    """The second first, then the first: 502 is the last that came."""
    first, second = Live(), Live()
    upstream.script(first, second)
    asking = asyncio.create_task(sidecar.ask("GET", "/api/x"))
    await taken(first)
    await taken(second)
    await answer(second, 503, b"second")
    await sidecar.until(lambda: "503" in sidecar.sidecar.metrics.upstream("api").attempts)
    await answer(first, 502, b"first")
    return await asking


async def test_both_fail_and_the_last_is_handed_over(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, f"{SOON}\nattempts: 2", quick=PATIENT)
    got = await both_fail(sidecar, upstream)
    assert (got.status, got.body) == (502, b"first")
    assert got.headers.get("Sidecar") == "outcome=exhausted, attempts=2, reason=attempts"
    assert [attempt.status for attempt in (await sidecar.record()).attempts] == [502, 503]
    assert await hedges(sidecar) == {"failed": 1}
    assert len(upstream.requests) == 2
    assert nothing_is_left(sidecar)
    # Two beside each other took no longer than one.
    assert 0 <= await sidecar.metric("sidecar_overhead_seconds_sum") < 0.02


async def test_an_answer_is_better_than_none_though_it_was_not_the_last(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, f"{SOON}\nattempts: 2", quick=PATIENT)
    first, second = Live(), Live()
    upstream.script(first, second)
    asking = asyncio.create_task(sidecar.ask("GET", "/api/x"))
    await taken(first)
    connection = await taken(second)
    await answer(first, 503, b"busy")
    await sidecar.until(lambda: "503" in sidecar.sidecar.metrics.upstream("api").attempts)
    connection.reset()
    second.over()
    got = await asking
    assert (got.status, got.body) == (503, b"busy")
    assert got.headers.get("Sidecar") == "outcome=exhausted, attempts=2, reason=attempts"


async def test_both_fail_and_it_is_tried_again_as_ever(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, f"{SOON}\nattempts: 3", quick=PATIENT)
    upstream.otherwise = lambda _: say(200, b"third")
    sidecar.clock.hold()
    asking = asyncio.create_task(both_fail(sidecar, upstream))
    await sidecar.clock.sleeping()
    assert nothing_is_left(sidecar)  # neither keeps its connection during the wait
    sidecar.clock.release()
    got = await asking
    assert got.body == b"third"
    assert str(got.headers.get("Sidecar")).startswith("outcome=recovered, attempts=3, waited=0.2")
    assert [attempt.number for attempt in (await sidecar.record()).attempts] == [1, 2, 3]
    assert sidecar.clock.waits == [pytest.approx(0.2, abs=0.001)]  # backoff, after two sends
    assert nothing_is_left(sidecar)


async def test_a_later_attempt_is_not_hedged(make: Make, upstream: Upstream) -> None:
    """At most one extra send, and only beside the first."""
    sidecar = await make(upstream, SOON)
    upstream.script(say(503), hang(), say(200))
    assert (await sidecar.ask("GET", "/api/x")).status == 200
    attempts = (await sidecar.record()).attempts
    assert [attempt.failure or attempt.status for attempt in attempts] == [503, "head_timeout", 200]
    assert not any(attempt.hedge for attempt in attempts)


async def test_the_deadline_ends_both(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, f"{SOON}\ndeadline: 500ms", quick="")
    upstream.otherwise = lambda _: hang()
    got = await sidecar.ask("GET", "/api/x")
    assert got.status == 504
    assert "attempts=2" in (got.headers.get("Sidecar") or "")
    await upstream.until(lambda: upstream.open_connections == 0)
    assert len(upstream.requests) == 2
    assert await hedges(sidecar) == {"failed": 1}
    assert nothing_is_left(sidecar)


async def test_the_app_may_have_no_time_for_a_second(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "hedge: {after: 60ms}", quick=PATIENT)
    upstream.otherwise = lambda _: hang()
    assert (await sidecar.ask("GET", "/api/x", [("Sidecar-Timeout", "100ms")])).status == 504
    assert len(upstream.requests) == 1


async def test_an_app_that_leaves_ends_both(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, SOON, quick=PATIENT)
    upstream.otherwise = lambda _: hang()
    before = len(asyncio.all_tasks())
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x"))
        await upstream.received(2)
        client.reset()
    await upstream.until(lambda: upstream.open_connections == 0)
    assert (await sidecar.record()).outcome == "client_gone"
    assert await hedges(sidecar) == {"abandoned": 1}
    assert nothing_is_left(sidecar)
    await sidecar.until(lambda: len(asyncio.all_tasks()) <= before + 2)
    assert api(sidecar).holding.limiter.calm


async def test_an_app_that_leaves_in_the_middle_of_the_seconds_answer_ends_it(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, SOON, quick=PATIENT)
    part = head_bytes(200, [("Content-Length", "1000")]) + b"part"
    upstream.script(hang(), hang(send=part))
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x"))
        await client.head()
        await client.take(4)
        # Not only when the exchange is over.
        await upstream.until(upstream.requests[0].gone.is_set)
        client.reset()
    await upstream.until(lambda: upstream.open_connections == 0)
    assert (await sidecar.record()).outcome == "client_gone"
    assert await hedges(sidecar) == {"won": 1}
    assert nothing_is_left(sidecar)


async def test_fewer_than_fifty_answers_say_nothing_about_what_is_slow(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "hedge: {quantile: 0.95}\nattempts: 2")
    async with sidecar.client() as client:
        for _ in range(49):
            await client.ask("GET", "/api/x")
        upstream.script(hang(), say(200))
        assert (await client.ask("GET", "/api/slow")).status == 200  # the fiftieth, by a retry
        upstream.script(hang(), say(200))
        assert (await client.ask("GET", "/api/slow")).status == 200
    assert not any(attempt.hedge for record in sidecar.records[:50] for attempt in record.attempts)
    fiftieth, next_one = sidecar.records[49:]
    assert [attempt.failure for attempt in fiftieth.attempts] == ["head_timeout", None]
    assert [attempt.cancelled for attempt in next_one.attempts] == [True, False]
    assert next_one.attempts[0].duration_seconds < 0.1


async def test_the_slow_ones_that_are_cut_stay_in_what_is_learnt(make: Make, upstream: Upstream) -> None:
    """Else only the quick ones would count, and ever more would seem slow."""
    sidecar = await make(upstream, "hedge: {quantile: 0.95}", quick=PATIENT)
    for _ in range(50):
        api(sidecar).durations_of("test").add(0.02)
    upstream.script(hang(), say(200))
    await sidecar.ask("GET", "/api/x")
    durations = api(sidecar).durations_of("test")
    assert durations.total == 51
    longest = durations.quantile(1.0)
    assert longest is not None
    assert longest > 0.02 * 1.1


async def test_what_is_learnt_survives_a_reload(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "hedge: {quantile: 0.95}")
    await sidecar.ask("GET", "/api/x")
    sidecar.sidecar.apply(sidecar.sidecar.deployment)
    assert api(sidecar).durations_of("test").total == 1


async def test_nothing_is_learnt_where_nothing_is_hedged_by_it(make: Make, upstream: Upstream) -> None:
    for policy in ("", SOON):
        sidecar = await make(upstream, policy)
        await sidecar.ask("GET", "/api/x")
        assert [known.total for known in api(sidecar).durations.values()] in ([], [0])


async def test_no_hedge_while_the_gate_is_closed(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "hedge: {after: 300ms}\ndeadline: 5s", quick=QUICK.replace("150ms", "500ms"))
    first = Live()
    upstream.script(first)
    asking = asyncio.create_task(sidecar.ask("GET", "/api/x"))
    await taken(first)
    await refused_for_good(sidecar, upstream)
    assert api(sidecar).holding.limiter.gates_closed(sidecar.clock.monotonic()) == 1
    assert (await asking).status == 504
    assert len(upstream.requests) == 1 + FEWEST
    first.over()


async def test_no_hedge_while_the_breaker_is_open(make: Make, upstream: Upstream) -> None:
    policy = "hedge: {after: 300ms}\nbreaker: {min_requests: 2, when_open: fail}\ndeadline: 5s"
    sidecar = await make(upstream, policy)
    first = Live()
    upstream.script(first, say(500), say(500))
    asking = asyncio.create_task(sidecar.ask("GET", "/api/x"))
    await taken(first)
    for _ in range(2):
        assert (await sidecar.ask("POST", "/api/other")).status == 500
    assert api(sidecar).holding.limiter.breaker.is_open
    await asking
    assert not any(attempt.hedge for record in sidecar.records for attempt in record.attempts)
    first.over()


@pytest.mark.parametrize("why", ["draining", "switched_off"])
async def test_no_hedge_while_there_are_no_retries_either(make: Make, upstream: Upstream, why: str) -> None:
    sidecar = await make(upstream, "hedge: {after: 300ms}")
    upstream.script(hang())
    asking = asyncio.create_task(sidecar.ask("GET", "/api/x"))
    await upstream.received()
    if why == "draining":
        sidecar.sidecar.services.draining = True
    else:
        sidecar.sidecar.operator.turn_retries_off("api", None)
    got = await asking
    assert f"attempts=1, reason={why}" in (got.headers.get("Sidecar") or "")
    assert len(upstream.requests) == 1


async def test_no_hedge_without_a_connection_of_its_own(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, f"{SOON}\nattempts: 2", more="    connections: 1")
    upstream.script(hang(), say(200))
    assert (await sidecar.ask("GET", "/api/x")).status == 200
    assert [attempt.hedge for attempt in (await sidecar.record()).attempts] == [False, False]


async def test_a_handshake_is_never_hedged(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, f"{SOON}\nattempts: 2")
    upstream.script(hang(), say(426))
    await sidecar.ask("GET", "/api/x", [("Connection", "Upgrade"), ("Upgrade", "websocket")])
    assert [attempt.hedge for attempt in (await sidecar.record()).attempts] == [False, False]


async def test_an_answer_that_a_row_has_to_look_into_is_judged_while_the_other_runs(
    make: Make, upstream: Upstream
) -> None:
    table = "table: [{status: 200, when: {body: /state, equals: busy}, then: retry}]"
    sidecar = await make(upstream, f"{SOON}\n{table}", quick=PATIENT)
    first, second = Live(), Live()
    upstream.script(first, second)
    asking = asyncio.create_task(sidecar.ask("GET", "/api/x"))
    await taken(first)
    await taken(second)
    await answer(first, 200, b'{"state": "busy"}')
    await sidecar.until(lambda: "200" in sidecar.sidecar.metrics.upstream("api").attempts)
    await answer(second, 200, b'{"state": "done"}')
    got = await asking
    assert got.json() == {"state": "done"}
    assert got.headers.get("Sidecar") == "outcome=recovered, attempts=2"


async def test_a_first_that_is_taken_only_after_a_look_counts_both(make: Make, upstream: Upstream) -> None:
    table = "table: [{status: 200, when: {body: /state, equals: busy}, then: retry}]"
    sidecar = await make(upstream, f"{SOON}\n{table}", quick=PATIENT)
    first = Live()
    upstream.script(first, hang())
    asking = asyncio.create_task(sidecar.ask("GET", "/api/x"))
    await taken(first)
    second = await upstream.received(2)
    await answer(first, 200, b'{"state": "done"}')
    assert (await asking).headers.get("Sidecar") == "outcome=ok, attempts=2"
    await upstream.until(second.gone.is_set)
    assert await hedges(sidecar) == {"lost": 1}


async def test_a_second_that_may_not_be_dialled_does_not_end_the_first(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "hedge: {after: 500ms}", quick=PATIENT)
    first = Live()
    upstream.script(first)
    asking = asyncio.create_task(sidecar.ask("GET", "/api/x"))
    await taken(first)
    api(sidecar).pool._dialer.guard.own_ports.add(upstream.port)
    await sidecar.until(lambda: "unreachable" in sidecar.sidecar.metrics.upstream("api").attempts)
    await answer(first, 200, b"first")
    assert (await asking).body == b"first"


async def test_a_delivery_from_the_outbox_is_not_hedged(make: Make, upstream: Upstream) -> None:
    """One that was cut might still be applied after the delivery of the next."""
    route = "    routes: [{methods: [PUT], policy: test, store: always}]"
    sidecar = await make(upstream, SOON, quick=PATIENT, more=route, top="outbox: {file: outbox.db}")
    first = Live()
    upstream.script(first)
    assert (await sidecar.ask("PUT", "/api/x", body=b"one")).status == 202
    await taken(first)
    await overdue(sidecar, upstream)
    assert [request.target for request in upstream.requests] == ["/x", "/other", "/other"]
    await answer(first, 200)


async def test_every_hedged_exchange_is_logged(upstream: Upstream, processes: Processes, tmp_path: Path) -> None:
    path = write_files(
        tmp_path, yaml_for(upstream, top="log: {sample: 0}"), {"test": f"extends: default\n{SOON}\n{PATIENT}"}
    )
    process = await processes.serve(path)
    upstream.script(hang(), say(200), say(200))
    assert (await process.ask("GET", "/api/slow")).status == 200
    assert (await process.ask("GET", "/api/quick")).status == 200
    told = (await process.admin("/debug/exchanges")).json()["exchanges"]
    assert [exchange["path"] for exchange in told] == ["/api/slow"]


async def test_a_429_of_the_loser_still_closes_the_gate(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "hedge: {after: 100ms}\ndeadline: 40s", quick=PATIENT)
    first, second = Live(), Live()
    upstream.script(first, second)
    asking = asyncio.create_task(sidecar.ask("GET", "/api/x"))
    connection = await taken(first)
    await taken(second)
    await refused_for_good(sidecar, upstream, number=FEWEST - 1)
    assert not api(sidecar).holding.limiter.scopes
    await connection.send(head_bytes(429, [("Retry-After", "60"), ("Content-Length", "0")]))
    first.over()
    await sidecar.until(lambda: api(sidecar).holding.limiter.gates_closed(sidecar.clock.monotonic()) == 1)
    await answer(second, 200)
    assert (await asking).status == 200
    assert (await sidecar.ask("GET", "/api/x")).status == 429
    assert len(upstream.requests) == FEWEST + 1


async def test_a_thousand_races_leave_nothing(make: Make, upstream: Upstream) -> None:
    policy = "hedge: {after: 2ms}\nbudget: {ratio: 1, min_per_second: 1000}\nattempt_header: X-Attempt"
    sidecar = await make(upstream, policy, quick=PATIENT)

    async def every_third_hangs(connection: Connection) -> None:
        request = await connection.read_request()
        if request.number % 3 == 0 and request.headers.get("X-Attempt") == "1":
            await connection.until_gone()
        else:
            await connection.send(head_bytes(200, [("Content-Length", "2")]) + b"ok")

    upstream.otherwise = lambda _: every_third_hangs

    async def app() -> None:
        async with sidecar.client() as client:
            for _ in range(50):
                assert (await client.ask("GET", "/api/x")).body == b"ok"

    before = len(asyncio.all_tasks())
    async with asyncio.timeout(60):
        await asyncio.gather(*(app() for _ in range(20)))
    assert nothing_is_left(sidecar)
    assert api(sidecar).holding.limiter.calm
    assert set(await hedges(sidecar)) <= {"won", "lost"}
    await sidecar.until(lambda: len(asyncio.all_tasks()) <= before + len(upstream.connections))
