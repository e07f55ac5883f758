"""A limiter that is one of several: what one replica learns of an upstream holds for all that share a store.

It says what others have to be told (``news``) and for which lanes the store has to be asked (``wanting``), and takes
over what they tell. It talks to nobody itself; the counterpart is ``shared.member``. Without a store it is a plain
limiter, and so it is again at once when the store is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from sidecar.core.decision.policy import BreakerRule, GateRule
from sidecar.core.flow import breaker as breakers
from sidecar.core.flow import rate_limit as rate_limits
from sidecar.core.flow.breaker import Breaker
from sidecar.core.flow.gate import left_seconds
from sidecar.core.flow.keys import Grant, KeyState, Load
from sidecar.core.flow.limiter import Limiter
from sidecar.core.flow.queue import Ticket, TicketState
from sidecar.core.flow.rate_limit import RateLimit
from sidecar.core.flow.shared_state import (
    FOR_A_NEW_STORE,
    JUST_BEGUN,
    BreakerNews,
    KeyNews,
    closed_note,
    just_begun,
    read_breaker,
    read_key,
)

__all__ = ["SharedLimiter"]

CONTRADICTED_SECONDS: Final = 5.0
"""A breaker that another replica's probe has closed so soon after it opened was wrong about the upstream …"""
ALONE_SECONDS: Final = 60.0
"""… and keeps to itself for so long."""
MOST_TOLD: Final = 256
"""Keys that a store which has just come is told of: those used last."""
MOST_NEWS: Final = 1024
"""What is kept for a store that cannot be told as fast; the oldest is forgotten: others will see for themselves."""
ANSWERED_SECONDS: Final = 1.0
"""Who has been answered, and not failed, for so long, is not told by others that nobody answers."""


class SharedLimiter(Limiter):
    """One of several. It begins alone: ``lend`` says when a store is there."""

    __slots__ = ("_alone_until", "_asking", "news", "shares")

    def __init__(self, breaker: BreakerRule, gate: GateRule, load: Callable[[], Load]) -> None:
        super().__init__(breaker, gate, load)
        self.shares = False
        """Whether a store is there that other replicas share."""
        self.news: list[KeyNews | BreakerNews] = []
        """What they have not been told of; whoever tells them takes it out."""
        self._alone_until = 0.0
        self._asking: dict[str, KeyState] = {}
        """Keys in which somebody waits, or has gone since the store was asked: no others need to be looked at."""

    def lend(self, *, shares: bool) -> None:
        """A store that others share is there, or gone: then everything goes on with what is known here."""
        self.shares = shares
        self.news.clear()
        self._keys.lend(leased=shares)
        self._asking = dict(self._closed) if shares and self.waiting else {}

    def all_news(self, now: float) -> list[KeyNews | BreakerNews]:
        """What is known here and still holds: for a store that has just come (back)."""
        news: list[KeyNews | BreakerNews] = [
            KeyNews(key, lane.gate, lane.rate, FOR_A_NEW_STORE)
            for key, lane in self._keys.latest(MOST_TOLD)
            if lane.rate is not None or left_seconds(lane.gate, now) > 0
        ]
        if self.breaker.is_open and now >= self._alone_until:
            news.append(BreakerNews(self.breaker))
        return news

    def ask(self, ticket: Ticket, now: float) -> None:
        super().ask(ticket, now)
        if self.shares and ticket.state is TicketState.WAITING:
            self._asking |= {name: self._closed[name] for name in ticket.scopes if name in self._closed}

    def wanting(self, now: float) -> Iterator[tuple[str, KeyState]]:
        """Keys for which the store has to be asked now."""
        for key, lane in list(self._asking.items()):
            if not (self.waiting or lane.lease.is_used) or self._keys.get(key) is not lane:
                del self._asking[key]
            elif self.wanted(key, lane) and lane.lease.ask_at <= now:
                yield key, lane

    def ask_store_at(self) -> float:
        """When ``wanting`` has something to say next, if nothing else happens; infinity for never."""
        asking = (state.lease.ask_at for key, state in self._asking.items() if self.wanted(key, state))
        return min(asking, default=float("inf"))

    def alone_in(self, key: str) -> None:
        """The store cannot be used for this lane: nobody else goes by it either."""
        lane = self._keys.get(key)
        if lane is not None:
            lane.lend(leased=False)

    def granted(self, key: str, grant: Grant, now: float) -> None:
        """The store's answer for a lane. Call ``release`` then."""
        lane = self._keys.get(key)
        if lane is not None:
            lane.granted(grant, now)

    def told_key(self, key: str, note: Mapping[str, str], now: float) -> bool:
        """Another replica's gate or rate. Call ``release`` then. False: it was no note of ours."""
        found = read_key(note, now)
        if found is None:
            return False
        gate, rate = found
        known = self._keys.get(key)
        if known is not None and known.is_cooling(now):
            return True  # holding did not help here
        if rate is not None or left_seconds(gate, now) > 0:
            self._leave_calm_untroubled(now)
            state = self._keys.use(key)
            is_new = rate is not None and state.rate is None
            state.adopt(gate, rate, now)
            if key not in self._closed and state.is_closed(now):
                self._began(key, state, now)
            if is_new and rate is not None and just_begun(note):
                self._add_own_share(key, state, rate, now)
            self._relax(now)
        return True

    def _add_own_share(self, key: str, state: KeyState, told: RateLimit, now: float) -> None:
        """What was taken from this replica before another one was refused belongs to what the upstream takes."""
        taken, seconds = self._taken(now)
        if taken > 0 and self.shares:
            own = rate_limits.begin(now, told.since, taken / max(1.0, seconds), told.share, slow_start=told.slow_start)
            self.news.append(KeyNews(key, state.gate, own, JUST_BEGUN))

    def told_needed(self, key: str, now: float) -> None:
        """Somebody has to wait in this lane elsewhere: it is not over."""
        lane = self._keys.get(key)
        if lane is not None:
            lane.needed_at = now

    def told_breaker(self, note: Mapping[str, str], now: float, chance: float) -> bool:
        """Another replica's breaker. Call ``release`` then. False: it was no note of ours.

        One that has opened elsewhere is not believed where this replica itself is being answered: what is broken then
        is the other's own way. Nor does this one tell for a while, if others have contradicted it.
        """
        if closed_note(note):
            self._closed_elsewhere(now)
            return True
        found = read_breaker(note)
        if found is None:
            return False
        if self.breaker.is_open or not self._is_answered(now):
            self._leave_calm_untroubled(now)
            open_seconds, probe_seconds, probes = found
            self.breaker = breakers.opened_elsewhere(
                self.breaker, now, chance, open_seconds=open_seconds, probe_seconds=probe_seconds, probes=probes
            )
            self._limit(None, now)
        return True

    def _closed_elsewhere(self, now: float) -> None:
        if not self.breaker.is_open:
            return
        if 0 <= now - self.breaker.opened_at < CONTRADICTED_SECONDS:
            self._alone_until = now + ALONE_SECONDS
        self.breaker = breakers.closed_elsewhere(self.breaker, now)
        self._limit(self._few(now), now)
        self._relax(now)

    def _is_answered(self, now: float) -> bool:
        """Whether attempts of ours have ended well within the last second or two, and none failed."""
        if not self._samples:
            return False
        at, sends = self._samples[0]
        ended = self.sends - self.under_way - sends
        return ended > 0 and not 0 <= now - self._failed_at < max(ANSWERED_SECONDS, now - at)

    def _leave_calm_untroubled(self, now: float) -> None:
        if self.calm:
            self._leave_calm(now)
            self._ended = self.sends - self.under_way

    def _set_breaker(self, breaker: Breaker, now: float) -> None:
        before = self.breaker
        super()._set_breaker(breaker, now)
        was, now_is = ((it.state, it.generation, it.probe_at) for it in (before, breaker))
        is_of_interest = was != now_is and (before.is_open or breaker.is_open)
        if self.shares and is_of_interest and now >= self._alone_until:
            self.news.append(BreakerNews(breaker))

    def _scope_closed(self, name: str, state: KeyState, before: int) -> None:
        if self.shares:
            is_new = state.rate is not None and state.rate.generation != before
            if len(self.news) >= MOST_NEWS:
                del self.news[0]
            self.news.append(KeyNews(name, state.gate, state.rate if is_new else None, before))

    def wanted(self, key: str, state: KeyState) -> int:
        """How many moments to ask the store for; exchanges may wait for a wide scope in the queue of a narrow one."""
        if not state.is_leased or state.rate is None:
            return 0
        return state.lease.wanted(state.queue.waiting if key.startswith("endpoint:") else self.waiting)
