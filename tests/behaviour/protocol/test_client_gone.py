"""An app that leaves ends its exchange: no further attempt, and the upstream is let go."""

from __future__ import annotations

import asyncio

import pytest

from tests.behaviour.conftest import Make
from tests.support.client import request_bytes
from tests.support.upstream import Connection, Live, Upstream, hang, head_bytes, say


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_leaving_during_a_wait_ends_the_retries(make: Make, upstream: Upstream, how: str) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503), say(200))
    sidecar.clock.hold()
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x"))
        await sidecar.clock.sleeping()
        if how == "reset":
            client.reset()
    record = await sidecar.record()
    assert record.outcome == "client_gone"
    sidecar.clock.release()
    assert sidecar.clock.asleep == 0
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_leaving_during_an_attempt_drops_the_upstream(make: Make, upstream: Upstream, method: str) -> None:
    sidecar = await make(upstream, "attempt: {head: 30s}", quick="")
    upstream.script(hang(), say(200))
    async with sidecar.client() as client:
        await client.send(request_bytes(method, "/api/x", body=b"one"))
        request = await upstream.received()
    await upstream.until(request.gone.is_set)
    record = await sidecar.record()
    assert record.outcome == "client_gone"
    assert len(upstream.requests) == 1
    assert upstream.open_connections == 0


async def test_leaving_in_the_middle_of_the_answer_drops_the_upstream(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)

    async def pour(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(head_bytes(200, [("Transfer-Encoding", "chunked")]))
        while True:
            await connection.send(b"8000\r\n" + bytes(0x8000) + b"\r\n")

    upstream.script(pour)
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x"))
        await client.head()
        await client.take(100_000)
    request = await upstream.received()
    await upstream.until(request.gone.is_set)
    record = await sidecar.record()
    assert record.outcome == "client_gone"
    assert len(upstream.requests) == 1


async def test_leaving_an_event_stream_reaches_the_upstream(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    live = Live()
    upstream.script(live)
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x"))
        connection = await live.here()
        await connection.read_request()
        sse = [("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")]
        await connection.send(head_bytes(200, sse) + b"1\r\nx\r\n")
        await client.head()
        await client.take(1)
    await asyncio.wait_for(connection.until_gone(), 5)
    live.over()
    assert (await sidecar.record()).outcome == "client_gone"


async def test_leaving_in_the_middle_of_the_upload_is_no_request(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        await client.send(request_bytes("PUT", "/api/x", [("Content-Length", "100000")]) + bytes(50_000))
        await upstream.received()
        client.reset()
    await upstream.until(lambda: upstream.open_connections == 0)
    assert not upstream.requests[0].complete
    assert (await sidecar.record()).outcome == "client_gone"
    assert len(upstream.requests) == 1


async def test_a_half_closed_app_still_gets_its_answer(make: Make, upstream: Upstream) -> None:
    """FIN after the request says "no more requests", not "no answer": curl and many probes do it."""
    sidecar = await make(upstream)
    live = Live()
    upstream.script(live)
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x"))
        client.end_sending()
        connection = await live.here()
        await connection.read_request()
        await connection.send(head_bytes(200, [("Content-Length", "3")]) + b"yes")
        live.over()
        data, _ = await client.everything()
    assert data.endswith(b"yes")


async def test_a_half_closed_app_gets_no_further_attempt(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    live = Live()
    upstream.script(live, say(200))
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x"))
        client.end_sending()
        connection = await live.here()
        await connection.read_request()
        for _ in range(20):  # the sidecar learns of the FIN in its next turns of the loop
            await asyncio.sleep(0)
        await connection.send(head_bytes(503, [("Content-Length", "4")]) + b"busy")
        live.over()
        data, _ = await client.everything()
    assert data.endswith(b"busy")
    assert len(upstream.requests) == 1


async def test_nothing_is_left_when_a_hundred_apps_have_left(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempt: {head: 30s}", quick="")
    upstream.otherwise = lambda _: hang()
    before = len(asyncio.all_tasks())
    for number in range(100):
        async with sidecar.client() as client:
            await client.send(request_bytes("GET", f"/api/{number}"))
            await upstream.received(number + 1)
    await upstream.until(lambda: upstream.open_connections == 0)
    await sidecar.record(100)
    await sidecar.until(lambda: len(asyncio.all_tasks()) <= before + 2)
    assert {str(record.outcome) for record in sidecar.records} == {"client_gone"}
    assert await sidecar.metric("sidecar_inflight_requests") == 0
