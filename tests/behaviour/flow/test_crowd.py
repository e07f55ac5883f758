"""With many exchanges under way, small writes are made at the end of a turn of the loop: nobody may notice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from sidecar.wire.write_batch import FEW
from tests.behaviour.conftest import Make
from tests.support.client import request_bytes
from tests.support.sidecar import Running
from tests.support.upstream import Upstream, hang
from tests.support.wire import PlainChannel

PATIENT = "attempt: {head: 30s}\n"


@contextlib.asynccontextmanager
async def crowd(sidecar: Running, upstream: Upstream) -> AsyncIterator[None]:
    """So many exchanges under way, until the end of the block, that writes wait for the end of a turn."""
    async with contextlib.AsyncExitStack() as stack:
        upstream.script(*[hang() for _ in range(FEW)])
        for _ in range(FEW):
            client = await stack.enter_async_context(sidecar.client())
            await client.send(request_bytes("GET", "/api/hangs"))
        await upstream.until(lambda: len(upstream.requests) == FEW)
        assert sidecar.sidecar.metrics.inflight == FEW
        yield


async def test_answers_come_in_order_also_behind_each_other(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, quick=PATIENT)
    async with crowd(sidecar, upstream), sidecar.client() as client:
        for _ in range(3):
            pipelined = b"".join(
                [
                    request_bytes("GET", "/api/1"),
                    request_bytes("GET", "/nowhere"),
                    request_bytes("POST", "/api/2", body=b"x"),
                ]
            )
            await client.send(pipelined)
            assert [(await client.answer()).status for _ in range(3)] == [200, 404, 200]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_last_answer_comes_whole(make: Make, upstream: Upstream, method: str) -> None:
    sidecar = await make(upstream, quick=PATIENT)
    async with crowd(sidecar, upstream):
        for more in ([("Connection", "close")], []):
            async with sidecar.client() as first:
                assert (await first.ask("GET", "/api/first")).status == 200
            async with sidecar.client() as client:
                await client.send(request_bytes(method, "/api/x", more, b"one"))
                if not more:
                    client.end_sending()
                assert (await client.answer(method)).status == 200
                assert await client.ended() == "closed"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("end", ["end", "bytes"])
async def test_a_pooled_connection_that_ends_in_the_same_turn_costs_nothing(
    make: Make, upstream: Upstream, method: str, end: str
) -> None:
    """Also for what is not idempotent: its request was not written yet. Nor are such bytes the answer."""
    sidecar = await make(upstream, quick=PATIENT)
    async with crowd(sidecar, upstream), sidecar.client() as client:
        for number in range(20):
            assert (await client.ask("GET", "/api/first")).status == 200
            pooled = upstream.connections[-1]
            await upstream.until(lambda pooled=pooled: pooled.idle)  # type: ignore[misc]
            assert isinstance(pooled.channel, PlainChannel)
            client.channel.sock.sendall(request_bytes(method, f"/api/{number}", body=b"one"))
            if end == "end":
                pooled.channel.end()
            else:
                pooled.channel.sock.send(b"HTTP/1.1 299 Not yours\r\nContent-Length: 0\r\n\r\n")
            answer = await client.answer(method)
            assert (answer.status, answer.headers.get("Sidecar")) == (200, "outcome=ok, attempts=1")
        assert all(upstream.effects[f"/{number}"] == 1 for number in range(20))
        assert len(upstream.requests) == FEW + 40


async def test_an_answer_that_is_there_when_shutting_down_is_given(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, quick=PATIENT)
    async with crowd(sidecar, upstream), sidecar.client() as client:
        assert (await client.ask("GET", "/api/first")).status == 200
        client.channel.sock.send(request_bytes("GET", "/api/last"))
        await upstream.until(lambda: upstream.effects["/last"] > 0)
        sidecar.sidecar.listener.drain()
        assert (await client.answer()).status == 200
        assert await client.ended() == "closed"


async def test_when_the_crowd_has_gone_nothing_is_under_way(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, quick=PATIENT)
    async with crowd(sidecar, upstream):
        assert (await sidecar.ask("GET", "/api/x")).status == 200
    async with asyncio.timeout(60):
        while sidecar.sidecar.metrics.inflight:  # noqa: ASYNC110 - the gauge signals nobody
            await asyncio.sleep(0.001)
