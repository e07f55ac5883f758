"""A load of a fixed rate, right about coordinated omission: latency counts from when a request was due.

A request is due at its time whether or not earlier ones were answered; when every connection is busy it
waits, and that wait is part of its latency. One thread, raw sockets, timers of the kernel to some
microseconds (an asyncio timer has a millisecond). ``python -m benchmarks.steady PORT PATH --rate 1000``
prints one line of JSON. Throughput is ``wrk``'s job.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import select
import socket
import time
from collections import deque
from dataclasses import dataclass, field

from benchmarks.http1 import request_bytes, take_answer

__all__ = ["Result", "percentile", "run"]

PR_SET_TIMERSLACK = 29
"""prctl(2): let the kernel wake us to the nanosecond, not within its usual 50 µs."""
GRACE_SECONDS = 3.0
"""For answers that are still due when the last request has been sent; then they count as lost."""


@dataclass
class Result:
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    """Seconds, from due to whole answer."""
    bad_status: int = 0
    lost: int = 0

    def line(self) -> str:
        ordered = sorted(self.latencies)
        return json.dumps(
            {
                "requests": len(ordered),
                "seconds": self.seconds,
                "p50_us": percentile(ordered, 0.50) * 1e6,
                "p99_us": percentile(ordered, 0.99) * 1e6,
                "max_us": percentile(ordered, 1.0) * 1e6,
                "bad_status": self.bad_status,
                "lost": self.lost,
            }
        )


def percentile(ordered: list[float], share: float) -> float:
    """The smallest value that so many are not above; 0 of nothing."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))]


class _Connection:
    def __init__(self, port: int) -> None:
        self.port = port
        self.open()

    def open(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.due_at = 0.0

    def fileno(self) -> int:
        return self.socket.fileno()


class _Run:
    def __init__(self, port: int, path: str, rate: float, seconds: float, connections: int) -> None:
        self.request = request_bytes(path, port)
        self.interval_seconds = 1.0 / rate
        self.total = round(rate * seconds)
        self.idle = [_Connection(port) for _ in range(connections)]
        self.busy: set[_Connection] = set()
        self.waiting: deque[float] = deque()
        self.result = Result()
        self.sent = 0

    def go(self) -> Result:
        self.start = time.perf_counter() + 0.01
        give_up_at = self.start + self.total * self.interval_seconds + GRACE_SECONDS
        while self.sent < self.total or self.waiting or self.busy:
            now = time.perf_counter()
            if now > give_up_at:
                break
            self._send_what_is_due(now)
            self._receive(self._pause_seconds(give_up_at))
        self.result.lost += len(self.busy) + len(self.waiting)
        self.result.seconds = time.perf_counter() - self.start
        return self.result

    def _pause_seconds(self, give_up_at: float) -> float:
        next_at = self.start + self.sent * self.interval_seconds if self.sent < self.total else give_up_at
        return max(0.0, next_at - time.perf_counter())

    def _send_what_is_due(self, now: float) -> None:
        while self.sent < self.total and (due_at := self.start + self.sent * self.interval_seconds) <= now:
            self.waiting.append(due_at)
            self.sent += 1
        while self.waiting and self.idle:
            connection = self.idle.pop()
            connection.due_at = self.waiting.popleft()
            self.busy.add(connection)
            try:
                connection.socket.sendall(self.request)
            except ConnectionError:
                self._lose(connection)

    def _receive(self, pause_seconds: float) -> None:
        readable, _, _ = select.select(list(self.busy), [], [], pause_seconds)
        for connection in readable:
            self._read(connection)

    def _read(self, connection: _Connection) -> None:
        try:
            chunk = connection.socket.recv(65536)
        except ConnectionError:
            chunk = b""
        if not chunk:
            self._lose(connection)
            return
        connection.buffer += chunk
        answer = take_answer(connection.buffer)
        if answer is None:
            return
        self.result.latencies.append(time.perf_counter() - connection.due_at)
        self.result.bad_status += answer.status >= 400
        self._free(connection)

    def _lose(self, connection: _Connection) -> None:
        self.result.lost += 1
        connection.socket.close()
        self.busy.discard(connection)
        connection.open()
        self.idle.append(connection)

    def _free(self, connection: _Connection) -> None:
        self.busy.discard(connection)
        self.idle.append(connection)


def run(port: int, path: str, rate: float, seconds: float, connections: int) -> Result:
    """``rate`` requests a second for ``seconds`` over at most ``connections`` (under 1,000: select(2))."""
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    return _Run(port, path, rate, seconds, connections).go()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=32)
    given = parser.parse_args()
    print(run(given.port, given.path, given.rate, given.seconds, given.connections).line())


if __name__ == "__main__":
    main()
