"""The connection to Redis or Valkey: up or lost, and nothing between.

One operation that fails, or takes longer than ``OPERATION_SECONDS``, and the store is lost: everybody is told at once,
one line is logged, and it is tried again beside the work, with growing pauses. It never raises but ``Lost`` and
``Foreign``. What is said to it is ``member``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoScriptError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import TimeoutError as TooLong

from sidecar.core.deployment import SharedRule
from sidecar.observe.log import EventLog
from sidecar.observe.metrics import SharedMeters
from sidecar.shared.scripts import DIGESTS, SCRIPTS

__all__ = ["Foreign", "Lost", "Store"]

OPERATION_SECONDS: Final = 0.1
"""A store that takes longer is slow, and what it says is too old."""
CONNECT_SECONDS: Final = 2.0
PING_SECONDS: Final = 2.0
"""After so long without a message it is asked whether it is still there."""
FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 5.0


class Lost(Exception):
    """The store is not there (any more); whoever asked goes on with what it knows."""


class Foreign(Exception):
    """Somebody else's value stands under a name of ours; it was left alone."""


class Listener(Protocol):
    """Of one upstream."""

    channel: str

    async def greet(self) -> None:
        """The store is there, from now on or again. May raise ``Lost``."""

    def hear(self, text: str) -> None:
        """Another replica has said this."""

    def lost(self) -> None:
        """The store is gone."""


class Store:
    """``chance``: 0 ≤ x < 1, for the pauses."""

    def __init__(self, rule: SharedRule, events: EventLog, meters: SharedMeters, chance: Callable[[], float]) -> None:
        self._rule = rule
        self._events = events
        self._meters = meters
        self._chance = chance
        self.is_up = False
        self._client: Redis | None = None
        self._listeners: dict[str, Listener] = {}
        self._changed = asyncio.Event()
        """The channels have changed, or an operation has failed."""
        self._was_told = False
        """Whether the line about its loss stands in the log, and none about its return after it."""
        self._has_come = False
        """Whether this connection was good for anything."""
        self._task: asyncio.Task[None] | None = None

    @property
    def database(self) -> int:
        return self._rule.database

    def start(self) -> None:
        """Connect, beside everything else."""
        self._task = asyncio.get_running_loop().create_task(self._live())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def listen(self, listener: Listener) -> None:
        """From now on."""
        self._listeners[listener.channel] = listener
        self._changed.set()

    def forget(self, listener: Listener) -> None:
        """No more."""
        if self._listeners.get(listener.channel) is listener:
            del self._listeners[listener.channel]
            self._changed.set()

    async def run(self, script: str, keys: Sequence[str], *arguments: str) -> Any:
        """Run one of ``SCRIPTS``. Raises ``Lost`` and ``Foreign``."""
        client = self._client
        if client is None:
            raise Lost
        try:
            async with asyncio.timeout(OPERATION_SECONDS):
                return await _evaluate(client, script, keys, arguments)
        except (OSError, RedisError, UnicodeError) as exc:
            if isinstance(exc, ResponseError) and "FOREIGN" in str(exc):
                self._foreign(keys[0])
                raise Foreign from None
            self._fail(exc)
            raise Lost from None

    def _foreign(self, key: str) -> None:
        self._meters.failed("foreign")
        self._events.limited(
            "shared_store_foreign",
            "warning",
            key=key,
            message="somebody else's value stands under this key of the shared store; it is left alone, and not shared",
        )

    def _fail(self, exc: Exception) -> None:
        """Lost, from this moment on."""
        fault = _fault(exc)
        self._meters.failed(fault)
        self._client = None
        was_up, self.is_up = self.is_up, False
        self._meters.up = False
        self._changed.set()
        if was_up or not self._was_told:
            self._was_told = True
            self._events.event(
                "shared_store_lost",
                "warning",
                store=self._rule.place,
                fault=fault,
                message=f"{_MESSAGES[fault]}; this sidecar goes on with what it knows itself",
            )
        if was_up:
            for listener in list(self._listeners.values()):
                listener.lost()

    async def _live(self) -> None:
        """Connect, listen, begin again."""
        pauses = 0
        while True:
            self._has_come = False
            try:
                await self._session()
            except (OSError, RedisError, UnicodeError) as exc:
                self._fail(exc)
            pauses = 0 if self._has_come else pauses + 1
            pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(pauses, 10))
            await _elapse(pause * (0.5 + self._chance() / 2))

    async def _session(self) -> None:
        """One connection's life. Returns if an operation has failed."""
        client = _connect(self._rule)
        pubsub = client.pubsub()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await client.ping()
            self._client = client
            await self._listen(client, pubsub)
        finally:
            with contextlib.suppress(OSError, RedisError):
                async with asyncio.timeout(CONNECT_SECONDS):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]
                    await client.aclose()

    async def _listen(self, client: Redis, pubsub: PubSub) -> None:
        subscribed: set[str] = set()
        while self._client is client:
            self._changed.clear()
            wanted = set(self._listeners)
            async with asyncio.timeout(CONNECT_SECONDS):
                if subscribed - wanted:
                    await pubsub.unsubscribe(*(subscribed - wanted))
                if wanted - subscribed:
                    await pubsub.subscribe(*(wanted - subscribed))
            subscribed = wanted
            if not wanted:
                self._came()
                await self._changed.wait()
                continue
            await self._hear_until_changed(pubsub)

    async def _hear_until_changed(self, pubsub: PubSub) -> None:
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            while not changed.done():
                heard = asyncio.ensure_future(pubsub.get_message(timeout=PING_SECONDS))
                try:
                    await asyncio.wait({heard, changed}, return_when=asyncio.FIRST_COMPLETED)
                    if heard.done():
                        await self._heard(heard.result())
                finally:
                    if not heard.done():
                        heard.cancel()
                        await asyncio.wait({heard})
        finally:
            changed.cancel()

    async def _heard(self, message: dict[str, Any] | None) -> None:
        if message is None:
            with contextlib.suppress(Lost):
                await self._ping()
            return
        listener = self._listeners.get(str(message.get("channel")))
        if listener is None:
            return
        if message.get("type") == "subscribe":
            # Also when the library has renewed a connection by itself: what was said meanwhile is lost.
            try:
                await listener.greet()
            except Lost:
                listener.lost()
            else:
                self._came()
        elif message.get("type") == "message":
            listener.hear(str(message.get("data")))

    async def _ping(self) -> None:
        client = self._client
        if client is None:
            raise Lost
        try:
            async with asyncio.timeout(OPERATION_SECONDS):
                await client.ping()
        except (OSError, RedisError) as exc:
            self._fail(exc)
            raise Lost from None

    def _came(self) -> None:
        self._has_come = True
        if self.is_up:
            return
        self.is_up = self._meters.up = True
        if self._was_told:
            self._was_told = False
            self._events.event("shared_store_back", "info", store=self._rule.place)


async def _evaluate(client: Redis, name: str, keys: Sequence[str], arguments: Sequence[str]) -> Any:
    try:
        return await client.evalsha(DIGESTS[name], len(keys), *keys, *arguments)
    except NoScriptError:
        return await client.eval(SCRIPTS[name], len(keys), *keys, *arguments)


def _connect(rule: SharedRule) -> Redis:
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
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )


async def _elapse(seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()


_MESSAGES: Final = {
    "timeout": "the shared store takes too long to answer",
    "connection": "the shared store cannot be reached",
    "full": "the shared store has no room",
    "refused": "the shared store does not let us in: see its user and password",
    "other": "the shared store answers with an error",
}


def _fault(exc: Exception) -> str:
    if isinstance(exc, TimeoutError | TooLong):
        return "timeout"
    if isinstance(exc, AuthenticationError | AuthorizationError):
        return "refused"
    if isinstance(exc, OutOfMemoryError) or str(exc).startswith(("OOM", "MISCONF")):
        return "full"
    if str(exc).startswith(("NOAUTH", "WRONGPASS", "NOPERM")):
        return "refused"
    if isinstance(exc, OSError | NoConnection):
        return "connection"
    return "other"
