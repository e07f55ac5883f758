"""What was never sent may always be sent: DESIGN section 3, the first permission and its narrow edge."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any

import pytest

from sidecar.proxy.exchange.facts import CROSSED_SECONDS
from sidecar.upstream.pool import RESTED_SECONDS
from sidecar.upstream.resolver import AddressInfo, Lookup
from tests.behaviour.conftest import Make
from tests.support.client import request_bytes
from tests.support.plain import names
from tests.support.sidecar import QUICK
from tests.support.upstream import Live, Step, Upstream, close, free_port, reset, say
from tests.support.wire import PlainChannel


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_refused_connection_is_tried_again_with_any_method(make: Make, method: str) -> None:
    port = free_port()
    sidecar = await make(port)
    sidecar.clock.hold()
    asking = asyncio.create_task(sidecar.ask(method, "/api/x", body=b"one"))
    await sidecar.clock.sleeping()
    async with Upstream.start(port=port) as upstream:
        upstream.script(say(201, b"made"))
        sidecar.clock.release()
        answer = await asking
        assert (answer.status, answer.body) == (201, b"made")
        assert len(upstream.requests) == 1
        assert bytes(upstream.requests[0].body) == b"one"
    record = await sidecar.record()
    assert record.outcome == "recovered"
    assert (record.attempts[0].failure, record.attempts[0].written) == ("refused", False)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_pooled_connection_closed_while_idle_costs_nothing(make: Make, upstream: Upstream, method: str) -> None:
    sidecar = await make(upstream)
    assert (await sidecar.ask("GET", "/api/first")).status == 200
    await upstream.close_idle()
    answer = await sidecar.ask(method, "/api/second", body=b"one")
    assert answer.status == 200
    assert [request.target for request in upstream.requests] == ["/first", "/second"]
    assert len(upstream.connections) == 2


async def test_a_pooled_connection_reset_while_idle_costs_nothing(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    await sidecar.ask("GET", "/api/first")
    await upstream.close_idle("reset")
    for _ in range(20):  # the sidecar's end learns of the RST in its next turns of the loop
        await asyncio.sleep(0)
    assert (await sidecar.ask("POST", "/api/second", body=b"one")).status == 200
    assert upstream.effects["/second"] == 1


async def test_a_close_that_nobody_has_noticed_yet_costs_a_post_nothing(make: Make, upstream: Upstream) -> None:
    """The request comes first and the end of the pooled connection right behind it, within one turn of the loop."""
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        for number in range(40):
            assert (await client.ask("GET", "/api/first")).status == 200
            pooled = upstream.connections[-1]
            await upstream.until(lambda pooled=pooled: pooled.idle)  # type: ignore[misc]
            assert isinstance(pooled.channel, PlainChannel)
            client.channel.sock.sendall(request_bytes("POST", f"/api/{number}", body=b"one"))
            pooled.channel.end()
            assert (await client.answer("POST")).status == 200
    assert all(upstream.effects[f"/{number}"] == 1 for number in range(40))
    assert len(upstream.requests) == 80


async def test_a_close_that_nobody_has_noticed_yet_costs_no_attempt_where_the_connection_has_rested(
    make: Make, upstream: Upstream
) -> None:
    """As above, with a method that could be sent again: it need not be, and no retry is shown."""
    sidecar = await make(upstream)
    pool = sidecar.sidecar.listener.router.destinations["api"].pool
    async with sidecar.client() as client:
        for number in range(40):
            assert (await client.ask("GET", "/api/first")).status == 200
            pooled = upstream.connections[-1]
            await upstream.until(lambda pooled=pooled: pooled.idle)  # type: ignore[misc]
            assert isinstance(pooled.channel, PlainChannel)
            pool._idle[-1].idle_since -= RESTED_SECONDS
            client.channel.sock.sendall(request_bytes("GET", f"/api/{number}"))
            pooled.channel.end()
            answer = await client.answer()
            assert (answer.status, answer.headers.get("Sidecar")) == (200, "outcome=ok, attempts=1")
    assert len(upstream.requests) == 80


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_pooled_connection_that_has_just_been_closed_costs_no_attempt(
    make: Make, upstream: Upstream, method: str
) -> None:
    """With one attempt there is no other: the kernel is asked before anything is written, whatever the method."""
    sidecar = await make(upstream, "attempts: 1")
    loop = asyncio.get_running_loop()
    async with sidecar.client() as client:
        assert (await client.ask("GET", "/api/first")).status == 200
        pooled = upstream.connections[-1]
        await upstream.until(lambda: pooled.idle)

        def closing(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **more: Any) -> asyncio.Task[Any]:
            """The FIN comes when the exchange's task is made: before its first step, and before the next poll."""
            loop.set_task_factory(None)
            pooled.channel.end()
            return asyncio.Task(coro, loop=loop, **more)

        client.channel.sock.sendall(request_bytes(method, "/api/second", body=b"one"))
        loop.set_task_factory(closing)  # type: ignore[arg-type]
        answer = await client.answer(method)
        assert (answer.status, answer.headers.get("Sidecar")) == (200, "outcome=ok, attempts=1")


async def test_bytes_right_behind_a_post_that_is_not_written_yet_are_no_answer(make: Make, upstream: Upstream) -> None:
    """What an upstream says before it could have read the request is for somebody else (RFC 9112 section 9.2)."""
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        for number in range(20):
            assert (await client.ask("GET", "/api/first")).status == 200
            pooled = upstream.connections[-1]
            await upstream.until(lambda pooled=pooled: pooled.idle)  # type: ignore[misc]
            assert isinstance(pooled.channel, PlainChannel)
            client.channel.sock.sendall(request_bytes("POST", f"/api/{number}", body=b"one"))
            pooled.channel.sock.send(b"HTTP/1.1 299 Not yours\r\nContent-Length: 0\r\n\r\n")
            answer = await client.answer("POST")
            assert (answer.status, answer.headers.get("Sidecar")) == (200, "outcome=ok, attempts=1")
    assert len(upstream.requests) == 40


@pytest.mark.parametrize("dying", [close("nothing"), reset("nothing"), close("head"), reset("head")])
async def test_a_pooled_connection_that_dies_under_a_get_is_replaced(
    make: Make, upstream: Upstream, dying: Step
) -> None:
    sidecar = await make(upstream)
    upstream.script(say(200), dying, say(200, b"again"))
    await sidecar.ask("GET", "/api/first")
    answer = await sidecar.ask("GET", "/api/second")
    assert (answer.status, answer.body) == (200, b"again")


@pytest.mark.parametrize("dying", [close("nothing"), reset("nothing"), close("head"), reset("head")])
async def test_a_pooled_connection_that_dies_under_a_written_post_is_not(
    make: Make, upstream: Upstream, dying: Step
) -> None:
    sidecar = await make(upstream)
    upstream.script(say(200), dying, say(200))
    await sidecar.ask("GET", "/api/first")
    answer = await sidecar.ask("POST", "/api/second", body=b"one")
    assert answer.status == 502
    assert "reason=not_safe" in (answer.headers.get("Sidecar") or "")
    assert len(upstream.connections) == 1
    assert (await sidecar.record(2)).attempts[0].written


async def test_connections_are_kept_and_reused(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    for _ in range(5):
        await sidecar.ask("POST", "/api/x", body=b"one")
    assert len(upstream.connections) == 1


async def test_a_connection_whose_answer_said_close_is_not_reused(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(200, headers=[("Connection", "close")]), say(200))
    await sidecar.ask("GET", "/api/x")
    assert (await sidecar.ask("POST", "/api/x", body=b"one")).status == 200
    assert len(upstream.connections) == 2


async def test_a_name_that_does_not_resolve_was_never_sent(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, policies={"default": "attempts: 2\nbackoff: {base: 10ms, jitter: none}"})
    answer = await sidecar.ask("POST", "http://no-such-host.invalid/x", body=b"1", host="no-such-host.invalid")
    assert answer.status == 502
    record = await sidecar.record()
    assert {str(attempt.failure) for attempt in record.attempts} == {"resolve"}
    assert not any(attempt.written for attempt in record.attempts)


def unresolving(*errors: int) -> Lookup:
    """A resolver that says these, one after the other, and then 127.0.0.1."""
    left = list(errors)

    async def look_up(host: str, port: int) -> list[AddressInfo]:
        if left:
            raise socket.gaierror(left.pop(0), "as scripted")
        return await names({host: ["127.0.0.1"]})(host, port)

    return look_up


async def test_a_name_that_does_not_exist_is_asked_for_once(make: Make, upstream: Upstream) -> None:
    """The resolver has said so; to ask again within seconds would only repeat it."""
    sidecar = await make(upstream, lookup=unresolving(socket.EAI_NONAME))
    answer = await sidecar.ask("GET", f"http://gone.test:{upstream.port}/x", host="gone.test")
    assert (answer.status, upstream.requests) == (502, [])
    record = await sidecar.record()
    assert [str(attempt.failure) for attempt in record.attempts] == ["resolve"]
    assert record.reason == "attempts"


async def test_a_resolver_in_trouble_is_asked_again(make: Make, upstream: Upstream) -> None:
    lookup = unresolving(socket.EAI_AGAIN, socket.EAI_FAIL)
    sidecar = await make(upstream, lookup=lookup)
    answer = await sidecar.ask("POST", f"http://here.test:{upstream.port}/x", host="here.test", body=b"one")
    assert answer.status == 200
    assert len((await sidecar.record()).attempts) == 3


async def test_a_row_that_names_it_waits_for_a_name_to_appear(make: Make, upstream: Upstream) -> None:
    policy = QUICK + "\ntable: [{failure: resolve, then: retry}]"
    sidecar = await make(upstream, policies={"default": policy}, lookup=unresolving(socket.EAI_NONAME))
    assert (await sidecar.ask("GET", f"http://new.test:{upstream.port}/x", host="new.test")).status == 200


ONCE = "attempts: 1\ntable: [{failure: any, then: pass}]"


@pytest.mark.parametrize("policy", [ONCE, "attempts: 3"], ids=["no-retries", "retries"])
@pytest.mark.parametrize("dying", [close("nothing"), reset("nothing"), close("request")])
async def test_a_close_that_crosses_the_first_send_of_a_get_costs_no_attempt(
    make: Make, upstream: Upstream, dying: Step, policy: str
) -> None:
    """RFC 9112 section 9.3.1. The send is numbered and shown; it counts toward no limit and needs no wait."""
    sidecar = await make(upstream, policy + "\nbudget: {ratio: 0, min_per_second: 0.001}")
    upstream.script(say(200), dying, say(200, b"again"))
    await sidecar.ask("GET", "/api/first")
    answer = await sidecar.ask("GET", "/api/second")
    assert (answer.status, answer.body) == (200, b"again")
    assert answer.headers.get("Sidecar") == "outcome=recovered, attempts=2"
    assert sidecar.clock.waits == []
    assert '"uncounted":true' in sidecar.log.getvalue()
    limiter = sidecar.sidecar.listener.router.destinations["api"].holding.limiter
    assert limiter.calm
    assert not limiter.lent


async def test_it_goes_once_beyond_the_limit_and_no_further(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempts: 2")
    upstream.script(say(200), *[reset("request")] * 5)
    await sidecar.ask("GET", "/api/first")
    answer = await sidecar.ask("GET", "/api/second")
    assert (answer.status, len(upstream.requests)) == (502, 1 + 3)
    assert "attempts=3" in (answer.headers.get("Sidecar") or "")


@pytest.mark.parametrize(
    ("method", "dying"),
    [("POST", close("request")), ("GET", close("request", send=b"HTTP/1.1 2"))],
    ids=["not-idempotent", "answered"],
)
async def test_what_may_have_been_acted_upon_counts(make: Make, upstream: Upstream, method: str, dying: Step) -> None:
    sidecar = await make(upstream, ONCE)
    upstream.script(say(200), dying, say(200))
    await sidecar.ask("GET", "/api/first")
    assert (await sidecar.ask(method, "/api/second")).status == 502
    assert len(upstream.requests) == 2


async def test_a_close_after_a_while_counts(make: Make, upstream: Upstream) -> None:
    """Then the upstream was working on it."""
    sidecar = await make(upstream, ONCE, quick="attempt: {head: 30s}")
    live = Live()
    upstream.script(say(200), live, say(200))
    await sidecar.ask("GET", "/api/first")
    asking = asyncio.create_task(sidecar.ask("GET", "/api/second"))
    connection = await live.here()
    await connection.read_request()
    sidecar.clock.advance(CROSSED_SECONDS)
    connection.close()
    live.over()
    assert (await asking).status == 502
    assert len(upstream.requests) == 2


async def test_an_operator_who_has_turned_retries_off_gets_none(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    assert (await sidecar.change("/-/retries/off")).status == 200
    upstream.script(say(200), close("request"), say(200))
    await sidecar.ask("GET", "/api/first")
    assert (await sidecar.ask("GET", "/api/second")).status == 502
    assert len(upstream.requests) == 2
