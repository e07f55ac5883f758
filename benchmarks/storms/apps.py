"""The load of a storm: so many workers one after another, or a fixed rate that waits for nobody.

A latency counts from the moment when a request was due, so nobody can hide a stall. It judges nothing, and never asks
twice for the same request.
"""

from __future__ import annotations

import asyncio
import gc
import re
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import cast

from benchmarks.http1 import Answer, request_bytes, take_answer
from benchmarks.storms.judge import Reply
from sidecar.simulate.storms import Storm

__all__ = ["KEYED_POST", "REASON", "Apps", "load"]

LONGEST_SECONDS = 150.0
"""Of one request, far beyond the deadline of any peer here; then it counts as cut."""
KEYED_POST = "POST, keyed"
"""Stands for a POST with an ``Idempotency-Key``."""
REASON = re.compile(rb"\r\nsidecar:[^\r]*\breason=([a-z_]+)")


class Wire(asyncio.Protocol):
    """A kept connection to the proxy; one request at a time."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.answered: asyncio.Future[Answer | None] | None = None
        self.transport: asyncio.Transport
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.is_open = cast(asyncio.Transport, transport), True

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        answer = take_answer(self.buffer)
        if answer is not None:
            if b"\r\nconnection: close" in answer.head:
                self.is_open = False
                self.transport.close()
            self._settle(answer)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        self._settle(None)

    def _settle(self, answer: Answer | None) -> None:
        if self.answered is not None and not self.answered.done():
            self.answered.set_result(answer)

    async def ask(self, request: bytes) -> Answer | None:
        self.answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        try:
            return await asyncio.wait_for(self.answered, LONGEST_SECONDS)
        except TimeoutError:
            self.transport.abort()
            return None


class Apps:
    """All of them, with the connections that they share."""

    def __init__(self, *ports: int) -> None:
        self.ports = cycle(ports)
        self.port = ports[0]
        self.idle: list[Wire] = []
        self.replies: list[Reply] = []

    async def one(self, name: str, method: str, due_at: float) -> None:
        """One request, from the moment when it was due to its answer."""
        try:
            wire = await self.wire()
            answer = await wire.ask(self._request(name, method))
        except OSError:
            answer = None
        else:
            if wire.is_open:
                self.idle.append(wire)
        found = REASON.search(answer.head) if answer is not None else None
        reason = found[1].decode() if found else ""
        status = 0 if answer is None else answer.status
        self.replies.append(Reply(name, due_at, time.monotonic(), status, reason))

    async def wire(self) -> Wire:
        while self.idle:
            wire = self.idle.pop()
            if wire.is_open:
                return wire
        _, wire = await asyncio.get_running_loop().create_connection(Wire, "127.0.0.1", next(self.ports))
        return wire

    def _request(self, name: str, method: str) -> bytes:
        fields = "" if method == "GET" else "Content-Length: 2\r\nContent-Type: application/json\r\n"
        if method == KEYED_POST:
            fields += f'Idempotency-Key: "{name}"\r\n'
        return request_bytes(f"/r/{name}", self.port, method.split(",")[0], fields) + (b"{}" if fields else b"")

    def close(self) -> None:
        for wire in self.idle:
            wire.transport.close()


async def load(
    port: int | Sequence[int],
    storm: Storm,
    keyed_posts: float = 0.0,
    prefix: str = "",
    begun: Callable[[], None] | None = None,
) -> tuple[float, list[Reply]]:
    """The whole storm; when it began, and every reply.

    ``port``: of the proxy; of several, the connections are dealt out evenly. ``keyed_posts``: this share of the
    requests are POSTs with a key, evenly spread. ``prefix``: of their names.
    """
    apps = Apps(*([port] if isinstance(port, int) else port))
    if begun is not None:
        begun()
    gc.collect()
    gc.disable()  # a pause of ours would look like one of theirs
    began_at = time.monotonic()
    try:
        names = _named(storm, keyed_posts, prefix)
        await (_workers(apps, storm, names) if storm.workers else _offered(apps, storm, names, began_at))
    finally:
        gc.enable()
        apps.close()
    return began_at, apps.replies


def _named(storm: Storm, keyed_posts: float, prefix: str) -> Iterator[tuple[str, str]]:
    """Name and method of each request, as many as the storm has."""
    total = storm.requests if storm.workers else max(1, round(storm.rate * storm.seconds))
    for number in range(total):
        is_post = int((number + 1) * keyed_posts) > int(number * keyed_posts)
        yield f"{prefix}{number}", KEYED_POST if is_post else storm.method


async def _workers(apps: Apps, storm: Storm, names: Iterator[tuple[str, str]]) -> None:
    async def work() -> None:
        for name, method in names:
            await apps.one(name, method, time.monotonic())

    await asyncio.gather(*(work() for _ in range(min(storm.workers, storm.requests))))


async def _offered(apps: Apps, storm: Storm, names: Iterator[tuple[str, str]], began_at: float) -> None:
    async with asyncio.TaskGroup() as group:
        for number, (name, method) in enumerate(names):
            due_at = began_at + number / storm.rate
            await asyncio.sleep(max(0.0, due_at - time.monotonic()))
            group.create_task(apps.one(name, method, due_at))
