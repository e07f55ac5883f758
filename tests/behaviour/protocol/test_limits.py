"""What one app, or one connection of it, may cost: heads, counts, time. Threats rows 36, 37, 91."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.behaviour.conftest import Make
from tests.support.client import Client, request_bytes
from tests.support.sidecar import Running
from tests.support.upstream import Live, Upstream, head_bytes

H = b"Host: sidecar.test\r\n"


async def in_pieces(client: Client, data: bytes, size: int) -> None:
    """Sends ``data`` piece by piece; the sidecar may end it in between."""
    with contextlib.suppress(Exception):
        for at in range(0, len(data), size):
            await client.channel.send(data[at : at + size])


async def refused(sidecar: Running, data: bytes, size: int) -> int:
    async with sidecar.client() as client:
        sending = asyncio.create_task(in_pieces(client, data, size))
        try:
            answer = await client.answer()
            await client.ended()
            return answer.status
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


LONG_TARGET = b"GET /api/" + b"a" * 100_000 + b" HTTP/1.1\r\n" + H + b"\r\n"
LONG_FIELD = b"GET /api/x HTTP/1.1\r\n" + H + b"X-Big: " + b"x" * 100_000 + b"\r\n\r\n"
LONG_NAME = b"GET /api/x HTTP/1.1\r\n" + H + b"X" * 100_000 + b": 1\r\n\r\n"
MANY_FIELDS = b"GET /api/x HTTP/1.1\r\n" + H + b"X-Many: 1\r\n" * 10_000 + b"\r\n"
LONG_METHOD = b"A" * 100_000 + b" /api/x HTTP/1.1\r\n" + H + b"\r\n"
ENDLESS = b"GET /api/x HTTP/1.1\r\n" + H + b"X-A: 1\r\n" * 100_000
COMMAS = b"GET /api/x HTTP/1.1\r\n" + H + b"Connection: " + b"," * 1_000_000 + b"\r\n\r\n"


@pytest.mark.parametrize("size", [1 << 20, 100], ids=["whole", "in-pieces"])
@pytest.mark.parametrize(
    ("data", "allowed"),
    [
        (LONG_TARGET, {414, 431}),
        (LONG_FIELD, {431}),
        (LONG_NAME, {431, 400}),
        (MANY_FIELDS, {431}),
        (LONG_METHOD, {501}),
        (ENDLESS, {431}),
        (COMMAS, {431}),
    ],
    ids=["target", "field", "name", "count", "method", "endless", "commas"],
)
async def test_a_head_too_large_is_refused(
    make: Make, upstream: Upstream, data: bytes, allowed: set[int], size: int
) -> None:
    sidecar = await make(upstream)
    assert await refused(sidecar, data, size) in allowed
    assert upstream.connections == []


async def test_a_head_within_the_limits_passes_in_pieces(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    data = request_bytes("GET", "/api/" + "a" * 5000, [(f"X-{number}", "v" * 200) for number in range(100)])
    async with sidecar.client() as client:
        sending = asyncio.create_task(in_pieces(client, data, 7))
        assert (await client.answer()).status == 200
        await sending
    assert len(upstream.requests[0].headers.pairs) >= 100


async def test_the_limits_are_the_configurations(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, top="limits: {head: 2KiB, headers: 10}")
    assert (await sidecar.ask("GET", "/api/x", [(f"X-{number}", "1") for number in range(7)])).status == 200
    assert await refused(sidecar, request_bytes("GET", "/api/x", [("X", "1")] * 12), 1 << 20) == 431
    assert await refused(sidecar, request_bytes("GET", "/api/x", [("X", "y" * 3000)]), 1 << 20) == 431


async def test_a_head_that_never_ends_is_given_up(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, top="limits: {head_timeout: 100ms}")
    async with sidecar.client() as client:
        await client.send(b"GET /api/x HTTP/1.1\r\nHost: si")
        data, _ = await client.everything()
        assert data == b"" or data.startswith(b"HTTP/1.1 408")
    assert upstream.connections == []


async def test_an_idle_connection_is_closed_after_the_limit(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, top="limits: {idle: 100ms}")
    async with sidecar.client() as client:
        assert (await client.ask("GET", "/api/x")).status == 200
        assert await client.ended() == "closed"


async def test_a_connection_over_the_limit_leaves_the_others_alone(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, top="limits: {connections: 2}")
    async with sidecar.client() as first, sidecar.client() as second:
        assert (await first.ask("GET", "/api/x")).status == 200
        assert (await second.ask("GET", "/api/x")).status == 200
        async with sidecar.client() as third:
            with contextlib.suppress(Exception):
                await third.send(request_bytes("GET", "/api/x"))
            data, _ = await third.everything()
            assert data == b"" or data.startswith(b"HTTP/1.1 503")
        assert (await first.ask("GET", "/api/x")).status == 200
    async with sidecar.client() as later:
        assert (await later.ask("GET", "/api/x")).status == 200


async def test_attempts_over_the_upstreams_connections_wait_for_one(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempt: {head: 10s}", quick="", more="    connections: 1")
    lives = [Live(), Live()]
    upstream.script(*lives)
    asking = [asyncio.create_task(sidecar.ask("GET", f"/api/{number}")) for number in range(2)]
    for live in lives:
        connection = await live.here()
        request = await connection.read_request()
        assert upstream.open_connections == 1
        await connection.send(head_bytes(200, [("Content-Length", "2")]) + request.target.encode())
        live.over()
    assert {(await each).body for each in asking} == {b"/0", b"/1"}


async def test_an_upload_that_stalls_is_given_up(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "deadline: 300ms\nattempt: {connect: 100ms, head: 100ms, idle: 100ms}", quick="")
    async with sidecar.client() as client:
        await client.send(request_bytes("PUT", "/api/x", [("Content-Length", "1000")]) + b"only this")
        data, _ = await client.everything()
        assert data == b"" or data.startswith((b"HTTP/1.1 408", b"HTTP/1.1 504", b"HTTP/1.1 502"))
    await upstream.until(lambda: upstream.open_connections == 0)
    assert not any(request.complete for request in upstream.requests)
