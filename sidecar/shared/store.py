"""The connection to Redis or Valkey: up or lost, and nothing between.

When one operation fails, or takes longer than ``OPERATION_SECONDS``, the store is lost: every listener is told at once,
one line is logged, and the connection is retried in the background, with growing pauses. It raises only ``Lost`` and
``Foreign``. Counterpart: ``upstream_sync``, which uses it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import TimeoutError as TooLong

from sidecar.core.settings.deployment import SharedRule
from sidecar.observe.log import EventLog
from sidecar.observe.metrics import SharedMeters
from sidecar.shared.journey import CLOSE_SECONDS, CONNECT_SECONDS, Call, connect, evaluate, in_time, teach

__all__ = ["Call", "Foreign", "Lost", "Store"]

PING_SECONDS: Final = 2.0
"""Seconds without a message after which both connections are pinged."""
FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_RECONNECT_PAUSE_SECONDS: Final = 5.0
STEADY_SECONDS: Final = 5.0
"""Seconds that a connection must last before the pauses between attempts become short again."""


class Lost(Exception):
    """The store is not connected; the caller goes on with what it knows."""


class Foreign(Exception):
    """A foreign value has one of our names; it was left alone."""


class Listener(Protocol):
    """The listener of one upstream."""

    channel: str

    async def on_connect(self) -> None:
        """The store is connected (again). May raise ``Lost``."""

    def on_message(self, text: str) -> None:
        """A message of another replica."""

    def on_disconnect(self) -> None:
        """The store is lost."""


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
        """Set when the channels have changed, or an operation has failed."""
        self._greeted: dict[str, Listener] = {}
        """Listeners that have been told of this connection."""
        self._is_asked = False
        """Whether a ping on the connection for messages is unanswered."""
        self._turn = asyncio.Lock()
        """One operation at a time, on one connection: opening another takes several round trips."""
        self._was_told = False
        """Whether the loss was logged, and no return since."""
        self._task: asyncio.Task[None] | None = None

    @property
    def database(self) -> int:
        return self._rule.database

    def start(self) -> None:
        """Connect in the background."""
        self._task = asyncio.get_running_loop().create_task(self._live())

    async def close(self) -> None:
        task, self._task = self._task, None
        while task is not None and not task.done():
            task.cancel()  # more than once, if need be: where a connection is being closed, the library swallows it
            await asyncio.wait({task}, timeout=CLOSE_SECONDS)

    def listen(self, listener: Listener) -> None:
        """Add a listener."""
        self._listeners[listener.channel] = listener
        self._changed.set()

    def forget(self, listener: Listener) -> None:
        """Remove a listener."""
        if self._listeners.get(listener.channel) is listener:
            del self._listeners[listener.channel]
            self._changed.set()

    async def run(self, script: str, keys: Sequence[str], *arguments: str) -> Any:
        """Run one of ``SCRIPTS``. Raises ``Lost`` and ``Foreign``."""
        (answer,) = await self.run_all(script, [(keys, arguments)])
        if isinstance(answer, Foreign):
            raise answer
        return answer

    async def run_all(self, script: str, calls: Sequence[Call]) -> list[Any]:
        """Run it for each call, in one round trip; a ``Foreign`` in place of such an answer. Raises ``Lost``."""
        client = self._client
        if client is None:
            raise Lost
        async with self._turn:
            if client is not self._client:
                raise Lost
            try:
                answers: list[Any] = await in_time(evaluate(client, script, calls))
            except Exception as exc:  # what does not speak our protocol may raise anything
                self._fail(exc, client)
                raise Lost from None
        for at, answer in enumerate(answers):
            if isinstance(answer, ResponseError):
                answers[at] = Foreign()
                self.foreign(calls[at][0][0])
        return answers

    def broken(self, exc: Exception) -> None:
        """Treat an answer without sense as a lost store."""
        self._fail(exc, self._client)

    def foreign(self, key: str) -> None:
        """Report a foreign value under this key."""
        self._meters.failed("foreign")
        self._events.limited(
            "shared_store_foreign",
            "warning",
            key=key,
            message="somebody else's value stands under this key of the shared store; it is left alone, and not shared",
        )

    def _fail(self, exc: Exception, client: Redis | None) -> None:
        """The store is lost from now on; only a count if that connection was given up already."""
        fault = _fault(exc)
        self._meters.failed(fault)
        if client is not self._client:
            return
        self._client = None
        was_up, self.is_up = self.is_up, False
        self._meters.up = False
        self._changed.set()
        if was_up or not self._was_told:
            self._was_told = True
            what = _UNTRUSTED if _is_untrusted(exc) else _MESSAGES[fault]
            self._events.limited(
                "shared_store_lost",
                "warning",
                store=self._rule.place,
                fault=fault,
                message=f"{what}; this sidecar goes on with what it knows itself",
            )
        if client is not None:
            for listener in list(self._listeners.values()):
                listener.on_disconnect()

    async def _live(self) -> None:
        """Connect, listen, and begin again."""
        pauses, monotonic = 0, asyncio.get_running_loop().time
        while True:
            begun = monotonic()
            try:
                await self._session()
            except Exception as exc:  # what does not speak our protocol may raise anything
                self._fail(exc, self._client)
            pauses = 0 if monotonic() - begun >= STEADY_SECONDS else pauses + 1
            pause = min(LONGEST_RECONNECT_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(pauses, 10))
            await _elapse(pause * (0.5 + self._chance() / 2))

    async def _session(self) -> None:
        """Run one connection. Returns if an operation has failed."""
        client = connect(self._rule)
        pubsub = client.pubsub()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await pubsub.connect()  # type: ignore[no-untyped-call]
                await client.ping()  # another connection: opening it takes several round trips, which no operation may
                await teach(client)
            self._client = client
            await self._listen(client, pubsub)
        finally:
            for end in (pubsub.aclose, client.aclose):
                with contextlib.suppress(OSError, RedisError):
                    async with asyncio.timeout(CLOSE_SECONDS):
                        await end()

    async def _listen(self, client: Redis, pubsub: PubSub) -> None:
        subscribed: set[str] = set()
        self._greeted.clear()
        self._is_asked = False
        while self._client is client:
            self._changed.clear()
            wanted = set(self._listeners)
            async with asyncio.timeout(CONNECT_SECONDS):
                if subscribed - wanted:
                    await pubsub.unsubscribe(*(subscribed - wanted))
                if wanted - subscribed:
                    await pubsub.subscribe(*(wanted - subscribed))
            for channel in subscribed & wanted:
                # After a reload another listener may have this channel.
                listener = self._listeners.get(channel)
                if listener is not None and self._greeted.get(channel) is not listener:
                    await self._greet(listener)
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
                        await self._heard(pubsub, heard.result())
                finally:
                    if not heard.done():
                        heard.cancel()
                        await asyncio.wait({heard})
        finally:
            changed.cancel()

    async def _heard(self, pubsub: PubSub, message: dict[str, Any] | None) -> None:
        if message is None:
            await self._look_for_life(pubsub)
            return
        self._is_asked = False
        listener = self._listeners.get(str(message.get("channel")))
        if listener is None:
            return
        if message.get("type") == "subscribe":
            # Also when the library has renewed a connection by itself: messages in between are lost.
            await self._greet(listener)
        elif message.get("type") == "message":
            listener.on_message(str(message.get("data")))

    async def _greet(self, listener: Listener) -> None:
        self._greeted[listener.channel] = listener
        with contextlib.suppress(Lost):
            await listener.on_connect()
        if self._client is None:
            listener.on_disconnect()
        else:
            self._came()

    async def _look_for_life(self, pubsub: PubSub) -> None:
        """Ping. Raises ``TimeoutError`` if nothing comes back, not even an error."""
        if self._is_asked:
            raise TimeoutError
        self._is_asked = True
        await in_time(pubsub.ping())
        client = self._client
        if client is not None:
            async with self._turn:
                await in_time(client.ping())

    def _came(self) -> None:
        if self.is_up or self._client is None:
            return
        self.is_up = self._meters.up = True
        if self._was_told:
            self._was_told = False
            self._events.limited("shared_store_back", "info", store=self._rule.place)


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


_UNTRUSTED: Final = (
    "the certificate of the shared store is not trusted (SSL_CERT_FILE may name the authority that has signed it)"
)


def _is_untrusted(exc: Exception) -> bool:
    return "CERTIFICATE_VERIFY_FAILED" in str(exc)


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
