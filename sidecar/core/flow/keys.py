"""What is known of each gate key: its gate, its pace, and who waits behind them.

A lane exists while its key is in trouble, or somebody waits in it. There are many where ``gate.key`` names a header
with many values, so their number is bounded and the least recently used one is forgotten first, but never one in which
somebody waits. The values are in ``gate`` and ``rate_limit``; who goes when is told by ``limiter``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final, Literal

from sidecar.core.flow import gate as gates
from sidecar.core.flow import rate_limit as rate_limits
from sidecar.core.flow.gate import Gate
from sidecar.core.flow.lease import Lease
from sidecar.core.flow.queue import WaitQueue
from sidecar.core.flow.rate_limit import RateLimit
from sidecar.core.flow.ratelimit_headers import NO_RATELIMIT_HEADERS, RateLimitHeaders

__all__ = ["Grant", "KeyState", "Keys", "Kind", "Load", "Result"]

Kind = Literal["ok", "failed", "refused", "busy"]

MOST_LANES: Final = 4096
"""Gate keys that are remembered without anybody waiting."""
PACE_KEPT_SECONDS: Final = 30.0
"""A pace for which nobody had to wait for so long is let go."""
LEAST_SHARE: Final = 0.01
FEWEST_FOR_A_SHARE: Final = 5
"""Successes of all replicas, before our share among them means anything."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the loop knows of an upstream at the moment in which trouble begins."""

    usual_seconds: float = 0.0
    """How long an answer usually takes (the median); 0 if not known."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one attempt, as far as the upstream's health is concerned."""

    kind: Kind
    """``ok``: any answer that is no sign of trouble, 404 too. ``failed``: 5xx, or no answer. ``refused``: 429.
    ``busy``: 503 with a hint that closes the gate."""
    seconds: float = 0.0
    """How long the attempt took."""
    opens_at: float | None = None
    """``Decision.gate_until``: monotonic seconds until which the upstream asked for quiet."""
    figures: RateLimitHeaders = NO_RATELIMIT_HEADERS


@dataclass(frozen=True, slots=True)
class Grant:
    """What a shared store has answered for one lane."""

    generation: int
    """Of the pace that it is about."""
    moments_seconds: tuple[float, ...]
    """From now."""
    again_seconds: float
    """Ask again no sooner than after this."""
    taken: int
    """By all replicas together, since the last refusal that counted."""
    recent: float
    """The moving rate of their successes."""


@dataclass(slots=True)
class KeyState:
    """Of one gate key."""

    gate: Gate = Gate()
    pace: RateLimit | None = None
    held: WaitQueue = field(default_factory=WaitQueue)
    taken: int = 0
    """Successes since the gate was closed last."""
    needed_at: float = 0.0
    """When somebody last had to wait here."""
    lease: Lease = field(default_factory=Lease)
    whole: RateLimit | None = None
    """The pace of all replicas, while this one goes on alone with its share of it."""
    is_leased: bool = False
    """Whether a store that is shared with others says when one may go, in place of the pace alone."""

    def ready_at(self, now: float) -> float:
        """When the next one may go; infinity if that is not known yet."""
        left = gates.left_seconds(self.gate, now)
        if left > 0:
            return now + left
        if self.pace is None:
            return now
        return self.lease.ready_at() if self.is_leased else rate_limits.ready_at(self.pace, now)

    def expected_at(self, now: float) -> float:
        """The same for who is turned away, as a guess where it is not known; never infinity."""
        at = self.ready_at(now)
        if at < float("inf") or self.pace is None:
            return at
        return max(self.lease.ask_at, rate_limits.ready_at(self.pace, now))

    def take(self, now: float) -> bool:
        """Whether one may go now; then the pace has been charged for it."""
        pace = self.pace
        if gates.left_seconds(self.gate, now) <= 0:
            if pace is None:
                return True
            if self.is_leased:
                return self.lease.take(now)
            pace = rate_limits.take(pace, now)
            if pace is not None:
                self.pace = pace
                return True
        self.needed_at = now
        return False

    def succeeded(self, now: float, generation: int) -> None:
        """One was taken."""
        self.taken += 1
        if self.pace is not None:
            self.lease.untold += generation == self.pace.generation
            self.pace = rate_limits.succeeded(self.pace, now, generation)

    def refused(self, result: Result, now: float, generation: int, before: tuple[int, float]) -> bool:
        """The gate closes; the rate is learnt from a 429, and from a 503 with a hint where others are taken.

        ``before``: what the upstream took of late, and in how many seconds. True if this was a 503 of one that takes
        nothing: it is down, and comes back as after an outage.
        """
        was_open = gates.left_seconds(self.gate, now) <= 0
        self.lease.void()
        self.gate = gates.close(self.gate, now if result.opens_at is None else result.opens_at, now)
        self.needed_at = now
        opens_at = now + gates.left_seconds(self.gate, now)
        taken, self.taken = self.taken, 0 if was_open else self.taken
        if self.pace is not None:
            if result.kind == "refused" or self.pace.taken:
                self.pace = rate_limits.refused(self.pace, now, opens_at, generation, now - result.seconds)
            return False
        if result.kind == "refused":
            self.pace = rate_limits.begin(now, opens_at, *before)
            return False
        if was_open and taken:
            self.pace = rate_limits.begin(now, opens_at, taken, 1.0)
        return was_open and not taken

    def informed(self, figures: RateLimitHeaders, now: float) -> None:
        """What an answer said of the quota matters only where there is a pace."""
        if self.pace is not None:
            self.pace = rate_limits.informed(self.pace, figures, now)

    def told(self, gate: Gate, pace: RateLimit | None, now: float) -> None:
        """What another replica knows: the longer quiet holds, and a pace that is not ours replaces it."""
        opens_at = now + gates.left_seconds(gate, now)
        if opens_at > now + gates.left_seconds(self.gate, now):
            self.gate = gate
            self.needed_at = now
            self.lease.void()
            if self.pace is not None:
                self.pace = rate_limits.held_until(self.pace, opens_at)
        if pace is not None and (self.pace is None or pace.generation != self.pace.generation):
            self.pace, self.taken = pace, 0
            self.lease = Lease()
            self.needed_at = now

    def granted(self, reply: Grant, now: float) -> None:
        """The store has answered: moments, and what all replicas together were taken."""
        if self.pace is None or reply.generation != self.pace.generation:
            return
        if self.lease.granted(reply.moments_seconds, reply.again_seconds, now):
            self.needed_at = now
        self.pace = replace(self.pace, taken=reply.taken + self.lease.untold, recent=reply.recent, recent_at=now)

    def lend(self, *, leased: bool) -> None:
        """Begin to go by the store, or go on alone: with the share of the rate that was our own of late."""
        if self.is_leased and not leased and self.pace is not None:
            known = self.pace.taken >= FEWEST_FOR_A_SHARE
            share = min(1.0, max(LEAST_SHARE, self.taken / self.pace.taken)) if known else 1.0
            self.whole, self.pace = self.pace, rate_limits.scaled(self.pace, share)
        elif leased and not self.is_leased and self.whole is not None and self.pace is not None:
            if self.whole.generation == self.pace.generation:  # nothing was learnt meanwhile
                self.pace = rate_limits.held_until(self.whole, self.pace.since)
            self.whole = None
        self.is_leased = leased
        self.lease.void()

    def is_over(self, now: float) -> bool:
        """Nobody waits, the gate is open, and the pace has not been in anybody's way for long."""
        if self.held.waiting or gates.left_seconds(self.gate, now) > 0:
            return False
        return self.pace is None or not 0 <= now - self.needed_at < PACE_KEPT_SECONDS


class Keys:
    """The lanes by key, least recently used first; an empty one is false."""

    __slots__ = ("_by_key", "_leased")

    def __init__(self) -> None:
        self._by_key: OrderedDict[str, KeyState] = OrderedDict()
        self._leased = False

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: str) -> KeyState | None:
        """The lane of this key, if it is in trouble."""
        return self._by_key.get(key)

    def use(self, key: str) -> KeyState:
        """The lane of this key, which is the most recently used one now."""
        lane = self._by_key.get(key)
        if lane is None:
            lane = self._by_key[key] = KeyState(is_leased=self._leased)
        else:
            self._by_key.move_to_end(key)
        return lane

    def lend(self, *, leased: bool) -> None:
        """A shared store is there, or gone."""
        self._leased = leased
        for lane in self._by_key.values():
            lane.lend(leased=leased)

    def items(self) -> Iterator[tuple[str, KeyState]]:
        """Every key with its lane."""
        return iter(self._by_key.items())

    def latest(self, most: int) -> list[tuple[str, KeyState]]:
        """So many, those used last; in the order of their use."""
        return list(islice(reversed(self._by_key.items()), most))[::-1]

    def closed(self, now: float) -> int:
        """How many gates are closed at this moment."""
        return sum(gates.left_seconds(lane.gate, now) > 0 for lane in self._by_key.values())

    def forget(self, now: float) -> None:
        """Those that are over, and those that are too many; the least recently used first."""
        for _ in range(len(self._by_key)):
            key, lane = next(iter(self._by_key.items()))
            if lane.held.waiting and len(self._by_key) > MOST_LANES:
                self._by_key.move_to_end(key)
            elif lane.is_over(now) or (len(self._by_key) > MOST_LANES and not lane.held.waiting):
                del self._by_key[key]
            else:
                break
