"""An answer that comes before the request body was fully sent is passed on and ends the exchange."""

from __future__ import annotations

import asyncio

import pytest

from tests.behaviour.conftest import Make
from tests.support.client import request_bytes
from tests.support.upstream import Upstream, early, say


@pytest.mark.parametrize("status", [200, 401, 413, 429, 503])
async def test_an_early_answer_is_passed_on_and_not_retried(make: Make, upstream: Upstream, status: int) -> None:
    sidecar = await make(upstream)
    upstream.script(early(status, b"enough"), say(200))
    async with sidecar.client() as client:
        await client.send(request_bytes("PUT", "/api/x", [("Content-Length", "100000")]) + bytes(1000))
        answer = await client.answer("PUT")
        assert (answer.status, answer.body, answer.cut) == (status, b"enough", None)
    record = await sidecar.record()
    assert len(upstream.requests) == 1
    if status == 200:
        assert record.reason is None
    else:  # what the table passes anyway needs no other reason
        assert record.reason in ({"body_consumed"} if status in (429, 503) else {"body_consumed", "not_retryable"})
    await upstream.until(upstream.requests[0].gone.is_set)


async def test_the_upstreams_connection_is_not_reused_after_an_early_answer(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(early(413), say(200, b"next"))
    async with sidecar.client() as client:
        await client.send(request_bytes("PUT", "/api/x", [("Content-Length", "100000")]) + bytes(1000))
        await client.answer("PUT")
    assert (await sidecar.ask("GET", "/api/y")).body == b"next"
    assert len(upstream.connections) == 2


async def test_the_rest_of_the_body_is_never_read_as_a_request(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(early(413, b"big"))
    smuggled = request_bytes("GET", "/api/smuggled")
    body = smuggled * (2000 // len(smuggled) + 1)
    async with sidecar.client() as client:
        await client.send(request_bytes("PUT", "/api/x", [("Content-Length", str(len(body)))]))
        await client.answer("PUT")
        sending = asyncio.create_task(client.channel.send(body))
        data, _ = await client.everything()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert data == b""
    assert [request.target for request in upstream.requests] == ["/x"]


async def test_an_early_answer_with_close_reaches_the_app(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(early(413, b"too big", headers=[("Connection", "close")], linger=True))
    answer = await sidecar.ask("POST", "/api/x", body=bytes(3 << 20))
    assert (answer.status, answer.body) == (413, b"too big")
