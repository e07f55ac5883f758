"""The thread behind the loop: what is told is durable, one's trouble is not everyone's, and one owner at a time."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.core.settings.deployment import OutboxRule
from sidecar.outbox import worker as room
from sidecar.outbox.items import Item, OutboxError, Refusal
from sidecar.outbox.sqlite import SqliteOutbox
from sidecar.outbox.worker import OutboxWorker

ITEM = Item("a" * 32, "api", "POST", "/x", b"Host: a\r\n", b"body", 1000.0)


def item(number: int) -> Item:
    return replace(ITEM, id=f"{number:032x}")


async def opened(path: Path, max_count: int = 100_000) -> OutboxWorker:
    worker = OutboxWorker(OutboxRule(str(path), max_count=max_count))
    await worker.open()
    return worker


async def test_what_was_accepted_is_in_the_file_before_anybody_is_told(tmp_path: Path) -> None:
    worker = await opened(tmp_path / "outbox.db")
    await asyncio.gather(*(worker.add(item(number), 5) for number in range(50)))
    outbox_file = SqliteOutbox.open(str(tmp_path / "outbox.db"))
    assert len(outbox_file.ids()) == 50
    outbox_file.close()
    await worker.close()


async def test_each_of_many_at_once_gets_its_own_answer(tmp_path: Path) -> None:
    worker = await opened(tmp_path / "outbox.db", max_count=7)
    results = await asyncio.gather(*(worker.add(item(number), 5) for number in range(20)), return_exceptions=True)
    assert [type(result) for result in results] == [type(None)] * 7 + [Refusal] * 13
    await worker.close()


async def test_one_that_the_file_refuses_does_not_harm_those_beside_it(tmp_path: Path) -> None:
    worker = await opened(tmp_path / "outbox.db")
    twice = [worker.add(item(number), 5) for number in (1, 2, 1, 3)]
    results = await asyncio.gather(*twice, return_exceptions=True)
    assert [isinstance(result, Refusal) for result in results] == [False, False, True, False]
    assert isinstance(results[2], Refusal)
    assert results[2].code == "outbox_unavailable"
    await worker.add(item(4), 5)
    assert worker.trouble == ""
    await worker.close()


async def test_who_stopped_waiting_before_the_disk_was_free_has_stored_nothing(tmp_path: Path) -> None:
    worker = await opened(tmp_path / "outbox.db")
    other = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # the disk is not free
    first = asyncio.create_task(worker.add(item(1), 5))
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        while not worker._jobs.empty():  # noqa: ASYNC110 - until the thread has taken it, and waits
            await asyncio.sleep(0.001)
    second = asyncio.create_task(worker.add(item(2), 5))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    other.execute("ROLLBACK")
    other.close()
    await first
    await worker.add(item(3), 5)
    counts = await worker.counts()
    assert counts[0].waiting == 2
    await worker.close()


async def test_more_than_may_wait_for_the_disk_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "PENDING_BYTES", 1000)
    worker = await opened(tmp_path / "outbox.db")
    results = await asyncio.gather(*(worker.add(item(number), 5) for number in range(10)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, Refusal)]
    assert {refusal.code for refusal in refused} == {"outbox_busy"}
    assert 0 < len(refused) < 10
    await worker.close()


async def test_a_file_has_one_owner_until_it_is_closed(tmp_path: Path) -> None:
    worker = await opened(tmp_path / "outbox.db")
    with pytest.raises(OutboxError, match="in use by another sidecar"):
        await opened(tmp_path / "outbox.db")
    await worker.close()
    await (await opened(tmp_path / "outbox.db")).close()


async def test_a_file_that_cannot_be_opened_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(OutboxError, match="damaged"):
        await opened(path)
    path.unlink()
    await (await opened(path)).close()
    with pytest.raises(OutboxError, match="make it, or mount it"):
        await opened(tmp_path / "missing" / "outbox.db")


async def test_what_is_refused_because_its_time_is_over_is_never_stored(tmp_path: Path) -> None:
    worker = await opened(tmp_path / "outbox.db")
    other = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    storing = asyncio.create_task(worker.add(item(1), 0.2))
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        while not worker._jobs.empty():  # noqa: ASYNC110 - until the thread has taken it, and waits
            await asyncio.sleep(0.001)
    with pytest.raises(Refusal, match="not free in time"):
        await storing
    other.execute("ROLLBACK")
    other.close()
    await worker.add(item(2), 5)
    (count,) = await worker.counts()
    assert count.waiting == 1
    await worker.close()


async def test_a_commit_that_is_under_way_when_time_is_over_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await opened(tmp_path / "outbox.db")
    begun, go_on, add = threading.Event(), threading.Event(), SqliteOutbox.add

    def slow(outbox_file: SqliteOutbox, each: Item, rule: OutboxRule) -> None:
        begun.set()
        go_on.wait(5)
        add(outbox_file, each, rule)

    monkeypatch.setattr(SqliteOutbox, "add", slow)
    storing = asyncio.create_task(worker.add(item(1), 0.01))
    await asyncio.to_thread(begun.wait, 5)
    asyncio.get_running_loop().call_later(0.05, go_on.set)
    await storing
    (count,) = await worker.counts()
    assert count.waiting == 1
    await worker.close()
