"""Pipelined requests are answered in order, few at a time, and each by its own answer. Threats row 92."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.observe.record import ExchangeRecord
from tests.behaviour.conftest import Make
from tests.support.client import request_bytes
from tests.support.sidecar import SHORT
from tests.support.upstream import Connection, Step, Upstream, hang, reset, say


def echo(connection: Connection) -> Step:
    async def step(connection: Connection) -> None:
        request = await connection.read_request()
        body = request.target.encode()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    del connection
    return step


async def test_answers_come_in_order(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.otherwise = echo
    async with sidecar.client() as client:
        await client.send(b"".join(request_bytes("GET", f"/api/{number}") for number in range(50)))
        for number in range(50):
            answer = await client.answer()
            assert (answer.status, answer.body) == (200, b"/%d" % number)


async def test_a_retry_in_the_middle_keeps_the_order(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.otherwise = echo
    upstream.script(say(503), echo(None), reset(), say(503))  # type: ignore[arg-type]
    async with sidecar.client() as client:
        await client.send(b"".join(request_bytes("GET", f"/api/{number}") for number in range(3)))
        assert [(await client.answer()).body for _ in range(3)] == [b"/0", b"/1", b"/2"]


async def test_bodies_are_told_apart(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        await client.send(
            request_bytes("POST", "/api/a", body=b"GET /api/x HTTP/1.1\r\n\r\n")
            + request_bytes("POST", "/api/b", chunks=[b"one", b"two"])
            + request_bytes("GET", "/api/c")
        )
        for _ in range(3):
            assert (await client.answer()).status == 200
    assert [request.target for request in upstream.requests] == ["/a", "/b", "/c"]
    assert bytes(upstream.requests[1].body) == b"onetwo"


async def test_requests_behind_a_hanging_one_wait(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempts: 1\ndeadline: 600ms", quick=SHORT)
    upstream.script(hang())
    upstream.otherwise = echo
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/0") + request_bytes("GET", "/api/1"))
        assert (await client.answer()).status == 504
        assert (await client.answer()).body == b"/1"


async def test_a_flood_is_served_or_cut_but_never_queued_without_bound(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempt: {head: 30s}", quick="")
    upstream.otherwise = lambda _: hang()
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x") * 1000)
        await upstream.received()
        assert await sidecar.metric("sidecar_inflight_requests") <= 1
    await upstream.until(lambda: upstream.open_connections == 0)
    assert len(upstream.requests) == 1


async def test_a_bad_request_behind_a_good_one_is_refused_in_its_turn(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x") + b"nonsense\r\n\r\n")
        assert (await client.answer()).status == 200
        assert (await client.answer()).status == 400
        await client.ended()


async def test_close_ends_the_connection_after_its_answer(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/a", [("Connection", "close")]) + request_bytes("GET", "/api/b"))
        answer = await client.answer()
        assert (answer.headers.get("Connection") or "").lower() == "close"
        await client.ended()
    assert [request.target for request in upstream.requests] == ["/a"]


async def test_an_http_10_app_is_closed_unless_it_asked_otherwise(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        await client.send(b"GET /api/x HTTP/1.0\r\nHost: sidecar.test\r\n\r\n")
        assert (await client.answer()).body == b"ok"
        await client.ended()
    async with sidecar.client() as client:
        await client.send(b"GET /api/x HTTP/1.0\r\nHost: sidecar.test\r\nConnection: keep-alive\r\n\r\n")
        answer = await client.answer()
        assert answer.body == b"ok"
        if (answer.headers.get("Connection") or "").lower() == "keep-alive":
            assert (await client.ask("GET", "/api/x")).status == 200


LAST = ["", "GET /api/2 HT", "POST /api/2 HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\npart"]
"""Behind two whole requests: nothing, the beginning of a head, the beginning of a body."""


@pytest.mark.parametrize("last", LAST, ids=["nothing", "head", "body"])
@pytest.mark.parametrize("apart", [False, True], ids=["at-once", "apart"])
async def test_whole_requests_before_a_fin_are_all_answered(
    make: Make, upstream: Upstream, last: str, apart: bool
) -> None:
    """``printf … | nc -N``: the FIN says that no more requests come, and takes back none."""
    sidecar = await make(upstream)
    upstream.otherwise = echo
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/0") + request_bytes("GET", "/api/1") + last.encode())
        if apart:
            await upstream.received()
        client.end_sending()
        first, second = await client.answer(), await client.answer()
        assert (first.body, second.body) == (b"/0", b"/1")
        assert first.headers.get("Connection") is None
        assert (second.headers.get("Connection") == "close") is (not last)
        assert await client.ended() in ("closed", "reset")
    assert [request.target for request in upstream.requests] == ["/0", "/1"]


async def test_a_fin_behind_a_hundred_requests_takes_none_back(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.otherwise = echo
    async with sidecar.client() as client:
        await client.send(b"".join(request_bytes("GET", f"/api/{number}") for number in range(100)))
        client.end_sending()
        assert [(await client.answer()).body for _ in range(100)] == [b"/%d" % number for number in range(100)]
        assert await client.ended() == "closed"


async def test_what_was_sent_before_a_drain_is_answered_though_its_turn_comes_later(
    make: Make, upstream: Upstream
) -> None:
    """The first answer has promised to go on; the drain begins between the two."""
    sidecar = await make(upstream)
    upstream.otherwise = echo
    listener, loop = sidecar.sidecar.listener, asyncio.get_running_loop()

    def drain_before_the_next(record: ExchangeRecord) -> None:
        listener._on_record = None
        loop.call_soon(listener.drain)

    listener._on_record = drain_before_the_next
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/0") + request_bytes("GET", "/api/1"))
        assert [(await client.answer()).body for _ in range(2)] == [b"/0", b"/1"]
        assert await client.ended() == "closed"
    assert listener.draining
