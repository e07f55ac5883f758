"""The instruments themselves: the scripted upstream and the raw client, talking to each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.client import Client, connect
from tests.support.clock import ManualClock
from tests.support.upstream import Live, Upstream, cut_body, early, hang, head_bytes, reset, say, say_raw
from tests.support.wire import Malformed, PlainChannel


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream.start() as started:
        yield started


@pytest.fixture
async def client(upstream: Upstream) -> AsyncIterator[Client]:
    async with connect("127.0.0.1", upstream.port) as connected:
        yield connected


async def test_an_answer_comes_back_with_its_headers_in_order(upstream: Upstream, client: Client) -> None:
    upstream.script(say(503, b"no", headers=[("X-A", "1"), ("x-a", "2")], reason="Busy"))
    answer = await client.ask("POST", "/a%2Fb?x=%20", [("X-B", "3")], b"hello")
    assert (answer.status, answer.reason, answer.body) == (503, "Busy", b"no")
    assert answer.headers.pairs[:2] == [(b"X-A", b"1"), (b"x-a", b"2")]
    [request] = upstream.requests
    assert (request.target, bytes(request.body), request.complete) == ("/a%2Fb?x=%20", b"hello", True)
    assert upstream.effects["/a%2Fb?x=%20"] == 1


async def test_chunks_and_keep_alive_work_both_ways(upstream: Upstream, client: Client) -> None:
    upstream.script(say(200, chunks=[b"ab", b"c"]), say(204))
    assert (await client.ask("PUT", "/", chunks=[b"12", b"3"])).body == b"abc"
    assert (await client.ask("GET", "/")).status == 204
    assert [bytes(each.body) for each in upstream.requests] == [b"123", b""]
    assert len(upstream.connections) == 1


@pytest.mark.parametrize("when", ["nothing", "head", "request"])
async def test_a_reset_is_seen_as_a_reset(upstream: Upstream, client: Client, when: str) -> None:
    upstream.script(reset(when))  # type: ignore[arg-type]
    await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
    assert await client.ended() == "reset"
    assert len(upstream.requests) == (when != "nothing")


@pytest.mark.parametrize("length", [10, None])
async def test_a_cut_body_is_told_from_a_whole_one(upstream: Upstream, client: Client, length: int | None) -> None:
    upstream.script(cut_body(b"half", length=length))
    answer = await client.ask()
    assert (answer.body, answer.cut) == (b"half", "closed")


async def test_a_body_until_close_ends_cleanly(upstream: Upstream, client: Client) -> None:
    upstream.script(say_raw(b"HTTP/1.1 200 OK\r\n\r\nall", last=True))
    answer = await client.ask()
    assert (answer.body, answer.framing, answer.cut) == (b"all", "close", None)


async def test_interim_answers_are_kept_apart(upstream: Upstream, client: Client) -> None:
    upstream.script(say(200, b"x", interim=head_bytes(103, [("Link", "</a>")])))
    answer = await client.ask()
    assert [each.status for each in answer.interim] == [103]


async def test_an_early_answer_does_not_wait_for_the_body(upstream: Upstream, client: Client) -> None:
    upstream.script(early(413, b"big"))
    await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
    assert (await client.answer()).status == 413


async def test_a_hanging_upstream_notes_that_the_peer_left(upstream: Upstream) -> None:
    upstream.script(hang())
    async with connect("127.0.0.1", upstream.port) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        request = await upstream.received()
        assert not request.gone.is_set()
    await upstream.until(request.gone.is_set)


async def test_a_live_step_is_played_by_hand(upstream: Upstream, client: Client) -> None:
    live = Live()
    upstream.script(live)
    await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    connection = await live.here()
    await connection.read_request()
    await connection.send(head_bytes(200, [("Transfer-Encoding", "chunked")]) + b"2\r\nhi\r\n")
    assert (await client.head()).status == 200
    assert await client.take(2) == b"hi"
    await connection.send(b"0\r\n\r\n")
    assert await client.piece() == b""
    live.over()


async def test_an_idle_connection_can_be_closed(upstream: Upstream, client: Client) -> None:
    await client.ask()
    closing = asyncio.create_task(upstream.close_idle("reset"))
    assert await client.ended() == "reset"
    await closing
    assert upstream.open_connections == 0


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : 1\r\n\r\n",
    ],
)
async def test_the_client_refuses_what_is_not_http(upstream: Upstream, client: Client, raw: bytes) -> None:
    upstream.script(say_raw(raw, last=True))
    with pytest.raises(Malformed):
        await client.ask()


async def test_a_held_clock_sleeps_until_it_is_released() -> None:
    clock = ManualClock()
    before = clock.monotonic()
    await clock.sleep(30)
    assert clock.monotonic() - before >= 30
    clock.hold()
    task = asyncio.create_task(clock.sleep(5))
    await clock.sleeping()
    assert not task.done()
    clock.release()
    await task
    assert clock.waits == [30, 5]


def test_a_channel_can_be_closed_twice() -> None:
    async def twice() -> None:
        async with Upstream.start() as upstream, connect("127.0.0.1", upstream.port) as client:
            assert isinstance(client.channel, PlainChannel)
            client.close()
            client.close()

    asyncio.run(twice())
