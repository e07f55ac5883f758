"""The outbox for the loop: one thread does all that touches the file, so that no fsync ever holds up the loop.

What is asked for while a commit is under way is done together in the next one. It is bounded in bytes that wait for
the disk. One sidecar per file: a lock beside it says so. The counterpart is ``outbox_file``: the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from sidecar.core.settings.deployment import OutboxRule
from sidecar.outbox.items import Count, Item, OutboxError, Refusal
from sidecar.outbox.sqlite import SqliteOutbox

__all__ = ["OutboxWorker"]

MOST_TOGETHER: Final = 256
COMMIT_SECONDS: Final = 10.0
"""How long past its time a request waits for a commit that is under way: only the disk knows how that ends."""
CLOSE_SECONDS: Final = 10.0
"""How long the end of the process waits for the disk."""
PENDING_BYTES: Final = 128 << 20
"""Of requests that wait for the disk; beyond that the disk is too slow, and the next ones are refused."""

T = TypeVar("T")


class _Job:
    """One thing to do in the thread; ``done`` tells the loop."""

    def __init__(self, act: Callable[[SqliteOutbox], Any], done: asyncio.Future[Any]) -> None:
        self._act = act
        self.done = done
        self._lock = threading.Lock()
        self._is_begun = False
        self._is_withdrawn = False

    def __call__(self, outbox_file: SqliteOutbox) -> Any:
        """In the thread, inside the transaction. A job that is begun can no longer be withdrawn."""
        with self._lock:
            if self._is_withdrawn:
                return None
            self._is_begun = True
        return self._act(outbox_file)

    def withdraw(self) -> bool:
        """In the loop. True: it will never be done; False: it is being done, or was."""
        with self._lock:
            if not self._is_begun:
                self._is_withdrawn = True
            return self._is_withdrawn


class OutboxWorker:
    """An open outbox, for coroutines. ``rule`` says where and how much."""

    def __init__(self, rule: OutboxRule) -> None:
        self.rule = rule
        self.trouble = ""
        """What the file's last change failed with; empty while all is well."""
        self.on_added: Callable[[str], None] | None = None
        """Told the upstream of every item that is in."""
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._pending_bytes = 0
        self._lock = -1
        self._thread: threading.Thread | None = None

    async def open(self) -> None:
        """Raises ``OutboxError``; then nothing is left open."""
        self._lock = _lock(self.rule.file)
        opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="sidecar-outbox", daemon=True)
        self._thread.start()
        try:
            await opened
        except OutboxError:
            self._unlock()
            raise

    async def close(self) -> None:
        """After everything that was asked for is done, if the disk answers."""
        if self._thread is not None and self._thread.is_alive():
            self._jobs.put(None)
            await self._loop.run_in_executor(None, self._thread.join, CLOSE_SECONDS)
        self._unlock()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # -- what may be asked for ---------------------------------------------------------------------------

    async def add(self, item: Item, seconds: float) -> None:
        """Returns once the item would survive a crash. Raises ``Refusal``: then it was not accepted, and will not be.

        After ``seconds`` it is withdrawn; if its commit is under way then, the disk's answer is waited for.
        """
        size = item.size_bytes
        if self._pending_bytes + size > PENDING_BYTES:
            raise Refusal("outbox_busy", "the outbox's disk is too slow for what is stored now")
        self._pending_bytes += size
        job = self._put(lambda outbox_file: outbox_file.add(item, self.rule))
        job.done.add_done_callback(lambda done: self._settled(done, size))
        try:
            await self._ended(job, seconds)
        except sqlite3.Error:
            raise Refusal("outbox_unavailable", "the outbox cannot be written now") from None
        if self.on_added is not None:
            self.on_added(item.upstream)

    def _settled(self, done: asyncio.Future[Any], size: int) -> None:
        self._pending_bytes -= size
        _seen(done)

    async def _ended(self, job: _Job, seconds: float) -> None:
        """Returns once the job is done; raises what it failed with, or ``Refusal``: then it is never done."""
        try:
            await asyncio.wait([job.done], timeout=seconds)
            if not job.done.done() and not self._withdrawn(job):
                await asyncio.wait([job.done], timeout=COMMIT_SECONDS)
        except asyncio.CancelledError:
            self._withdrawn(job)
            raise
        if job.done.cancelled():
            raise Refusal("deadline", "the outbox's disk was not free in time")
        if not job.done.done():
            detail = "the outbox's disk does not answer: nobody knows yet whether the request is stored"
            raise Refusal("outbox_unavailable", detail)
        job.done.result()

    def _withdrawn(self, job: _Job) -> bool:
        """Whether the job could still be taken back."""
        return job.withdraw() and job.done.cancel()

    async def next(self, upstream: str, now: float, *, after_aside: bool) -> tuple[Item | None, float | None]:
        return await self._ask(lambda outbox_file: outbox_file.next(upstream, now, after_aside=after_aside))

    async def counts(self) -> list[Count]:
        return await self._ask(SqliteOutbox.counts)

    async def begin(self, item_id: str) -> None:
        await self._ask(lambda outbox_file: outbox_file.begin(item_id))

    async def unbegin(self, item_id: str) -> None:
        await self._ask(lambda outbox_file: outbox_file.unbegin(item_id))

    async def remove(self, item_id: str) -> None:
        await self._ask(lambda outbox_file: outbox_file.remove(item_id))

    async def put_off(self, item_id: str, note: str, *, tries: int, due_at: float, aside: bool) -> None:
        await self._ask(lambda outbox_file: outbox_file.put_off(item_id, note, tries=tries, due_at=due_at, aside=aside))

    def hinted(self, item_id: str, due_at: float) -> None:
        """Keep a hint that came in the midst of a round. Nobody waits for it: at the end of the round it is told again,
        and what is asked for later is done later.
        """
        self._put(lambda outbox_file: outbox_file.hinted(item_id, due_at)).done.add_done_callback(_seen)

    async def mark_dead(self, item_id: str, reason: str, status: int | None, note: str, now: float) -> bool:
        return await self._ask(lambda outbox_file: outbox_file.mark_dead(item_id, reason, status, note, now))

    async def mark_expired_dead(self, now: float) -> list[tuple[str, str]]:
        return await self._ask(lambda outbox_file: outbox_file.mark_older_dead(now - self.rule.max_age_seconds, now))

    async def _ask(self, act: Callable[[SqliteOutbox], T]) -> T:
        """Done in any case, also if the caller is cancelled: what is told to the file has happened."""
        done: asyncio.Future[T] = self._put(act).done
        return await done

    def _put(self, act: Callable[[SqliteOutbox], Any]) -> _Job:
        job = _Job(act, self._loop.create_future())
        self._jobs.put(job)
        return job

    # -- the thread --------------------------------------------------------------------------------------

    def _run(self, opened: asyncio.Future[None]) -> None:
        try:
            outbox_file = SqliteOutbox.open(self.rule.file)
        except OutboxError as error:
            self._tell(lambda error=error: opened.set_exception(error))  # type: ignore[misc]
            return
        self._tell(lambda: opened.set_result(None))
        more = True
        while more:
            jobs, more = self._next()
            outbox_file = self._do(outbox_file, jobs)
        outbox_file.close()

    def _next(self) -> tuple[list[_Job], bool]:
        """What has been asked for, waiting for the first of it; and whether there may be more."""
        jobs: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) >= MOST_TOGETHER:
                return jobs, True
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return jobs, True
        return jobs, False

    def _do(self, outbox_file: SqliteOutbox, jobs: list[_Job]) -> SqliteOutbox:
        """All in one transaction; if that fails, each in its own, so that one's trouble is not everyone's."""
        if not jobs:
            return outbox_file
        try:
            results = outbox_file.together([lambda job=job: job(outbox_file) for job in jobs])  # type: ignore[misc]
        except sqlite3.Error as error:
            if len(jobs) > 1:
                for job in jobs:
                    outbox_file = self._do(outbox_file, [job])
                return outbox_file
            self._finish(jobs, [error], trouble=str(error))
            return self._opened_anew(outbox_file)
        self._finish(jobs, results, trouble="")
        return outbox_file

    def _opened_anew(self, outbox_file: SqliteOutbox) -> SqliteOutbox:
        """After an error of the disk the connection is not to be trusted."""
        try:
            fresh = SqliteOutbox.open(self.rule.file, create=False)
        except OutboxError:
            return outbox_file
        outbox_file.close()
        return fresh

    def _finish(self, jobs: list[_Job], results: list[Any], *, trouble: str) -> None:
        def finish() -> None:
            self.trouble = trouble
            for job, result in zip(jobs, results, strict=True):
                if job.done.done():
                    continue
                if isinstance(result, Exception):
                    job.done.set_exception(result)
                else:
                    job.done.set_result(result)

        self._tell(finish)

    def _tell(self, act: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to be told
            self._loop.call_soon_threadsafe(act)


def _seen(done: asyncio.Future[Any]) -> None:
    """Retrieve the exception of a job that perhaps nobody waits for any more: asyncio would log it."""
    if not done.cancelled():
        done.exception()


def _lock(path: str) -> int:
    """Held until closed. Beside the file: closing any descriptor of the file itself would undo SQLite's own locks."""
    try:
        descriptor = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise OutboxError(f"the directory of the outbox {path} does not exist: make it, or mount it") from None
    except OSError as error:
        raise OutboxError(f"cannot open the outbox {path}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise OutboxError(f"the outbox {path} is in use by another sidecar: give each its own file") from None
    return descriptor
