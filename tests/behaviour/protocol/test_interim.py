"""Interim answers (1xx) go on to the app and are no answer: they never end an exchange, and never last for ever."""

from __future__ import annotations

import pytest

from tests.behaviour.conftest import Make
from tests.support.client import request_bytes
from tests.support.upstream import Connection, Live, Upstream, head_bytes, say, say_raw

EARLY_HINTS = head_bytes(103, [("Link", "</a.css>; rel=preload")])


@pytest.mark.parametrize(
    ("interim", "statuses"),
    [
        (EARLY_HINTS, [103]),
        (head_bytes(100), []),
        (head_bytes(102), [102]),
        (head_bytes(100) + head_bytes(100) + EARLY_HINTS, [103]),
    ],
)
async def test_the_final_answer_follows_the_interim_one(
    make: Make, upstream: Upstream, interim: bytes, statuses: list[int]
) -> None:
    sidecar = await make(upstream)
    upstream.script(say(200, b"yes", interim=interim), say(200, b"next"))
    async with sidecar.client() as client:
        answer = await client.ask("GET", "/api/x")
        assert (answer.status, answer.body) == (200, b"yes")
        assert [each.status for each in answer.interim] == statuses
        assert (await client.ask("GET", "/api/x")).body == b"next"
    assert (await sidecar.record()).outcome == "ok"


async def test_it_comes_before_the_final_one(make: Make, upstream: Upstream) -> None:
    """Also where the app sends its body after a while."""
    sidecar = await make(upstream, quick="attempt: {head: 30s}")
    for body in (b"", b"x" * 100_000):
        live = Live()
        upstream.script(live)
        async with sidecar.client() as client:
            await client.send(request_bytes("PUT", "/api/x", body=body))
            connection = await live.here()
            await connection.read_request()
            await connection.send(EARLY_HINTS)
            hints = await client.one_head()
            assert (hints.status, hints.headers.get("Link")) == (103, "</a.css>; rel=preload")
            await connection.send(head_bytes(200, [("Content-Length", "0")]))
            assert (await client.answer()).status == 200
            live.over()


async def test_an_error_after_an_interim_answer_is_still_retried(make: Make, upstream: Upstream) -> None:
    """It promises nothing: the app takes any number of them before the final answer (RFC 9110 section 15.2)."""
    sidecar = await make(upstream)
    upstream.script(say(503, b"no", interim=head_bytes(102)), say(200, b"yes", interim=EARLY_HINTS))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.body) == (200, b"yes")
    assert [each.status for each in answer.interim] == [102, 103]


async def test_what_belongs_to_the_connection_stays_behind(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    hints = [
        ("Connection", "close, X-Hop"),
        ("X-Hop", "1"),
        ("Content-Length", "5"),
        ("Link", "</a>"),
        ("Link", "</b>"),
    ]
    upstream.script(say(200, b"yes", interim=head_bytes(103, hints)), say(200, b"next"))
    async with sidecar.client() as client:
        answer = await client.ask("GET", "/api/x")
        assert (answer.status, answer.body) == (200, b"yes")
        assert answer.interim[0].headers.pairs == [(b"Link", b"</a>"), (b"Link", b"</b>")]
        assert (await client.ask("GET", "/api/x")).body == b"next"


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 103 Early Hints\r\nLink: a\x00b\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLi nk: a\r\n\r\n",
        b"HTTP/1.1 103 Early\x01Hints\r\n\r\n",
        head_bytes(103, [("X-Big", "v" * 60_000)]) * 5,
    ],
    ids=["value", "name", "reason", "too-large-together"],
)
async def test_a_malformed_one_ends_in_502(make: Make, upstream: Upstream, interim: bytes) -> None:
    sidecar = await make(upstream, "attempts: 1")
    upstream.script(say(200, b"yes", interim=interim))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.json()["code"]) == (502, "protocol")


async def test_one_behind_a_pipelined_answer_comes_in_order(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(200, b"1"), say(200, b"2", interim=EARLY_HINTS), say(200, b"3"))
    async with sidecar.client() as client:
        await client.send(b"".join(request_bytes("GET", f"/api/{number}") for number in range(3)))
        answers = [await client.answer() for _ in range(3)]
    assert [(len(answer.interim), answer.body) for answer in answers] == [(0, b"1"), (1, b"2"), (0, b"3")]


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
