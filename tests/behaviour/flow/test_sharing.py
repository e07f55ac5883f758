"""What one replica learns holds for all that share a store; without the store each goes on alone. DESIGN section 5.

Sidecars and upstream over real sockets, the store is a real Redis, killed, frozen, filled and started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.app import CannotListen
from tests.behaviour.conftest import Make
from tests.support.client import Answer
from tests.support.clock import ManualClock, RealClock
from tests.support.refusals import FEWEST, refused, refused_for_good
from tests.support.sidecar import Running
from tests.support.store import StoreServer, store_server
from tests.support.upstream import Connection, Step, Upstream, say

QUIET = 0.4
OURS = "lane:endpoint:GET /api/x"
"""What the store calls the endpoint that is refused in most of these tests."""
LANE = f"*:{OURS}"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[StoreServer]:
    async with store_server(tmp_path) as server:
        yield server


def is_up(sidecar: Running) -> bool:
    meters = sidecar.sidecar.metrics.shared
    return meters is not None and meters.up


def errors(sidecar: Running, fault: str) -> int:
    meters = sidecar.sidecar.metrics.shared
    assert meters is not None
    return meters.errors[fault]


def is_gated(sidecar: Running) -> bool:
    return any(hold["by"] == "gate" for hold in sidecar.holds())


def gates_closed(sidecar: Running) -> int:
    limiter = sidecar.sidecar.listener.router.destinations["api"].holding.limiter
    return limiter.gates_closed(sidecar.clock.monotonic())


def breaker_state(sidecar: Running) -> int:
    return 2 if any(hold["by"] == "breaker" for hold in sidecar.holds()) else 0


async def replicas(
    make: Make,
    upstream: Upstream,
    store: StoreServer,
    count: int = 2,
    policy: str = "",
    clock: type[ManualClock] = ManualClock,
) -> list[Running]:
    """So many, each with a clock of its own, all connected to the store."""
    made = [
        await make(upstream, policy, top=f"shared: {store.url}", clock=clock(), chance=0.1 + number / 10)
        for number in range(count)
    ]
    for one in made:
        await one.until(lambda one=one: is_up(one))  # type: ignore[misc]
    return made


async def lines(sidecar: Running, event: str, number: int = 1) -> list[str]:
    """The log's lines of this event, once there are so many."""
    found: list[str] = []

    def there() -> bool:
        found[:] = [line for line in sidecar.log.getvalue().splitlines() if f'"{event}"' in line]
        return len(found) >= number

    await sidecar.until(there)
    return found


async def test_one_replicas_429_holds_all(make: Make, upstream: Upstream, store: StoreServer) -> None:
    first, second = await replicas(make, upstream, store, clock=RealClock)
    async with refused(first, upstream, QUIET, "/api/things/1") as waiting:
        await second.until(lambda: is_gated(second))
        answer = await second.ask("GET", "/api/things/2")
        told = upstream.requests[FEWEST - 1].at
        sent = next(request.at for request in upstream.requests if request.target.endswith("/things/2"))
        assert answer.status == 200
        assert sent >= told + QUIET
        assert (await second.ask("GET", "/api/elsewhere")).status == 200
        assert (await waiting.first()).status == 200


async def test_what_one_replica_knows_of_the_whole_upstream_holds_for_all(
    make: Make, upstream: Upstream, store: StoreServer
) -> None:
    first, second = await replicas(make, upstream, store, 2, "deadline: 5s\nmax_wait: 100s")
    await refused_for_good(first, upstream, "/api/one")
    await second.until(lambda: is_gated(second))
    assert (await second.ask("GET", "/api/three")).status == 200
    await refused_for_good(first, upstream, "/api/two", number=1)
    await store.key("*:lane:all")
    await second.until(lambda: gates_closed(second) == 2)
    answer = await second.ask("GET", "/api/three")
    assert (answer.status, "reason=gate" in (answer.headers.get("Sidecar") or "")) == (429, True)


async def test_a_replica_that_starts_later_is_told(make: Make, upstream: Upstream, store: StoreServer) -> None:
    (first,) = await replicas(make, upstream, store, 1, "deadline: 5s\nmax_wait: 100s")
    await refused_for_good(first, upstream)
    await store.key(LANE)
    (late,) = await replicas(make, upstream, store, 1, "deadline: 5s\nmax_wait: 100s")
    answer = await late.ask("GET", "/api/x")
    assert (answer.status, "reason=gate" in (answer.headers.get("Sidecar") or "")) == (429, True)
    assert len(upstream.requests) == FEWEST


async def test_tenants_are_told_apart_alike_by_all(make: Make, upstream: Upstream, store: StoreServer) -> None:
    first, second = await replicas(make, upstream, store, 2, "gate: {key: [X-Tenant]}\ndeadline: 5s")
    await refused_for_good(first, upstream, headers=[("X-Tenant", "secret-a")])
    await second.until(lambda: is_gated(second))
    assert (await second.ask("GET", "/api/x", [("X-Tenant", "secret-a")])).status == 429
    assert (await second.ask("GET", "/api/x", [("X-Tenant", "secret-b")])).status == 200
    assert len(upstream.requests) == FEWEST + 1
    async with store.client() as client:
        assert not [key for key in await client.keys("*") if "secret" in key]


async def test_together_they_meet_one_quota_once(make: Make, upstream: Upstream, store: StoreServer) -> None:
    rate, burst, count = 100.0, 10.0, 240
    bucket = {"tokens": burst, "at": time.monotonic(), "refused": 0.0}

    def answer(_: Connection) -> Step:
        now = time.monotonic()
        bucket["tokens"] = min(burst, bucket["tokens"] + (now - bucket["at"]) * rate)
        bucket["at"] = now
        if bucket["tokens"] < 1:
            bucket["refused"] += 1
            return say(429, headers=[("Retry-After", "0.5")])
        bucket["tokens"] -= 1
        return say(200)

    upstream.otherwise = answer
    many = await replicas(make, upstream, store, 4, clock=RealClock)
    left = iter(range(count))

    async def work(sidecar: Running) -> list[Answer]:
        async with sidecar.client() as client:
            return [await client.ask("GET", f"/api/{number}") for number in left]

    workers = [asyncio.create_task(work(sidecar)) for sidecar in many for _ in range(10)]
    answers = [answer for task in workers for answer in await task]
    assert [answer.status for answer in answers] == [200] * count
    # The first burst cannot be known: forty at once. Then each concludes nothing before twenty answers of its own.
    assert bucket["refused"] <= 4 * FEWEST


async def test_one_replicas_breaker_is_everybodys(make: Make, upstream: Upstream, store: StoreServer) -> None:
    first, second = await replicas(make, upstream, store, 2, "attempts: 1\nbreaker: {min_requests: 5}")
    upstream.otherwise = lambda _: say(500)
    for _ in range(5):
        await first.ask("GET", "/api/x")
    assert breaker_state(first) == 2
    await second.until(lambda: breaker_state(second) == 2)
    before = len(upstream.requests)
    upstream.otherwise = lambda _: say(200)
    held = [asyncio.create_task(second.ask("GET", "/api/held")) for _ in range(5)]
    assert [answer.status for answer in await asyncio.gather(*held)] == [200] * 5
    await first.until(lambda: breaker_state(first) == 0)
    assert len(upstream.requests) >= before + 5


async def test_what_is_broken_on_one_replicas_way_does_not_stop_the_others(
    make: Make, upstream: Upstream, store: StoreServer
) -> None:
    first, second = await replicas(make, upstream, store, 2, "attempts: 1\nbreaker: {min_requests: 5}")
    for _ in range(3):
        assert (await second.ask("GET", "/api/x")).status == 200
    upstream.otherwise = lambda _: say(500)
    for _ in range(5):
        await first.ask("GET", "/api/x")
    upstream.otherwise = lambda _: say(200)
    assert breaker_state(first) == 2
    await store.key("*:breaker")
    for _ in range(3):
        answer = await second.ask("GET", "/api/x")
        assert (answer.status, breaker_state(second)) == (200, 0)


async def test_retries_are_paid_from_one_budget(make: Make, upstream: Upstream, store: StoreServer) -> None:
    policy = "attempts: 2\nbudget: {ratio: 0, min_per_second: 1}\nbreaker: {min_requests: 1000}"
    first, second = await replicas(make, upstream, store, 2, policy)
    upstream.otherwise = lambda _: say(500)
    for _ in range(10):
        await first.ask("GET", "/api/x")
    budget = first.sidecar.listener.router.destinations["api"].budget
    await first.until(lambda: budget.paid == 0)
    assert "reason=attempts" in ((await second.ask("GET", "/api/x")).headers.get("Sidecar") or "")
    other = second.sidecar.listener.router.destinations["api"].budget
    await second.until(lambda: other.paid == 0 and other.peek(second.clock.monotonic()) < 1)
    assert "reason=budget" in ((await second.ask("GET", "/api/x")).headers.get("Sidecar") or "")


async def test_every_key_has_a_time_to_live(make: Make, upstream: Upstream, store: StoreServer) -> None:
    policy = "attempts: 2\nbreaker: {min_requests: 5}\ngate: {key: [X-Tenant]}"
    first, second = await replicas(make, upstream, store, 2, policy)
    async with refused(first, upstream, 0.01, headers=[("X-Tenant", "a")]) as waiting:
        assert (await waiting.first()).status == 200
    upstream.otherwise = lambda _: say(500)
    for _ in range(6):
        await first.ask("GET", "/api/x", [("X-Tenant", "a")])
    await second.until(lambda: breaker_state(second) == 2)
    budget = first.sidecar.listener.router.destinations["api"].budget
    await first.until(lambda: budget.paid == 0)
    async with store.client() as client:
        living = {key: await client.pttl(key) for key in await client.keys("*")}
    kinds = {str(key).rpartition("}:")[2].partition(":")[0] for key in living}
    assert {"lane", "lanes", "breaker", "budget", "sidecar"} <= kinds
    assert min(living.values()) > 0, living


async def test_killed_and_started_again(make: Make, upstream: Upstream, store: StoreServer) -> None:
    first, second = await replicas(make, upstream, store, clock=RealClock)
    await store.kill()
    for one in (first, second):
        await one.until(lambda one=one: not is_up(one))  # type: ignore[misc]
        assert len(await lines(one, "shared_store_lost")) == 1
    upstream.script(say(429, headers=[("Retry-After", "0.05")]))
    assert (await first.ask("GET", "/api/x")).status == 200
    assert (await second.ask("GET", "/api/x")).status == 200
    assert await first.metric("sidecar_shared_store_up") == 0
    await store.start()
    for one in (first, second):
        await one.until(lambda one=one: is_up(one))  # type: ignore[misc]
        assert len(await lines(one, "shared_store_back")) == 1
        assert len(await lines(one, "shared_store_lost")) == 1
    assert await first.metric("sidecar_shared_store_up") == 1
    async with refused(first, upstream, QUIET) as waiting:
        await second.until(lambda: is_gated(second))
        assert (await waiting.first()).status == 200


async def test_a_store_that_hangs_delays_nobody(make: Make, upstream: Upstream, store: StoreServer) -> None:
    (one,) = await replicas(make, upstream, store, 1)
    store.freeze()
    try:
        for _ in range(20):  # in calm nobody asks it
            assert (await one.ask("GET", "/api/x")).status == 200
        assert is_up(one)
        async with refused(one, upstream, 0.05) as waiting:
            begun = time.monotonic()
            assert (await waiting.first()).status == 200
            # The hint, and one question of a tenth of a second that nobody answers.
            assert time.monotonic() - begun < 1
        await one.until(lambda: not is_up(one))
        assert errors(one, "timeout") >= 1
        assert len(await lines(one, "shared_store_lost")) == 1
    finally:
        store.thaw()
    await one.until(lambda: is_up(one))


async def test_a_store_that_is_full_is_said_once(make: Make, upstream: Upstream, store: StoreServer) -> None:
    (one,) = await replicas(make, upstream, store, 1)
    async with store.client() as client:
        await client.config_set("maxmemory", "1")
        async with refused(one, upstream, 0.05) as waiting:
            assert (await waiting.first()).status == 200
        await one.until(lambda: errors(one, "full") >= 3)
        assert len(await lines(one, "shared_store_lost")) == 1
        assert not is_up(one)
        assert (await one.ask("GET", "/api/x")).status == 200
        await client.config_set("maxmemory", "0")
    await one.until(lambda: is_up(one))


async def test_somebody_elses_data_under_our_keys_is_left_alone(
    make: Make, upstream: Upstream, store: StoreServer
) -> None:
    (scout,) = await replicas(make, upstream, store, 1)
    prefix = await _prefix(scout, upstream, store)
    async with store.client() as client:
        await client.flushall()
        theirs = {OURS: "not ours", "lanes": "nor this", "breaker": "nor that", "budget": "none of them"}
        for name, text in theirs.items():
            await client.set(prefix + name, text)
        await client.hset("sidecar:salt", "field", "not ours either")
        (one,) = await replicas(make, upstream, store, 1)
        async with refused(one, upstream, 0.05) as waiting:
            upstream.script(say(500))
            assert (await waiting.first()).status == 200
        until = '{"kind": "lane", "lane": "endpoint:GET /api/x", "fields": {"@until": "1e999"}}'
        for garbage in ("", "{", "[]", until, "\xff\x00"):
            await client.publish(f"{prefix}news:0", garbage)
            await client.publish(f"{prefix}news:0", '{"kind": "breaker", "fields": {"open": "1", "@opened": "soon"}}')
        await one.until(lambda: errors(one, "foreign") >= 3)
        assert (await one.ask("GET", "/api/x")).status == 200
        assert is_up(one)
        for name, text in theirs.items():
            assert await client.get(prefix + name) == text
        assert await client.hget("sidecar:salt", "field") == "not ours either"
    assert not await scout.metric('sidecar_requests_total{upstream="api",method="GET",outcome="failed"}')


async def _prefix(sidecar: Running, upstream: Upstream, store: StoreServer) -> str:
    async with refused(sidecar, upstream, 0.01) as waiting:
        assert (await waiting.first()).status == 200
    return (await store.key(LANE)).removesuffix(OURS)


async def test_a_store_that_is_emptied_is_told_again(make: Make, upstream: Upstream, store: StoreServer) -> None:
    first, _ = await replicas(make, upstream, store)
    await _prefix(first, upstream, store)
    async with store.client() as client:
        await client.flushall()
        for _ in range(3):
            assert (await first.ask("GET", "/api/x")).status == 200
        await store.key(LANE)


async def test_one_that_is_not_there_at_the_start_keeps_nobody_from_serving(
    make: Make, upstream: Upstream, tmp_path: Path
) -> None:
    server = StoreServer(tmp_path)
    one = await make(upstream, top=f"shared: {server.url}", clock=ManualClock())
    assert (await one.ask("GET", "/api/x")).status == 200
    assert len(await lines(one, "shared_store_lost")) == 1
    ready = await one.admin("/readyz?verbose")
    assert (ready.status, b"goes on alone" in ready.body) == (200, True)
    await server.start()
    try:
        await one.until(lambda: is_up(one))
    finally:
        await server.kill()


async def test_its_password_comes_by_reference_and_is_shown_nowhere(
    make: Make, upstream: Upstream, tmp_path: Path
) -> None:
    async with store_server(tmp_path, "hush-hush") as server:
        url = f"redis://:hush-hush@127.0.0.1:{server.port}"
        one = await make(upstream, top="shared: env:STORE_URL", environ={"STORE_URL": url}, clock=ManualClock())
        await one.until(lambda: is_up(one))
        wrong = url.replace("hush-hush", "wrong-word")
        other = await make(upstream, top="shared: env:STORE_URL", environ={"STORE_URL": wrong}, clock=ManualClock())
        (line,) = await lines(other, "shared_store_lost")
        assert "password" in line
        for sidecar in (one, other):
            shown = sidecar.log.getvalue() + (await sidecar.admin("/config")).body.decode()
            shown += (await sidecar.admin("/metrics")).body.decode() + repr(sidecar.sidecar.deployment)
            assert "hush-hush" not in shown
            assert "wrong-word" not in shown


async def test_without_the_extra_it_says_what_to_install(
    make: Make, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(("redis", "sidecar.shared.s"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(CannotListen, match=r"pip install 'retry-sidecar\[redis\]'"):
        await make(upstream, top="shared: redis://127.0.0.1:1")


async def test_a_reload_keeps_the_store_and_what_is_known(make: Make, upstream: Upstream, store: StoreServer) -> None:
    first, second = await replicas(make, upstream, store, clock=RealClock)
    for one in (first, second):
        one.sidecar.apply(one.sidecar.deployment)
    async with refused(first, upstream, QUIET) as waiting:
        with contextlib.closing(second.log):
            await second.until(lambda: is_gated(second))
        assert (await waiting.first()).status == 200
