"""One round trip to the store: the connections, and several scripts at once within a bounded time.

``store`` decides what runs when, and what follows if it fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from sidecar.core.settings.deployment import SharedRule
from sidecar.shared.scripts import DIGESTS, SCRIPTS

__all__ = ["CLOSE_SECONDS", "CONNECT_SECONDS", "Call", "connect", "evaluate", "in_time", "teach"]

OPERATION_SECONDS: Final = 0.1
"""Seconds for one operation; a slower store's answer is too old."""
LATE_TURNS: Final = 8
"""Iterations of the loop after that time in which an answer is still read: it came while this process itself was
busy.
"""
CONNECT_SECONDS: Final = 2.0
CLOSE_SECONDS: Final = 0.1

Call = tuple[Sequence[str], Sequence[str]]
"""Keys and arguments of a script."""


async def in_time(operation: Awaitable[Any]) -> Any:
    """The operation's result. Raises ``TimeoutError``, except where only this process was too late to read it."""
    task = asyncio.ensure_future(operation)
    try:
        await asyncio.wait({task}, timeout=OPERATION_SECONDS)
        for _ in range(LATE_TURNS):
            if not task.done():
                await asyncio.wait({task}, timeout=0)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=CLOSE_SECONDS)


async def teach(client: Redis) -> None:
    """Load all scripts in one round trip, so that none takes two. A user that may not load scripts may still run
    them.
    """
    async with client.pipeline(transaction=False) as pipe:
        for text in SCRIPTS.values():
            pipe.script_load(text)
        await pipe.execute(raise_on_error=False)


async def evaluate(client: Redis, name: str, calls: Sequence[Call]) -> list[Any]:
    """The answers in order; a ``ResponseError`` in place of one for a foreign value."""
    answers = await _pass(client, name, calls, known=True)
    unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
    if unknown:
        again = await _pass(client, name, [calls[at] for at in unknown], known=False)
        for at, answer in zip(unknown, again, strict=True):
            answers[at] = answer
    for answer in answers:
        if isinstance(answer, Exception) and "FOREIGN" not in str(answer):
            raise answer
    return answers


async def _pass(client: Redis, name: str, calls: Sequence[Call], *, known: bool) -> list[Any]:
    """Run all calls at once. A store that does not know the script is sent it with the first."""
    async with client.pipeline(transaction=False) as pipe:
        for at, (keys, arguments) in enumerate(calls):
            if known or at > 0:
                pipe.evalsha(DIGESTS[name], len(keys), *keys, *arguments)
            else:
                pipe.eval(SCRIPTS[name], len(keys), *keys, *arguments)
        return list(await pipe.execute(raise_on_error=False))


def connect(rule: SharedRule) -> Redis:
    return Redis(
        host=rule.host,
        port=rule.port,
        db=rule.database,
        username=rule.username or None,
        password=rule.password or None,
        ssl=rule.tls,
        decode_responses=True,
        encoding_errors="replace",
        socket_connect_timeout=CONNECT_SECONDS,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
