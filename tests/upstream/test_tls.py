"""TLS toward an upstream, over real sockets: sessions as the server counts them, ends, cuts, stalls, and crowds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trustme

from sidecar.core.enums import FailureKind
from sidecar.core.settings.deployment import Origin
from sidecar.upstream.connection import HELD_BYTES, Connection
from sidecar.upstream.errors import NotConnected
from sidecar.upstream.pool import Pool, Pools
from sidecar.upstream.tls import (
    DECLINED_IN_A_ROW,
    KEEP_SECONDS,
    READ_BYTES,
    STEPS_PER_TURN,
    Handshakes,
    Resumption,
    tls_context,
)

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
KEPT = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it"
LARGE = bytes(range(256)) * (16 << 10)

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def pools() -> AsyncIterator[Pools]:
    made = Pools(asyncio.get_running_loop())
    yield made
    await made.close()


def context_of(
    authority: trustme.CA, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, name: str = "localhost"
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    authority.issue_cert(name).configure_cert(context)
    return context


async def answer_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One answer, then a clean end."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CLOSING)
    writer.close()


@contextlib.asynccontextmanager
async def serving(context: ssl.SSLContext | None, serve: Serve = answer_one, port: int = 0) -> AsyncIterator[int]:
    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def trusted(authority: trustme.CA) -> str:
    return authority.cert_pem.bytes().decode()


def pool_for(pools: Pools, port: int, authority: trustme.CA) -> Pool:
    return pools.configured("api", Origin("https", "localhost", port, trust=trusted(authority)), 100)


async def ask(pool: Pool) -> bytes:
    """One request on a new connection, and its whole answer."""
    connection = await pool.connect(5.0)
    assert connection.send(REQUEST, "GET", whole=True)
    assert await connection.head() is not None, connection.detail
    assert await connection.whole(8 << 20), connection.detail
    body = b"".join(connection.held)
    connection.release()
    return body


def resumed(context: ssl.SSLContext) -> int:
    return context.session_stats()["hits"]


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@VERSIONS
async def test_the_server_counts_that_sessions_are_resumed(
    authority: trustme.CA, pools: Pools, version: ssl.TLSVersion
) -> None:
    context = context_of(authority, version)
    async with serving(context) as port:
        pool = pool_for(pools, port, authority)
        for _ in range(5):
            assert await ask(pool) == b"ok"
    assert (context.session_stats()["accept"], resumed(context)) == (5, 4)


@VERSIONS
def test_also_on_the_event_loop_of_asyncio(authority: trustme.CA, version: ssl.TLSVersion) -> None:
    context = context_of(authority, version)

    async def talk() -> None:
        pools = Pools(asyncio.get_running_loop())
        async with serving(context) as port:
            pool = pool_for(pools, port, authority)
            for _ in range(3):
                assert await ask(pool) == b"ok"
        await pools.close()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(talk())
    assert resumed(context) == 2


@VERSIONS
async def test_a_server_that_keeps_sessions_itself_resumes_them_too(
    authority: trustme.CA, pools: Pools, version: ssl.TLSVersion
) -> None:
    context = context_of(authority, version)
    context.options |= ssl.OP_NO_TICKET
    async with serving(context) as port:
        pool = pool_for(pools, port, authority)
        for _ in range(4):
            assert await ask(pool) == b"ok"
    assert resumed(context) == 3


async def test_a_server_without_sessions_costs_no_request(authority: trustme.CA, pools: Pools) -> None:
    context = context_of(authority)
    context.num_tickets = 0
    async with serving(context) as port:
        pool = pool_for(pools, port, authority)
        for _ in range(3):
            assert await ask(pool) == b"ok"
    assert resumed(context) == 0


async def test_many_at_once_resume_one_session(authority: trustme.CA, pools: Pools) -> None:
    context = context_of(authority)
    async with serving(context) as port:
        pool = pool_for(pools, port, authority)
        await ask(pool)
        assert await asyncio.gather(*[ask(pool) for _ in range(20)]) == [b"ok"] * 20
    assert resumed(context) == 20


async def test_never_across_trust(authority: trustme.CA, pools: Pools) -> None:
    """The CA is withdrawn: the server could resume, and would be refused in a full handshake."""
    context = context_of(authority)
    async with serving(context) as port:
        await ask(pool_for(pools, port, authority))
        with pytest.raises(NotConnected, match="certificate refused"):
            await pool_for(pools, port, trustme.CA()).connect(5.0)
        both = Origin("https", "localhost", port, trust=trusted(trustme.CA()) + trusted(authority))
        assert await ask(pools.configured("api", both, 10)) == b"ok"
        assert resumed(context) == 0
        assert await ask(pool_for(pools, port, authority)) == b"ok"
    assert resumed(context) == 1


@pytest.mark.parametrize("what", ["of another authority", "for another name"])
async def test_another_certificate_between_sessions_is_verified(authority: trustme.CA, pools: Pools, what: str) -> None:
    async with serving(context_of(authority)) as port:
        pool = pool_for(pools, port, authority)
        await ask(pool)
    wrong = context_of(trustme.CA()) if what == "of another authority" else context_of(authority, name="else.example")
    async with serving(wrong, port=port):
        with pytest.raises(NotConnected, match="certificate refused") as caught:
            await pool.connect(5.0)
        assert (caught.value.kind, caught.value.certificate) == (FailureKind.TLS, True)
    async with serving(context_of(authority), port=port):
        assert await ask(pool) == b"ok"


async def test_a_lie_about_a_ticket_costs_one_handshake(authority: trustme.CA, pools: Pools) -> None:
    """A server that takes a ticket and cannot read it: the connection fails, and the next one does not offer it."""
    context = context_of(authority)
    async with serving(context) as port:
        pool = pool_for(pools, port, authority)
        await ask(pool)

    async def alert(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"\x15\x03\x03\x00\x02\x02\x33")  # decrypt_error
        writer.close()

    async with serving(None, alert, port):
        with pytest.raises(NotConnected, match="TLS handshake failed"):
            await pool.connect(5.0)
    async with serving(context, port=port):
        assert await ask(pool) == b"ok"
        assert resumed(context) == 0
        assert await ask(pool) == b"ok"
        assert resumed(context) == 1


def test_tickets_that_are_never_taken_are_not_offered_for_a_while(authority: trustme.CA) -> None:
    resumption, now = Resumption(), 100.0
    for _ in range(DECLINED_IN_A_ROW):
        assert resumption.wants(now)
        assert resumption.keep(handshaken(authority), now)
        session = resumption.offer(now)
        assert session is not None
        resumption.declined(session, now)
        resumption.declined(session, now)  # offered by two at once, and counted once
    assert not resumption.wants(now)
    assert resumption.wants(now + KEEP_SECONDS)


def test_a_session_is_offered_for_a_while_only(authority: trustme.CA) -> None:
    resumption = Resumption()
    assert resumption.keep(handshaken(authority), 100.0)
    assert resumption.offer(99.0 + KEEP_SECONDS) is not None
    assert resumption.offer(100.0 + KEEP_SECONDS) is None
    assert resumption.wants(100.0 + KEEP_SECONDS)


def handshaken(authority: trustme.CA) -> ssl.SSLObject:
    """The client's side of a TLS 1.3 connection in memory, with a ticket."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = tls_context(trusted(authority)).wrap_bio(down, up, server_hostname="localhost")
    server = context_of(authority).wrap_bio(up, down, server_side=True)
    for side in (client, server, client, server):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    server.write(b"x")
    assert client.read(1) == b"x"
    return client


def test_renegotiation_and_what_is_older_than_tls_1_2_are_refused() -> None:
    context = tls_context(None)
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize("first", [b"", b"\x16\x03\x03\x40\x00\x02"])
async def test_a_stall_in_mid_handshake_is_bounded(authority: trustme.CA, pools: Pools, first: bytes) -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        await reader.read()
        writer.close()

    async with serving(None, stall) as port:
        pool = pool_for(pools, port, authority)
        with pytest.raises(NotConnected) as caught:
            await pool.connect(0.05)
        assert (caught.value.kind, pool.size) == (FailureKind.CONNECT_TIMEOUT, 0)


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_an_end_in_mid_handshake_is_a_failure_of_tls(authority: trustme.CA, pools: Pools, says: bytes) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(says)
        writer.close()

    async with serving(None, hang_up) as port:
        with pytest.raises(NotConnected, match="TLS handshake failed") as caught:
            await pool_for(pools, port, authority).connect(5.0)
        assert caught.value.kind == FailureKind.TLS


@pytest.mark.parametrize("is_clean", [True, False])
async def test_an_end_without_close_notify_is_a_cut(authority: trustme.CA, pools: Pools, is_clean: bool) -> None:
    may_end = asyncio.Event()

    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(UNTIL_CLOSE)
        await may_end.wait()
        if not is_clean:
            with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as below:
                below.shutdown(socket.SHUT_WR)
        writer.close()

    async with serving(context_of(authority), end) as port:
        connection = await pool_for(pools, port, authority).connect(5.0)
        connection.send(REQUEST, "GET", whole=True)
        assert await connection.head() is not None
        may_end.set()
        assert await connection.whole(1 << 20) is is_clean
        assert connection.failure == (None if is_clean else FailureKind.BODY_CUT)
        connection.release()


async def test_a_connection_is_kept_alive(authority: trustme.CA, pools: Pools) -> None:
    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(KEPT)
        writer.close()

    context = context_of(authority)
    async with serving(context, keep) as port:
        pool = pool_for(pools, port, authority)
        assert await ask(pool) == b"ok"
        again = pool.take_idle(careful=True)
        assert again is not None
        again.release()
    assert context.session_stats()["accept"] == 1


class Sunk:
    def __init__(self) -> None:
        self.data = bytearray()
        self.over = asyncio.Event()

    def take(self, data: bytes) -> None:
        self.data += data

    def end(self) -> None:
        self.over.set()

    def broke(self, kind: FailureKind) -> None:
        self.over.set()


async def test_a_large_answer_waits_for_whoever_wants_it(authority: trustme.CA, pools: Pools) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LARGE) + LARGE)
        writer.close()

    async with serving(context_of(authority), serve) as port:
        connection = await pool_for(pools, port, authority).connect(5.0)
        connection.send(REQUEST, "GET", whole=True)
        await connection.head()
        assert not await connection.whole(HELD_BYTES)
        assert connection.held_bytes <= HELD_BYTES + READ_BYTES
        sunk = Sunk()
        connection.relay(sunk, 5.0)
        await sunk.over.wait()
        assert sunk.data == LARGE
        connection.release()


async def test_a_large_request_waits_for_whoever_reads_it(authority: trustme.CA, pools: Pools) -> None:
    got = bytearray()
    may_read = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await may_read.wait()
        got.extend(await reader.readexactly(len(LARGE)))
        writer.write(CLOSING)
        writer.close()

    async with serving(context_of(authority), serve) as port:
        connection = await pool_for(pools, port, authority).connect(5.0)
        assert connection.send(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(LARGE), "POST", whole=False)
        connection.write(LARGE)
        assert connection.writing_paused
        writable = asyncio.Event()
        connection.on_writable = writable.set
        may_read.set()
        await writable.wait()
        assert await connection.head() is not None
        assert bytes(got) == LARGE
        connection.release()


async def test_a_cancelled_handshake_leaves_nothing_behind(authority: trustme.CA, pools: Pools) -> None:
    begun = asyncio.Event()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        begun.set()
        await reader.read()
        writer.close()

    async with serving(None, stall) as port:
        pool = pool_for(pools, port, authority)
        task = asyncio.ensure_future(pool.connect(5.0))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pool.size == 0


class Handshaking:
    steps = 0

    def step(self) -> None:
        self.steps += 1


async def test_a_crowd_of_handshakes_lets_others_in() -> None:
    """Every few steps everybody else gets a turn."""
    crowd = Handshaking()
    waiting: Any = crowd
    handshakes = Handshakes(asyncio.get_running_loop())
    for _ in range(3 * STEPS_PER_TURN):
        handshakes.add(waiting)
    seen = []
    while crowd.steps < 3 * STEPS_PER_TURN:
        await asyncio.sleep(0)
        seen.append(crowd.steps)
    assert seen == [STEPS_PER_TURN, 2 * STEPS_PER_TURN, 3 * STEPS_PER_TURN]


async def test_the_upstreams_end_comes_to_a_connection_that_was_handed_on(authority: trustme.CA, pools: Pools) -> None:
    """After a 101: bytes both ways, and our close_notify when it is closed."""
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def switch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nhello")
        got.set_result(await reader.read())  # to a clean end
        writer.close()

    class Heir(asyncio.Protocol):
        def __init__(self) -> None:
            self.data = b""
            self.lost = asyncio.Event()

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport

        def data_received(self, data: bytes) -> None:
            self.data += data

        def connection_lost(self, exc: Exception | None) -> None:
            assert exc is None
            self.lost.set()

    async with serving(context_of(authority), switch) as port:
        connection: Connection = await pool_for(pools, port, authority).connect(5.0)
        connection.may_switch_to = frozenset({"x"})
        connection.send(REQUEST, "GET", whole=True)
        message = await connection.head()
        assert message is not None
        heir = Heir()
        connection.hand_on(heir)
        heir.transport.write(b"and ")
        heir.transport.write(b"back")
        heir.transport.close()
        heir.transport.close()
        assert await got == b"and back"
        await heir.lost.wait()
        assert heir.data == b"hello"
        assert heir.transport.is_closing()
