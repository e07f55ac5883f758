"""Connections shared over real sockets: bounded, in turn, never reused when they are dead or too old."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from sidecar.core.enums import FailureKind
from sidecar.core.settings.deployment import Origin
from sidecar.upstream.connection import Connection
from sidecar.upstream.errors import NotConnected
from sidecar.upstream.pool import IDLE_SECONDS, Pool, Pools, _announced_seconds
from sidecar.wire.write_batch import FEW, WriteBatch
from tests.core.making import short
from tests.support.upstream import Upstream, close, refused_port, say

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream.start() as started:
        yield started


@pytest.fixture
async def pools() -> AsyncIterator[Pools]:
    made = Pools(asyncio.get_running_loop())
    yield made
    await made.close()


def pool_for(pools: Pools, port: int, limit: int = 2) -> Pool:
    return pools.configured("api", Origin("http", "127.0.0.1", port), limit)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - any condition; nothing signals all of them
            await asyncio.sleep(0.001)


async def ask(connection: Connection) -> int:
    """One whole request and answer; the connection goes back by itself."""
    assert connection.send(REQUEST, "GET", whole=True)
    message = await connection.head()
    assert message is not None, connection.detail
    assert await connection.whole(1 << 20)
    connection.release()
    return message.code


def crowded() -> WriteBatch:
    """A turn of the loop in which writes wait for its end."""
    write_batch = WriteBatch(asyncio.get_running_loop())
    write_batch.under_way = FEW
    return write_batch


async def connected(pool: Pool) -> Connection:
    return await pool.connect(5.0)


async def test_a_connection_is_lent_again_after_its_answer(upstream: Upstream, pools: Pools) -> None:
    pool = pool_for(pools, upstream.port)
    assert pool.take_idle(careful=True) is None
    first = await connected(pool)
    assert first.reused is False
    assert await ask(first) == 200
    again = pool.take_idle(careful=True)
    assert again is first
    assert again.reused is True
    assert await ask(first) == 200
    assert (pool.size, len(upstream.connections)) == (1, 1)


async def test_the_most_recently_used_is_lent_first(upstream: Upstream, pools: Pools) -> None:
    pool = pool_for(pools, upstream.port)
    first, second = await connected(pool), await connected(pool)
    await ask(second)
    await ask(first)
    assert pool.take_idle(careful=False) is first
    assert pool.take_idle(careful=False) is second
    assert pool.take_idle(careful=False) is None


async def test_beyond_the_limit_turns_are_taken_in_order(upstream: Upstream, pools: Pools) -> None:
    pool = pool_for(pools, upstream.port, limit=2)
    busy = [await connected(pool), await connected(pool)]
    served: list[int] = []

    async def attempt(number: int) -> None:
        connection = await connected(pool)
        served.append(number)
        await ask(connection)

    tasks = []
    for number in range(5):
        tasks.append(asyncio.create_task(attempt(number)))
        await until(lambda: pool.waiting == len(tasks))
    assert pool.size == 2
    await ask(busy[0])
    await asyncio.gather(*tasks)
    assert served == [0, 1, 2, 3, 4]
    assert (pool.size, pool.waiting, len(upstream.connections)) == (2, 0, 2)


async def test_a_place_that_falls_free_goes_to_who_waits(upstream: Upstream, pools: Pools) -> None:
    pool = pool_for(pools, upstream.port, limit=1)
    busy = await connected(pool)
    task = asyncio.create_task(connected(pool))
    await until(lambda: pool.waiting == 1)
    busy.abort()
    made = await task
    assert made is not busy
    assert await ask(made) == 200


async def test_a_cancelled_waiter_loses_nothing(upstream: Upstream, pools: Pools) -> None:
    pool = pool_for(pools, upstream.port, limit=1)
    busy = await connected(pool)
    tasks = [asyncio.create_task(connected(pool)) for _ in range(3)]
    await until(lambda: pool.waiting == 3)
    tasks[1].cancel()
    await asyncio.gather(tasks[1], return_exceptions=True)
    assert pool.waiting == 2
    await ask(busy)
    assert pool.waiting == 1  # it is the first one's turn now, though it has not run yet
    tasks[0].cancel()
    await asyncio.gather(tasks[0], return_exceptions=True)
    async with asyncio.timeout(60):
        assert await tasks[2] is busy
    assert await ask(busy) == 200
    assert (pool.size, pool.waiting) == (1, 0)


async def test_any_storm_of_cancellations_leaves_every_place(upstream: Upstream, pools: Pools) -> None:
    pool = pool_for(pools, upstream.port, limit=3)
    answered = 0

    async def attempt() -> None:
        nonlocal answered
        connection = pool.take_idle(careful=False) or await connected(pool)
        try:
            await ask(connection)
            answered += 1
        except asyncio.CancelledError:
            connection.abort()
            raise

    tasks = [asyncio.create_task(attempt()) for _ in range(60)]
    for number, task in enumerate(tasks):
        if number % 3 == 0:
            for _ in range(number % 7):
                await asyncio.sleep(0)
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert answered >= 40
    assert pool.size <= 3
    assert (pool.waiting, pool._connecting) == (0, 0)
    connections = [pool.take_idle(careful=True) or await connected(pool) for _ in range(3)]
    assert len(set(connections)) == 3


async def test_a_refused_connection_gives_its_place_back(pools: Pools) -> None:
    pool = pool_for(pools, refused_port(), limit=1)
    results = await asyncio.gather(*(connected(pool) for _ in range(5)), return_exceptions=True)
    assert [getattr(result, "kind", result) for result in results] == [FailureKind.REFUSED] * 5
    assert (pool.size, pool.waiting, pool.is_unused) == (0, 0, True)


async def test_a_connection_that_is_not_made_in_time_is_a_timeout() -> None:
    async def never(_host: str, _port: int) -> list[object]:
        await asyncio.Event().wait()
        return []

    pools = Pools(asyncio.get_running_loop(), never)  # type: ignore[arg-type]  # it never answers at all
    pool = pools.configured("slow", Origin("http", "slow.test", 80), 1)
    with pytest.raises(NotConnected) as caught:
        await pool.connect(0.01)
    assert caught.value.kind is FailureKind.CONNECT_TIMEOUT
    assert pool.size == 0
    await pools.close()


async def test_an_announced_timeout_is_kept_a_second_below(upstream: Upstream, pools: Pools) -> None:
    upstream.script(say(200, b"ok", headers=[("Keep-Alive", "timeout=5, max=100")]))
    pool = pool_for(pools, upstream.port)
    connection = await connected(pool)
    await ask(connection)
    assert connection.expired == 4.0
    connection.idle_since -= 3.9
    assert pool.take_idle(careful=False) is connection
    pool.put(connection)
    connection.idle_since -= 4.0
    assert pool.take_idle(careful=False) is None
    assert pool.size == 0


async def test_without_an_announcement_the_default_holds(upstream: Upstream, pools: Pools) -> None:
    pool = pool_for(pools, upstream.port)
    old, young = await connected(pool), await connected(pool)
    await ask(old)
    await ask(young)
    old.idle_since -= IDLE_SECONDS
    pool.sweep()
    assert pool.size == 1
    assert pool.take_idle(careful=False) is young


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("timeout=5", 4.0),
        ("max=100, timeout=75", 74.0),
        ("Timeout=5", 4.0),
        ("timeout=1", 0.5),
        ("timeout=0", 0.5),
        ("timeout=-5", 0.0),
        ("timeout=5.5", 0.0),
        ("timeout=٥", 0.0),
        ("timeout=9999999", 0.0),
        ("timeout", 0.0),
        ("max=5", 0.0),
        ("", 0.0),
    ],
    ids=short,
)
def test_an_announcement_is_read_strictly(value: str, seconds: float) -> None:
    assert _announced_seconds(value) == seconds


class Raw:
    """One accepted connection, to be ended as the test wants."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError):
            await reader.read()


@pytest.fixture
async def raw() -> AsyncIterator[tuple[Raw, int]]:
    accepted = Raw()
    server = await asyncio.start_server(accepted.serve, "127.0.0.1", 0)
    yield accepted, server.sockets[0].getsockname()[1]
    server.close()
    for writer in accepted.writers:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def end_or_say(peer: socket.socket, end: str) -> None:
    """Below asyncio on both sides: the loop has not looked at the socket yet when the pool does."""
    if end == "bytes":
        assert os.write(peer.fileno(), b"HTTP/1.1 408 Too late\r\n\r\n") > 0
    else:
        with socket.socket(fileno=os.dup(peer.fileno())) as twin:
            twin.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("end", ["close", "bytes"])
async def test_what_the_kernel_already_knows_makes_a_connection_stale(
    raw: tuple[Raw, int], pools: Pools, end: str
) -> None:
    accepted, port = raw
    pool = pool_for(pools, port)
    connection = await connected(pool)
    await until(lambda: accepted.writers)
    assert connection.is_stale() is False
    peer = accepted.writers[0].get_extra_info("socket")
    end_or_say(peer, end)
    assert connection.is_stale() is True
    pool.put(connection)
    assert pool.take_idle(careful=True) is None
    assert pool.size == 0


@pytest.mark.parametrize("end", ["close", "bytes"])
async def test_a_careful_request_is_not_written_where_the_kernel_knows_better(
    raw: tuple[Raw, int], pools: Pools, end: str
) -> None:
    accepted, port = raw
    connection = await connected(pool_for(pools, port))
    await until(lambda: accepted.writers)
    peer = accepted.writers[0].get_extra_info("socket")
    write_batch = crowded()
    assert connection.send_in_batch(REQUEST, "POST", write_batch, careful=True)
    end_or_say(peer, end)
    write_batch.end()
    assert (connection.unwritten, connection.failure) == (REQUEST, FailureKind.CLOSED)
    with pytest.raises(BlockingIOError):
        os.read(peer.fileno(), 1)  # not a byte of it


@pytest.mark.parametrize("end", ["close", "bytes"])
async def test_nor_where_nothing_waits_for_the_end_of_the_turn(raw: tuple[Raw, int], pools: Pools, end: str) -> None:
    accepted, port = raw
    connection = await connected(pool_for(pools, port))
    await until(lambda: accepted.writers)
    peer = accepted.writers[0].get_extra_info("socket")
    end_or_say(peer, end)
    assert not connection.send_in_batch(REQUEST, "POST", WriteBatch(asyncio.get_running_loop()), careful=True)
    with pytest.raises(BlockingIOError):
        os.read(peer.fileno(), 1)


async def test_a_request_in_turn_is_written_when_the_turn_is_over(upstream: Upstream, pools: Pools) -> None:
    connection = await connected(pool_for(pools, upstream.port))
    write_batch = crowded()
    assert connection.send_in_batch(REQUEST, "GET", write_batch, careful=True)
    assert connection.unwritten == REQUEST
    message = await connection.head()
    assert message is not None
    assert (message.code, connection.unwritten) == (200, b"")


async def test_what_comes_before_the_request_is_written_is_not_its_answer(upstream: Upstream, pools: Pools) -> None:
    connection = await connected(pool_for(pools, upstream.port))
    write_batch = crowded()
    assert connection.send_in_batch(REQUEST, "GET", write_batch, careful=False)
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert (connection.message, connection.unwritten) == (None, REQUEST)
    write_batch.end()
    assert upstream.requests == []


async def test_one_that_the_upstream_has_closed_is_gone_by_itself(upstream: Upstream, pools: Pools) -> None:
    pool = pool_for(pools, upstream.port)
    connection = await connected(pool)
    await ask(connection)
    upstream.connections[0].close()
    await until(lambda: pool.size == 0)
    assert connection.is_stale() is True
    assert pool.take_idle(careful=False) is None


async def test_one_whose_answer_was_cut_is_never_lent_again(upstream: Upstream, pools: Pools) -> None:
    upstream.script(close())
    pool = pool_for(pools, upstream.port)
    connection = await connected(pool)
    assert connection.send(REQUEST, "GET", whole=True)
    assert await connection.head() is None
    connection.release()
    assert pool.take_idle(careful=False) is None
    await until(lambda: pool.size == 0)


async def test_after_close_nobody_waits_and_nothing_is_open(upstream: Upstream, pools: Pools) -> None:
    pool = pool_for(pools, upstream.port, limit=1)
    await connected(pool)
    tasks = [asyncio.create_task(connected(pool)) for _ in range(3)]
    await until(lambda: pool.waiting == 3)
    pool.close()
    async with asyncio.timeout(60):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [getattr(result, "kind", result) for result in results] == [FailureKind.CLOSED] * 3
    assert pool.is_unused


async def test_a_reload_keeps_the_pool_and_changes_its_limit(upstream: Upstream, pools: Pools) -> None:
    pool = pool_for(pools, upstream.port, limit=1)
    assert pool_for(pools, upstream.port, limit=7) is pool
    assert pool.limit == 7


async def test_a_retired_pool_serves_whoever_holds_it_and_keeps_nothing(upstream: Upstream, pools: Pools) -> None:
    pool = pool_for(pools, upstream.port)
    await ask(await connected(pool))
    assert pool.lent == 0
    lent = await connected(pool)
    pools.keep(())
    await ask(lent)
    await until(lambda: pool.is_unused)
    await ask(await connected(pool))
    await until(lambda: pool.is_unused)
    assert pool_for(pools, upstream.port) is not pool


async def test_what_is_lent_is_counted_without_those_that_have_died_idle(upstream: Upstream, pools: Pools) -> None:
    pool = pool_for(pools, upstream.port)
    await ask(await connected(pool))
    upstream.connections[0].close()
    await until(lambda: pool.size == 0)
    assert (pool.lent, pool.is_busy, pool.has_room) == (0, False, True)
