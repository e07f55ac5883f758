"""The upstream of a storm: a model of ``sidecar.simulate`` behind a real socket, that logs each arrival for the judge.

``python -m benchmarks.storms.upstream PORT STORM.json SEED``. ``/r/ID`` is what the load asks for, or anything with an
``X-Request-Number``. ``/begin`` makes the model anew and begins its time; ``/log`` hands over the arrivals since it was
last asked and forgets them; ``/causes`` says why a model of many parts answered as it did; anything else is 200, unseen
by the model. It knows nothing of who asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, cast

import uvloop

from benchmarks.storms.judge import Arrival
from sidecar.core.decision.attempt import Request
from sidecar.core.enums import FailureKind
from sidecar.simulate.storms import Storm, storm_from_file
from sidecar.simulate.upstream import Answer, Call, Upstream

PATH, BEGIN, LOG, CAUSES = "/r/", "/begin", "/log", "/causes"
NUMBERED = "x-request-number"
"""The header that names a request whose path is its own affair: its index among those of the run."""
BODY = b'{"ok":true}'
BACKLOG = 4096
STATUS_LINES = {200: b"200 OK", 429: b"429 Too Many Requests", 500: b"500 Internal Server Error"}


class RealTimer:
    """The clock of a model: real time since the storm began."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seed: int) -> None:
        self._loop = loop
        self.chance: Callable[[], float] = random.Random(seed).random
        self.zero = time.monotonic()

    @property
    def now(self) -> float:
        return time.monotonic() - self.zero

    @property
    def wall(self) -> float:
        return time.time()

    def after(self, seconds: float, act: Callable[..., None], *arguments: Any) -> None:
        self._loop.call_later(seconds, act, *arguments)


class Site:
    """The model, its log, and the listener that an outage may close."""

    def __init__(self, storm: Storm, port: int, seed: int, loop: asyncio.AbstractEventLoop) -> None:
        self.storm, self.port, self.seed, self.loop = storm, port, seed, loop
        self.timer = RealTimer(loop, seed)
        self.model: Upstream = storm.upstream(self.timer)
        self.log: list[Arrival] = []
        self.seen: Counter[str] = Counter()
        self.connections: set[Connection] = set()
        self.listener: asyncio.AbstractServer | None = None

    async def listen(self) -> None:
        self.listener = await self.loop.create_server(
            lambda: Connection(self), "127.0.0.1", self.port, backlog=BACKLOG, reuse_address=True
        )

    def begin(self) -> None:
        """Time begins now, with a fresh model."""
        self.timer = RealTimer(self.loop, self.seed)
        self.model = self.storm.upstream(self.timer)
        parameters = self.storm.parameters
        if parameters.get("how") == "refused":
            self.loop.call_later(float(parameters.get("begins", 5.0)), self._shut)
            self.loop.call_later(float(parameters.get("ends", 8.0)), self._open)

    def _shut(self) -> None:
        if self.listener is not None:
            self.listener.close()
        for connection in list(self.connections):
            connection.transport.abort()

    def _open(self) -> None:
        self.opening = self.loop.create_task(self.listen())

    def arrived(self, connection: Connection, method: str, name: str, index: int = 0) -> None:
        self.seen[name] += 1
        arrival = Arrival(at=time.monotonic(), name=name, number=self.seen[name], method=method)
        self.log.append(arrival)
        call = Call(Request(method, f"{PATH}{name}"), index, arrival.number)
        self.model.arrive(call, lambda answer: self._answered(connection, arrival, answer))

    def _answered(self, connection: Connection, arrival: Arrival, answer: Answer) -> None:
        arrival.applied = answer.applied
        arrival.answer = str(answer.failure) if answer.status is None else str(answer.status)
        arrival.answered_at = time.monotonic()
        arrival.allowed_at = allowed_at(answer, arrival.answered_at, time.time())
        if answer.failure is FailureKind.HEAD_TIMEOUT:
            return  # the other side gives up by itself
        if answer.failure is not None:
            connection.break_off(with_reset=answer.failure is not FailureKind.CLOSED)
        else:
            connection.answer(answer)

    def told(self) -> bytes:
        log, self.log = self.log, []
        return json.dumps([arrival.row() for arrival in log]).encode()


class Connection(asyncio.Protocol):
    """Of one proxy, one request after another."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.buffer = bytearray()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self.site.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.site.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.buffer[:end])
            size = length_of(head)
            if len(self.buffer) < end + 4 + size:
                return
            del self.buffer[: end + 4 + size]
            method, target, _ = head.decode("latin-1").split(" ", 2)
            self._asked(method, target, number_of(head))

    def _asked(self, method: str, target: str, number: str) -> None:
        body = BODY
        if number:
            self.site.arrived(self, method, number, int(number))
            return
        if target.startswith(PATH):
            self.site.arrived(self, method, target[len(PATH) :])
            return
        if target == BEGIN:
            self.site.begin()
        elif target == LOG:
            body = self.site.told()
        elif target == CAUSES:
            body = json.dumps(getattr(self.site.model, "causes", {})).encode()
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def answer(self, answer: Answer) -> None:
        if self.transport.is_closing():
            return
        status = answer.status or 500
        fields = b"".join(b"%b: %b\r\n" % field for field in answer.fields)
        line = STATUS_LINES.get(status, b"%d Unavailable" % status)
        self.transport.write(b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (line, fields, len(BODY), BODY))

    def break_off(self, *, with_reset: bool) -> None:
        if with_reset:
            self.transport.abort()
        else:
            self.transport.close()


def length_of(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


def number_of(head: bytes) -> str:
    _, found, rest = head.lower().partition(f"\r\n{NUMBERED}:".encode())
    return rest.partition(b"\r\n")[0].strip().decode("latin-1") if found else ""


def allowed_at(answer: Answer, monotonic: float, wall: float) -> float | None:
    """When the answer allows the next send, in monotonic seconds; None if it does not say."""
    for name, read in READERS.items():
        found = answer.headers.all(name)
        if found:
            return monotonic + read(found[0], wall)
    return None


def _retry_after(text: str, wall: float) -> float:
    with contextlib.suppress(ValueError):
        return float(text)
    with contextlib.suppress(ValueError):
        return parsedate_to_datetime(text).timestamp() - wall
    return 0.0


READERS: dict[str, Callable[[str, float], float]] = {
    "retry-after": _retry_after,
    "retry-after-ms": lambda text, wall: int(text) / 1000,
    "x-ratelimit-reset": lambda text, wall: int(text) - wall,
}
"""The judge's own reading of hints, apart from the sidecar's."""


async def serve(port: int, storm: Storm, seed: int) -> None:
    loop = asyncio.get_running_loop()
    await Site(storm, port, seed, loop).listen()
    await loop.create_future()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), storm_from_file(Path(sys.argv[2])), int(sys.argv[3])))
