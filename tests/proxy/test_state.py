"""The states of an exchange: every change that the table names happens, and no other."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.proxy.exchange.exchange import Exchange
from sidecar.proxy.exchange.state import LOOP, NEW, OVER, TRANSITIONS, WAITING, WOKEN
from tests.behaviour.conftest import Make
from tests.support.upstream import Upstream, hang, say

POLICY = "table: [{status: 503, then: retry, wait: [{constant: 50ms}]}, {status: any, then: pass}]"


class Changes:
    """Stands in the place of ``Exchange.state`` and remembers what it is changed from and to."""

    def __init__(self) -> None:
        self.seen: set[tuple[int, int]] = set()

    def __get__(self, exchange: Exchange | None, _: type[Exchange]) -> int:
        return NEW if exchange is None else exchange.__dict__.get("state", NEW)

    def __set__(self, exchange: Exchange, state: int) -> None:
        self.seen.add((exchange.state, state))
        exchange.__dict__["state"] = state


@pytest.fixture
def changes(monkeypatch: pytest.MonkeyPatch) -> Changes:
    made = Changes()
    monkeypatch.setattr(Exchange, "state", made)
    return made


async def test_every_change_of_state_is_in_the_table(make: Make, upstream: Upstream, changes: Changes) -> None:
    sidecar = await make(upstream, POLICY, top=f"tunnels: {{ports: [{upstream.port}]}}")
    upstream.script(say(200), say(200), say(503), say(200))
    async with sidecar.client() as client:
        for _ in range(3):  # over a new connection, a pooled one, and one that brings a 503
            assert (await client.ask("GET", "/api/x")).status == 200
        assert (await client.ask("CONNECT", "example.com:1", host="x")).status == 403
    async with sidecar.client() as client:
        await client.send(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\n" % upstream.port)
        assert (await client.one_head()).status == 200
    await sidecar.record(5)
    upstream.script(hang())
    async with sidecar.client() as client:  # an app that leaves
        await client.send(b"GET /api/x HTTP/1.1\r\nHost: x\r\n\r\n")
        await upstream.until(lambda: len(upstream.requests) == 5)
    await sidecar.record(6)
    assert changes.seen == TRANSITIONS - {(WAITING, WOKEN), (WOKEN, LOOP)}  # those come with a shutdown


async def test_a_shutdown_wakes_what_waits(make: Make, upstream: Upstream, changes: Changes) -> None:
    sidecar = await make(upstream, POLICY)
    sidecar.clock.hold()
    upstream.script(say(503))
    async with sidecar.client() as client:
        await client.send(b"GET /api/x HTTP/1.1\r\nHost: x\r\n\r\n")
        await sidecar.clock.sleeping()
        draining = asyncio.create_task(sidecar.sidecar.drain(5.0))
        assert (await client.answer()).status == 503
        await draining
    assert changes.seen == {(NEW, LOOP), (LOOP, WAITING), (WAITING, WOKEN), (WOKEN, LOOP), (LOOP, OVER)}
