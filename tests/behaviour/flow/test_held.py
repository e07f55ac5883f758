"""Every second that an exchange stood still is told: in record, header, log and metrics. DESIGN section 5."""

from __future__ import annotations

import asyncio
import json
import math

from sidecar.observe.record import ExchangeRecord
from tests.behaviour.conftest import Make
from tests.support.client import request_bytes
from tests.support.refusals import FEWEST
from tests.support.sidecar import Running
from tests.support.upstream import Live, Upstream, say

QUIET = 0.3
SCOPES = ("upstream", "endpoint GET /api/x")


async def gates(sidecar: Running) -> float:
    kinds = ("endpoint", "key", "upstream")
    return sum([await sidecar.metric(f'sidecar_gates_closed{{upstream="api",scope="{kind}"}}') for kind in kinds])


async def closed(sidecar: Running, upstream: Upstream, seconds: float = QUIET) -> None:
    """The gate of GET /x is closed for so long: enough have been told so, and were handed it."""
    upstream.script(*[say(429, headers=[("Retry-After", str(seconds))]) for _ in range(FEWEST)])
    for _ in range(FEWEST):
        await sidecar.ask("GET", "/api/x", [("Sidecar-Timeout", f"{seconds * 0.8}s")])


def adds_up(record: ExchangeRecord) -> bool:
    parts = [hold.seconds for hold in record.held] + [attempt.waited_seconds for attempt in record.attempts]
    return math.isclose(sum(parts), record.waited_seconds, abs_tol=1e-9)


async def test_a_hold_is_told_everywhere(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    await closed(sidecar, upstream)
    answer = await sidecar.ask("GET", "/api/x")
    record = sidecar.records[-1]
    [hold] = record.held
    assert (hold.by, hold.scope in SCOPES, hold.before) == ("gate", True, 1)
    assert 0.2 < hold.seconds <= record.waited_seconds <= record.duration_seconds
    assert adds_up(record)
    assert answer.headers.get("Sidecar") == f"outcome=ok, attempts=1, waited={record.waited_seconds:.3f}"
    assert await sidecar.metric('sidecar_wait_seconds_count{upstream="api",from="gate"}') == 1
    assert 0.2 < await sidecar.metric('sidecar_wait_seconds_sum{upstream="api",from="gate"}') <= hold.seconds + 1e-6
    assert await sidecar.metric("sidecar_overhead_seconds_sum") < 0.2


async def test_the_state_of_an_upstream_is_one_true_word(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)

    async def told() -> dict[str, object]:
        upstreams = json.loads((await sidecar.admin("/debug/numbers")).body)["upstreams"]
        found: dict[str, object] = next(each for each in upstreams if each["name"] == "api")
        return found

    assert ((await told())["state"], (await told())["holds"]) == ("flowing", [])
    await closed(sidecar, upstream, 20)
    before = await told()
    [hold] = sidecar.holds()
    assert (before["state"], hold["by"], hold["scope"] in SCOPES) == ("gate", "gate", True)
    assert isinstance(hold["seconds"], float)
    assert 15 < hold["seconds"] <= 20
    assert await gates(sidecar) == 1
    sidecar.clock.advance(30)
    assert (await told())["state"] == "flowing", "a gate opens by itself, also while nobody comes"
    assert sidecar.holds() == []
    assert await gates(sidecar) == 0


async def test_an_app_that_leaves_takes_along_what_it_was_held_by(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    await closed(sidecar, upstream, 20)
    count = len(sidecar.records)
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x"))
        await sidecar.until(lambda: sidecar.held("gate") == 1)
    record = await sidecar.record(count + 1)
    assert (record.outcome, [hold.by for hold in record.held], adds_up(record)) == ("client_gone", ["gate"], True)
    shown = json.loads((await sidecar.admin("/debug/exchanges?outcome=client_gone")).body)["exchanges"][0]
    assert shown["held"][0]["scope"] in SCOPES


async def test_a_wait_that_led_to_no_retry_is_told_too(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503))
    sidecar.clock.hold()
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x"))
        await sidecar.clock.sleeping()
    record = await sidecar.record()
    assert (record.outcome, [(hold.by, hold.before) for hold in record.held]) == ("client_gone", [("backoff", 2)])
    assert adds_up(record)


async def test_a_full_pool_is_a_wait_for_a_connection(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, more="    connections: 1")
    first = Live()
    upstream.script(first)
    one = asyncio.create_task(sidecar.ask("GET", "/api/one"))
    connection = await first.here()
    two = asyncio.create_task(sidecar.ask("GET", "/api/two"))
    await sidecar.until(lambda: sidecar.held("connection") == 1)
    await connection.read_request()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    first.over()
    await asyncio.gather(one, two)
    record = next(record for record in sidecar.records if record.path.endswith("/two"))
    assert [hold.by for hold in record.held] == ["connection"]
    assert adds_up(record)


async def test_our_own_answer_says_why_in_the_log(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "deadline: 5s\nmax_wait: 100s")
    await closed(sidecar, upstream, 60)
    assert (await sidecar.ask("GET", "/api/x")).status == 429
    assert (await sidecar.ask("GET", "/nowhere")).status == 404
    shown = json.loads((await sidecar.admin("/debug/exchanges?outcome=rejected")).body)["exchanges"]
    assert [(each["status"], each["code"]) for each in shown] == [(404, "mount"), (429, "gate")]


async def test_a_post_that_could_not_be_repeated_is_not_exhausted(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503))
    answer = await sidecar.ask("POST", "/api/x", body=b"{}")
    assert answer.headers.get("Sidecar") == "outcome=passed, attempts=1, reason=not_safe"
    assert (await sidecar.record()).outcome == "passed"
