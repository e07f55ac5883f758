"""One upstream's shared state: tells the store news, asks it for send times, applies what it answers.

One background task; the path of a request never waits for it. Every fault ends in ``on_disconnect``: then the limiter
and the budget go on with what they know. ``core.flow.shared_limiter`` and ``core.flow.shared_state`` define the values.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

from sidecar.core.flow.keys import Grant, KeyState
from sidecar.core.flow.rate_limit import RateLimit, memory_seconds, rate_at
from sidecar.core.flow.shared_state import FOR_A_NEW_STORE, BreakerNews, KeyNews, breaker_note, key_note
from sidecar.shared.parts import Part
from sidecar.shared.store import Call, Foreign, Lost, Store

__all__ = ["UpstreamSync"]

T = TypeVar("T")

KEEP_SECONDS: Final = 45.0
"""Seconds without a waiting exchange after which the store forgets a key; longer than each replica keeps it itself."""
KEEP_BREAKER_SECONDS: Final = 60.0
KEEP_BUDGET_SECONDS: Final = 600.0
KEEP_SALT_SECONDS: Final = 7 * 86400.0
AHEAD_SECONDS: Final = 0.1
"""Seconds ahead for which send times are granted: what one replica may hold while others wait."""
SETTLE_SECONDS: Final = 0.05
"""Seconds between two reports of what was paid for retries."""
MOST_KEYS: Final = 256
"""Keys that are taken over when the store is connected (again), at most."""
SALT_DIGITS: Final = 32
AT_ONCE: Final = 64
"""Keys in one round trip: a few milliseconds of the store's time."""


class UpstreamSync:
    """``name``: the upstream's, with a digest of its origin, so that equal names elsewhere do not meet."""

    def __init__(
        self,
        store: Store,
        name: str,
        sender: str,
        part: Part,
        monotonic: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self._store = store
        self._sender = sender
        self.limiter = part.limiter
        self.holding = part.holding
        self.budget = part.budget
        self._monotonic = monotonic
        self._chance = chance
        self._prefix = f"sidecar:{{{name}}}:"
        self.channel = f"{self._prefix}news:{store.database}"  # channels know no databases
        self._wake = asyncio.Event()
        self._settle_at = 0.0
        self._task = asyncio.get_running_loop().create_task(self._work())
        store.listen(self)

    async def close(self) -> None:
        """Stop: a new deployment does not share this upstream."""
        self._store.forget(self)
        self.on_disconnect()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def look(self) -> None:
        """Look for news to share, or for exchanges that wait for a send time."""
        if self._store.is_up:
            self._wake.set()

    # -- what the store tells ----------------------------------------------------------------------------

    async def on_connect(self) -> None:
        """The store is connected: tell it what is known here, and apply what others know. May raise ``Lost``."""
        with contextlib.suppress(Foreign):
            await self._agree_on_salt()
        known = self.limiter.all_news(self._monotonic())
        self.budget.alone()
        self.limiter.lend(shares=True)
        await self._tell(known)
        with contextlib.suppress(Foreign):
            await self._take_over_keys(await self._store.run("lanes", [self._prefix + "lanes"], str(MOST_KEYS)))
        with contextlib.suppress(Foreign):
            note = _note(await self._store.run("read", [self._prefix + "breaker"]))
            if note:
                self.limiter.told_breaker(note, self._monotonic(), self._chance())
        self.holding.look_again()
        self._wake.set()

    async def _take_over_keys(self, names: Iterable[object]) -> None:
        for batch in _batches(map(str, names)):
            notes = await self._store.run_all("read", [([self._store_key(name)], ()) for name in batch])
            now = self._monotonic()
            for name, note in zip(batch, notes, strict=True):
                self.limiter.told_key(_key_of(name), _note(note), now)

    async def _agree_on_salt(self) -> None:
        """Agree on a salt: gate keys are hashes of header values, and all replicas must hash alike."""
        own = self.holding.salt.hex()
        found = await self._store.run("salt", ["sidecar:salt"], own, _milliseconds(KEEP_SALT_SECONDS))
        if isinstance(found, str) and len(found) == SALT_DIGITS:
            with contextlib.suppress(ValueError):
                self.holding.salt = bytes.fromhex(found)

    def on_message(self, text: str) -> None:
        """Apply a message of another replica; garbage is ignored."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return
        if not isinstance(message, dict) or message.get("from") == self._sender or not self.limiter.shares:
            return
        name, now = message.get("lane"), self._monotonic()
        if message.get("kind") == "breaker":
            self.limiter.told_breaker(_note(message.get("fields")), now, self._chance())
        elif isinstance(name, str) and message.get("kind") == "lane":
            self.limiter.told_key(_key_of(name), _note(message.get("fields")), now)
        elif isinstance(name, str) and message.get("kind") == "needed":
            self.limiter.told_needed(_key_of(name), now)
        self.holding.look_again()

    def on_disconnect(self) -> None:
        """Go on with what is known here, at once."""
        self.limiter.lend(shares=False)
        self.budget.alone()
        self.holding.look_again()

    # -- what the store gets -----------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            at = self.limiter.ask_store_at() if self.limiter.shares else float("inf")
            if self.limiter.shares and self.budget.paid != 0:
                at = min(at, self._settle_at)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if at == float("inf") else max(0.001, at - self._monotonic())):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._once()
            except Lost:
                continue
            except Exception as exc:  # Without this task no exchange would ever be granted a send time.
                self._store.broken(exc)

    async def _once(self) -> None:
        if not self.limiter.shares:
            return
        await self._tell_news()
        for batch in _batches(self.limiter.wanting(self._monotonic())):
            await self._ask(batch)
            await self._tell_news()
        if self.budget.paid != 0 and self._monotonic() >= self._settle_at:
            await self._settle()

    async def _tell_news(self) -> None:
        news = list(self.limiter.news)
        self.limiter.news.clear()
        await self._tell(news)

    async def _tell(self, news: Iterable[KeyNews | BreakerNews]) -> None:
        """Tell the last state of each gate and of the breaker, and every rate."""
        told: dict[tuple[str, ...], KeyNews | BreakerNews] = {}
        for item in news:
            name: tuple[str, ...] = ("breaker",)
            if isinstance(item, KeyNews):
                name = ("lane", item.key, "" if item.rate is None else str(item.rate.generation))
            told.pop(name, None)
            told[name] = item
        breaker = told.pop(("breaker",), None)
        if isinstance(breaker, BreakerNews):
            with contextlib.suppress(Foreign):
                note = breaker_note(breaker.breaker, self._monotonic())
                keep = _milliseconds(KEEP_BREAKER_SECONDS)
                await self._store.run("breaker", [self._prefix + "breaker"], *self._from_here(), keep, *_flat(note))
        for items in _batches(item for item in told.values() if isinstance(item, KeyNews)):
            await self._tell_keys(items)

    async def _tell_keys(self, items: Sequence[KeyNews]) -> None:
        now = self._monotonic()
        replies = await self._store.run_all("close", [self._close_call(item, now) for item in items])
        now = self._monotonic()
        for item, reply in zip(items, replies, strict=True):
            if isinstance(reply, Foreign):
                self.limiter.alone_in(item.key)
            else:
                self.limiter.told_key(item.key, _note(reply), now)
        self.holding.look_again()

    def _close_call(self, news: KeyNews, now: float) -> Call:
        fields = key_note(news.gate, news.rate, now)
        left = fields.pop("@until")
        name = _store_name(news.key)
        keys = [self._store_key(name), self._prefix + "lanes"]
        rate = _flat(fields) if news.rate is not None else ()
        return keys, [*self._from_here(), name, str(news.expected), left, _milliseconds(KEEP_SECONDS), *rate]

    async def _ask(self, waiting: Sequence[tuple[str, KeyState]]) -> None:
        """Ask for send times for all of these keys at once."""
        now = self._monotonic()
        asked = [(key, state, state.rate, state.lease) for key, state in waiting if state.rate is not None]
        calls, told = [], []
        for key, state, limit, lease in asked:
            calls.append(self._ask_call(key, state, limit, now))
            told.append(lease.untold)
            lease.untold = 0
        try:
            replies = await self._store.run_all("ask", calls)
        except Lost:
            for (_, _, _, lease), untold in zip(asked, told, strict=True):
                lease.untold += untold
            raise
        unknown = []
        for (key, state, limit, _), reply in zip(asked, replies, strict=True):
            if not self._answered(key, limit.generation, reply):
                unknown.append(KeyNews(key, state.gate, state.rate, FOR_A_NEW_STORE))
        self.holding.look_again()
        await self._tell(unknown)

    def _ask_call(self, key: str, state: KeyState, limit: RateLimit, now: float) -> Call:
        rate, name = rate_at(limit, now), _store_name(key)
        return [self._store_key(name)], [
            *self._from_here(),
            name,
            str(limit.generation),
            str(self.limiter.wanted(key, state)),
            f"{rate:.6f}",
            str(AHEAD_SECONDS),
            str(state.lease.untold),
            f"{memory_seconds(rate):.6f}",
            _milliseconds(KEEP_SECONDS),
        ]

    def _answered(self, key: str, generation: int, reply: Any) -> bool:
        """Apply an answer. False: the store has forgotten the key, or is a new store."""
        now = self._monotonic()
        if isinstance(reply, Foreign):
            self.limiter.alone_in(key)
            return True
        verdict, *values = reply
        if verdict == "ok":
            taken, recent, again, *moments = map(float, values)
            self.limiter.granted(key, Grant(generation, tuple(moments), again, int(taken), recent), now)
        elif verdict == "other" and not self.limiter.told_key(key, _note(values[0]), now):
            self._store.foreign(self._store_key(_store_name(key)))
            self.limiter.alone_in(key)
        return bool(verdict != "gone")

    async def _settle(self) -> None:
        budget = self.budget
        paid, budget.paid = budget.paid, 0.0
        earned, budget.earned = budget.earned, 0
        self._settle_at = self._monotonic() + SETTLE_SECONDS
        terms = [f"{value:.6f}" for value in budget.terms()]
        amounts = [str(earned), f"{paid:.6f}", _milliseconds(KEEP_BUDGET_SECONDS)]
        with contextlib.suppress(Foreign, ValueError):
            budget.settle(float(await self._store.run("budget", [self._prefix + "budget"], *terms, *amounts)))

    def _from_here(self) -> tuple[str, str]:
        """The channel for the news, and the sender."""
        return self.channel, self._sender

    def _store_key(self, name: str) -> str:
        return f"{self._prefix}lane:{name}"


ALL: Final = "all"
"""The key of every request where ``gate.key`` names no header."""


def _store_name(key: str) -> str:
    return key or ALL


def _key_of(name: str) -> str:
    return "" if name == ALL else name


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    left = iter(items)
    while batch := list(islice(left, AT_ONCE)):
        yield batch


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


def _flat(fields: dict[str, str]) -> list[str]:
    return [text for pair in fields.items() for text in pair]


def _note(found: object) -> dict[str, str]:
    """The fields of a note; empty where it is none."""
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError:
            return {}
    if not isinstance(found, dict):
        return {}
    return {str(name): value for name, value in found.items() if isinstance(value, str)}
