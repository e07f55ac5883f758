"""What stands between the loop and one upstream: evidence, gates, rates, breaker and concurrency, and those who wait.

While ``calm`` is true nobody has to ask, and an exchange pays one test of that attribute. Trouble is told by
``finished``; from then on every send asks, and every result is told, until the trouble is over.

Algorithm: a refusal closes the widest scope of its exchange that the evidence speaks of (``evidence``), but a wide one
only if requests unlike this one are refused as well: without its own endpoint and without its own credential the share
must still be significant. Invariants: one refusal among many successes holds nobody else; nobody is held past the
deadline; what holding has not improved is let go; no hold rejects an exchange before its deadline that its own retries
would still have sent; failures of one endpoint or credential alone say nothing of the upstream. It acts on nothing:
time and chance are arguments, and the loop learns from ``release`` whom to wake and from ``next_at`` when to ask again.
``forecast`` tells ``decide`` the same facts before anybody waits or pays.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from sidecar.core.decision.policy import BreakerRule, GateRule
from sidecar.core.decision.wait import SPREAD_SHARE
from sidecar.core.enums import Reason
from sidecar.core.flow import breaker as breakers
from sidecar.core.flow import concurrency_limit as concurrency_limits
from sidecar.core.flow import rate_limit as rate_limits
from sidecar.core.flow.breaker import Breaker
from sidecar.core.flow.concurrency_limit import ConcurrencyLimit
from sidecar.core.flow.evidence import FEWEST, is_evidence
from sidecar.core.flow.gate import left_seconds
from sidecar.core.flow.keys import (
    FIRST_COOLING_SECONDS,
    LONGEST_COOLING_SECONDS,
    Keys,
    KeyState,
    Load,
    Result,
)
from sidecar.core.flow.queue import HELD_BY, Deadlines, HeldBy, Ticket, TicketState

__all__ = ["TICK_SECONDS", "Forecast", "Hold", "Limiter", "Load", "Result"]

UPSTREAM: Final = ""
"""The name of the widest scope: everything that is sent there."""
MOST_HELD_BYTES: Final = 256 << 20
"""Of request bodies, while their exchanges wait."""
QUEUES: Final = 10
"""All queues together hold at most this many times what one may hold."""
LEAST_PAUSE_SECONDS: Final = 0.001
"""Between two looks at those who wait: what a timer can tell apart."""
TICK_SECONDS: Final = 1.0
"""Between two calls of ``tick``, while there is trouble."""
LEAST_TICK_SECONDS: Final = 0.5
"""Between two samples of what was sent."""
FEW_SCOPES: Final = 8
"""Closed scopes that are looked at after each answer; more of them only every ``RELAX_SECONDS``."""
RELAX_SECONDS: Final = 0.25
"""Between two looks at many closed scopes, so that thousands cost no more than a few."""
CONCURRENCY_KEPT_SECONDS: Final = 3.0
"""A limit on the number under way is let go when nobody has had to wait for it for this long."""
PATIENCE: Final = 0.3
"""Of the time that its own retries would take. After it an exchange goes as if nobody held it, where nothing at all is
accepted in its scope: so it has every send that it would have had alone, and its error comes hardly later."""
CROWDED_SECONDS: Final = 0.25
"""The breaker's share of failures among its ``of_at_least`` attempts within this time means too many at once, and so do
half of ``of_at_least`` in a row. To be wrong here costs a third fewer at once, for a moment."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one more send of these scopes would meet now: facts for ``decide``, which judges them."""

    breaker_open: bool = False
    """The breaker is open, and the policy says to answer at once."""
    gate_closed_until: float = 0.0
    """Monotonic seconds; a probe may go before."""
    rate_ready_at: float = 0.0
    """Monotonic seconds at which its turn would come."""
    full: Reason | None = None
    """No place is left to wait in, and what the others wait for."""


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
        "_closed",
        "_closed_by",
        "_concurrency_cool_until",
        "_concurrency_cooling_seconds",
        "_concurrency_failed",
        "_concurrency_generation",
        "_concurrency_needed_at",
        "_concurrency_results",
        "_concurrency_share",
        "_deadlines",
        "_ended",
        "_failed_at",
        "_free",
        "_gate_rule",
        "_keys",
        "_load",
        "_queued",
        "_relaxed_at",
        "_samples",
        "_troubled_at",
        "_usual_per_second",
        "breaker",
        "calm",
        "closings",
        "concurrency",
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
        self.lent: set[object] = set()
        """One entry for each attempt that is under way, calm or not: the caller that begins one puts a token of its own
        in (its ticket is in since it was admitted), and takes it out at its end. To take out twice is harmless."""
        self.breaker = Breaker()
        self.concurrency: ConcurrencyLimit | None = None
        self.waiting = 0
        self.waiting_bytes = 0
        self.closings: dict[HeldBy, int] = dict.fromkeys(HELD_BY, 0)
        """How often each of them began to hold."""
        self.openings: dict[HeldBy, int] = dict.fromkeys(HELD_BY, 0)
        self._keys = Keys()
        self._closed: dict[str, KeyState] = {}
        """Scopes that hold somebody, by gate or by rate."""
        self._closed_by: dict[str, HeldBy] = {}
        """What each of them held by when it closed."""
        self._queued: OrderedDict[str, KeyState] = OrderedDict()
        self._free: list[Ticket] = []
        """Controls that are to be admitted."""
        self._deadlines = Deadlines()
        self._ended = 0
        """Attempts that had ended when that was last told."""
        self._samples: tuple[tuple[float, int], ...] = ()
        """Moments, with the sends begun before them: the last two ticks; none before the first."""
        self._usual_per_second = 0.0
        """Sends, before the present trouble."""
        self._calm_generation = self.breaker.generation
        self._concurrency_generation = 0
        self._concurrency_needed_at = 0.0
        self._concurrency_cool_until = 0.0
        """Monotonic seconds until which the number under way is left alone: limiting it did not help."""
        self._concurrency_cooling_seconds = FIRST_COOLING_SECONDS
        self._concurrency_share = 1.0
        """Of failures among the results, before the present limit."""
        self._concurrency_results = 0
        """Of attempts that were sent under the present limit, and how many of them failed."""
        self._concurrency_failed = 0
        self._failed_at = -1e9
        self._troubled_at = 0.0
        """When it was calm the last time."""
        self._relaxed_at = -1e9

    @property
    def under_way(self) -> int:
        """Attempts that were admitted, or sent in calm, and have no result yet."""
        return len(self.lent)

    def configure(self, breaker: BreakerRule, gate: GateRule) -> None:
        """Other rules from now on; what was learnt stays."""
        self._breaker_rule, self._gate_rule = breaker, gate

    def open(self, now: float) -> None:
        """Forget everything that was learnt. Call ``release`` then: all that wait are admitted."""
        for scope in list(self._closed):
            self._opened(scope)
        self._keys.clear()
        self._queued = OrderedDict((name, state) for name, state in self._keys.items() if state.queue.waiting)
        if self.breaker.is_open:
            self._set_breaker(breakers.closed_elsewhere(self.breaker, now), now)
        self.breaker = Breaker(generation=self.breaker.generation + 1)
        self._limit(None, now)
        self._relax(now)

    # -- before a send -----------------------------------------------------------------------------------

    def forecast(self, scopes: tuple[str, ...], now: float, size_bytes: int = 0) -> Forecast:
        """What one more send of these scopes would meet at this moment."""
        if self.calm:
            return Forecast()
        fails = self.breaker.is_open and self._breaker_rule.when_open == "fail"
        states = [state for name in scopes if (state := self._closed.get(name)) is not None]
        until = max((now + left for state in states if (left := left_seconds(state.gate, now)) > 0), default=0.0)
        rated = max((state.expected_at(now) for state in states if state.rate is not None), default=0.0)
        full = self._reason(scopes, now) if self._is_queue_full(self._queue_of(scopes, now), size_bytes) else None
        return Forecast(
            fails and not breakers.may_probe(self.breaker, now), until, rated if rated > until else 0.0, full
        )

    def ask(self, ticket: Ticket, now: float) -> None:
        """Join the queue, or be rejected at once. Then call ``release``, which may admit it in the same breath.

        What is to be sent again was judged by ``decide`` before it waited: only its deadline and a full queue turn it
        away here.
        """
        ticket.asked_at = now
        ticket.is_control = self._is_control(ticket, now)
        objection = self._objection(ticket, now)
        if objection is not None:
            self._reject(ticket, objection, now)
            return
        ticket.queue = self._queue_of(ticket.scopes, now)
        ticket.state = TicketState.WAITING
        ticket.by, ticket.scope = self._cause(ticket.scopes, now)
        state = self._keys.use(ticket.queue)
        state.queue.put(ticket)
        if ticket.is_control:
            self._free.append(ticket)
        self._queued[ticket.queue] = state
        self._deadlines.put(ticket, self._patience_at(ticket, now))
        self.waiting += 1
        self.waiting_bytes += ticket.size_bytes

    def _is_control(self, ticket: Ticket, now: float) -> bool:
        """Whether it is one of the few that no closed gate holds."""
        states = self._closed_of(ticket)
        if not states or self.breaker.is_open:
            return False
        due = [state.is_control_due(now) for state in states]
        if not all(due):
            return False
        for state in states:
            state.asked = 0
        return True

    def _objection(self, ticket: Ticket, now: float) -> Reason | None:
        if ticket.deadline_at <= now:
            return Reason.DEADLINE
        facts = self.forecast(ticket.scopes, now, ticket.size_bytes)
        if facts.full is not None or ticket.number > 1 or ticket.is_control:
            return facts.full
        if facts.breaker_open:
            return Reason.BREAKER
        left = facts.gate_closed_until - now
        if (left > ticket.max_wait_seconds or (left > 0 and now + left >= ticket.deadline_at)) and not self._may_go(
            ticket, now
        ):
            return Reason.GATE
        return None

    def _patience_at(self, ticket: Ticket, now: float) -> float:
        """Until when it is held at the latest where nothing is accepted: a part of what its own retries would take."""
        hints = [state.hint_seconds for state in self._closed_of(ticket)]
        if not hints:
            return ticket.deadline_at
        left, pause = ticket.deadline_at - ticket.began_at, (1 + SPREAD_SHARE) * max(hints)
        retries = min(ticket.retries, int(left / pause)) if pause > 0 else 0
        patience = PATIENCE * min(retries * pause + ticket.backoff_seconds, left)
        return min(ticket.deadline_at, max(now, ticket.began_at + patience))

    def _is_hopeless(self, ticket: Ticket) -> bool:
        """Whether a scope holds it in which nothing was accepted since its exchange began."""
        return any(state.accepted_at < ticket.began_at for state in self._closed_of(ticket))

    def _queue_of(self, scopes: tuple[str, ...], now: float) -> str:
        """The narrowest scope that is closed; else the tenant's, so that one's waiting does not fill another's."""
        for name in scopes:
            if name in self._closed:
                return name
        return scopes[-2] if len(scopes) > 1 else scopes[-1]

    def _is_queue_full(self, name: str, size_bytes: int) -> bool:
        most, state = max(1, self._gate_rule.queue), self._keys.get(name)
        many = state is not None and state.queue.waiting >= most
        return many or self.waiting >= QUEUES * most or self.waiting_bytes + size_bytes > MOST_HELD_BYTES

    def _cause(self, scopes: tuple[str, ...], now: float) -> tuple[HeldBy, str]:
        """What holds an exchange of these scopes now, and its scope."""
        if self.breaker.is_open:
            return "breaker", UPSTREAM
        for name in scopes:
            state = self._closed.get(name)
            if state is not None and state.ready_at(now) > now:
                return ("gate" if left_seconds(state.gate, now) > 0 else "rate"), name
        return "concurrency" if self._is_full() else "rate" if self._closed else "concurrency", UPSTREAM

    def _reason(self, scopes: tuple[str, ...], now: float) -> Reason:
        return HELD_BY[self._cause(scopes, now)[0]]

    def leave(self, ticket: Ticket, now: float) -> None:
        """The exchange was given up, while it waited or while its attempt was under way: its place is free."""
        if ticket.state is TicketState.WAITING:
            self._settle(ticket, TicketState.GONE, now)
        elif ticket.state is TicketState.ADMITTED:
            ticket.state = TicketState.GONE
            self.lent.discard(ticket)
            if not self.calm and ticket.is_probe and ticket.breaker_generation == self.breaker.generation:
                self._set_breaker(breakers.probe_lost(self.breaker, now), now)

    # -- who may go --------------------------------------------------------------------------------------

    def release(self, now: float, chance: float) -> list[Ticket]:
        """Whoever is admitted or rejected at this moment. Call it after every other call, and at ``next_at``."""
        settled = []
        for late in self._deadlines.due(now):
            if late.deadline_at <= now:
                self._reject(late, HELD_BY[late.by], now)
                settled.append(late)
                continue
            self._deadlines.put(late, late.deadline_at)
            if self._is_hopeless(late):  # else its turn comes
                late.is_control = True
                self._free.append(late)
        for free in self._free:
            if free.state is TicketState.WAITING and not self.breaker.is_open and not self._is_full():
                self._admit(free, now)
                settled.append(free)
        self._free.clear()
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
            ready = min(
                (self._turn_at(state, now) for state in self._queued.values() if state.queue.waiting), default=at
            )
            at = min(at, max(ready, self.breaker.probe_at) if self.breaker.is_open else ready)
        return max(at, now + LEAST_PAUSE_SECONDS)

    def _turn_at(self, state: KeyState, now: float) -> float:
        """When the first of those who wait there may go, as far as its scopes are concerned."""
        ticket = state.queue.peek()
        return now if ticket is None else max((each.ready_at(now) for each in self._closed_of(ticket)), default=now)

    def _closed_of(self, ticket: Ticket) -> list[KeyState]:
        return [state for name in ticket.scopes if (state := self._closed.get(name)) is not None]

    def _may_go(self, ticket: Ticket, now: float) -> bool:
        waits = [state for state in self._closed_of(ticket) if not state.may_go(now)]  # each notes that it is needed
        return not waits

    def _next(self, now: float, chance: float) -> Ticket | None:
        if self.breaker.is_open:
            return self._next_probe(now, chance)
        if self._is_full():
            self._concurrency_needed_at = now
            return None
        for name in list(self._queued):
            state = self._queued[name]
            ticket = self._next_in(state, now)
            if ticket is not None:
                self._queued.move_to_end(name)  # one turn for each tenant
                return ticket
            if not state.queue.waiting:
                del self._queued[name]
        return None

    def _next_in(self, state: KeyState, now: float) -> Ticket | None:
        first = state.queue.peek()
        while first is not None and not self._may_go(first, now):
            if not self._move(first, state, now):
                return None
            first = state.queue.peek()
        ticket = None if first is None else state.queue.next(now, newest_first=self.concurrency is not None)
        if ticket is not None:
            self._admit(ticket, now)
        return ticket

    def _move(self, ticket: Ticket, state: KeyState, now: float) -> bool:
        """To the queue of the scope that holds it, if that is a narrower one: others need not stand behind it."""
        name = self._queue_of(ticket.scopes, now)
        if name == ticket.queue:
            return False
        state.queue.remove(ticket)
        ticket.queue = name
        ticket.by, ticket.scope = self._cause(ticket.scopes, now)
        there = self._keys.use(name)
        there.queue.put(ticket)
        self._queued[name] = there
        return True

    def _next_probe(self, now: float, chance: float) -> Ticket | None:
        """One that waits behind no closed gate, when it is time for a probe."""
        if not breakers.may_probe(self.breaker, now):
            return None
        for state in list(self._queued.values()):
            ticket = state.queue.probe()
            if ticket is not None and ticket.state is TicketState.WAITING and self._may_go(ticket, now):
                self._set_breaker(breakers.probe(self.breaker, now, chance), now)
                ticket.is_probe = True
                self._admit(ticket, now)
                return ticket
        return None

    def _is_full(self) -> bool:
        return self.concurrency is not None and self.under_way >= int(self.concurrency.limit)

    def _admit(self, ticket: Ticket, now: float) -> None:
        for state in self._closed_of(ticket) if not ticket.is_control else ():
            state.take(now)
        self._settle(ticket, TicketState.ADMITTED, now)
        ticket.breaker_generation = self.breaker.generation
        ticket.concurrency_generation = self._concurrency_generation
        self.lent.add(ticket)

    def _reject(self, ticket: Ticket, reason: Reason, now: float) -> None:
        ticket.reason = reason
        left = max((state.expected_at(now) - now for state in self._closed_of(ticket)), default=0.0)
        if self.breaker.is_open:
            left = max(left, self.breaker.probe_at - now)
        ticket.retry_after_seconds = max(0.0, left)
        self._settle(ticket, TicketState.REJECTED, now)

    def _settle(self, ticket: Ticket, to: TicketState, now: float) -> None:
        was_waiting, ticket.state = ticket.state is TicketState.WAITING, to
        if not was_waiting:
            return
        ticket.held_seconds = max(0.0, now - ticket.asked_at)
        self.waiting -= 1
        self.waiting_bytes -= ticket.size_bytes
        state = self._keys.get(ticket.queue)
        if state is not None:
            state.queue.settled()
        if len(self._deadlines) > 64 + 4 * self.waiting:
            self._deadlines.forget_settled()

    # -- after a result ----------------------------------------------------------------------------------

    def finished(
        self, ticket: Ticket | None, result: Result, now: float, chance: float, scopes: tuple[str, ...] = (UPSTREAM,)
    ) -> None:
        """What came of an attempt. While calm, only results that are not ``ok`` need to be told.

        ``ticket``: the one with which it was admitted, None if it was sent in calm. ``scopes``: of its request.
        """
        if ticket is not None:
            self.lent.discard(ticket)
            scopes = ticket.scopes
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
            is_local = result.kind in ("failed", "busy") and not self.breaker.is_open and self._is_local(scopes, now)
            if not is_local:
                self._tell_breaker(result, now, succeeded, chance, ticket)
        is_control = ticket is not None and ticket.is_control
        self._tell_scopes(scopes, result, now, is_control=is_control)
        if ticket is not None:
            ticket.state = TicketState.GONE
        self._relax(now)

    def _is_local(self, scopes: tuple[str, ...], now: float) -> bool:
        """Whether a failure says nothing of the upstream: since the trouble began others are accepted, in numbers, but
        nothing of its own endpoint or credential."""
        since, whole = self._troubled_at, self._keys.get(UPSTREAM)
        if whole is None or whole.evidence.accepted(now, since) < FEWEST:
            return False
        narrow = [self._keys.get(name) for name in scopes[:-1]]
        return any(state is None or not state.evidence.accepted(now, since) for state in narrow)

    def _leave_calm(self, now: float) -> None:
        self.calm = False
        self._troubled_at = now
        sends, seconds = self._taken(now)
        self._usual_per_second = sends / max(1.0, seconds)
        self._calm_generation = self.breaker.generation

    def _tell_breaker(self, result: Result, now: float, succeeded: int, chance: float, ticket: Ticket | None) -> None:
        rule, before = self._breaker_rule, self.breaker
        if result.kind in ("ok", "refused"):
            if result.kind == "ok" or before.is_open:  # an upstream that refuses for the rate is there again
                self._set_breaker(breakers.answered(before, rule, now), now)
        elif result.number <= (1 if result.kind == "busy" else 2) or before.is_open:
            self._failed_at = now
            quiet = result.opens_at or 0.0
            self._set_breaker(breakers.failed(before, rule, now, chance, succeeded, self.under_way, quiet), now)
        if before.is_open and not self.breaker.is_open:
            self._limit(None if self._is_concurrency_cooling(now) else self._few(now), now)
        elif self.breaker.is_open:
            self._limit(None, now)
        elif self.concurrency is not None:
            self._tell_concurrency(self.concurrency, result, now, ticket)
        elif result.kind in ("failed", "busy"):
            self._look_for_crowding(now)

    def _tell_concurrency(self, limit: ConcurrencyLimit, result: Result, now: float, ticket: Ticket | None) -> None:
        if ticket is None or ticket.concurrency_generation != self._concurrency_generation:
            return
        if result.kind == "ok":
            is_full = self.waiting > 0 and self.under_way + 1 >= int(limit.limit)
            self.concurrency = concurrency_limits.answered(limit, now, result.seconds, is_full)
        elif result.kind != "refused":
            self.concurrency = concurrency_limits.failed(limit, now, result.seconds, self.breaker.in_a_row)
        if result.kind != "refused":
            self._judge_concurrency(result.kind != "ok", now)

    def _judge_concurrency(self, is_failure: bool, now: float) -> None:
        """Let the limit go if failures are about as frequent as before it: then they do not depend on it."""
        self._concurrency_results += 1
        self._concurrency_failed += is_failure
        if self._concurrency_results < rate_limits.JUDGED_ANSWERS:
            return
        if self._concurrency_failed > rate_limits.RARER * self._concurrency_share * self._concurrency_results:
            self._limit(None, now)
            self._concurrency_cool_until = now + self._concurrency_cooling_seconds
            self._concurrency_cooling_seconds = min(LONGEST_COOLING_SECONDS, 2 * self._concurrency_cooling_seconds)
        else:
            self._concurrency_cooling_seconds = FIRST_COOLING_SECONDS
        self._concurrency_results = self._concurrency_failed = 0

    def _look_for_crowding(self, now: float) -> None:
        if self._is_concurrency_cooling(now):
            return
        rule = self._breaker_rule
        attempts, bad = breakers.share(self.breaker, rule, now, CROWDED_SECONDS)
        many = attempts >= rule.of_at_least and bad >= rule.failures
        if many or 2 * self.breaker.in_a_row >= rule.of_at_least:
            self._concurrency_share = bad
            self._limit(concurrency_limits.overloaded(now, self.under_way + 1, self._load().usual_seconds), now)

    def _is_concurrency_cooling(self, now: float) -> bool:
        return 0 < self._concurrency_cool_until - now <= LONGEST_COOLING_SECONDS

    def _few(self, now: float) -> ConcurrencyLimit:
        self._concurrency_share = concurrency_limits.MANY_FAIL
        usual = self._load().usual_seconds
        return concurrency_limits.after_outage(now, usual, self._usual_per_second * usual)

    def _limit(self, limit: ConcurrencyLimit | None, now: float) -> None:
        if (limit is None) != (self.concurrency is None):
            (self.openings if limit is None else self.closings)["concurrency"] += 1
        self.concurrency = limit
        if limit is not None:
            self._concurrency_generation += 1
            self._concurrency_needed_at = now
            self._concurrency_results = self._concurrency_failed = 0

    def _tell_scopes(self, scopes: tuple[str, ...], result: Result, now: float, *, is_control: bool) -> None:
        """Evidence for each scope; one that is closed learns from it, else the widest that it speaks of is closed."""
        if result.kind == "failed":
            return
        is_refusal = result.kind != "ok"
        closed = [name for name in scopes if name in self._closed]
        for name in scopes:
            state = self._keys.use(name)
            if (
                not is_refusal or not closed or name in self._closed
            ):  # a refusal that a narrower one explains is no more
                state.evidence.add(now, int(not is_refusal), int(is_refusal))
        for name in closed:
            state = self._closed[name]
            before = 0 if state.rate is None else state.rate.generation
            if is_control:
                state.control_told(result, now)
            elif not state.told(result, now):
                self._let_go(scopes, now)
                return
            if is_refusal:
                self._scope_closed(name, state, before)
        if is_refusal and result.number == 1 and not closed and not (result.kind == "busy" and self.breaker.is_open):
            self._close(scopes, result, now)

    def _close(self, scopes: tuple[str, ...], result: Result, now: float) -> None:
        """The widest scope that the evidence speaks of, if requests unlike this one are refused as well."""
        states = [self._keys.use(name) for name in scopes]
        if any(state.is_cooling(now) for state in states):
            return
        counts = [state.evidence.recent(now) for state in states]
        for at in reversed(range(len(scopes))):
            accepted, refused, _ = counts[at]
            if not is_evidence(accepted, refused, self.under_way):
                continue
            if all(is_evidence(accepted - good, refused - bad, self.under_way) for good, bad, _ in counts[:at]):
                part = (accepted + refused) / max(1, sum(counts[-1][:2]))  # of all answers, so of what went before
                states[at].close(result, now, part * self._usual_per_second, self.under_way)
                if states[at].is_closed(now):
                    self._began(scopes[at], states[at], now)
                    self._scope_closed(scopes[at], states[at], 0)
                    if states[at].rate is None:  # it is down: it comes back as after an outage
                        self._limit(None if self._is_concurrency_cooling(now) else self._few(now), now)
                return

    def _began(self, name: str, state: KeyState, now: float) -> None:
        by: HeldBy = "gate" if left_seconds(state.gate, now) > 0 else "rate"
        self._closed[name], self._closed_by[name] = state, by
        self.closings[by] += 1

    def _let_go(self, scopes: tuple[str, ...], now: float) -> None:
        """Holding has not made refusals rarer: not here, nor in what it is part of."""
        for name in scopes:
            self._keys.use(name).let_go(now)
            if name in self._closed:
                self._opened(name)

    def _opened(self, name: str) -> None:
        del self._closed[name]
        self.openings[self._closed_by.pop(name)] += 1

    def _scope_closed(self, name: str, state: KeyState, before: int) -> None:
        """A scope was closed, or has learnt. ``before``: the generation of its rate until now."""

    def _set_breaker(self, breaker: Breaker, now: float) -> None:
        if breaker.is_open != self.breaker.is_open:
            (self.closings if breaker.is_open else self.openings)["breaker"] += 1
        self.breaker = breaker

    # -- for those who look -------------------------------------------------------------------------------

    @property
    def scopes(self) -> int:
        """How many scopes hold somebody."""
        return len(self._closed)

    def gates_closed(self, now: float) -> int:
        """How many gates are closed at this moment; for a gauge."""
        return sum(left_seconds(state.gate, now) > 0 for state in self._closed.values())

    def holds(self, now: float, most: int) -> list[Hold]:
        """What would hold a newcomer of some scope now, the widest first; of the scopes no more than ``most``."""
        found = []
        if self.breaker.is_open:
            found.append(Hold("breaker", UPSTREAM, max(0.0, self.breaker.probe_at - now)))
        if self.concurrency is not None:
            found.append(Hold("concurrency", UPSTREAM, limit=int(self.concurrency.limit)))
        for name, state in islice(self._closed.items(), most):
            left = left_seconds(state.gate, now)
            if left > 0:
                found.append(Hold("gate", name, left))
            elif state.rate is not None:
                found.append(Hold("rate", name, per_second=rate_limits.rate_at(state.rate, now)))
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
        needed = 0 <= now - self._concurrency_needed_at < CONCURRENCY_KEPT_SECONDS
        if not (self.waiting or self._is_full() or needed):
            self._limit(None, now)
        if len(self._closed) <= FEW_SCOPES or not 0 <= now - self._relaxed_at < RELAX_SECONDS:
            self._relaxed_at = now
            for name, state in list(self._closed.items()):
                state.relax(now)
                if not state.is_closed(now):
                    self._opened(name)
        self._keys.forget(now)
        whole = self._keys.get(UPSTREAM)
        is_refused = whole is not None and whole.evidence.has_refusals(now)
        self.calm = not (
            self._closed or self.waiting or self.breaker.is_open or self.concurrency is not None or is_refused
        )
        if self.calm:
            self._calm_generation = self.breaker.generation
            self._ended = self.sends - self.under_way
