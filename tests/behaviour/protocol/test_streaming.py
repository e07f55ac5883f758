"""Bytes go on as they come; what breaks in the middle looks broken to the app. DESIGN section 8, Streams."""

from __future__ import annotations

import asyncio

import pytest

from tests.behaviour.conftest import Make
from tests.support.client import request_bytes
from tests.support.upstream import Live, Upstream, cut_body, hang, head_bytes, say
from tests.support.wire import Gone

SSE = [("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def test_server_sent_events_pass_at_once(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    live = Live()
    upstream.script(live)
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/events", [("Accept", "text/event-stream")]))
        connection = await live.here()
        await connection.read_request()
        await connection.send(head_bytes(200, SSE))
        assert (await client.head()).headers.get("Content-Type") == "text/event-stream"
        for number in range(20):
            event = b"data: %d\n\n" % number
            await connection.send(chunk(event))
            assert await client.take(len(event)) == event
        await connection.send(b"0\r\n\r\n")
        live.over()
        assert await client.piece() == b""
    assert (await sidecar.record()).outcome == "ok"


async def test_a_silent_event_stream_outlives_the_idle_timeout(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempt: {connect: 1s, head: 1s, idle: 60ms}", quick="")
    live = Live()
    upstream.script(live, hang(send=head_bytes(200, [("Content-Length", "9")]) + b"half"))
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/events"))
        connection = await live.here()
        await connection.read_request()
        await connection.send(head_bytes(200, SSE) + chunk(b"data: 1\n\n"))
        await client.head()
        await client.take(9)
        plain = await sidecar.ask("GET", "/api/x")  # began later, and is over by the same timeout
        assert plain.cut is not None
        await connection.send(chunk(b"data: 2\n\n"))
        assert await client.take(9) == b"data: 2\n\n"
        await connection.send(b"0\r\n\r\n")
        live.over()
        assert await client.piece() == b""


async def test_a_trickle_passes_byte_by_byte_both_ways(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    live = Live()
    upstream.script(live)
    async with sidecar.client() as client:
        await client.send(request_bytes("POST", "/api/x", [("Content-Length", "5")]))
        connection = await live.here()
        await connection.read_head()
        for number in range(5):
            await client.send(b"%d" % number)
            assert await connection.read_piece() == b"%d" % number
        await connection.send(head_bytes(200, [("Content-Length", "5")]))
        await client.head("POST")
        for number in range(5):
            await connection.send(b"%d" % number)
            assert await client.piece() == b"%d" % number
        live.over()
        assert await client.piece() == b""


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("length", [1000, None])
async def test_a_cut_answer_is_cut_for_the_app_too(
    make: Make, upstream: Upstream, how: str, length: int | None
) -> None:
    sidecar = await make(upstream)
    upstream.script(cut_body(b"half of it", length=length, how=how))  # type: ignore[arg-type]
    async with sidecar.client() as client:
        answer = await client.ask("GET", "/api/x")
        assert answer.status == 200
        assert answer.cut is not None
        assert b"half of it".startswith(answer.body)
    record = await sidecar.record()
    assert record.body_cut
    assert len(upstream.requests) == 1


async def test_a_cut_answer_never_carries_a_second_head(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(cut_body(b"half", length=1000))
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x"))
        data, _ = await client.everything()
        assert data.count(b"HTTP/1.1") == 1
        assert data.endswith((b"\r\n\r\n", b"half"))


async def test_a_cut_answer_to_an_http_10_app_is_a_reset(make: Make, upstream: Upstream) -> None:
    """Without a length or chunks, only a reset tells a broken body from a whole one."""
    sidecar = await make(upstream)
    upstream.script(cut_body(b"half", length=None))
    async with sidecar.client() as client:
        await client.send(b"GET /api/x HTTP/1.0\r\nHost: sidecar.test\r\n\r\n")
        data, how = await client.everything()
        assert b"chunked" not in data
        assert how == "reset"


async def test_malformed_chunks_in_an_answer_cut_it(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    live = Live()
    upstream.script(live)
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x"))
        connection = await live.here()
        await connection.read_request()
        await connection.send(head_bytes(200, [("Transfer-Encoding", "chunked")]) + chunk(b"good"))
        await client.head()
        assert await client.take(4) == b"good"
        await connection.send(b"0x5\r\nworse\r\n0\r\n\r\n")
        with pytest.raises(Gone):
            await client.piece()
        live.over()
    assert (await sidecar.record()).body_cut


async def test_a_body_that_stalls_is_cut_after_the_idle_timeout(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(hang(send=head_bytes(200, [("Content-Length", "10")]) + b"half"))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.body, answer.cut is not None) == (b"half", True)
    assert (await sidecar.record()).body_cut
    await upstream.until(upstream.requests[0].gone.is_set)


async def test_streams_do_not_disturb_each_other(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    lives = [Live() for _ in range(5)]
    upstream.script(*lives)
    asking = [asyncio.create_task(sidecar.ask("GET", f"/api/{number}")) for number in range(5)]
    for number, live in reversed(list(enumerate(lives))):
        connection = await live.here()
        request = await connection.read_request()
        await connection.send(head_bytes(200, [("Content-Length", "2")]) + request.target.encode())
        live.over()
        del number
    assert [(await each).body for each in asking] == [b"/0", b"/1", b"/2", b"/3", b"/4"]


async def test_a_reset_stream_leaves_the_next_exchange_alone(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(cut_body(b"x", length=9), say(200, b"fine"))
    await sidecar.ask("GET", "/api/x")
    assert (await sidecar.ask("GET", "/api/y")).body == b"fine"


LOOKING = [
    "table: [{status: 200, when: [{method: POST}, {body: /state, equals: pending}], then: retry}]",
    "table: [{status: 200, when: [{path: /v2/jobs}, {body: /state, equals: pending}], then: retry}]",
    "table: [{status: 200, when: [{header: content-type, equals: application/json}, {body: /state}], then: retry}]",
    "table: [{status: 200, when: {body: /state, equals: pending}, then: retry}]",
    "table: [{status: 200, when: {body_text: pending}, then: retry}]",
]


@pytest.mark.parametrize("policy", LOOKING, ids=["method", "path", "type", "events", "text"])
async def test_events_are_not_held_back_by_a_row_that_looks_into_bodies(
    make: Make, upstream: Upstream, policy: str
) -> None:
    """The first event reaches the app while the second has not been sent; a hold would last until the end."""
    sidecar = await make(upstream, policy, quick="")
    live = Live()
    upstream.script(live)
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/events"))
        connection = await live.here()
        await connection.read_request()
        await connection.send(head_bytes(200, SSE) + chunk(b"data: 1\n\n"))
        await client.head()
        assert await client.take(9) == b"data: 1\n\n"
        await connection.send(chunk(b"data: 2\n\n") + b"0\r\n\r\n")
        assert await client.take(9) == b"data: 2\n\n"
        live.over()
    assert len(upstream.requests) == 1


async def test_what_the_head_settles_is_not_held_back(make: Make, upstream: Upstream) -> None:
    """No event stream, but the row asks for another type: the first half arrives before the second is sent."""
    sidecar = await make(upstream, LOOKING[2], quick="")
    live = Live()
    upstream.script(live)
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x"))
        connection = await live.here()
        await connection.read_request()
        await connection.send(head_bytes(200, [("Content-Type", "text/csv"), ("Content-Length", "8")]) + b"half")
        await client.head()
        assert await client.take(4) == b"half"
        await connection.send(b"more")
        assert await client.take(4) == b"more"
        live.over()


async def test_a_body_condition_that_is_open_is_still_looked_at(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, LOOKING[2].replace("{body: /state}", "{body: /state, equals: pending}"))
    json = [("Content-Type", "application/json")]
    upstream.script(say(200, b'{"state": "pending"}', headers=json), say(200, b'{"state": "done"}', headers=json))
    assert (await sidecar.ask("GET", "/api/x")).body == b'{"state": "done"}'
