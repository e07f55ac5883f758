"""What is known of each scope: the evidence, its gate, its rate limit, and the exchanges that wait for them.

A scope is what an exchange is one of: an endpoint (method and path shape), a credential or tenant, the whole upstream.
There are many where a header has many values, so their number is bounded and the least recently used one is forgotten
first, but never one in which somebody waits. Algorithm: a scope is closed by ``limiter`` on evidence; where nearly all
is refused its gate closes until the hint ends, else its rate is limited to what was accepted (``rate_limit``). While
it is closed a control group goes all the same, and opens it if it is accepted. Where a limit has not made refusals
rarer it is let go, and the scope left alone for 30 s, then 60 … 600 s (exponential backoff).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final, Literal

from sidecar.core.flow import gate as gates
from sidecar.core.flow import rate_limit as rate_limits
from sidecar.core.flow.evidence import Evidence
from sidecar.core.flow.gate import Gate
from sidecar.core.flow.lease import Lease
from sidecar.core.flow.queue import WaitQueue
from sidecar.core.flow.rate_limit import RateLimit
from sidecar.core.flow.ratelimit_headers import NO_RATELIMIT_HEADERS, RateLimitHeaders

__all__ = ["CREDENTIALS", "Grant", "KeyState", "Keys", "Kind", "Load", "Result", "endpoint_of", "kind_of", "scopes_of"]

Kind = Literal["ok", "failed", "refused", "busy"]

MOST_KEYS: Final = 4096
"""Scopes that are remembered without anybody waiting."""
CLOSED_SHARE: Final = 0.75
"""Where more than this share is refused, waiting for the hint costs less than finding the rest."""
INSTANT_SECONDS: Final = 0.2
"""What was accepted within less than this was a burst, not a rate."""
FLOOR_PER_SECOND: Final = 2.0
"""Acceptances a second above which a scope is never shut, but goes on at that rate: the floor, as of slow start."""
NO_HINT_SECONDS: Final = 0.25
"""The quiet after refusals without a hint."""
FIRST_CONTROL: Final = 4
"""While a gate is closed, one in so many goes all the same, as a control: if it is accepted, the gate was wrong …"""
MOST_CONTROL: Final = 64
"""… and if it is refused, four times as many are held before the next one, up to this."""
NEEDED_SECONDS: Final = 5.0
"""A limit for which nobody had to wait for so long is over."""
FIRST_COOLING_SECONDS: Final = 30.0
"""How long a scope is left alone after a limit that did not help; doubled each time."""
LONGEST_COOLING_SECONDS: Final = 600.0
"""Its bound: an upstream changes within minutes."""
JOURNEY_SECONDS: Final = 0.05
"""What the way of a note adds to the moments in it. A quiet that is longer by no more than this is the one that is
known here: the echo of what this replica has told itself must not close a gate a second time."""
LEAST_SHARE: Final = 0.01
"""Of a rate that several learnt: what one of them goes on with alone at the least."""
FEWEST_FOR_A_SHARE: Final = 5
"""Acceptances of all replicas, before our share among them means anything."""
SHAPE_SEGMENTS: Final = 3
"""Segments of a path that tell endpoints apart; deeper ones name objects more often than not."""
_OBJECT: Final = re.compile(r"\d+|.{25,}|(?:\D*\d){3}.*|(?=.*\d)[0-9a-f-]{4,}", re.DOTALL)
"""A segment that names an object: a number, a long one, hexadecimal digits, or one with three decimal ones; ``v1`` and
``oauth2`` do not.
"""


def endpoint_of(method: str, path: str) -> str:
    """The method and the shape of the path: its first segments, with what looks like an object's name left out."""
    segments = path.split("/", SHAPE_SEGMENTS + 1)[1 : SHAPE_SEGMENTS + 1]
    shape = "/".join("*" if _OBJECT.fullmatch(one) else one for one in segments)
    return f"{method} /{shape}"


CREDENTIALS: Final = ("authorization", "x-api-key", "api-key")
"""Headers that commonly say on whose account a request goes, where the policy names none."""


def scopes_of(endpoint: str, key: str, *, is_keyed: bool) -> tuple[str, ...]:
    """What a request is one of, narrow first. ``key``: of the tenant or credential, as a digest; empty for none.

    ``is_keyed``: the policy names what quotas go by; then one tenant's endpoint says nothing of another's.
    """
    if not key and not is_keyed:
        return f"endpoint:{endpoint}", ""
    return f"endpoint:{endpoint}:{key}" if is_keyed else f"endpoint:{endpoint}", f"key:{key}", ""


def kind_of(status: int | None, *, holds: bool, hinted: bool) -> Kind:
    """What an answer says of the upstream: the one classification, for serve and simulate alike.

    ``status``: None for a failure. ``holds``: the policy lets this answer hold others. ``hinted``: it says when to
    come back.
    """
    if status is None or (status >= 500 and not (status == 503 and hinted)):
        return "failed"
    if status == 429 and holds:
        return "refused"
    return "busy" if status >= 500 else "ok"


@dataclass(frozen=True, slots=True)
class Load:
    """What the loop knows of an upstream at this moment."""

    usual_seconds: float = 0.0
    """How long an answer usually takes (the median); 0 if not known."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one attempt, as far as the upstream's health is concerned."""

    kind: Kind
    """``ok``: any answer that is no sign of trouble, 404 too. ``failed``: 5xx, or no answer. ``refused``: 429.
    ``busy``: 503 with a hint."""
    seconds: float = 0.0
    """How long the attempt took."""
    opens_at: float | None = None
    """``Decision.gate_until``: monotonic seconds until which the upstream asked for quiet."""
    figures: RateLimitHeaders = NO_RATELIMIT_HEADERS
    number: int = 1
    """Of the attempt in its exchange. Only first ones are evidence of refusals, and only first and second ones of
    failures: a request that is turned away once is likely to be turned away again, and would be counted five times."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a shared store has answered for one scope."""

    generation: int
    """Of the rate limit that it is about."""
    moments_seconds: tuple[float, ...]
    """From now."""
    again_seconds: float
    """Ask again no sooner than after this."""
    taken: int
    """By all replicas together, in this generation."""
    recent: float
    """The moving rate of their acceptances."""


@dataclass(slots=True)
class KeyState:
    """Of one scope."""

    gate: Gate = Gate()
    rate: RateLimit | None = None
    queue: WaitQueue = field(default_factory=WaitQueue)
    evidence: Evidence = field(default_factory=Evidence)
    needed_at: float = 0.0
    """When somebody last had to wait here."""
    cool_until: float = 0.0
    """Monotonic seconds until which it is left alone: holding did not help."""
    cooling_seconds: float = FIRST_COOLING_SECONDS
    taken: int = 0
    """Acceptances of this replica in the present generation …"""
    total: int = 0
    """… and of all, as far as the store has told."""
    lease: Lease = field(default_factory=Lease)
    whole: RateLimit | None = None
    """The limit of all replicas, while this one goes on alone with its share of it."""
    hint_seconds: float = 0.0
    """Of the last refusal that closed it."""
    accepted_at: float = -1e9
    """When something was last accepted while it was closed."""
    asked: int = 0
    """Since the last control."""
    every: int = FIRST_CONTROL
    """One in so many is a control."""
    is_busy: bool = False
    """It was closed by 503: that is said of the upstream, not of who asks."""
    is_leased: bool = False
    """Whether a store that is shared with others says when one may go, in place of the limit alone."""

    def is_closed(self, now: float) -> bool:
        """Whether it holds anybody: by its gate or by its rate."""
        return self.rate is not None or gates.left_seconds(self.gate, now) > 0

    def is_cooling(self, now: float) -> bool:
        return 0 < self.cool_until - now <= LONGEST_COOLING_SECONDS

    def ready_at(self, now: float) -> float:
        """When the next one may go; infinity if that is not known yet."""
        if gates.left_seconds(self.gate, now) > 0:
            return now + gates.probe_seconds(self.gate, now)
        if self.rate is None:
            return now
        return self.lease.ready_at() if self.is_leased else rate_limits.ready_at(self.rate, now)

    def expected_at(self, now: float) -> float:
        """When one that comes now would have its turn, as a guess; never infinity."""
        opens_at = now + gates.left_seconds(self.gate, now)
        if self.rate is None:
            return opens_at
        turn = max(opens_at, rate_limits.ready_at(self.rate, now))
        if self.rate.slow_start:
            return turn  # it doubles within a second: how long the queue takes is not known
        return turn + self.queue.waiting / max(rate_limits.rate_at(self.rate, turn), 1e-6)

    def may_go(self, now: float) -> bool:
        """Whether one may go now. Where it may not, somebody needs the limit."""
        if self.ready_at(now) <= now:
            return True
        self.needed_at = now
        return False

    def take(self, now: float) -> None:
        """One goes; ``may_go`` has said so."""
        if gates.left_seconds(self.gate, now) > 0:
            self.gate = gates.probe(self.gate, now)
        elif self.rate is not None and self.is_leased:
            self.lease.take(now)
        elif self.rate is not None:
            self.rate = rate_limits.take(self.rate, now) or self.rate

    def is_control_due(self, now: float) -> bool:
        """Whether one that comes now is a control."""
        if self.is_busy or gates.left_seconds(self.gate, now) <= 0:
            return False
        self.asked += 1
        return self.asked >= self.every

    def control_told(self, result: Result, now: float) -> None:
        """What came of one that was not held: evidence of what would come of the others."""
        if result.kind in ("refused", "busy"):
            self.every = min(MOST_CONTROL, 4 * self.every)
        elif result.kind == "ok":
            self.accepted_at = now
            self.every = max(FIRST_CONTROL, self.every // 2)
            if gates.left_seconds(self.gate, now) > 0:
                self.gate = Gate()
                if self.rate is not None:
                    self.rate = replace(self.rate, since=now, at=now, tokens=0.0)
            if self.rate is not None:
                self.rate = rate_limits.succeeded(self.rate, now, now - result.seconds, tries=not self.is_leased)

    def close(self, result: Result, now: float, before_per_second: float, under_way: int) -> None:
        """The evidence says that it is being refused: quiet until the hint ends, or at the rate that was accepted.

        ``before_per_second``: what it took before anything was counted; 0 if that is not known. ``under_way``: sends
        without an answer, which count as not refused: refusals come sooner than successes do.
        """
        accepted, refused, seconds = self.evidence.recent(now)
        share = refused / max(1, accepted + refused + under_way)
        self.needed_at = now
        self.asked, self.every, self.is_busy = 0, FIRST_CONTROL, result.kind == "busy"
        self.hint_seconds = 0.0 if result.opens_at is None else max(0.0, result.opens_at - now)
        self.lease.void()
        is_instant = seconds < INSTANT_SECONDS
        if is_instant and share < CLOSED_SHARE:
            return  # what was accepted may be a burst: it says no rate, and closing would undercut it
        if share >= CLOSED_SHARE and (is_instant or accepted <= FLOOR_PER_SECOND * max(1.0, seconds)):
            self._shut(result, now, share, max(before_per_second, self.evidence.most_per_second()))
        elif result.kind == "refused" or accepted:
            per_second = max(
                accepted / max(seconds, INSTANT_SECONDS), self.evidence.most_per_second(), before_per_second
            )
            self.rate = rate_limits.begin(now, now, per_second, share, slow_start=False)
            self.taken = 0

    def _quiet(self, result: Result, now: float) -> float:
        """The gate is closed until the hint of this refusal ends; when that is."""
        opens_at = now + NO_HINT_SECONDS if result.opens_at is None else result.opens_at
        self.gate = gates.close(self.gate, opens_at, now)
        opens_at = now + gates.left_seconds(self.gate, now)
        if self.rate is not None:
            self.rate = rate_limits.held_until(self.rate, opens_at)
        return opens_at

    def _shut(self, result: Result, now: float, share: float, per_second: float) -> None:
        opens_at = self._quiet(result, now)
        if result.kind == "refused":
            self.rate = rate_limits.begin(now, opens_at, per_second, share, slow_start=True)
            self.taken = 0

    def told(self, result: Result, now: float) -> bool:
        """An answer to one that was sent while it was closed. False: holding has not helped, it is let go."""
        sent_at, limit = now - result.seconds, self.rate
        is_shut = gates.left_seconds(self.gate, now) > 0
        if result.kind in ("refused", "busy"):
            if is_shut:
                self._quiet(result, now)
            elif limit is not None and limit.slow_start and not limit.accepted and sent_at >= limit.since:
                self._shut(result, now, limit.share, limit.rate / 2)  # nothing goes yet
            elif limit is not None:
                self.rate = rate_limits.refused(limit, now, sent_at)
                if rate_limits.is_useless(self.rate):
                    return False
                if self.rate.generation != limit.generation:
                    self.cooling_seconds, self.taken, self.total = FIRST_COOLING_SECONDS, 0, 0
                    self.lease.void()
        elif result.kind == "ok":
            self.accepted_at = now
            if is_shut and sent_at > self.gate.closed_at:  # a probe was answered
                self.gate = Gate()
                if limit is not None:
                    self.rate = limit = replace(limit, since=now, at=now, tokens=0.0)
            if limit is not None:
                self.taken += sent_at >= limit.since
                self.lease.untold += sent_at >= limit.since
                self.rate = rate_limits.succeeded(limit, now, sent_at, tries=not self.is_leased)
        if self.rate is not None:
            self.rate = rate_limits.informed(self.rate, result.figures, now)
        return True

    def let_go(self, now: float) -> None:
        """Nobody is held here, and nobody will be for a while."""
        self.gate, self.rate, self.whole = Gate(), None, None
        self.cool_until = now + self.cooling_seconds
        self.cooling_seconds = min(LONGEST_COOLING_SECONDS, 2 * self.cooling_seconds)
        self.evidence.clear()
        self.lease.void()

    def adopt(self, gate: Gate, rate: RateLimit | None, now: float) -> None:
        """What another replica knows: the longer quiet holds, and a limit that is not ours replaces it."""
        opens_at = now + gates.left_seconds(gate, now)
        if opens_at > now + gates.left_seconds(self.gate, now) + JOURNEY_SECONDS:
            self.gate = replace(gate, probe_at=now + gates.LOOK_AGAIN_SECONDS)
            self.needed_at = now
            self.lease.void()
            if self.rate is not None:
                self.rate = rate_limits.held_until(self.rate, opens_at)
        if rate is not None and (self.rate is None or rate.generation != self.rate.generation):
            self.rate, self.taken, self.total = rate, 0, 0
            self.lease = Lease()
            self.needed_at = now

    def granted(self, reply: Grant, now: float) -> None:
        """The store has answered: moments, and what all replicas together were taken."""
        if self.rate is None or reply.generation != self.rate.generation:
            return
        if self.lease.granted(reply.moments_seconds, reply.again_seconds, now):
            self.needed_at = now
        self.total = reply.taken + self.lease.untold
        self.rate = replace(self.rate, recent=reply.recent, recent_at=now)

    def lend(self, *, leased: bool) -> None:
        """Begin to go by the store, or go on alone: with the share of the rate that was our own of late."""
        if self.is_leased and not leased and self.rate is not None:
            known = self.total >= FEWEST_FOR_A_SHARE
            share = min(1.0, max(LEAST_SHARE, self.taken / self.total)) if known else 1.0
            self.whole, self.rate = self.rate, rate_limits.scaled(self.rate, share)
        elif leased and not self.is_leased and self.whole is not None and self.rate is not None:
            if self.whole.generation == self.rate.generation:  # nothing was learnt meanwhile
                self.rate = rate_limits.held_until(self.whole, self.rate.since)
            self.whole = None
        self.is_leased = leased
        self.lease.void()

    def relax(self, now: float) -> None:
        """A limit that nobody has needed for a while is over."""
        if self.rate is not None and not self.queue.waiting and gates.left_seconds(self.gate, now) <= 0:
            begun = max(self.needed_at, min(self.rate.since, now))
            if not 0 <= now - begun < NEEDED_SECONDS:
                self.rate = None

    def is_over(self, now: float) -> bool:
        """It holds nobody, and nothing that is known of it matters any more."""
        return not (self.queue.waiting or self.is_closed(now) or self.is_cooling(now) or self.evidence.has_answers(now))


class Keys:
    """The scopes by name, least recently used first; an empty one is false."""

    __slots__ = ("_by_name", "_leased")

    def __init__(self) -> None:
        self._by_name: OrderedDict[str, KeyState] = OrderedDict()
        self._leased = False

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> KeyState | None:
        """What is known of it, if anything."""
        return self._by_name.get(name)

    def use(self, name: str) -> KeyState:
        """The state of this scope, which is the most recently used one now."""
        state = self._by_name.get(name)
        if state is None:
            state = self._by_name[name] = KeyState(is_leased=self._leased)
        else:
            self._by_name.move_to_end(name)
        return state

    def lend(self, *, leased: bool) -> None:
        """A shared store is there, or gone."""
        self._leased = leased
        for state in self._by_name.values():
            state.lend(leased=leased)

    def items(self) -> Iterator[tuple[str, KeyState]]:
        """Every scope with its state."""
        return iter(self._by_name.items())

    def latest(self, most: int) -> list[tuple[str, KeyState]]:
        """So many, those used last; in the order of their use."""
        return list(islice(reversed(self._by_name.items()), most))[::-1]

    def closed(self, now: float) -> int:
        """How many gates are closed at this moment."""
        return sum(gates.left_seconds(state.gate, now) > 0 for state in self._by_name.values())

    def clear(self) -> None:
        """Forget everything but the exchanges that wait."""
        kept = {name: state.queue for name, state in self._by_name.items() if state.queue.waiting}
        self._by_name.clear()
        for name, queue in kept.items():
            self.use(name).queue = queue

    def forget(self, now: float) -> None:
        """Those that are over, and those that are too many; the least recently used first."""
        for _ in range(len(self._by_name)):
            name, state = next(iter(self._by_name.items()))
            state.relax(now)
            is_too_many = len(self._by_name) > MOST_KEYS
            if state.queue.waiting and is_too_many:
                self._by_name.move_to_end(name)
            elif state.is_over(now) or is_too_many:
                del self._by_name[name]
            else:
                break
