"""One deadline over everything: no wait and no attempt goes on after it. DESIGN section 4."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.behaviour.conftest import Make
from tests.support.client import request_bytes
from tests.support.sidecar import SHORT
from tests.support.upstream import Live, Upstream, hang, head_bytes, say


async def test_a_wait_that_would_end_after_the_deadline_does_not_begin(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "deadline: 5s")
    upstream.script(say(503, b"later", headers=[("Retry-After", "6")]), say(200))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.body) == (503, b"later")
    assert sidecar.clock.waits == []
    record = await sidecar.record()
    assert (record.outcome, record.reason) == ("exhausted", "deadline")


async def test_retries_end_with_the_deadline(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "deadline: 1s\nattempts: 50", quick=SHORT)
    upstream.otherwise = lambda _: say(503)
    answer = await sidecar.ask("GET", "/api/x")
    assert answer.status == 503
    record = await sidecar.record()
    assert record.reason == "deadline"
    assert len(upstream.requests) == 4  # 0.1 + 0.2 + 0.4 s of waits; 0.8 more would be too long
    assert sum(sidecar.clock.waits) < 1


async def test_an_attempt_is_cut_at_the_deadline_and_answered_504(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "deadline: 10s\nattempt: {connect: 100ms, head: 10s, idle: 10s}", quick="")
    upstream.script(hang())
    began = time.monotonic()
    answer = await sidecar.ask("GET", "/api/x", [("Sidecar-Timeout", "200ms")])
    assert answer.status == 504
    assert 0.15 < time.monotonic() - began < 2
    record = await sidecar.record()
    assert record.outcome == "failed"
    await upstream.until(upstream.requests[0].gone.is_set)


async def test_a_hanging_upstream_is_given_up_after_the_head_timeout(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(hang(), say(200, b"yes"))
    assert (await sidecar.ask("GET", "/api/x")).body == b"yes"
    await upstream.until(upstream.requests[0].gone.is_set)
    record = await sidecar.record()
    assert record.attempts[0].failure == "head_timeout"


async def test_the_last_attempt_may_use_all_that_is_left(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempts: 1\ndeadline: 600ms", quick=SHORT)
    upstream.script(hang())
    began = time.monotonic()
    assert (await sidecar.ask("GET", "/api/x")).status == 504
    assert time.monotonic() - began < 2


async def test_a_post_whose_answer_never_comes_gets_504(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(hang())
    assert (await sidecar.ask("POST", "/api/x", body=b"one")).status == 504
    assert (await sidecar.record()).reason == "not_safe"


@pytest.mark.parametrize("text", ["1s", "1000ms"])
async def test_the_app_may_shorten_the_deadline(make: Make, upstream: Upstream, text: str) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503, headers=[("Retry-After", "2")]))
    answer = await sidecar.ask("GET", "/api/x", [("Sidecar-Timeout", text)])
    assert answer.status == 503
    assert (await sidecar.record()).reason == "deadline"
    assert "Sidecar-Timeout" not in upstream.requests[0].headers


async def test_the_app_may_not_lengthen_the_deadline(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "deadline: 1s", quick=SHORT)
    upstream.script(say(503, headers=[("Retry-After", "2")]))
    answer = await sidecar.ask("GET", "/api/x", [("Sidecar-Timeout", "1h")])
    assert answer.status == 503
    assert (await sidecar.record()).reason == "deadline"


@pytest.mark.parametrize("text", ["5", "soon", "-1s", "1e9s", "", "NaNs"])
async def test_a_timeout_that_cannot_be_read_is_refused_or_ignored(make: Make, upstream: Upstream, text: str) -> None:
    sidecar = await make(upstream)
    answer = await sidecar.ask("GET", "/api/x", [("Sidecar-Timeout", text)])
    assert answer.status in (200, 400)
    if answer.status == 200:
        assert "Sidecar-Timeout" not in upstream.requests[0].headers


async def test_the_time_that_is_left_goes_upstream_where_a_header_is_named(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "deadline: 10s\ndeadline_header: X-Time-Left-Ms\nattempt_header: X-Attempt")
    upstream.script(say(503, headers=[("Retry-After", "4")]), say(200))
    await sidecar.ask("GET", "/api/x")
    left = [int(request.headers.get("X-Time-Left-Ms") or "0") for request in upstream.requests]
    assert 9000 < left[0] <= 10_000
    assert left[1] <= 6000
    assert [request.headers.get("X-Attempt") for request in upstream.requests] == ["1", "2"]


async def test_an_app_cannot_pose_with_our_own_headers(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "deadline_header: X-Time-Left-Ms\nattempt_header: X-Attempt")
    await sidecar.ask("GET", "/api/x", [("X-Attempt", "9"), ("X-Time-Left-Ms", "1")])
    assert upstream.requests[0].headers.all("X-Attempt") == ["1"]
    assert len(upstream.requests[0].headers.all("X-Time-Left-Ms")) == 1


async def test_the_last_answer_is_handed_over_when_the_deadline_ends_an_attempt(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "deadline: 900ms\nattempts: 2", quick=SHORT)
    upstream.script(say(503, b"busy"), hang())
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.body) == (503, b"busy")
    record = await sidecar.record()
    assert record.outcome == "exhausted"
    assert record.reason in ("deadline", "attempts")


async def test_an_attempt_may_wait_for_a_connection_only_as_long_as_the_deadline(
    make: Make, upstream: Upstream
) -> None:
    sidecar = await make(upstream, "attempt: {head: 10s}", quick="", more="    connections: 1")
    live = Live()
    upstream.script(live)
    first = asyncio.create_task(sidecar.ask("GET", "/api/first"))
    connection = await live.here()
    await connection.read_request()
    late = await sidecar.ask("POST", "/api/late", [("Sidecar-Timeout", "100ms")], b"one")
    assert late.status in (502, 503, 504)
    async with sidecar.client() as leaving:
        await leaving.send(request_bytes("GET", "/api/leaving"))
        await sidecar.until(lambda: sidecar.sidecar.metrics.inflight >= 2)
    await sidecar.record(2)
    await connection.send(head_bytes(200, [("Content-Length", "2")]) + b"ok")
    live.over()
    assert (await first).body == b"ok"
    assert (await sidecar.ask("GET", "/api/next")).status == 200
    assert [request.target for request in upstream.requests] == ["/first", "/next"]
