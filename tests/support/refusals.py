"""Refusals in such numbers that they close the gate of their endpoint (``core.flow.evidence``)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from sidecar.core.flow.evidence import FEWEST
from tests.support.client import Answer
from tests.support.sidecar import Running
from tests.support.upstream import Connection, Step, Upstream, head_bytes, say

__all__ = ["FEWEST", "refused", "refused_for_good"]

NUMBER = "X-Number"
"""Tells the exchanges apart at the upstream, so that exactly the first sends are refused."""


class Refused:
    """Exchanges whose first sends were refused at once, and that wait for what is after the hint."""

    def __init__(self, asking: list[asyncio.Task[Answer]]) -> None:
        self.asking = asking

    async def first(self) -> Answer:
        """The answer that comes first."""
        async with asyncio.timeout(10):
            done, _ = await asyncio.wait(self.asking, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()


@contextlib.asynccontextmanager
async def refused(
    sidecar: Running,
    upstream: Upstream,
    seconds: float,
    target: str = "/api/x",
    headers: list[tuple[str, str]] | None = None,
) -> AsyncIterator[Refused]:
    """``FEWEST`` exchanges at once, each told to come back after so many seconds: the gate closes.

    Those that still wait at the end leave. Everything else is answered as before. A clock that is moved by hand jumps
    by all their waits; where others see the same quiet, the clock has to be a real one.
    """
    seen: set[str | None] = set()
    everybody = asyncio.Event()
    otherwise, hint = upstream.otherwise, [("Retry-After", str(seconds)), ("Content-Length", "0")]

    async def refuse(connection: Connection) -> None:
        request = await connection.read_request()
        seen.add(request.headers.get(NUMBER))
        if len(seen) == FEWEST:
            everybody.set()
        await everybody.wait()  # a first one that comes back before the last has come would count as not refused yet
        await connection.send(head_bytes(429, hint))

    def choose(connection: Connection) -> Step:
        return refuse if len(seen) < FEWEST else otherwise(connection)

    closings = sidecar.sidecar.listener.router.destinations["api"].holding.limiter.closings
    before = closings["gate"] + closings["rate"]
    upstream.otherwise = choose
    sidecar.clock.hold()
    made = [
        asyncio.create_task(sidecar.ask("GET", target, [*(headers or []), (NUMBER, str(number))]))
        for number in range(FEWEST)
    ]
    try:
        await sidecar.until(lambda: closings["gate"] + closings["rate"] > before)
        upstream.otherwise = otherwise
        sidecar.clock.release()
        yield Refused(made)
    finally:
        sidecar.clock.release()
        upstream.otherwise = otherwise
        for task in made:
            task.cancel()
        await asyncio.gather(*made, return_exceptions=True)


async def refused_for_good(
    sidecar: Running,
    upstream: Upstream,
    target: str = "/api/x",
    headers: list[tuple[str, str]] | None = None,
    number: int = FEWEST,
) -> None:
    """So many exchanges, each refused for a minute, which is longer than their deadline lets them wait."""
    upstream.script(*[say(429, headers=[("Retry-After", "60")]) for _ in range(number)])
    for _ in range(number):
        assert (await sidecar.ask("GET", target, headers)).status == 429
