"""What is over is freed at once. A reference cycle would wait for the garbage collector, which a sidecar keeps from
looking through what it holds (``cli.allocator``): each one would stay for as good as ever."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from tests.behaviour.conftest import Make
from tests.support.client import request_bytes
from tests.support.sidecar import Running
from tests.support.upstream import Upstream, close, cut_body, hang, head_bytes, say, say_raw
from tests.support.wire import Gone

POLICY = """
deadline: 3s
attempts: 3
hedge: {after: 30ms}
table:
  - {status: 503, then: retry, processed: false, wait: [{constant: 1ms}]}
  - {failure: any, then: retry, wait: [{constant: 1ms}]}
"""
Step = Callable[[Running, Upstream], Awaitable[object]]
SWITCH = [("Connection", "Upgrade"), ("Upgrade", "talk")]
SWITCHED = head_bytes(101, [("Upgrade", "talk"), ("Connection", "Upgrade")])


async def get(sidecar: Running, upstream: Upstream) -> object:
    return await sidecar.ask()


async def upload(sidecar: Running, upstream: Upstream) -> object:
    return await sidecar.ask("PUT", "/api/x", [], b"x" * 300_000)


async def retried(sidecar: Running, upstream: Upstream) -> object:
    upstream.script(say(503), say(503))
    return await sidecar.ask()


async def exhausted(sidecar: Running, upstream: Upstream) -> object:
    upstream.script(say(503), say(503), say(503))
    return await sidecar.ask()


async def lost(sidecar: Running, upstream: Upstream) -> object:
    upstream.script(close(), close(), close())
    return await sidecar.ask()


async def cut(sidecar: Running, upstream: Upstream) -> object:
    upstream.script(say(200), *[cut_body(b"x" * 600_000, length=2_000_000)] * 3)
    async with sidecar.client() as client:
        await client.ask("GET", "/api/x")
        with contextlib.suppress(Gone):  # reset before its head was read, or cut in its body
            assert (await client.ask("GET", "/api/x")).cut
    return None


async def hedged(sidecar: Running, upstream: Upstream) -> object:
    upstream.script(hang(), say(200))
    return await sidecar.ask()


async def left(sidecar: Running, upstream: Upstream) -> object:
    """The app leaves in the middle of its body, and before the answer."""
    seen = len(upstream.requests)
    async with sidecar.client() as client:
        await client.send(request_bytes("PUT", "/api/put", [("Content-Length", "10")]) + b"12345")
    upstream.script(hang(), hang())
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x"))
        await upstream.until(lambda: len(upstream.requests) > seen)
    return None


async def malformed(sidecar: Running, upstream: Upstream) -> object:
    async with sidecar.client() as client:
        await client.send(b"GET / HTTP/1.1\r\nBad Name: x\r\n\r\n")
        return await client.answer()


async def refused(sidecar: Running, upstream: Upstream) -> object:
    async with sidecar.client() as client:
        return await client.ask("GET", "http://169.254.1.1/x", host="169.254.1.1")


async def tunnelled(sidecar: Running, upstream: Upstream) -> object:
    async with sidecar.client() as client:
        await client.send(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\n" % upstream.port)
        assert (await client.one_head()).status == 200
    return None


async def switched(sidecar: Running, upstream: Upstream) -> object:
    upstream.script(say_raw(SWITCHED, last=True))
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x", SWITCH))
        assert (await client.one_head()).status == 101
    return None


STEPS: list[Step] = [get, upload, retried, exhausted, lost, cut, hedged, left, malformed, refused, tunnelled, switched]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
async def test_an_exchange_and_its_connection_leave_no_cycle(make: Make, upstream: Upstream, step: Step) -> None:
    top = f"tunnels: {{ports: [{upstream.port}]}}"
    sidecar = await make(upstream, POLICY, top=top, quick="attempt: {connect: 2s, head: 1s, idle: 1s}")

    async def once() -> None:
        await step(sidecar, upstream)
        await sidecar.until(lambda: sidecar.sidecar.listener.connections == 0)
        if any(each.idle and not each.over for each in upstream.connections):
            await upstream.close_idle()

    await once()
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            await once()
        await asyncio.sleep(0)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds = Counter(type(each).__qualname__ for each in gc.garbage if type(each).__module__.startswith("sidecar."))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert kinds == {}
