"""One owner of each pool: whoever can reach a pool can use it, also after a long pause, a reload or an eviction."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.config.load import load_deployment
from sidecar.proxy.routing import router as routing
from sidecar.upstream.pool import IDLE_SECONDS
from tests.behaviour.conftest import Make
from tests.support.plain import names
from tests.support.sidecar import Running, yaml_for
from tests.support.upstream import Connection, Step, Upstream, hang, say


def sweep(sidecar: Running) -> None:
    """What a timer does every few seconds."""
    sidecar.sidecar._pools._sweep()


def reload(sidecar: Running, text: str) -> None:
    sidecar.path.write_text(text, encoding="utf-8")
    sidecar.sidecar.apply(load_deployment(sidecar.path, environ={}).deployment)


def when(go: asyncio.Event, answer: Step) -> Step:
    """Takes the request; answers when it is told to. ``answer`` reads nothing."""

    async def step(connection: Connection) -> None:
        await connection.read_request()
        await go.wait()
        await answer(connection)

    return step


async def status_of(sidecar: Running, url: str) -> int:
    return (await sidecar.ask("GET", url, host=None, headers=[("Host", "x")])).status


async def test_a_host_without_an_upstream_is_served_after_a_long_pause(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    url = f"http://{upstream.authority}/x"
    assert await status_of(sidecar, url) == 200
    for _ in range(3):
        await upstream.close_idle()
        sweep(sidecar)
        assert await status_of(sidecar, url) == 200
    assert len(upstream.connections) == 4


async def test_idle_connections_to_such_a_host_are_closed_in_time(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    url = f"http://{upstream.authority}/x"
    assert await status_of(sidecar, url) == 200
    (known,) = sidecar.sidecar.listener.router._unknown.values()
    (idle,) = known.pool._idle
    idle.idle_since -= IDLE_SECONDS
    sweep(sidecar)
    await upstream.until(lambda: upstream.open_connections == 0)
    assert await status_of(sidecar, url) == 200


async def test_a_host_that_is_forgotten_under_way_is_answered_and_served_again(
    make: Make, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More hosts than are remembered, all of them in use."""
    monkeypatch.setattr(routing, "UNKNOWN_HOSTS", 2)
    sidecar = await make(
        upstream, lookup=names({f"{number}.test": ["127.0.0.1"] for number in range(4)}), quick="attempt: {head: 5s}"
    )
    go = asyncio.Event()
    upstream.script(*[when(go, say(200, read="nothing"))] * 4)
    asking = []
    for number in range(4):
        asking.append(asyncio.create_task(status_of(sidecar, f"http://{number}.test:{upstream.port}/")))
        await upstream.received(number + 1)
    assert len(sidecar.sidecar.listener.router._unknown) == 2
    sweep(sidecar)
    go.set()
    assert await asyncio.gather(*asking) == [200] * 4
    # What was forgotten keeps no connection.
    await upstream.until(lambda: upstream.open_connections == 2)
    for number in range(4):
        assert await status_of(sidecar, f"http://{number}.test:{upstream.port}/") == 200


async def test_a_reload_keeps_what_is_known_of_hosts_and_retires_what_is_gone(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, top="# before")
    url = f"http://{upstream.authority}/x"
    assert await status_of(sidecar, url) == 200
    before = next(iter(sidecar.sidecar.listener.router._unknown.values()))
    assert (await sidecar.ask()).status == 200
    assert len(upstream.connections) == 2

    reload(sidecar, yaml_for(upstream).replace("name: api", "name: other"))
    after = next(iter(sidecar.sidecar.listener.router._unknown.values()))
    assert (after.pool, after.holding, after.budget) == (before.pool, before.holding, before.budget)
    await upstream.until(lambda: upstream.open_connections == 1)
    assert await status_of(sidecar, url) == 200
    assert len(upstream.connections) == 2, "the connection to the host is still used"

    reload(sidecar, "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nunknown_hosts: refuse\nupstreams: []\n")
    await upstream.until(lambda: upstream.open_connections == 0)
    assert await status_of(sidecar, url) == 403


async def test_an_upstream_that_a_reload_removes_answers_what_is_under_way(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, quick="attempt: {head: 5s}\nbackoff: {base: 1ms, jitter: none}")
    go = asyncio.Event()
    upstream.script(when(go, say(503, read="nothing", last=True)), say(200, b"again"))
    asking = asyncio.create_task(sidecar.ask())
    await upstream.received()
    reload(sidecar, "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nupstreams: []\n")
    go.set()
    answer = await asking
    assert (answer.status, answer.body) == (200, b"again"), "a retry may dial, though its upstream is gone from the map"
    await upstream.until(lambda: upstream.open_connections == 0)


async def test_each_upstream_has_the_connections_that_it_names(make: Make, upstream: Upstream) -> None:
    """Two of one origin do not share the last one's limit."""
    wide = f"{{name: wide, origin: 'http://{upstream.authority}', mount: /wide, policy: test, connections: 3}}"
    more = f"    connections: 1\n  - {wide}"
    sidecar = await make(upstream, more=more, quick="attempt: {head: 5s}")
    upstream.otherwise = lambda _: hang()
    asking = [asyncio.create_task(sidecar.ask(target=target)) for target in ("/api/", "/wide/", "/wide/", "/wide/")]

    def both() -> int:
        return sidecar.held("connection") + sidecar.held("connection", "wide")

    await sidecar.until(lambda: len(upstream.requests) == 4 or both() > 0)
    assert (len(upstream.requests), both()) == (4, 0)
    held = [asyncio.create_task(sidecar.ask(target=target)) for target in ("/api/", "/wide/")]
    await sidecar.until(lambda: sidecar.held("connection") == 1 and sidecar.held("connection", "wide") == 1)
    for task in (*asking, *held):
        task.cancel()
    await asyncio.gather(*asking, *held, return_exceptions=True)
