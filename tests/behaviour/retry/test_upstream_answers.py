"""Hostile answers: 502 and a dropped connection, never passed on. Threat checklist rows 74-82."""

from __future__ import annotations

import asyncio

import pytest

from tests.behaviour.conftest import Make
from tests.core.making import short
from tests.support.client import request_bytes
from tests.support.upstream import Connection, Upstream, head_bytes, say, say_raw

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        OK + b"Content-Length: 5, 6\r\n\r\nhello",
        OK + b"Content-Length: -5\r\n\r\nhello",
        OK + b"Content-Length: +5\r\n\r\nhello",
        OK + b"Content-Length: 0x5\r\n\r\nhello",
        OK + b"Content-Length: 5_0\r\n\r\nhello",
        OK + b"Content-Length:\r\n\r\nhello",
        OK + b"Content-Length: five\r\n\r\nhello",
        OK + b"Content-Length: 99999999999999999999999\r\n\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        OK + b"Location: /\rSet-Cookie: x\r\nContent-Length: 0\r\n\r\n",
        OK + b"X-A: a\x00b\r\nContent-Length: 0\r\n\r\n",
        OK + b"X-A: a\x07b\r\nContent-Length: 0\r\n\r\n",
        OK + b"X-A: a\x7fb\r\nContent-Length: 0\r\n\r\n",
        OK + b"X A: 1\r\nContent-Length: 0\r\n\r\n",
        OK + b": 1\r\nContent-Length: 0\r\n\r\n",
        OK + b"no colon\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 1000 High\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 abc Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 -20 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"ICY 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"<html>an answer of HTTP/0.9</html>\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28\r\n\r\n",
        OK + b"X-Big: " + b"x" * 3_000_000 + b"\r\n\r\n",
        OK + b"X-Many: 1\r\n" * 50_000 + b"\r\n",
    ],
    ids=lambda raw: repr(raw[9:60]),
)
async def test_it_becomes_a_502(make: Make, upstream: Upstream, raw: bytes) -> None:
    sidecar = await make(upstream, "attempts: 1")

    async def step(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(raw)
        await connection.until_gone()

    upstream.script(step, say(200, b"clean"))
    async with sidecar.client() as client:
        answer = await client.ask("GET", "/api/x")
        assert answer.status == 502
        assert answer.headers.get("Proxy-Status")
        assert (await client.ask("GET", "/api/y")).body == b"clean"
    record = await sidecar.record()
    assert str(record.attempts[0].failure) in ("protocol", "closed")
    assert len(upstream.connections) == 2
    assert "Traceback" not in sidecar.log.getvalue()


@pytest.mark.parametrize(
    "raw",
    [
        OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"Content-Length: 5, 5\r\n\r\nhello",
    ],
)
async def test_what_may_be_mended_arrives_clean_or_not_at_all(make: Make, upstream: Upstream, raw: bytes) -> None:
    sidecar = await make(upstream, "attempts: 1")
    upstream.script(say_raw(raw, wait=True))
    answer = await sidecar.ask("GET", "/api/x")
    assert answer.status in (200, 502)
    if answer.status == 200:
        assert answer.body == b"hello"


@pytest.mark.parametrize(
    "raw",
    [
        OK + b"X-A: 1\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\nX-A: 1\nContent-Length: 5\n\nhello",
        b"HTTP/1.1 200 OK\nX-A: 1\nContent-Length: 5\n\r\nhello",
        b"HTTP/1.1 103 Hints\nX-A: 0\n\nHTTP/1.1 200 OK\nX-A: 1\nContent-Length: 5\n\nhello",
        b"HTTP/1.1 200\nX-A: 1\nTransfer-Encoding: chunked\n\n5\r\nhello\r\n0\r\n\r\n",
        OK + b"X-A:\r\n\t1\r\nContent-Length:\r\n 5\r\n\r\nhello",
        b"HTTP/1.1 200\r\nX-A: 1\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nX-A: 1\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.2 200 OK\r\nX-A: 1\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 O\xff\xc3\xa9K\r\nX-A: 1\r\nContent-Length: 5\r\n\r\nhello",
    ],
    ids=short,
)
@pytest.mark.parametrize("in_pieces", [False, True], ids=["at-once", "in-pieces"])
async def test_a_head_that_can_be_read_is_written_anew(
    make: Make, upstream: Upstream, raw: bytes, in_pieces: bool
) -> None:
    """RFC 9112 sections 2.2 and 5.2: lines that end with LF alone and folded ones are taken from upstreams. Toward the
    app every line ends with CRLF, and bytes that look like an end of the head in the body stay there."""
    sidecar = await make(upstream)

    async def step(connection: Connection) -> None:
        await connection.read_request()
        for piece in [raw[at : at + 1] for at in range(len(raw))] if in_pieces else [raw]:
            await connection.send(piece)
        await connection.until_gone()

    upstream.script(step)
    async with sidecar.client() as client:
        answer = await client.ask("GET", "/api/x")
        assert (answer.status, answer.headers.all("X-A"), answer.body) == (200, ["1"], b"hello")
        assert answer.head.count(b"\n") == answer.head.count(b"\r\n")
    assert len(upstream.requests) == 1


async def test_a_body_with_empty_lines_does_not_move_the_end_of_a_head(make: Make, upstream: Upstream) -> None:
    body = b"a: b\r\n\r\nHTTP/1.1 200 OK\n\nx"
    sidecar = await make(upstream)
    upstream.script(say_raw(b"HTTP/1.1 200 OK\nContent-Length: %d\n\n" % len(body) + body), say(200, b"next"))
    async with sidecar.client() as client:
        assert (await client.ask("GET", "/api/x")).body == body
        assert (await client.ask("GET", "/api/y")).body == b"next"


@pytest.mark.parametrize("status", [600, 777, 999])
async def test_a_status_beyond_599_is_passed_on_as_it_is(make: Make, upstream: Upstream, status: int) -> None:
    """RFC 9110 section 15: the app treats it as 5xx, or knows better."""
    sidecar = await make(upstream)
    upstream.script(say_raw(b"HTTP/1.1 %d Odd\r\nContent-Length: 2\r\n\r\nhm" % status))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.reason, answer.body) == (status, "Odd", b"hm")
    record = await sidecar.record()
    assert (record.outcome, record.reason, record.status) == ("passed", "not_retryable", status)


async def test_a_protocol_failure_is_told_at_once(make: Make, upstream: Upstream) -> None:
    """The next answer would be the same: `failure: any` does not ask for it."""
    sidecar = await make(upstream)
    upstream.otherwise = lambda _: say_raw(b"nonsense\r\n\r\n", wait=True)
    assert (await sidecar.ask("GET", "/api/x")).status == 502
    assert len(upstream.requests) == 1
    record = await sidecar.record()
    assert (record.outcome, record.reason) == ("failed", "attempts")


async def test_a_row_that_names_a_protocol_failure_retries_it(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "table: [{failure: protocol, then: retry}]")
    upstream.script(say_raw(b"nonsense\r\n\r\n", wait=True), say(200, b"yes"))
    assert (await sidecar.ask("GET", "/api/x")).body == b"yes"


async def test_a_protocol_failure_of_a_post_is_not(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say_raw(b"nonsense\r\n\r\n", wait=True), say(200))
    assert (await sidecar.ask("POST", "/api/x", body=b"one")).status == 502
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("extra", [b"more", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"])
async def test_bytes_behind_an_answer_reach_nobody(make: Make, upstream: Upstream, extra: bytes) -> None:
    sidecar = await make(upstream)
    upstream.script(say_raw(OK + b"Content-Length: 4\r\n\r\ngood" + extra), say(200, b"mine"))
    async with sidecar.client() as client:
        assert (await client.ask("GET", "/api/x")).body == b"good"
        assert (await client.ask("GET", "/api/y")).body == b"mine"
    assert len(upstream.connections) == 2


async def test_an_answer_that_nobody_asked_for_reaches_nobody(make: Make, upstream: Upstream) -> None:
    """Sent while the connection is idle in the pool: the next exchange must not get it."""
    sidecar = await make(upstream)
    await sidecar.ask("GET", "/api/first")
    [connection] = upstream.connections
    await connection.send(OK + b"Content-Length: 4\r\n\r\nevil")
    for _ in range(20):
        await asyncio.sleep(0)
    upstream.otherwise = lambda _: say(200, b"mine")
    answer = await sidecar.ask("GET", "/api/second")
    assert answer.body == b"mine"


async def test_bytes_behind_the_last_chunk_reach_nobody(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    raw = OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    upstream.script(say_raw(raw), say(200, b"mine"))
    async with sidecar.client() as client:
        assert (await client.ask("GET", "/api/x")).body == b"good"
        assert (await client.ask("GET", "/api/y")).body == b"mine"


async def test_chunk_extensions_and_trailers_do_not_disturb(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    raw = OK + b"Transfer-Encoding: chunked\r\n\r\n4;a=b\r\ngood\r\n0\r\nX-T: 1\r\nContent-Length: 9\r\n\r\n"
    upstream.script(say_raw(raw), say(200, b"mine"))
    async with sidecar.client() as client:
        answer = await client.ask("GET", "/api/x")
        assert (answer.body, answer.cut) == (b"good", None)
        assert "content-length" not in [name.lower() for name in answer.trailers.names]
        assert (await client.ask("GET", "/api/y")).body == b"mine"


async def test_the_bytes_of_one_app_never_reach_another(make: Make, upstream: Upstream) -> None:
    """Row 87: the first app leaves in the middle of its answer; the second gets its own."""
    sidecar = await make(upstream)

    async def slow(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(head_bytes(200, [("Content-Length", "1000"), ("Set-Cookie", "who=first")]) + b"secret")
        await connection.until_gone()

    upstream.script(slow, say(200, b"mine"))
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x"))
        await client.head()
        await client.take(6)
    answer = await sidecar.ask("GET", "/api/y")
    assert answer.body == b"mine"
    assert "Set-Cookie" not in answer.headers
    assert "Cookie" not in upstream.requests[1].headers


async def test_a_compressed_bomb_passes_unread(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "table: [{status: 409, when: {body: /a, equals: b}, then: retry}]")
    bomb = b"\x1f\x8b" + bytes(200_000)
    upstream.script(
        say(200, bomb, headers=[("Content-Encoding", "gzip, gzip")]),
        say(409, bomb, headers=[("Content-Encoding", "gzip")]),
    )
    assert (await sidecar.ask("GET", "/api/x")).body == bomb
    assert (await sidecar.ask("GET", "/api/x")).body == bomb
