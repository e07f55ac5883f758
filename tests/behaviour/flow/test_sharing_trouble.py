"""A store, or a way to it, that does everything but work: nobody is held for it, nobody is stopped by it for good.

The counterpart of ``test_sharing``: hostile values, set clocks, foreign protocols, slow and silent networks, reloads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from sidecar.core.flow import rate_limit as rate_limits
from sidecar.core.flow.gate import Gate
from sidecar.core.flow.shared_limiter import SharedLimiter
from sidecar.core.flow.shared_state import JUST_BEGUN, KeyNews
from sidecar.core.settings.deployment import Deployment
from sidecar.shared.sync import StoreSync
from sidecar.shared.upstream_sync import UpstreamSync
from tests.behaviour.conftest import Make
from tests.behaviour.flow.test_sharing import LANE, OURS, errors, is_gated, is_up, lines, replicas
from tests.support.between import Between, between
from tests.support.clock import RealClock
from tests.support.refusals import FEWEST, refused
from tests.support.sidecar import Running
from tests.support.store import StoreServer, store_server
from tests.support.upstream import Upstream, say

AN_HOUR = 3600.0


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[StoreServer]:
    async with store_server(tmp_path) as server:
        yield server


@pytest.fixture
async def way(store: StoreServer) -> AsyncIterator[Between]:
    async with between(store.port) as made:
        yield made


def member(sidecar: Running) -> UpstreamSync:
    sharing = sidecar.sidecar._sharing
    assert isinstance(sharing, StoreSync)
    (found,) = sharing._members.values()
    return found


async def over(make: Make, upstream: Upstream, port: int, policy: str = "") -> Running:
    """One whose store is at this port; it need not be there."""
    return await make(upstream, policy, top=f"shared: redis://127.0.0.1:{port}", clock=RealClock())


async def refused_once(sidecar: Running, upstream: Upstream, store: StoreServer) -> str:
    """After a refusal of a moment ago; returns the key of the lane."""
    async with refused(sidecar, upstream, 0.01) as waiting:
        assert (await waiting.first()).status == 200
    return await store.key(LANE)


async def is_served(sidecar: Running, number: int = 3) -> None:
    async with asyncio.timeout(8):
        for _ in range(number):
            assert (await sidecar.ask("GET", "/api/x")).status == 200


def _another_gate(deployment: Deployment) -> Deployment:
    (one,) = deployment.upstreams
    policy = replace(one.policy, gate=replace(one.policy.gate, queue=7))
    return replace(deployment, upstreams=(replace(one, policy=policy),))


def _another_budget(deployment: Deployment) -> Deployment:
    (one,) = deployment.upstreams
    policy = replace(one.policy, budget=replace(one.policy.budget, ratio=0.11))
    return replace(deployment, upstreams=(replace(one, policy=policy),))


@pytest.mark.parametrize("change", [_another_gate, _another_budget])
async def test_a_reload_that_changes_the_rules_is_told_of_the_store(
    make: Make, upstream: Upstream, store: StoreServer, change: Callable[[Deployment], Deployment]
) -> None:
    first, second = await replicas(make, upstream, store, clock=RealClock)
    second.sidecar.apply(change(second.sidecar.deployment))
    assert member(second).budget is second.sidecar.listener.router.destinations["api"].budget
    await second.until(lambda: member(second).limiter.shares)
    async with refused(first, upstream, 0.4) as waiting:
        await second.until(lambda: is_gated(second))
        assert (await waiting.first()).status == 200


@pytest.mark.parametrize("garbage", ["[" * 200_000, '{"a":' * 50_000, "1" * 5000], ids=["lists", "maps", "digits"])
async def test_what_cannot_be_read_on_the_channel_is_not_heard(
    make: Make, upstream: Upstream, store: StoreServer, garbage: str
) -> None:
    first, second = await replicas(make, upstream, store, clock=RealClock)
    async with store.client() as client:
        assert await client.publish(member(first).channel, garbage) == 2
    async with refused(first, upstream, 0.4) as waiting:
        await second.until(lambda: is_gated(second))
        assert (await waiting.first()).status == 200


@pytest.mark.parametrize("reply", [b":abc\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"\xff\r\n"])
async def test_one_that_does_not_speak_the_protocol_is_tried_again(
    make: Make, upstream: Upstream, reply: bytes
) -> None:
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.read(4096):
            writer.write(reply)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        one = await over(make, upstream, server.sockets[0].getsockname()[1])
        await one.until(lambda: connections >= 3)
        assert (await one.ask("GET", "/api/x")).status == 200
        assert len(await lines(one, "shared_store_lost")) == 1
        await one.sidecar.stop()


@pytest.mark.parametrize(
    "value",
    [
        {"generation": "77", "share": "x"},
        {"generation": "-1", "next": "9e14"},
    ],
    ids=str,
)
async def test_a_lane_of_no_sense_is_left_alone(
    make: Make, upstream: Upstream, store: StoreServer, value: dict[str, str]
) -> None:
    (one,) = await replicas(make, upstream, store, 1, clock=RealClock)
    key = await refused_once(one, upstream, store)
    async with store.client() as client:
        await client.hset(key, mapping={"rate": "nan", **value})  # type: ignore[dict-item]
        before = (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]
        await is_served(one)
        after = (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert errors(one, "foreign") == 1
    assert after - before < 20


MOMENTS = ["next", "@until", "@since", "@recent", "told"]


@pytest.mark.parametrize(
    ("names", "value"),
    [(["next", "@recent", "told"], "9e14"), (["@until", "@since"], "9e14"), (MOMENTS, "-9e14"), (MOMENTS, "nan")],
    ids=str,
)
async def test_no_moment_under_our_keys_holds_for_good(
    make: Make, upstream: Upstream, store: StoreServer, names: list[str], value: str
) -> None:
    (one,) = await replicas(make, upstream, store, 1, "deadline: 3s", clock=RealClock)
    key = await refused_once(one, upstream, store)
    async with store.client() as client:
        await client.hset(key, mapping=dict.fromkeys(names, value))
        upstream.script(say(429, headers=[("Retry-After", "0.01")]))
        await one.ask("GET", "/api/x")
        assert 0 < await client.pttl(key) <= 2 * AN_HOUR * 1000
    if value != "9e14" or not {"@until", "@since"} & set(names):  # these may ask for quiet, for an hour at the most
        await is_served(one, 1)
    assert is_up(one)


async def test_a_store_whose_clock_is_set_back_holds_nobody(make: Make, upstream: Upstream, store: StoreServer) -> None:
    first, second = await replicas(make, upstream, store, 2, clock=RealClock)
    key = await refused_once(first, upstream, store)
    async with store.client() as client:
        for name, value in (await client.hgetall(key)).items():
            if str(name).startswith("@") or name in ("next", "set", "told"):
                await client.hset(key, name, float(value) + AN_HOUR)
        assert "set" in await client.hgetall(key)
        await is_served(first, 2)
        await is_served(second, 2)
        until = float(str(await client.hget(key, "@until")))
        assert until < time.time() + 1
    assert errors(first, "foreign") == errors(second, "foreign") == 0


async def test_somebody_elses_index_is_not_waited_for(make: Make, upstream: Upstream, store: StoreServer) -> None:
    (one,) = await replicas(make, upstream, store, 1, clock=RealClock)
    key = await refused_once(one, upstream, store)
    async with store.client() as client:
        await client.flushall()
        await client.set(key.removesuffix(OURS) + "lanes", "not ours")
        await is_served(one)
    assert errors(one, "foreign") >= 1


async def test_the_store_holds_so_many_tenants_and_no_more(
    make: Make, upstream: Upstream, store: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.shared.journey.OPERATION_SECONDS", 5.0)  # it is about the number, on any machine
    (one,) = await replicas(make, upstream, store, 1)
    now = one.clock.monotonic()
    pace = rate_limits.begin(now, now + 600, 3, 1.0, slow_start=True)
    await member(one)._tell(KeyNews(f"{n:08x}", Gate(now + 600, now), pace, JUST_BEGUN) for n in range(4500))
    async with store.client() as client:
        found = await client.keys("*:lane:*")
        assert 4000 < len(found) <= 4096
        assert any(str(key).endswith(f"{4499:08x}") for key in found)  # the oldest are forgotten
    limiter = member(one).limiter
    assert len(limiter.all_news(now)) <= 256
    assert list(limiter.wanting(now)) == []


async def test_a_store_a_few_milliseconds_away_is_near_enough(make: Make, upstream: Upstream, way: Between) -> None:
    way.delay_seconds = 0.01
    one = await over(make, upstream, way.port, "attempts: 1\nbreaker: {min_requests: 5}")
    await one.until(lambda: is_up(one))
    refusals = [say(429, headers=[("Retry-After", "0.05")]) for _ in range(FEWEST)]
    upstream.script(*refusals, *[say(500) for _ in range(6)])
    for _ in range(FEWEST + 8):
        await one.ask("GET", "/api/x")
    assert member(one).limiter.closings["gate"] + member(one).limiter.closings["rate"] >= 1
    assert member(one).limiter.closings["breaker"] >= 1
    assert "shared_store_lost" not in one.log.getvalue()


async def test_a_connection_on_which_nothing_is_heard_is_lost(
    make: Make, upstream: Upstream, way: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.shared.store.PING_SECONDS", 0.05)
    one = await over(make, upstream, way.port)
    await one.until(lambda: is_up(one))
    way.mute_ports.add(way.ports[0])  # the other one is for commands
    await one.until(lambda: errors(one, "timeout") >= 1)
    assert len(await lines(one, "shared_store_back")) == 1


@pytest.mark.parametrize("after", [17, 200])
async def test_connections_that_are_cut_anywhere_leave_it_alone_and_sound(
    make: Make, upstream: Upstream, way: Between, after: int
) -> None:
    way.cut_after_bytes = after
    one = await over(make, upstream, way.port)
    await one.until(lambda: len(way.ports) >= 4)
    async with refused(one, upstream, 0.05) as waiting:
        assert (await waiting.first()).status == 200
    await is_served(one, 2)
    way.cut_after_bytes = None
    await one.until(lambda: is_up(one))
    assert not member(one)._task.done()


async def test_many_losses_in_a_row_are_few_lines(make: Make, upstream: Upstream, way: Between) -> None:
    one = await over(make, upstream, way.port)
    for _ in range(4):
        await one.until(lambda: is_up(one))
        way.cut()
        await one.until(lambda: not is_up(one))
    assert len(way.ports) <= 12
    assert one.log.getvalue().count("shared_store_lost") <= 5


async def test_a_stop_does_not_wait_for_a_store_that_hangs(make: Make, upstream: Upstream, store: StoreServer) -> None:
    (one,) = await replicas(make, upstream, store, 1, clock=RealClock)
    store.freeze()
    try:
        async with refused(one, upstream, 0.01):
            begun = time.monotonic()
            await one.sidecar.stop()
            assert time.monotonic() - begun < 1
    finally:
        store.thaw()


async def test_payments_while_it_is_lost_are_nobodys_business(
    make: Make, upstream: Upstream, store: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = "attempts: 2\nbudget: {ratio: 0, min_per_second: 1000}\nbreaker: {min_requests: 1000}"
    (one,) = await replicas(make, upstream, store, 1, policy)
    budget = member(one).budget
    store.freeze()
    try:
        upstream.otherwise = lambda _: say(500)
        while is_up(one):
            await one.ask("GET", "/api/x")
        await one.ask("GET", "/api/x")
        assert budget.paid > 0
        turns = 0
        look = SharedLimiter.ask_store_at

        def counted(limiter: SharedLimiter) -> float:
            nonlocal turns
            turns += 1
            return look(limiter)

        monkeypatch.setattr(SharedLimiter, "ask_store_at", counted)
        for _ in range(20):
            await one.ask("GET", "/api/x")
        assert turns <= 2 * 20
    finally:
        store.thaw()
    await one.until(lambda: is_up(one))
    assert budget.paid == 0
    async with store.client() as client:
        tokens = [await client.hget(key, "tokens") for key in await client.keys("*:budget")]
    assert all(float(str(number)) >= 0 for number in tokens)


def _tls_store(folder: Path, authority: trustme.CA, name: str) -> list[str]:
    certificate = authority.issue_cert(name)
    certificate.private_key_pem.write_to_path(str(folder / "store.key"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "store.crt"))
    authority.cert_pem.write_to_path(str(folder / "ca.crt"))
    files = ("--tls-cert-file", "store.crt", "--tls-key-file", "store.key", "--tls-ca-cert-file", "ca.crt")
    return ["--tls-auth-clients", "no", *(str(folder / it) if it[0] != "-" else it for it in files)]


@pytest.mark.parametrize(
    ("name", "is_known", "comes"),
    [("localhost", True, True), ("localhost", False, False), ("elsewhere.test", True, False)],
)
async def test_through_tls_the_store_is_verified(
    make: Make,
    upstream: Upstream,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    is_known: bool,
    comes: bool,
) -> None:
    authority = trustme.CA()
    async with store_server(tmp_path, tls=_tls_store(tmp_path, authority, name)) as server:
        if is_known:
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.crt"))
        one = await make(upstream, top=f"shared: rediss://localhost:{server.port}", clock=RealClock())
        if comes:
            await one.until(lambda: is_up(one))
            return
        (line,) = await lines(one, "shared_store_lost")
        assert "certificate" in line
        assert not is_up(one)
        assert (await one.ask("GET", "/api/x")).status == 200


async def test_a_debt_is_everybodys_until_it_is_earned(make: Make, upstream: Upstream, store: StoreServer) -> None:
    policy = "attempts: 2\nbudget: {ratio: 0, min_per_second: 1}\nbreaker: {min_requests: 1000}"
    first, second = await replicas(make, upstream, store, 2, policy)
    upstream.otherwise = lambda _: say(500)
    for _ in range(10):  # what both have saved up, paid before either knows of the other
        first.sidecar.listener.router.destinations["api"].budget.pay(1)
        second.sidecar.listener.router.destinations["api"].budget.pay(1)
    for one in (first, second):
        await one.ask("GET", "/api/x")
        await one.until(lambda one=one: member(one).budget.paid == 0)  # type: ignore[misc]
    budget, now = second.sidecar.listener.router.destinations["api"].budget, second.clock.monotonic()
    await second.until(lambda: budget.peek(now + 5) == 0)
    assert budget.peek(now + 12) >= 1
