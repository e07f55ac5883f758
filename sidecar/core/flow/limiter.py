"""What stands between the loop and one upstream: gates, rate_limits, breaker and crowd together, and those who wait.

While ``calm`` is true nobody has to ask, and an exchange pays one test of that attribute. Trouble is told by
``finished``; from then on every send asks, and every result is told, until the trouble is over. The values are in
``gate``, ``rate_limit``, ``breaker`` and ``concurrency_limit``; exchanges wait in ``queue``. It acts on
nothing: time and chance are arguments, and the loop learns from ``release`` whom to wake and from ``next_at`` when to
ask again. What may be retried at all, and when at the earliest, is ``decide``'s to say, before anybody asks here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sidecar.core.flow import breaker as breakers
from sidecar.core.flow import concurrency_limit as concurrency_limits
from sidecar.core.flow.breaker import Breaker
from sidecar.core.flow.concurrency_limit import ConcurrencyLimit
from sidecar.core.flow.gate import Gate, left_seconds
from sidecar.core.flow.keys import Keys, KeyState, Load, Result
from sidecar.core.flow.queue import Deadlines, Ticket, TicketState
from sidecar.core.policy import BreakerRule, GateRule
from sidecar.core.words import Reason

__all__ = ["Hold", "Limiter", "Load", "Result"]

MOST_HELD_BYTES: Final = 256 << 20
LEAST_PAUSE_SECONDS: Final = 0.001
"""Between two looks at those who wait: what a timer can tell apart."""
LEAST_TICK_SECONDS: Final = 0.5
CROWD_KEPT_SECONDS: Final = 3.0
"""A limit on how many may be under way is let go when nobody has had to wait for it for so long."""
CROWDED_SECONDS: Final = 0.25
"""The breaker's share of failures among its ``of_at_least`` attempts within this time: too many at once. So is half of
``of_at_least`` in a row. To be wrong here costs little: a third fewer at once, for a moment."""


@dataclass(frozen=True, slots=True)
class Hold:
    """One part of flow control that is in force, for those who look."""

    by: str
    scope: str
    """The name of a scope; empty: the whole upstream."""
    seconds: float | None = None
    """Until it ends, or looks again; None where nobody knows."""
    per_second: float | None = None
    """The learnt rate."""
    limit: int | None = None
    """The learnt number under way."""


class Limiter:
    """Of one upstream. Everything that ends in ``_at`` is in monotonic seconds."""

    __slots__ = (
        "_breaker_rule",
        "_calm_generation",
        "_concurrency_generation",
        "_crowd_needed_at",
        "_deadlines",
        "_ended",
        "_failed_at",
        "_gate_rule",
        "_lanes",
        "_load",
        "_queued",
        "_samples",
        "_usual_per_second",
        "breaker",
        "calm",
        "closings",
        "crowd",
        "lent",
        "openings",
        "sends",
        "waiting",
        "waiting_bytes",
    )

    def __init__(self, breaker: BreakerRule, gate: GateRule, load: Callable[[], Load]) -> None:
        self._breaker_rule = breaker
        self._gate_rule = gate
        self._load = load
        self.calm = True
        """Nobody has to ask, and no success has to be told."""
        self.sends = 0
        """Every attempt that was begun; counted by the loop, calm or not."""
        self.breaker = Breaker()
        self.crowd: ConcurrencyLimit | None = None
        self.lent: set[object] = set()
        """One entry for each attempt that is under way, calm or not: whoever begins one puts something of its own in
        (its ticket is in since it was admitted), whoever ends it takes that out. To take out twice is harmless."""
        self.waiting = 0
        self.waiting_bytes = 0
        self.closings = dict.fromkeys(("gate", "breaker", "rate", "concurrency"), 0)
        """How often each of them began to hold."""
        self.openings = dict.fromkeys(self.closings, 0)
        self._lanes = Keys()
        self._queued: OrderedDict[str, KeyState] = OrderedDict()
        self._deadlines = Deadlines()
        self._ended = 0
        """Attempts that had ended when that was last told."""
        self._samples: tuple[tuple[float, int], ...] = ()
        """Moments, with the sends begun before them: the last two ticks; none before the first."""
        self._usual_per_second = 0.0
        """Sends, before the present trouble."""
        self._calm_generation = self.breaker.generation
        self._concurrency_generation = 0
        self._crowd_needed_at = 0.0
        self._failed_at = -1e9

    @property
    def under_way(self) -> int:
        """Attempts that were admitted, or sent in calm, and have no result yet."""
        return len(self.lent)

    # -- before a send -----------------------------------------------------------------------------------

    def ask(self, ticket: Ticket, now: float) -> None:
        """Join the queue, or be rejected at once. Then call ``release``, which may admit it in the same breath."""
        ticket.asked_at = now
        lane = self._lanes.get(ticket.key)
        objection = self._objection(ticket, lane, now)
        if objection is not None:
            self._reject(ticket, objection, now)
            return
        lane = self._lanes.use(ticket.key)
        ticket.state = TicketState.WAITING
        ticket.by = "breaker" if self.breaker.is_open else "gate"
        lane.held.put(ticket)
        self._queued[ticket.key] = lane
        self._deadlines.put(ticket)
        self.waiting += 1
        self.waiting_bytes += ticket.size_bytes

    def _objection(self, ticket: Ticket, lane: KeyState | None, now: float) -> Reason | None:
        if ticket.deadline_at <= now:
            return Reason.DEADLINE
        if (
            self.breaker.is_open
            and self._breaker_rule.when_open == "fail"
            and not breakers.may_probe(self.breaker, now)
        ):
            return Reason.BREAKER
        left = 0.0 if lane is None else left_seconds(lane.gate, now)
        if left > ticket.max_wait_seconds or (left > 0 and now + left >= ticket.deadline_at):
            return Reason.GATE
        if self.waiting >= max(1, self._gate_rule.queue) or self.waiting_bytes + ticket.size_bytes > MOST_HELD_BYTES:
            return Reason.BREAKER if self.breaker.is_open or self.crowd is not None else Reason.GATE
        return None

    def leave(self, ticket: Ticket, now: float) -> None:
        """The exchange was given up, while it waited or while its attempt was under way: its place is free."""
        if ticket.state is TicketState.WAITING:
            self._settle(ticket, TicketState.GONE)
        elif ticket.state is TicketState.ADMITTED:
            ticket.state = TicketState.GONE
            self.lent.discard(ticket)
            if not self.calm and ticket.is_probe and ticket.breaker_generation == self.breaker.generation:
                self._set_breaker(breakers.probe_lost(self.breaker, now), now)

    def open(self, now: float) -> None:
        """Forget everything that was learnt. Call ``release`` then: all that wait are admitted."""
        for _, lane in self._lanes.latest(len(self._lanes)):
            lane.gate, lane.pace = Gate(), None
            lane.lease.void()
        self._set_breaker(Breaker(generation=self.breaker.generation + 1), now)
        self.crowd = None
        self._relax(now)

    # -- who may go --------------------------------------------------------------------------------------

    def release(self, now: float, chance: float) -> list[Ticket]:
        """Whoever is admitted or rejected at this moment. Call it after every other call, and at ``next_at``."""
        settled = self._deadlines.due(now)
        for late in settled:
            self._reject(late, Reason.BREAKER if late.by == "breaker" else Reason.GATE, now)
        while self.waiting and (ticket := self._next(now, chance)) is not None:
            settled.append(ticket)
        if not self.waiting:
            self._queued.clear()
        if not self.calm:
            self._relax(now)
        return settled

    def next_at(self, now: float) -> float | None:
        """When to call ``release`` again, whatever else happens until then; None if nobody waits."""
        if not self.waiting:
            return None
        at = self._deadlines.next_at()
        if self.breaker.is_open or not self._is_full():
            ready = min((lane.ready_at(now) for lane in self._queued.values() if lane.held.waiting), default=at)
            at = min(at, max(ready, self.breaker.probe_at) if self.breaker.is_open else ready)
        return max(at, now + LEAST_PAUSE_SECONDS)

    def _next(self, now: float, chance: float) -> Ticket | None:
        if self.breaker.is_open:
            return self._next_probe(now, chance)
        if self._is_full():
            self._crowd_needed_at = now
            return None
        for key in list(self._queued):
            lane = self._queued[key]
            ticket = self._next_in(lane, now)
            if ticket is not None:
                self._queued.move_to_end(key)  # one turn for each tenant
                return ticket
            if not lane.held.waiting:
                del self._queued[key]
        return None

    def _next_in(self, lane: KeyState, now: float) -> Ticket | None:
        if not lane.held.waiting or not lane.take(now):
            return None
        ticket = lane.held.next(now, newest_first=self.crowd is not None)
        if ticket is not None:
            self._admit(ticket, lane)
        return ticket

    def _next_probe(self, now: float, chance: float) -> Ticket | None:
        """One that waits behind no closed gate, when it is time for a probe."""
        if not breakers.may_probe(self.breaker, now):
            return None
        for lane in list(self._queued.values()):
            ticket = None if lane.ready_at(now) > now else lane.held.probe()
            if ticket is not None and ticket.state is TicketState.WAITING:
                self._set_breaker(breakers.probe(self.breaker, now, chance), now)
                ticket.is_probe = True
                self._admit(ticket, lane)
                return ticket
        return None

    def _is_full(self) -> bool:
        return self.crowd is not None and self.under_way >= int(self.crowd.limit)

    def _admit(self, ticket: Ticket, lane: KeyState) -> None:
        self._settle(ticket, TicketState.ADMITTED)
        ticket.breaker_generation = self.breaker.generation
        ticket.rate_generation = 0 if lane.pace is None else lane.pace.generation
        ticket.concurrency_generation = self._concurrency_generation
        self.lent.add(ticket)

    def _reject(self, ticket: Ticket, reason: Reason, now: float) -> None:
        ticket.reason = reason
        lane = self._lanes.get(ticket.key)
        left = 0.0 if lane is None else lane.expected_at(now) - now
        if self.breaker.is_open:
            left = max(left, self.breaker.probe_at - now)
        ticket.retry_after_seconds = max(0.0, left)
        self._settle(ticket, TicketState.REJECTED)

    def _settle(self, ticket: Ticket, turn: TicketState) -> None:
        was_waiting, ticket.state = ticket.state is TicketState.WAITING, turn
        if not was_waiting:
            return
        self.waiting -= 1
        self.waiting_bytes -= ticket.size_bytes
        lane = self._lanes.get(ticket.key)
        if lane is not None:
            lane.held.settled()
        if len(self._deadlines) > 64 + 4 * self.waiting:
            self._deadlines.forget_settled()

    # -- after a result ----------------------------------------------------------------------------------

    def finished(self, ticket: Ticket | None, result: Result, now: float, chance: float, key: str = "") -> None:
        """What came of an attempt. While calm, only results that are not ``ok`` need to be told.

        ``ticket``: the one with which it was admitted, None if it was sent in calm. ``key``: of the gate.
        """
        if ticket is not None:
            self.lent.discard(ticket)
        if self.calm and result.kind == "ok":
            return
        was_calm = self.calm
        if was_calm:
            self._leave_calm(now)
        ended = self.sends - self.under_way
        succeeded = max(0, ended - self._ended - 1) if was_calm else 0
        self._ended = ended
        generation = self._calm_generation if ticket is None else ticket.breaker_generation
        if generation == self.breaker.generation:
            self._tell_breaker(result, now, succeeded, chance, ticket)
        self._tell_lane(ticket, result, now, key if ticket is None else ticket.key)
        if ticket is not None:
            ticket.state = TicketState.GONE
        self._relax(now)

    def _leave_calm(self, now: float) -> None:
        """From now on every send asks, and every result is told."""
        self.calm = False
        sends, seconds = self._taken(now)
        self._usual_per_second = sends / max(1.0, seconds)
        self._calm_generation = self.breaker.generation

    def _tell_breaker(self, result: Result, now: float, succeeded: int, chance: float, ticket: Ticket | None) -> None:
        rule, before = self._breaker_rule, self.breaker
        if result.kind in ("ok", "refused"):
            if result.kind == "ok" or before.is_open:  # whoever refuses for the rate is there again
                self._set_breaker(breakers.answered(before, rule, now), now)
        else:
            self._failed_at = now
            self._set_breaker(breakers.failed(before, rule, now, chance, succeeded, self.under_way), now)
        if before.is_open and not self.breaker.is_open:
            self._limit(self._few(now), now)
        elif self.breaker.is_open:
            self.crowd = None
        elif self.crowd is not None:
            self._tell_crowd(self.crowd, result, now, ticket)
        elif result.kind in ("failed", "busy"):
            self._look_for_crowding(now)

    def _tell_crowd(self, crowd: ConcurrencyLimit, result: Result, now: float, ticket: Ticket | None) -> None:
        if ticket is None or ticket.concurrency_generation != self._concurrency_generation:
            return
        if result.kind == "ok":
            self.crowd = concurrency_limits.answered(
                crowd, now, result.seconds, self.waiting > 0 and self.under_way + 1 >= int(crowd.limit)
            )
        elif result.kind != "refused":
            self.crowd = concurrency_limits.failed(crowd, now, result.seconds, self.breaker.in_a_row)

    def _look_for_crowding(self, now: float) -> None:
        rule = self._breaker_rule
        attempts, bad = breakers.share(self.breaker, rule, now, CROWDED_SECONDS)
        many = attempts >= rule.of_at_least and bad >= rule.failures
        if many or 2 * self.breaker.in_a_row >= rule.of_at_least:
            self._limit(concurrency_limits.overloaded(now, self.under_way + 1, self._load().usual_seconds), now)

    def _few(self, now: float) -> ConcurrencyLimit:
        usual = self._load().usual_seconds
        return concurrency_limits.after_outage(now, usual, self._usual_per_second * usual)

    def _limit(self, crowd: ConcurrencyLimit, now: float) -> None:
        self.crowd = crowd
        self._concurrency_generation += 1
        self._crowd_needed_at = now

    def _tell_lane(self, ticket: Ticket | None, result: Result, now: float, key: str) -> None:
        generation = 0 if ticket is None else ticket.rate_generation
        lane = self._lanes.get(key)
        if result.kind in ("refused", "busy"):
            lane = self._lanes.use(key)
            before = 0 if lane.pace is None else lane.pace.generation
            is_down = lane.refused(result, now, generation, self._taken(now))
            self._lane_closed(key, lane, before)
            if is_down or (result.kind == "busy" and self.crowd is None):
                self._limit(self._few(now), now)
        elif lane is not None and result.kind == "ok":
            lane.succeeded(now, generation)
        if lane is not None:
            lane.informed(result.figures, now)

    def _lane_closed(self, key: str, lane: KeyState, before: int) -> None:
        """A gate was closed; ``before``: the generation of its pace until now, 0 for none. For ``replicas``."""

    def _set_breaker(self, breaker: Breaker, now: float) -> None:
        if breaker.is_open != self.breaker.is_open:
            (self.closings if breaker.is_open else self.openings)["breaker"] += 1
        self.breaker = breaker

    # -- for those who look -------------------------------------------------------------------------------

    @property
    def lanes(self) -> int:
        """How many gate keys are in trouble, or were of late."""
        return len(self._lanes)

    def gates_closed(self, now: float) -> int:
        """How many gate keys are in quiet at this moment; for a gauge."""
        return self._lanes.closed(now)

    def holds(self, now: float, most: int) -> list[Hold]:
        """What would hold a newcomer now, the widest first; of the gate keys no more than ``most``."""
        found = []
        if self.breaker.is_open:
            found.append(Hold("breaker", "", max(0.0, self.breaker.probe_at - now)))
        if self.crowd is not None:
            found.append(Hold("concurrency", "", limit=int(self.crowd.limit)))
        for key, lane in self._lanes.latest(most):
            left = left_seconds(lane.gate, now)
            name = f"key:{key}" if key else ""
            if left > 0:
                found.append(Hold("gate", name, left))
            elif lane.pace is not None:
                found.append(Hold("rate", name, per_second=lane.pace.low))
        return found

    def tick(self, now: float) -> None:
        """Once in a while (about a second): so that it is known how much was sent of late, if trouble begins."""
        sample = (now, self.sends)
        if not self._samples:
            self._samples = (sample, sample)
        elif not 0 <= now - self._samples[1][0] < LEAST_TICK_SECONDS:
            self._samples = (self._samples[1], sample)

    def _taken(self, now: float) -> tuple[int, float]:
        """Attempts that have ended of late, and in how many seconds.

        Since the last tick or the one before, whichever makes more of them: a burst is not thinned by quiet before it.
        """
        ended = self.sends - self.under_way - 1
        since = [(max(0, ended - sends), max(0.0, now - at)) for at, sends in self._samples]
        return max(since, key=lambda one: one[0] / max(1.0, one[1]), default=(max(0, ended), 0.0))

    # -- letting go --------------------------------------------------------------------------------------

    def _relax(self, now: float) -> None:
        """Forget what is over; calm, if that was all."""
        is_needed = self.waiting or self._is_full() or 0 <= now - self._crowd_needed_at < CROWD_KEPT_SECONDS
        if not is_needed:
            self.crowd = None
        self._lanes.forget(now)
        self.calm = not (self._lanes or self.waiting or self.breaker.is_open or self.crowd is not None)
        if self.calm:
            self._calm_generation = self.breaker.generation
            self._ended = self.sends - self.under_way
