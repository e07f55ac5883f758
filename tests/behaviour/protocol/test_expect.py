"""``Expect: 100-continue`` works, and never makes a retry replay a body that nobody sent. RFC 9110 10.1.1."""

from __future__ import annotations

import pytest

from tests.behaviour.conftest import Make
from tests.support.client import Client, request_bytes
from tests.support.upstream import Upstream, early, say

EXPECT = [("Expect", "100-continue"), ("Content-Length", "5")]


async def converse(client: Client, method: str = "POST", target: str = "/api/x") -> tuple[list[int], int]:
    """Plays a careful app: the body goes out only after a 100. The statuses seen, and the final one."""
    await client.send(request_bytes(method, target, EXPECT))
    seen = [await client.one_head()]
    if seen[0].status == 100:
        await client.send(b"hello")
        final = await client.answer(method)
        return [100, *(each.status for each in final.interim)], final.status
    return [], seen[0].status


async def test_the_app_is_asked_for_its_body_once(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(201))
    async with sidecar.client() as client:
        interim, status = await converse(client)
    assert (interim, status) == ([100], 201)
    assert bytes(upstream.requests[0].body) == b"hello"


async def test_a_retry_asks_the_app_no_second_time(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503), say(200))
    async with sidecar.client() as client:
        interim, status = await converse(client, "PUT")
        assert (interim, status) == ([100], 200)
        assert (await client.ask("GET", "/api/next")).status == 200
    assert [bytes(request.body) for request in upstream.requests[:2]] == [b"hello", b"hello"]


async def test_an_answer_instead_of_a_100_reaches_the_app(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(early(401, b"who?"))
    async with sidecar.client() as client:
        _, status = await converse(client)
    assert status == 401
    assert len(upstream.requests) == 1


async def test_an_app_that_sends_without_waiting_is_served(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        await client.send(request_bytes("POST", "/api/x", EXPECT) + b"hello")
        answer = await client.answer("POST")
    assert answer.status == 200
    assert bytes(upstream.requests[0].body) == b"hello"


async def test_an_app_that_leaves_instead_of_sending_causes_nothing(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        await client.send(request_bytes("POST", "/api/x", EXPECT))
        assert (await client.one_head()).status == 100
    await sidecar.until(lambda: len(sidecar.records) > 0 or not upstream.requests)
    assert not any(request.complete for request in upstream.requests)


@pytest.mark.parametrize("value", ["200-ok", "100-continue, other"])
async def test_another_expectation_is_refused_or_ignored(make: Make, upstream: Upstream, value: str) -> None:
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        await client.send(request_bytes("POST", "/api/x", [("Expect", value)], b"hello"))
        assert (await client.answer("POST")).status in (200, 417)


async def test_an_http_10_app_gets_no_100(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        await client.send(
            b"POST /api/x HTTP/1.0\r\nHost: sidecar.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"
        )
        data, _ = await client.everything()
    assert b" 100 " not in data.split(b"\r\n")[0]
    assert data.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200"))
    assert len(upstream.requests) == 1
