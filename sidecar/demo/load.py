"""An app that never retries: sends requests at a steady rate, whatever comes back, and counts the results.

Every request has a connection of its own and is sent once, so that the calls counted upstream show what the sidecar
did. Counterpart: ``upstream``.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Load", "Reply", "Tally", "run_load"]

PATIENCE_SECONDS = 10.0
ORDER_EVERY = 5
"""One request in this number is a POST with an effect."""

_STORY = re.compile(rb"^sidecar: *([^\r\n]+)", re.IGNORECASE | re.MULTILINE)
_LENGTH = re.compile(rb"^content-length: *([0-9]+)", re.IGNORECASE | re.MULTILINE)
_OUTCOME = re.compile(r"\boutcome=([a-z_]+)")


@dataclass(frozen=True, slots=True)
class Load:
    requests: int = 400
    per_second: float = 160.0


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    story: str = ""
    """The ``Sidecar`` header, if there was one."""


@dataclass(slots=True)
class Tally:
    """What the app saw."""

    requests: int = 0
    succeeded: int = 0
    seconds: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    stories: list[str] = field(default_factory=list)
    """The ``Sidecar`` headers of recovered requests."""

    def note(self, reply: Reply | None, seconds: float) -> None:
        """``None``: no whole response came."""
        self.requests += 1
        self.succeeded += reply is not None and 200 <= reply.status < 300
        self.seconds.append(seconds)
        outcome = _OUTCOME.search(reply.story) if reply else None
        if reply and outcome:
            self.outcomes[outcome[1]] += 1
            if outcome[1] == "recovered":
                self.stories.append(reply.story)

    def percentile_seconds(self, share: float) -> float:
        """By nearest rank; 0 before the first request."""
        ranked = sorted(self.seconds)
        return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else 0.0


async def run_load(host: str, port: int, prefix: str, load: Load, progress: Callable[[Tally], None]) -> Tally:
    """Sends ``load`` to ``prefix`` there, each request on time and none waiting for another.

    ``progress`` is called after each reply. Failures are counted, never raised.
    """
    tally = Tally()
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def one(number: int) -> None:
        sent = loop.time()
        tally.note(await _ask(host, port, *_request(prefix, number)), loop.time() - sent)
        progress(tally)

    async with asyncio.TaskGroup() as group:
        for number in range(load.requests):
            await asyncio.sleep(max(0.0, began + number / load.per_second - loop.time()))
            group.create_task(one(number))
    return tally


def _request(prefix: str, number: int) -> tuple[str, str, bytes]:
    if number % ORDER_EVERY == 0:
        return "POST", f"{prefix}/v1/orders/{number}", b'{"amount": 1}'
    return "GET", f"{prefix}/v1/quote/{number}", b""


async def _ask(host: str, port: int, method: str, target: str, body: bytes) -> Reply | None:
    """One request, one connection, one reply; ``None`` if none came whole."""
    head = f"{method} {target} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n" if body else "\r\n"
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(head.encode() + body)
                return _reply(await reader.read(-1))
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None


def _reply(raw: bytes) -> Reply | None:
    head, end, body = raw.partition(b"\r\n\r\n")
    status = head[9:12]
    length = _LENGTH.search(head)
    if not end or not status.isdigit() or (length and int(length[1]) != len(body)):
        return None
    story = _STORY.search(head)
    return Reply(int(status), story[1].decode("latin-1") if story else "")
