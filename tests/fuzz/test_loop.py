"""The virtual loop and network: time jumps, pairs end as TCP does, threads are waited for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from tests.fuzz.loop import STARTS_AT, CountedQueue, Spinning, Stalled, VirtualLoop, reset
from tests.fuzz.plans import make
from tests.fuzz.world import play

HERE = ("127.0.0.1", 9000)


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    made = VirtualLoop(1)
    yield made
    made.close()


class Peer(asyncio.Protocol):
    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.data = b""
        self.ended: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        self.ended.append("fin")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.append(type(exc).__name__)


async def pair(loop: VirtualLoop) -> tuple[Peer, Peer]:
    there, here = Peer(), Peer()
    loop.network.listen(*HERE, lambda sock: loop.adopt(sock, there))
    assert loop.network.dial(HERE, here) is not None
    await asyncio.sleep(0.001)
    return here, there


def test_time_jumps_to_the_next_timer(loop: VirtualLoop) -> None:
    begun = time.monotonic()
    loop.run_until_complete(asyncio.sleep(100_000))  # virtual time
    assert time.monotonic() - begun < 5
    assert 100_000 <= loop.time() - STARTS_AT < 100_000.1


def test_bytes_arrive_before_time_moves(loop: VirtualLoop) -> None:
    async def talk() -> None:
        here, there = await pair(loop)
        here.transport.write(b"x" * 100_000)
        await asyncio.sleep(0.001)
        assert len(there.data) == 100_000

    loop.run_until_complete(talk())


@pytest.mark.parametrize("how", ["fin", "reset"])
def test_an_end_looks_as_of_tcp(loop: VirtualLoop, how: str) -> None:
    async def talk() -> None:
        here, there = await pair(loop)
        if how == "fin":
            here.transport.close()
        else:
            reset(here.transport)
        await asyncio.sleep(0.001)
        assert there.ended == (["fin", "NoneType"] if how == "fin" else ["ConnectionResetError"])
        there.transport.close()

    loop.run_until_complete(talk())


def test_who_waits_for_ever_is_told(loop: VirtualLoop) -> None:
    async def wait() -> None:
        await loop.create_future()

    task = loop.create_task(wait())
    with pytest.raises(Stalled):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


def test_who_goes_round_without_time_moving_is_told(loop: VirtualLoop) -> None:
    async def spin() -> None:
        while True:  # noqa: ASYNC110 - that is the point
            await asyncio.sleep(0)

    task = loop.create_task(spin())
    with pytest.raises(Spinning):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


def test_a_thread_has_done_its_work_before_time_moves(loop: VirtualLoop) -> None:
    queue = CountedQueue()
    loop.queues.append(queue)
    told: list[float] = []

    def work() -> None:
        while queue.get() is not None:
            time.sleep(0.01)
            loop.call_soon_threadsafe(lambda: told.append(loop.time()))

    async def ask() -> None:
        asked = loop.time()
        queue.put("anything")
        await asyncio.sleep(1000)  # virtual time
        assert told == [pytest.approx(asked, abs=0.001)]
        queue.put(None)

    thread = threading.Thread(target=work)
    thread.start()
    loop.run_until_complete(ask())
    thread.join()


def test_a_run_is_a_function_of_its_seed() -> None:
    first, second = (play(make(18)) for _ in range(2))
    assert (first.turns, first.seconds, first.sends, first.faults) == (
        second.turns, second.seconds, second.sends, second.faults,
    )  # fmt: skip
