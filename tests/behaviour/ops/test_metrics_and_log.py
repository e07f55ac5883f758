"""Everything that happened can be seen, in closed words, and no secret with it. DESIGN sections 2 and 8."""

from __future__ import annotations

import json
import re

import pytest

from sidecar.core.enums import FailureKind, Outcome, Reason, WaitFrom
from tests.behaviour.conftest import Make
from tests.support.sidecar import Running
from tests.support.upstream import Upstream, cut_body, refused_port, reset, say

SECRETS = ["hush-bearer", "hush-cookie", "hush-query", "hush-body", "hush-set-cookie", "hush-proxy", "hush-key"]


def lines(sidecar: Running) -> list[dict[str, object]]:
    return [json.loads(line) for line in sidecar.log.getvalue().splitlines()]


async def exchange_lines(sidecar: Running, count: int) -> list[dict[str, object]]:
    def told() -> bool:
        return sidecar.log.getvalue().count('"event":"exchange"') >= count

    await sidecar.until(told)
    return [line for line in lines(sidecar) if line.get("event") == "exchange"]


async def test_the_record_shows_every_attempt(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(reset(), say(503), say(429, headers=[("Retry-After", "2")]), say(200, b"yes"))
    await sidecar.ask("PUT", "/api/v1/x?secret=1", body=b"12345")
    record = await sidecar.record()
    assert [(each.number, each.status, each.failure) for each in record.attempts] == [
        (1, None, FailureKind.RESET),
        (2, 503, None),
        (3, 429, None),
        (4, 200, None),
    ]
    assert [each.wait_from for each in record.attempts] == [None, "backoff", "backoff", "hint"]
    assert (record.method, record.upstream, record.policy, record.status) == ("PUT", "api", "test", 200)
    assert record.path.endswith("/v1/x")
    assert (record.request_bytes, record.response_bytes) == (5, 3)
    assert record.waited_seconds == pytest.approx(sum(sidecar.clock.waits), abs=0.01)
    assert record.duration_seconds >= record.waited_seconds
    assert all(each.duration_seconds >= 0 for each in record.attempts)


async def test_retried_and_failed_exchanges_are_logged_in_one_line_each(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, top="log: {format: json, sample: 0}")
    upstream.script(say(503), say(200))
    await sidecar.ask("GET", "/api/a")
    await sidecar.ask("GET", "/api/quiet")
    upstream.script(reset())
    await sidecar.ask("POST", "/api/b", body=b"1")
    told = await exchange_lines(sidecar, 2)
    assert [line["outcome"] for line in told] == ["recovered", "failed"]
    assert told[1]["reason"] == "not_safe"
    assert isinstance(told[0]["attempts"], list)
    assert len(told[0]["attempts"]) == 2
    assert told[0]["request_id"]
    assert told[0]["upstream"] == "api"


async def test_the_pretty_line_reads_as_the_design_says(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, top="log: {format: pretty}")
    upstream.script(say(503), say(503), say(200))
    await sidecar.ask("GET", "/api/v1/x", [("X-Request-Id", "order-7")])
    await sidecar.until(lambda: "order-7" in sidecar.log.getvalue())
    line = next(line for line in sidecar.log.getvalue().splitlines() if "order-7" in line)
    assert re.search(
        r"GET api \S*/v1/x → 503 ⟲ 0\.1\d?s → 503 ⟲ 0\.2\d?s → 200  recovered in 3 attempts, [\d.]+m?s  \[order-7\]",
        line,
    ), line


async def test_no_secret_is_ever_told(make: Make, upstream: Upstream) -> None:
    policy = "idempotency: {header: Idempotency-Key, methods: [POST]}\nattempts: 2"
    sidecar = await make(upstream, policy, top="log: {format: json, sample: 1}")
    upstream.otherwise = lambda _: say(503, b"hush-body", headers=[("Set-Cookie", "a=hush-set-cookie")])
    sent = [
        ("Authorization", "Bearer hush-bearer"),
        ("Cookie", "session=hush-cookie"),
        ("Proxy-Authorization", "Basic hush-proxy"),
        ("Idempotency-Key", "hush-key"),
    ]
    await sidecar.ask("POST", "/api/x?token=hush-query", sent, b"hush-body")
    await sidecar.ask("GET", "http://user:hush-bearer@api.example/x?k=hush-query", sent, host="api.example")
    await sidecar.ask("GET", "/nowhere?token=hush-query", sent)
    upstream.script(reset(), reset())
    failed = await sidecar.ask("POST", "/api/x?token=hush-query", sent, b"hush-body")
    assert failed.status == 502
    async with sidecar.client() as client:
        await client.send(b"GET /api/x?hush-query HTTP/1.1\r\nHost: a\r\nCookie hush-cookie\r\n\r\n")
        malformed = await client.answer()
    await exchange_lines(sidecar, 3)
    pages = [await sidecar.admin(path) for path in ("/metrics", "/config", "/debug/exchanges", "/", "/readyz?verbose")]
    told = [sidecar.log.getvalue(), failed.body.decode(), malformed.body.decode(), repr(sidecar.records)]
    told += [page.body.decode() for page in pages]
    told += [failed.head.decode(), malformed.head.decode()]
    for secret in SECRETS:
        assert not any(secret in text for text in told), secret


async def test_hostile_text_stays_one_line(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, top="log: {format: json, sample: 1}")
    upstream.otherwise = lambda _: say(503)
    target = "/api/%0a%1b[31m\"'{}" + "x" * 10_000
    await sidecar.ask("GET", target)
    [line] = await exchange_lines(sidecar, 1)
    assert len(json.dumps(line)) < 6000
    assert "\x1b" not in sidecar.log.getvalue()


async def test_counters_tell_the_story_in_closed_words(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempts: 3")
    upstream.script(say(200), say(503), say(200), say(503), say(503), say(503), reset(), say(404))
    await sidecar.ask("GET", "/api/ok")
    await sidecar.ask("GET", "/api/recovered")
    await sidecar.ask("GET", "/api/exhausted")
    await sidecar.ask("POST", "/api/failed", body=b"1")
    await sidecar.ask("GET", "/api/passed")
    await sidecar.record(5)

    async def count(line: str) -> float:
        return await sidecar.metric(line)

    for outcome, method in [
        ("ok", "GET"),
        ("recovered", "GET"),
        ("exhausted", "GET"),
        ("passed", "GET"),
        ("failed", "POST"),
    ]:
        assert await count(f'sidecar_requests_total{{upstream="api",method="{method}",outcome="{outcome}"}}') == 1
    assert await count('sidecar_attempts_total{upstream="api",result="200"}') == 2
    assert await count('sidecar_attempts_total{upstream="api",result="503"}') == 4
    assert await count('sidecar_attempts_total{upstream="api",result="reset"}') == 1
    assert await count('sidecar_retries_total{upstream="api",cause="503"}') == 3
    assert await count('sidecar_retries_suppressed_total{upstream="api",reason="attempts"}') == 1
    assert await count('sidecar_retries_suppressed_total{upstream="api",reason="not_safe"}') == 1
    assert await count('sidecar_wait_seconds_count{upstream="api",from="backoff"}') == 3
    assert await count('sidecar_request_duration_seconds_count{upstream="api",outcome="ok"}') == 1
    assert await count('sidecar_attempt_duration_seconds_count{upstream="api"}') == 8
    assert await count("sidecar_inflight_requests") == 0
    assert await count("sidecar_buffered_bytes") == 0


async def test_strangers_never_become_labels(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, policies={"default": "attempts: 1"})
    for number in range(30):
        host = f"127.0.0.{number + 2}:{upstream.port}"
        await sidecar.ask(f"METHOD{number}", f"http://{host}/p{number}", [("X-Request-Id", f"id{number}")], host=host)
    text = (await sidecar.admin("/metrics")).body.decode()
    assert "127.0.0." not in text
    assert "METHOD1" not in text
    assert "id1" not in text
    assert 'upstream="unknown"' in text


async def test_every_label_value_is_from_a_closed_list(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(reset(), say(503), say(200), cut_body(b"x", length=9))
    await sidecar.ask("GET", "/api/x")
    await sidecar.ask("GET", "/api/x")
    await sidecar.ask("GET", "/nowhere")
    text = (await sidecar.admin("/metrics")).body.decode()
    allowed = {
        "outcome": set(map(str, Outcome)),
        "reason": set(map(str, Reason)),
        "from": set(map(str, WaitFrom)),
        "upstream": {"api", "unknown", "none", ""},
    }
    for name, values in allowed.items():
        found = set(re.findall(rf'[{{,]{name}="([^"]*)"', text))
        assert found <= values, (name, found - values)
    for result in re.findall(r'result="([^"]*)"', text):
        assert re.fullmatch(r"[1-5]\d\d|other", result) or result in set(map(str, FailureKind))


async def test_the_page_of_exchanges_shows_the_attempts(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503), say(200))
    await sidecar.ask("GET", "/api/x", [("X-Request-Id", "order-7")])
    await sidecar.record()
    answer = await sidecar.admin("/debug/exchanges?id=order-7")
    assert answer.status == 200
    text = answer.body.decode()
    assert "order-7" in text
    assert "recovered" in text
    assert json.loads(text)


async def test_readiness_does_not_depend_on_upstreams(make: Make) -> None:
    sidecar = await make(refused_port(), "attempts: 1")
    await sidecar.ask("GET", "/api/x")
    for path in ("/livez", "/readyz", "/healthz", "/readyz?verbose"):
        assert (await sidecar.admin(path)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "127.1",
        "0x7f000001",
        "2130706433",
        "0.0.0.0",  # noqa: S104 - dialled, not bound
        "0",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::1]",
        "[::]",
    ],
)
@pytest.mark.parametrize("which", ["admin", "listen"])
async def test_our_own_ports_cannot_be_reached_through_the_proxy(
    make: Make, upstream: Upstream, host: str, which: str
) -> None:
    """Whatever the address is called: threats rows 56, 68 and 90."""
    sidecar = await make(upstream, "attempts: 1", policies={"default": "attempts: 1"})
    address = sidecar.sidecar.admin_address if which == "admin" else sidecar.sidecar.address
    named = f"{host}:{address.port}"
    answer = await sidecar.ask("GET", f"http://{named}/metrics", host=named)
    assert answer.status in (400, 403, 502, 508)
    assert b"sidecar_requests_total" not in answer.body
    assert len(sidecar.records) <= 2
