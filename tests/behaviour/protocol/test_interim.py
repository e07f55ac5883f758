"""Interim answers (1xx) are no answer: they never end an exchange, and never last for ever."""

from __future__ import annotations

import pytest

from tests.behaviour.conftest import Make
from tests.support.client import request_bytes
from tests.support.upstream import Connection, Upstream, head_bytes, say, say_raw

EARLY_HINTS = head_bytes(103, [("Link", "</a.css>; rel=preload")])


@pytest.mark.parametrize(
    "interim",
    [EARLY_HINTS, head_bytes(100), head_bytes(102), head_bytes(100) + head_bytes(100) + EARLY_HINTS],
)
async def test_the_final_answer_follows_the_interim_one(make: Make, upstream: Upstream, interim: bytes) -> None:
    sidecar = await make(upstream)
    upstream.script(say(200, b"yes", interim=interim), say(200, b"next"))
    async with sidecar.client() as client:
        answer = await client.ask("GET", "/api/x")
        assert (answer.status, answer.body) == (200, b"yes")
        assert {each.status for each in answer.interim} <= {100, 102, 103}
        assert (await client.ask("GET", "/api/x")).body == b"next"
    assert (await sidecar.record()).outcome == "ok"


async def test_an_error_after_an_interim_answer_is_still_retried_or_handed_over(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503, b"no", interim=head_bytes(102)), say(200, b"yes"))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.body) in [(200, b"yes"), (503, b"no")]


async def test_an_http_10_app_never_sees_one(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(200, b"yes", interim=EARLY_HINTS))
    async with sidecar.client() as client:
        await client.send(b"GET /api/x HTTP/1.0\r\nHost: sidecar.test\r\n\r\n")
        data, _ = await client.everything()
    assert b" 103 " not in data
    assert data.endswith(b"yes")


async def test_endless_interim_answers_end_in_502(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempts: 1\ndeadline: 2s")

    async def for_ever(connection: Connection) -> None:
        await connection.read_request()
        while True:
            await connection.send(EARLY_HINTS * 100)

    upstream.script(for_ever)
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x"))
        answer = await client.answer()
        assert answer.status in (502, 504)


async def test_a_101_that_nobody_asked_for_is_502(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempts: 1")
    upstream.script(
        say_raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n\x00raw", wait=True)
    )
    answer = await sidecar.ask("GET", "/api/x")
    assert answer.status == 502
    await upstream.until(upstream.requests[0].gone.is_set)
