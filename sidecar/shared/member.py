"""One upstream's part in what is shared: tells the store news, asks it for moments, takes over what it answers.

One task beside the work; the path of a request never waits for it. Every fault ends in ``lost``: then the shield and
the purse go on with what they know. What the values mean is ``core.replicas``'s and ``core.notes``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable
from typing import Any, Final

from sidecar.core.gate import left_seconds
from sidecar.core.lanes import Grant, Lane
from sidecar.core.notes import FOR_A_NEW_STORE, BreakerNews, LaneNews, breaker_note, lane_note
from sidecar.core.pace import memory_seconds, rate_at
from sidecar.shared.door import Part
from sidecar.shared.store import Foreign, Lost, Store

__all__ = ["Member"]

KEEP_SECONDS: Final = 45.0
"""A lane for which nobody has had to wait for so long is forgotten; longer than each replica keeps it itself."""
KEEP_BREAKER_SECONDS: Final = 60.0
KEEP_BUDGET_SECONDS: Final = 600.0
KEEP_SALT_SECONDS: Final = 7 * 86400.0
AHEAD_SECONDS: Final = 0.1
"""How far ahead moments are granted: what one replica may hold while others wait."""
SETTLE_SECONDS: Final = 0.05
"""Between two tellings of what was paid for retries."""
MOST_LANES: Final = 256
"""Taken over when the store is there (again)."""
SALT_DIGITS: Final = 32


class Member:
    """``name``: of the upstream with a digest of its origin, so that equal names elsewhere do not meet."""

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
        self.shield = part.shield
        self.holding = part.holding
        self.purse = part.purse
        self._monotonic = monotonic
        self._chance = chance
        self._prefix = f"sidecar:{{{name}}}:"
        self.channel = f"{self._prefix}news:{store.database}"  # channels know no databases
        self._wake = asyncio.Event()
        self._settle_at = 0.0
        self._task = asyncio.get_running_loop().create_task(self._work())
        store.listen(self)

    async def close(self) -> None:
        """The deployment has gone on without this one."""
        self._store.forget(self)
        self.lost()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def look(self) -> None:
        """Something may have happened that others should know, or somebody waits for a moment."""
        if self._store.is_up:
            self._wake.set()

    # -- what the store tells ----------------------------------------------------------------------------

    async def greet(self) -> None:
        """The store is there: tell it what is known here, and take over what others know. May raise ``Lost``."""
        with contextlib.suppress(Foreign):
            await self._agree_on_salt()
        known = self.shield.all_news()
        self.shield.lend(shares=True)
        await self._tell(known)
        with contextlib.suppress(Foreign):
            for lane in await self._store.run("lanes", [self._prefix + "lanes"], str(MOST_LANES)):
                await self._take_over_lane(str(lane))
        with contextlib.suppress(Foreign):
            note = _note(await self._store.run("read", [self._prefix + "breaker"]))
            if note:
                self.shield.told_breaker(note, self._monotonic(), self._chance())
        self.holding.look_again()
        self._wake.set()

    async def _take_over_lane(self, lane: str) -> None:
        with contextlib.suppress(Foreign):
            note = _note(await self._store.run("read", [self._lane_key(lane)]))
            if note:
                self.shield.told_lane(_key_of(lane), note, self._monotonic())

    async def _agree_on_salt(self) -> None:
        """Keys of gates are hashes of header values: all replicas must hash alike."""
        own = self.holding.salt.hex()
        found = await self._store.run("salt", ["sidecar:salt"], own, _milliseconds(KEEP_SALT_SECONDS))
        if isinstance(found, str) and len(found) == SALT_DIGITS:
            with contextlib.suppress(ValueError):
                self.holding.salt = bytes.fromhex(found)

    def hear(self, text: str) -> None:
        """What another replica has said; garbage is nothing."""
        try:
            message = json.loads(text)
        except ValueError:
            return
        if not isinstance(message, dict) or message.get("from") == self._sender or not self.shield.shares:
            return
        lane, now = message.get("lane"), self._monotonic()
        if message.get("kind") == "breaker":
            self.shield.told_breaker(_note(message.get("fields")), now, self._chance())
        elif isinstance(lane, str) and message.get("kind") == "lane":
            self.shield.told_lane(_key_of(lane), _note(message.get("fields")), now)
        elif isinstance(lane, str) and message.get("kind") == "needed":
            self.shield.told_needed(_key_of(lane), now)
        self.holding.look_again()

    def lost(self) -> None:
        """On with what is known here, at once."""
        self.shield.lend(shares=False)
        self.holding.look_again()

    # -- what the store is told --------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            at = self.shield.ask_store_at() if self.shield.shares else float("inf")
            if self.purse.paid > 0:
                at = min(at, self._settle_at)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if at == float("inf") else max(0.001, at - self._monotonic())):
                    await self._wake.wait()
            self._wake.clear()
            with contextlib.suppress(Lost):
                await self._once()

    async def _once(self) -> None:
        if not self.shield.shares:
            return
        news = list(self.shield.news)
        self.shield.news.clear()
        await self._tell(news)
        for key, lane in list(self.shield.wanting(self._monotonic())):
            await self._ask(key, lane)
        if self.purse.paid > 0 and self._monotonic() >= self._settle_at:
            await self._settle()

    async def _tell(self, news: Iterable[LaneNews | BreakerNews]) -> None:
        """The last word on each gate and on the breaker; every pace."""
        told: dict[tuple[str, ...], LaneNews | BreakerNews] = {}
        for item in news:
            name: tuple[str, ...] = ("breaker",)
            if isinstance(item, LaneNews):
                name = ("lane", item.key, "" if item.pace is None else str(item.pace.generation))
            told.pop(name, None)
            told[name] = item
        for item in told.values():
            with contextlib.suppress(Foreign):
                if isinstance(item, LaneNews):
                    await self._tell_lane(item)
                else:
                    note = breaker_note(item.breaker, self._monotonic())
                    keep = _milliseconds(KEEP_BREAKER_SECONDS)
                    await self._run("breaker", [self._prefix + "breaker"], keep, *_flat(note))

    async def _tell_lane(self, news: LaneNews) -> None:
        now = self._monotonic()
        fields = lane_note(news.gate, news.pace, now)
        left = fields.pop("@until")
        lane = _lane_of(news.key)
        keys = [self._lane_key(lane), self._prefix + "lanes"]
        pace = _flat(fields) if news.pace is not None else ()
        reply = await self._run("close", keys, lane, str(news.expected), left, _milliseconds(KEEP_SECONDS), *pace)
        self.shield.told_lane(news.key, _note(reply), self._monotonic())
        self.holding.look_again()

    async def _ask(self, key: str, lane: Lane) -> None:
        pace, lease, now = lane.pace, lane.lease, self._monotonic()
        if pace is None:
            return
        rate, name = rate_at(pace, now), _lane_of(key)
        told, lease.untold = lease.untold, 0
        try:
            verdict, *reply = await self._run(
                "ask",
                [self._lane_key(name)],
                name,
                str(pace.generation),
                str(lease.wanted(lane.held.waiting)),
                f"{rate:.6f}",
                str(AHEAD_SECONDS),
                str(told),
                f"{memory_seconds(rate):.6f}",
                _milliseconds(KEEP_SECONDS),
            )
        except Foreign:
            lane.lend(leased=False)  # nobody else goes by it either
        except Lost:
            lease.untold += told
            raise
        else:
            await self._answered(key, lane, str(verdict), reply, pace.generation)
        self.holding.look_again()

    async def _answered(self, key: str, lane: Lane, verdict: str, reply: list[Any], generation: int) -> None:
        now = self._monotonic()
        if verdict == "ok":
            taken, recent, again, *moments = map(float, reply)
            self.shield.granted(key, Grant(generation, tuple(moments), again, int(taken), recent), now)
        elif verdict == "other":
            self.shield.told_lane(key, _note(reply[0]), now)
        else:  # forgotten there, or it is a new store
            gate = lane.gate if left_seconds(lane.gate, now) > 0 else type(lane.gate)()
            await self._tell([LaneNews(key, gate, lane.pace, FOR_A_NEW_STORE)])

    async def _settle(self) -> None:
        purse = self.purse
        paid, purse.paid = purse.paid, 0.0
        earned, purse.earned = purse.earned, 0
        self._settle_at = self._monotonic() + SETTLE_SECONDS
        terms = [f"{value:.6f}" for value in purse.terms()]
        amounts = [str(earned), f"{paid:.6f}", _milliseconds(KEEP_BUDGET_SECONDS)]
        with contextlib.suppress(Foreign, ValueError):
            purse.settle(float(await self._store.run("budget", [self._prefix + "budget"], *terms, *amounts)))

    async def _run(self, script: str, keys: list[str], *arguments: str) -> Any:
        return await self._store.run(script, keys, self.channel, self._sender, *arguments)

    def _lane_key(self, lane: str) -> str:
        return f"{self._prefix}lane:{lane}"


ALL: Final = "all"
"""The name of the lane that everybody is in where ``gate.key`` names no header."""


def _lane_of(key: str) -> str:
    return key or ALL


def _key_of(lane: str) -> str:
    return "" if lane == ALL else lane


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
