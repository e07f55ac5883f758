"""Names → addresses: asked once for all who wait, remembered briefly, bounded."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from sidecar.core.enums import FailureKind
from sidecar.upstream.errors import NotConnected
from sidecar.upstream.resolver import REMEMBER_NAMES, REMEMBER_SECONDS, AddressInfo, Resolver

FOUND: list[AddressInfo] = [
    (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 80)),
    (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("::1", 80, 0, 0)),
]


class Names:
    """A name server: counts, and answers when the test lets it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.answer: list[AddressInfo] | Exception = FOUND

    async def lookup(self, host: str, port: int) -> list[AddressInfo]:
        self.asked.append((host, port))
        await self.open.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
async def names() -> Names:
    return Names()


@pytest.fixture
async def resolver(names: Names) -> AsyncIterator[Resolver]:
    made = Resolver(asyncio.get_running_loop(), names.lookup)
    yield made
    await made.close()


async def asking(names: Names, count: int) -> None:
    async with asyncio.timeout(60):
        while len(names.asked) < count:  # noqa: ASYNC110 - it takes a turn or two of the loop
            await asyncio.sleep(0)


async def test_one_question_serves_all_who_ask_meanwhile(names: Names, resolver: Resolver) -> None:
    names.open.clear()
    tasks = [asyncio.create_task(resolver.addresses("a.test", 80)) for _ in range(100)]
    await asking(names, 1)
    names.open.set()
    assert await asyncio.gather(*tasks) == [FOUND] * 100
    assert names.asked == [("a.test", 80)]


async def test_an_answer_is_remembered_by_name_and_port(names: Names, resolver: Resolver) -> None:
    for _ in range(3):
        assert await resolver.addresses("a.test", 80) == FOUND
    await resolver.addresses("a.test", 81)
    assert names.asked == [("a.test", 80), ("a.test", 81)]


async def test_it_is_remembered_briefly(names: Names, resolver: Resolver) -> None:
    before = asyncio.get_running_loop().time()
    await resolver.addresses("a.test", 80)
    until, found = resolver._known["a.test", 80]
    assert before + REMEMBER_SECONDS <= until <= asyncio.get_running_loop().time() + REMEMBER_SECONDS
    resolver._known["a.test", 80] = (until - REMEMBER_SECONDS, [])
    assert await resolver.addresses("a.test", 80) == found
    assert len(names.asked) == 2


async def test_a_name_is_asked_again_once_it_is_forgotten(names: Names, resolver: Resolver) -> None:
    await resolver.addresses("a.test", 80)
    resolver.forget("a.test", 80)
    resolver.forget("never.test", 80)
    await resolver.addresses("a.test", 80)
    assert len(names.asked) == 2


async def test_no_answer_is_not_remembered(names: Names, resolver: Resolver) -> None:
    names.answer = socket.gaierror(socket.EAI_NONAME, "unknown")
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await resolver.addresses("a.test", 80)
    names.answer = []
    with pytest.raises(NotConnected) as caught:
        await resolver.addresses("a.test", 80)
    assert caught.value.kind is FailureKind.RESOLVE
    names.answer = FOUND
    assert await resolver.addresses("a.test", 80) == FOUND


async def test_all_who_wait_hear_of_a_failure(names: Names, resolver: Resolver) -> None:
    names.open.clear()
    names.answer = socket.gaierror(socket.EAI_AGAIN, "later")
    tasks = [asyncio.create_task(resolver.addresses("a.test", 80)) for _ in range(5)]
    await asking(names, 1)
    names.open.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [socket.gaierror] * 5


async def test_who_gives_up_does_not_take_the_answer_from_the_others(names: Names, resolver: Resolver) -> None:
    names.open.clear()
    first, second = (asyncio.create_task(resolver.addresses("a.test", 80)) for _ in range(2))
    await asking(names, 1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    names.open.set()
    assert await second == FOUND
    assert len(names.asked) == 1


async def test_only_so_many_names_are_remembered_the_oldest_is_forgotten(names: Names, resolver: Resolver) -> None:
    for number in range(REMEMBER_NAMES + 10):
        await resolver.addresses(f"{number}.test", 80)
    assert len(resolver._known) == REMEMBER_NAMES
    assert not resolver._asking
    names.asked.clear()
    await resolver.addresses("10.test", 80)
    assert names.asked == []
    await resolver.addresses("0.test", 80)
    assert names.asked == [("0.test", 80)]


async def test_close_ends_what_is_being_asked(names: Names, resolver: Resolver) -> None:
    names.open.clear()
    task = asyncio.create_task(resolver.addresses("a.test", 80))
    await asking(names, 1)
    await resolver.close()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not resolver._asking


async def test_a_literal_address_needs_no_name_server() -> None:
    resolver = Resolver(asyncio.get_running_loop())
    (found,) = await resolver.addresses("127.0.0.1", 8080)
    assert found[4] == ("127.0.0.1", 8080)
    await resolver.close()
