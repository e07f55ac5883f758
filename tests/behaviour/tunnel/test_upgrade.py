"""Upgrade and WebSocket: the handshake is retried by the table; after a 101, a relay; nothing else switches."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from tests.behaviour.conftest import Make
from tests.support.client import Client
from tests.support.clock import ManualClock
from tests.support.sidecar import Running
from tests.support.upstream import Live, Upstream, say, say_raw

ASKS = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-More: 1\r\n\r\n"


class Talker:
    """A real WebSocket server that repeats what it hears; the first ``refusals`` handshakes are answered 503."""

    def __init__(self) -> None:
        self.port = 0
        self.refusals = 0
        self.handshakes = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.handshakes += 1
        if self.handshakes <= self.refusals:
            return web.Response(status=503, text="not yet")
        socket = web.WebSocketResponse(protocols=("chat",))
        await socket.prepare(request)
        async for message in socket:
            if message.data == "leave":
                await socket.close(code=4000, message=b"as you wish")
            elif message.type is aiohttp.WSMsgType.TEXT:
                await socket.send_str(f"heard {message.data}")
            else:
                await socket.send_bytes(message.data)
        return socket


@pytest.fixture
async def talker() -> AsyncIterator[Talker]:
    made = Talker()
    application = web.Application()
    application.router.add_get("/ws", made.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@contextlib.asynccontextmanager
async def talk(url: str, proxy: str | None = None) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with aiohttp.ClientSession() as session, session.ws_connect(url, protocols=("chat",), proxy=proxy) as socket:
        yield socket


def mounted(sidecar: Running) -> str:
    return f"http://127.0.0.1:{sidecar.sidecar.address.port}/api/ws"


async def ask(client: Client, ahead: bytes = b"") -> None:
    fields = "".join(f"{name}: {value}\r\n" for name, value in ASKS)
    await client.send(f"GET /api/ws HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode() + ahead)


async def test_a_websocket_talks_through_a_mount(make: Make, talker: Talker) -> None:
    sidecar = await make(talker.port)
    async with talk(mounted(sidecar)) as socket:
        assert socket.protocol == "chat"
        await socket.send_str("hello")
        assert await socket.receive_str() == "heard hello"
        await socket.send_bytes(b"\x00" * 100_000)
        assert await socket.receive_bytes() == b"\x00" * 100_000
        await socket.send_str("leave")
        closing = await socket.receive()
        assert (closing.type, closing.data) == (aiohttp.WSMsgType.CLOSE, 4000)
    record = await sidecar.record()
    assert (record.outcome, record.status, record.upstream) == ("tunnelled", 101, "api")
    assert record.request_bytes > 100_000
    assert record.response_bytes > 100_000
    assert await sidecar.metric("sidecar_tunnels_total") == 1
    assert await sidecar.metric("sidecar_open_tunnels") == 0


async def test_a_websocket_talks_through_http_proxy(make: Make, talker: Talker) -> None:
    sidecar = await make(talker.port)
    proxy = f"http://127.0.0.1:{sidecar.sidecar.address.port}"
    async with talk(f"http://127.0.0.1:{talker.port}/ws", proxy=proxy) as socket:
        await socket.send_str("hello")
        assert await socket.receive_str() == "heard hello"


async def test_the_handshake_is_retried_by_the_table(make: Make, talker: Talker, clock: ManualClock) -> None:
    talker.refusals = 2
    sidecar = await make(talker.port)
    async with talk(mounted(sidecar)) as socket:
        await socket.send_str("hello")
        assert await socket.receive_str() == "heard hello"
    record = await sidecar.record()
    assert [attempt.status for attempt in record.attempts] == [503, 503, 101]
    assert record.outcome == "tunnelled"
    assert clock.waits == pytest.approx([0.1, 0.2], abs=0.05)


async def test_the_head_of_the_101_travels_and_says_how_it_came_about(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503), say_raw(SWITCHED + b"first words", wait=True))
    async with sidecar.client() as client:
        await ask(client)
        answer = await client.one_head()
        assert (answer.status, answer.reason) == (101, "Switching Protocols")
        assert (answer.headers.get("upgrade"), answer.headers.get("connection")) == ("websocket", "Upgrade")
        assert answer.headers.get("x-more") == "1"
        assert answer.headers.get("x-request-id")
        assert "transfer-encoding" not in answer.headers
        assert "content-length" not in answer.headers
        assert str(answer.headers.get("sidecar")).startswith("outcome=tunnelled, attempts=2")
        assert await client.source.exactly(11) == b"first words"
    asked = upstream.requests[1].headers
    assert (asked.get("upgrade"), asked.get("connection")) == ("websocket", "Upgrade")
    assert asked.get("sec-websocket-key") == "dGhlIHNhbXBsZSBub25jZQ=="


async def test_what_the_app_sends_ahead_reaches_the_other_side_only_after_the_101(
    make: Make, upstream: Upstream
) -> None:
    live = Live()
    upstream.script(live)
    sidecar = await make(upstream, quick="")
    async with sidecar.client() as client:
        await ask(client, b"ahead of time")
        connection = await live.here()
        await connection.read_head()
        assert connection.source.held == b""
        await connection.send(SWITCHED)
        assert (await client.one_head()).status == 101
        assert await connection.source.exactly(13) == b"ahead of time"
        connection.close()
        live.over()


@pytest.mark.parametrize("status", [200, 400, 401, 426])
async def test_any_other_answer_is_framed_as_usual_and_nothing_behind_it_is_a_request(
    make: Make, upstream: Upstream, status: int
) -> None:
    """CVE-2026-69243, CVE-2024-23326: a declined upgrade is not a tunnel, and what was sent for one is no request."""
    sidecar = await make(upstream)
    upstream.script(say(status, b"no", headers=[("X-Why", "because")]))
    async with sidecar.client() as client:
        await ask(client, b"GET /api/smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer.body, answer.headers.get("x-why")) == (status, b"no", "because")
        assert answer.headers.get("connection") == "close"
        assert await client.ended() in ("closed", "reset")
    assert [request.target for request in upstream.requests] == ["/ws"]


async def test_a_connection_of_a_declined_upgrade_may_serve_others_and_does_not_switch_later(
    make: Make, upstream: Upstream
) -> None:
    sidecar = await make(upstream, "attempts: 1")
    upstream.script(say(400, b"no"), say_raw(SWITCHED, wait=True))
    async with sidecar.client() as client:
        await ask(client)
        assert (await client.answer()).status == 400
    answer = await sidecar.ask("GET", "/api/plain")
    assert (answer.status, answer.json()["code"]) == (502, "protocol")
    assert [request.connection for request in upstream.requests][:2] == [1, 1]


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket, x\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
    ids=["another", "more", "unnamed"],
)
async def test_a_101_to_what_was_not_asked_for_is_502(make: Make, upstream: Upstream, head: bytes) -> None:
    sidecar = await make(upstream, "attempts: 1")
    upstream.script(say_raw(head, wait=True))
    async with sidecar.client() as client:
        await ask(client)
        answer = await client.answer()
        assert (answer.status, answer.json()["code"]) == (502, "protocol")
    assert await sidecar.metric("sidecar_tunnels_total") == 0


async def test_a_request_that_asks_for_an_upgrade_cannot_carry_a_body(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        answer = await client.ask("POST", "/api/ws", ASKS, b"hello")
        assert answer.status == 400
        assert "upgrade" in answer.json()["detail"]
        assert await client.ended() == "closed"
    assert upstream.requests == []


@pytest.mark.parametrize("value", ["h2c", "H2C", "h2c, h2"])
async def test_http_2_in_the_clear_is_dropped(make: Make, upstream: Upstream, value: str) -> None:
    sidecar = await make(upstream)
    sent = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", value), ("HTTP2-Settings", "AAMAAABk")]
    async with sidecar.client() as client:
        assert (await client.ask("GET", "/api/", sent)).status == 200
        assert (await client.ask("GET", "/api/")).status == 200
    assert "upgrade" not in upstream.requests[0].headers
    assert "http2-settings" not in upstream.requests[0].headers


async def test_an_upgrade_over_http_1_0_is_ignored(make: Make, upstream: Upstream) -> None:
    """RFC 9110 section 7.8."""
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        await client.send(b"GET /api/ HTTP/1.0\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert (await client.answer()).status == 200
    assert "upgrade" not in upstream.requests[0].headers


async def test_when_one_side_dies_the_other_ends_too(make: Make, upstream: Upstream) -> None:
    live, other = Live(), Live()
    upstream.script(live, other)
    sidecar = await make(upstream, quick="")
    async with sidecar.client() as client:
        await ask(client)
        connection = await live.here()
        await connection.read_head()
        await connection.send(SWITCHED)
        assert (await client.one_head()).status == 101
        connection.reset()
        live.over()
        assert await client.ended() == "reset"
    async with sidecar.client() as client:
        await ask(client)
        connection = await other.here()
        await connection.read_head()
        await connection.send(SWITCHED)
        assert (await client.one_head()).status == 101
        client.reset()
        await connection.until_gone()
        other.over()
    assert (await sidecar.record(2)).outcome == "tunnelled"
    assert await sidecar.metric("sidecar_open_tunnels") == 0


async def test_a_websocket_talks_to_an_https_upstream(make: Make, tls_upstream: Upstream, authority_file: str) -> None:
    sidecar = await make(tls_upstream, scheme="https", more=f"    ca_file: {authority_file}")
    live = Live()
    tls_upstream.script(live)
    async with sidecar.client() as client:
        await ask(client)
        connection = await live.here()
        await connection.read_head()
        await connection.send(SWITCHED + b"over TLS")
        assert (await client.one_head()).status == 101
        assert await client.source.exactly(8) == b"over TLS"
        await client.send(b"and back")
        assert await connection.source.exactly(8) == b"and back"
        connection.close()
        live.over()
        assert await client.ended() == "closed"


async def test_an_idle_upgraded_connection_ends_after_the_time_for_tunnels(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, top="tunnels: {idle: 200ms}")
    upstream.script(say_raw(SWITCHED, wait=True))
    async with sidecar.client() as client:
        await ask(client)
        assert (await client.one_head()).status == 101
        async with asyncio.timeout(60):
            assert await client.ended() in ("closed", "reset")
