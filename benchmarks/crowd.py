"""Ten thousand exchanges in a Retry-After wait: their upstream and their clients, in one process.

The upstream answers the first send of each path with 503 and ``Retry-After``, the next with 200, and notes
both moments: lateness is the second arrival, less the first answer, less the hint. So it holds two trips
over loopback as well, and whatever this process is late itself. Clients arrive paced, so that wakes are due
paced; a bystander asks for ``/small`` all the while and its longest answer shows a stall.

``python -m benchmarks.crowd UPSTREAM_PORT PROXY_PORT`` speaks by lines on its output: ``ready``, ``parked``, then
one line of JSON. It is told to begin by a line on its input.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from dataclasses import dataclass, field
from typing import cast

import uvloop

from benchmarks.http1 import request_bytes, take_answer
from benchmarks.process import raise_file_limit
from benchmarks.steady import percentile

__all__ = ["Plan"]

SMALL = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n" + b'{"status":"ok"}'
BYSTANDER_PAUSE_SECONDS = 0.005
ANSWER_GRACE_SECONDS = 30.0
"""After the last wake is due; answers that come later than this are lost."""


@dataclass(frozen=True)
class Plan:
    count: int
    arrivals_seconds: float
    """Over which the exchanges arrive, evenly; their wakes are due over as long."""
    hint_seconds: int


@dataclass
class Notes:
    """What the upstream saw."""

    count: int
    answered_at: dict[bytes, float] = field(default_factory=dict)
    all_answered: asyncio.Event = field(default_factory=asyncio.Event)
    lateness: list[float] = field(default_factory=list)
    """Seconds; negative when the proxy came back sooner than it was asked to."""


class Upstream(asyncio.Protocol):
    """One connection from the proxy."""

    transport: asyncio.Transport

    def __init__(self, notes: Notes, hint_seconds: int) -> None:
        self.notes = notes
        self.hint_seconds = hint_seconds
        self.refusal = (
            f"HTTP/1.1 503 Service Unavailable\r\nRetry-After: {hint_seconds}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        self.buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            path = bytes(self.buffer[: self.buffer.find(b"\r\n")]).split(b" ")[1]
            del self.buffer[: end + 4]
            self._answer(path)

    def _answer(self, path: bytes) -> None:
        if not path.startswith(b"/park/"):
            self.transport.write(SMALL)
            return
        now = time.perf_counter()
        before = self.notes.answered_at.pop(path, None)
        if before is None:
            self.notes.answered_at[path] = now
            self.transport.write(self.refusal)
            if len(self.notes.answered_at) == self.notes.count:
                self.notes.all_answered.set()
        else:
            self.notes.lateness.append(now - before - self.hint_seconds)
            self.transport.write(SMALL)


class Client(asyncio.Protocol):
    """One app's connection: a request when told, its status when it comes."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        answer = take_answer(self.buffer)
        if answer is not None and not self.status.done():
            self.status.set_result(answer.status)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.status.done():
            self.status.set_result(0)

    def ask(self, path: str, port: int) -> asyncio.Future[int]:
        self.status = asyncio.get_running_loop().create_future()
        self.transport.write(request_bytes(path, port))
        return self.status


async def connect(port: int) -> Client:
    _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", port)
    return client


async def bystander(port: int, taken: list[float]) -> None:
    """Asks without end, one at a time; appends seconds per answer."""
    client = await connect(port)
    while True:
        before = time.perf_counter()
        await client.ask("/small", port)
        taken.append(time.perf_counter() - before)
        await asyncio.sleep(BYSTANDER_PAUSE_SECONDS)


async def arrive(clients: list[Client], port: int, seconds: float) -> None:
    """Each sends its request at its own moment of the ``seconds``."""
    start = time.perf_counter()
    for number, client in enumerate(clients):
        due_at = start + seconds * number / len(clients)
        if (pause := due_at - time.perf_counter()) > 0:
            await asyncio.sleep(pause)
        client.ask(f"/park/{number}", port)


async def until_parked(notes: Notes, limit_seconds: float) -> None:
    """Until every first send was answered, or the first wake came."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(notes.all_answered.wait(), limit_seconds)


async def crowd(upstream_port: int, proxy_port: int, plan: Plan) -> dict[str, float]:
    notes, taken = Notes(plan.count), list[float]()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Upstream(notes, plan.hint_seconds), "127.0.0.1", upstream_port, backlog=8192
    )
    say("ready")
    await heard()
    clients = [await connect(proxy_port) for _ in range(plan.count)]
    say("connected")
    await heard()
    aside = asyncio.create_task(bystander(proxy_port, taken))
    await arrive(clients, proxy_port, plan.arrivals_seconds)
    await until_parked(notes, plan.hint_seconds)
    say("parked")
    limit_seconds = plan.hint_seconds * 2 + plan.arrivals_seconds + ANSWER_GRACE_SECONDS
    await asyncio.wait([client.status for client in clients], timeout=limit_seconds)
    aside.cancel()
    server.close()
    return told(clients, notes, taken)


def told(clients: list[Client], notes: Notes, taken: list[float]) -> dict[str, float]:
    late, taken = sorted(notes.lateness), sorted(taken)
    good = sum(1 for client in clients if client.status.done() and client.status.result() == 200)
    return {
        "answered_200": good,
        "woken": len(late),
        "earliest_ms": (late[0] if late else 0.0) * 1e3,
        "late_p50_ms": percentile(late, 0.5) * 1e3,
        "late_p99_ms": percentile(late, 0.99) * 1e3,
        "late_max_ms": percentile(late, 1.0) * 1e3,
        "bystander_p99_ms": percentile(taken, 0.99) * 1e3,
        "bystander_max_ms": percentile(taken, 1.0) * 1e3,
    }


def say(word: str) -> None:
    print(word, flush=True)


async def heard() -> None:
    """Waits for a line on the input."""
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("upstream_port", type=int)
    parser.add_argument("proxy_port", type=int)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--arrivals-seconds", type=float, default=5.0)
    parser.add_argument("--hint-seconds", type=int, default=8)
    given = parser.parse_args()
    raise_file_limit()
    plan = Plan(given.count, given.arrivals_seconds, given.hint_seconds)
    found = uvloop.run(crowd(given.upstream_port, given.proxy_port, plan))
    say(json.dumps(found))


if __name__ == "__main__":
    main()
