"""The bad input itself: one attacker, in a process of its own, that counts what it gets.

``python -m benchmarks.attacks KIND PORT --seconds 4`` prints one line of JSON. ``dripping`` is not an attacker but the
upstream of one: it answers a byte at a time. What another connection feels meanwhile is ``storm_input``'s to say.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import select
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import uvloop

from benchmarks.http1 import request_bytes, take_answer

__all__ = ["ATTACKS"]

TICK_SECONDS = 0.001
SLOW_CONNECTIONS = 20
"""Each one byte a tick: 20,000 reads a second for the proxy."""
DRIPPED_BYTES = 2000
BIG_FIELDS = 100
BIG_FIELD_BYTES = 8 << 10
PIPELINED = 10_000
QUIET_SECONDS = 5.0
"""An attacker gives up on an answer after this."""


@dataclass
class Stats:
    """What came back."""

    sent: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    """Status, or ``closed`` or ``silent``, and how often."""

    def line(self) -> str:
        return json.dumps({"sent": self.sent, "statuses": dict(self.statuses)})


def connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), QUIET_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read_one(connection: socket.socket, buffer: bytearray, stats: Stats) -> bool:
    """Waits for one answer and tallies it; False when the connection is of no more use."""
    try:
        while (answer := take_answer(buffer)) is None:
            chunk = connection.recv(1 << 16)
            if not chunk:
                stats.statuses["closed"] += 1
                return False
            buffer += chunk
    except TimeoutError:
        stats.statuses["silent"] += 1
        return False
    except OSError:
        stats.statuses["closed"] += 1
        return False
    stats.statuses[str(answer.status)] += 1
    return True


def byte_at_a_time(port: int, until: float, stats: Stats) -> None:
    """Twenty connections, each sends its request one byte a millisecond, again and again."""
    request = request_bytes("/small", port, fields="User-Agent: drip\r\nAccept: application/json\r\n")
    connections = [connected(port) for _ in range(SLOW_CONNECTIONS)]
    buffers = [bytearray() for _ in connections]
    tick = 0
    start = time.perf_counter()
    while time.perf_counter() < until:
        byte = tick % len(request)
        for connection in connections:
            connection.send(request[byte : byte + 1])
        tick += 1
        if byte == len(request) - 1:
            stats.sent += len(connections)
            for connection, buffer in zip(connections, buffers, strict=True):
                read_one(connection, buffer, stats)
        select.select([], [], [], max(0.0, start + tick * TICK_SECONDS - time.perf_counter()))


def slow_upstream(port: int, until: float, stats: Stats) -> None:
    """Twenty clients ask for what the upstream answers one byte a millisecond."""
    connections = [connected(port) for _ in range(SLOW_CONNECTIONS)]
    while time.perf_counter() < until:
        for connection in connections:
            connection.send(request_bytes("/drip", port))
            stats.sent += 1
        for connection in connections:
            read_one(connection, bytearray(), stats)


def big_heads(port: int, until: float, stats: Stats) -> None:
    """A head of 100 fields of 8 KiB, on one new connection after another."""
    fields = "".join(f"X-Big-{n}: {'x' * BIG_FIELD_BYTES}\r\n" for n in range(BIG_FIELDS))
    request = request_bytes("/small", port, fields=fields)
    while time.perf_counter() < until:
        with connected(port) as connection:
            stats.sent += 1
            with contextlib.suppress(ConnectionError, TimeoutError):
                connection.sendall(request)
            read_one(connection, bytearray(), stats)


def pipelined(port: int, until: float, stats: Stats) -> None:
    """10,000 requests on one connection without waiting for an answer; they are read as they come."""
    request = request_bytes("/small", port) * PIPELINED
    while time.perf_counter() < until:
        with connected(port) as connection:
            stats.sent += PIPELINED
            _pour(connection, request, stats)


def _pour(connection: socket.socket, request: bytes, stats: Stats) -> None:
    """Writes and reads at once: a proxy that stops reading while it answers must not be blamed for a deadlock."""
    connection.setblocking(False)
    left, buffer, answered = memoryview(request), bytearray(), 0
    while answered < PIPELINED:
        readable, writable, _ = select.select([connection], [connection] if left else [], [], QUIET_SECONDS)
        if not readable and not writable:
            stats.statuses["silent"] += PIPELINED - answered
            return
        try:
            if writable:
                left = left[connection.send(left[: 1 << 16]) :]
            chunk = connection.recv(1 << 16) if readable else None
        except ConnectionError:
            chunk = b""
        if chunk == b"":
            stats.statuses["closed"] += PIPELINED - answered
            return
        buffer += chunk or b""
        while (answer := take_answer(buffer)) is not None:
            stats.statuses[str(answer.status)] += 1
            answered += 1


ATTACKS: dict[str, Callable[[int, float, Stats], None]] = {
    "a client that sends a byte at a time": byte_at_a_time,
    "an upstream that answers a byte at a time": slow_upstream,
    "heads of 100 fields of 8 KiB": big_heads,
    "10,000 pipelined requests": pipelined,
}


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % DRIPPED_BYTES
            for byte in head + b"x" * DRIPPED_BYTES:
                writer.write(bytes([byte]))
                await asyncio.sleep(TICK_SECONDS)
    writer.close()


async def dripping(port: int) -> None:
    server = await asyncio.start_server(drip, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["dripping", *ATTACKS])
    parser.add_argument("port", type=int)
    parser.add_argument("--seconds", type=float, default=4.0)
    given = parser.parse_args()
    if given.kind == "dripping":
        uvloop.run(dripping(given.port))
        return
    stats = Stats()
    with contextlib.suppress(ConnectionError):
        ATTACKS[given.kind](given.port, time.perf_counter() + given.seconds, stats)
    print(stats.line())


if __name__ == "__main__":
    main()
