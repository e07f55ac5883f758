"""What an operator may do to a running sidecar, over sockets."""

from __future__ import annotations

import asyncio
import json

from tests.behaviour.conftest import Make
from tests.support.refusals import FEWEST
from tests.support.upstream import Upstream, say


async def test_with_retries_off_the_first_answer_is_the_last(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    said = await sidecar.change("/-/retries/off?upstream=api")
    assert (said.status, said.body) == (200, b"api: retries are off\n")
    upstream.script(say(503), say(503))
    answer = await sidecar.ask("GET", "/api/x")
    assert answer.status == 503
    assert "outcome=exhausted, attempts=1, reason=switched_off" in (answer.headers.get("Sidecar") or "")
    assert await sidecar.metric('sidecar_retries_suppressed_total{upstream="api",reason="switched_off"}') == 1
    assert await sidecar.metric('sidecar_retries_off{upstream="api"}') == 1
    assert await sidecar.metric('sidecar_retries_off{upstream="unknown"}') == 0
    await sidecar.change("/-/retries/on")
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, len(upstream.requests)) == (200, 3)
    assert await sidecar.metric('sidecar_retries_off{upstream="api"}') == 0
    events = [json.loads(line)["event"] for line in sidecar.log.getvalue().splitlines() if "retries_o" in line]
    assert events == ["retries_off", "retries_on"]


async def test_it_can_be_seen_wherever_somebody_looks(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    await sidecar.change("/-/retries/off?for=10m")
    told = {each["name"]: each for each in json.loads((await sidecar.admin("/debug/numbers")).body)["upstreams"]}
    assert told["api"]["state"] == "flowing"
    assert 590 < told["api"]["retries_off"]["seconds"] <= 600
    assert b"[+]retries ok: turned off for api, unknown" in (await sidecar.admin("/readyz?verbose")).body
    assert (await sidecar.admin("/-/retries")).body.startswith(b"api: retries are off for ")
    await sidecar.change("/-/retries/off?upstream=api")
    told = {each["name"]: each for each in json.loads((await sidecar.admin("/debug/numbers")).body)["upstreams"]}
    assert told["api"]["retries_off"] == {"seconds": None}


async def test_they_are_on_again_when_the_time_is_over(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    await sidecar.change("/-/retries/off?for=50ms")
    await sidecar.until(lambda: "its time is over" in sidecar.log.getvalue())
    upstream.script(say(503))
    assert (await sidecar.ask("GET", "/api/x")).status == 200
    assert await sidecar.metric('sidecar_retries_off{upstream="api"}') == 0


async def test_a_reload_leaves_them_off(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    await sidecar.change("/-/retries/off")
    sidecar.sidecar.apply(sidecar.sidecar.deployment)
    upstream.script(say(503))
    assert (await sidecar.ask("GET", "/api/x")).status == 503


async def test_what_waits_for_its_retry_is_not_sent_after_it(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503, b"kept"))
    sidecar.clock.hold()
    asking = asyncio.create_task(sidecar.ask("GET", "/api/x"))
    await sidecar.clock.sleeping()
    await sidecar.change("/-/retries/off")
    sidecar.clock.release()
    answer = await asking
    assert (answer.status, answer.body, len(upstream.requests)) == (503, b"kept", 1)
    assert "attempts=1" in (answer.headers.get("Sidecar") or "")
    assert "reason=switched_off" in (answer.headers.get("Sidecar") or "")


async def test_it_works_while_draining_and_twice_at_once(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    sidecar.sidecar.listener.drain()
    said = await asyncio.gather(*(sidecar.change(f"/-/retries/{to}") for to in ("off", "on", "off", "off")))
    assert [answer.status for answer in said] == [200] * 4


async def test_open_lets_go_whoever_is_held_and_forgets_why(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(*[say(429, headers=[("Retry-After", "30")]) for _ in range(FEWEST)])
    for _ in range(FEWEST):
        await sidecar.ask("GET", "/api/x", [("Sidecar-Timeout", "1s")])
    held = [asyncio.create_task(sidecar.ask("GET", "/api/x")) for _ in range(3)]
    await sidecar.until(lambda: sidecar.held("gate") == 3)
    said = await asyncio.gather(*(sidecar.change("/-/open?upstream=api") for _ in range(2)))
    assert sorted(answer.body for answer in said) == [
        b"opened api: 0 exchanges were held\n",
        b"opened api: 3 exchanges were held\n",
    ]
    assert [(await each).status for each in held] == [200, 200, 200]
    assert (await sidecar.ask("GET", "/api/x")).status == 200
    assert sidecar.holds() == []
    assert [hold.by for hold in sidecar.records[-1].held] == []
    assert await sidecar.metric('sidecar_opened_total{upstream="api"}') == 2
    events = [json.loads(line) for line in sidecar.log.getvalue().splitlines() if '"opened"' in line]
    assert [event["released"] for event in events] == [3, 0]


async def test_open_closes_a_breaker(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempts: 1\nbreaker: {min_requests: 5, when_open: fail}")
    upstream.otherwise = lambda _: say(500)
    while (await sidecar.ask("GET", "/api/x")).status == 500:
        pass
    assert await sidecar.metric('sidecar_breaker_state{upstream="api"}') == 2
    assert await sidecar.metric('sidecar_flow_changes_total{upstream="api",by="breaker",to="hold"}') == 1
    await sidecar.change("/-/open")
    assert await sidecar.metric('sidecar_breaker_state{upstream="api"}') == 0
    assert await sidecar.metric('sidecar_flow_changes_total{upstream="api",by="breaker",to="release"}') == 1
    events = [json.loads(line)["event"] for line in sidecar.log.getvalue().splitlines() if '"breaker"' in line]
    assert [event for event in events if event != "exchange"] == ["hold", "release"]
    upstream.otherwise = lambda _: say(200)
    assert (await sidecar.ask("GET", "/api/x")).status == 200


async def test_nothing_to_open_is_nothing_wrong(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    assert (await sidecar.change("/-/open")).body == b"opened all upstreams: 0 exchanges were held\n"
    sidecar.sidecar.listener.drain()
    assert (await sidecar.change("/-/open?upstream=unknown")).status == 200
