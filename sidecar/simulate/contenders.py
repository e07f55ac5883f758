"""The sides of a comparison: the engine itself, and stand-ins for what is common elsewhere. On the virtual clock.

``Sidecar`` is the loop of ``sidecar.proxy`` in small: ``decide`` judges, ``limiter`` holds, the budget pays; only the
sending is pretended. It decides nothing of its own. The stand-ins retry by a fixed rule, as documented for common
proxies; they hold nobody.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

from sidecar.core.decision.attempt import Attempt, Now, Pressure, Request
from sidecar.core.decision.budget import deposit, full_floor, refill, withdraw
from sidecar.core.decision.decide import LEAST_ATTEMPT_SECONDS, Decision, concerns_others, decide
from sidecar.core.decision.policy import BreakerRule, GateRule, Policy
from sidecar.core.decision.table import policy_passes
from sidecar.core.decision.wait import expected_backoff_seconds
from sidecar.core.enums import IDEMPOTENT_METHODS, Reason, Verb
from sidecar.core.flow.keys import CREDENTIALS, Kind, endpoint_of, kind_of, scopes_of
from sidecar.core.flow.latency import Latency, median, update
from sidecar.core.flow.limiter import TICK_SECONDS, Limiter, Load, Result
from sidecar.core.flow.queue import Ticket, TicketState
from sidecar.core.flow.ratelimit_headers import read_ratelimit_headers
from sidecar.simulate.clock import Clock
from sidecar.simulate.stats import Stats
from sidecar.simulate.upstream import Answer, Call, Upstream

__all__ = ["Budgeted", "Exchange", "ExchangeBook", "Fixed", "LimiterHost", "Side", "Sidecar"]

TYPICAL_BYTES: Final = 4096
"""That a held exchange is reckoned with."""

BOUNDS: Final = tuple(0.001 * 1.5**n for n in range(30))
"""Of the histogram of durations, in seconds."""


class Side(Protocol):
    """Takes requests of an app; counts in a tally."""

    def take(self, request: Request, index: int, done: Callable[[], None]) -> None:
        """One request of an app, the ``index``-th of the run; ``done`` is called at its end."""

    @property
    def held(self) -> int: ...


@dataclass(slots=True, eq=False)
class Exchange:
    request: Request
    """With its deadline."""
    index: int
    """Of the request among those of the run, from 0."""
    began: float
    done: Callable[[], None]
    history: tuple[Attempt, ...] = ()
    number: int = 0
    waited: float = 0.0
    sent_at: float = 0.0
    applied: int = 0
    paid: float = 0.0
    """Budget tokens that its retries have cost."""
    ticket: Ticket | None = None


class ExchangeBook:
    """Ends an exchange in the tally."""

    __slots__ = ("clock", "stats")

    def __init__(self, clock: Clock, stats: Stats) -> None:
        self.clock, self.stats = clock, stats

    def begin(self) -> None:
        self.stats.offered.add(self.clock.now)

    def end(self, exchange: Exchange, good: bool, reason: str) -> None:
        now, stats = self.clock.now, self.stats
        if good:
            stats.succeeded.add(now)
        stats.outcomes["ok" if good else "error"] += 1
        if reason:
            stats.reasons[reason] += 1
        stats.applied_twice += exchange.applied > 1
        stats.durations.append((exchange.began, now - exchange.began, good))
        stats.ended_at = now
        exchange.done()


class LimiterHost:
    """A limiter, and the timer that looks at it again: of one sidecar, or of several that share what they know."""

    __slots__ = ("_clock", "_next_at", "_ticked_at", "_usual", "limiter", "members")

    def __init__(self, clock: Clock, breaker: BreakerRule, gate: GateRule) -> None:
        self._clock = clock
        self._next_at = float("inf")
        self._ticked_at = 0.0
        self._usual = Latency()
        self.members: list[Sidecar] = []
        self.limiter = Limiter(breaker, gate, self._load)

    def _load(self) -> Load:
        return Load(self._usual.seconds or self._so_far())

    def _so_far(self) -> float:
        """Before the first tick."""
        member = self.members[0]
        return median(BOUNDS, member.durations, member.total_seconds)

    def tick(self) -> None:
        """About once a second, as the loop does."""
        if self._clock.now - self._ticked_at >= TICK_SECONDS:
            self._ticked_at = self._clock.now
            self.limiter.tick(self._clock.now)
            member = self.members[0]
            if member.durations:
                calm = self.limiter.calm
                self._usual = update(self._usual, BOUNDS, member.durations, member.total_seconds, calm=calm)

    def pump(self) -> None:
        """Wake whoever is settled, and look again when the limiter says."""
        now = self._clock.now
        for ticket in self.limiter.release(now, self._clock.chance()):
            ticket.owner(ticket)  # type: ignore[operator]
        at = self.limiter.next_at(now)
        if at is not None and (at < self._next_at - 1e-9 or self._next_at <= now):
            self._next_at = at
            self._clock.at(at, self._rung, at)

    def _rung(self, at: float) -> None:
        if at == self._next_at:
            self._next_at = float("inf")
            self.pump()


class Sidecar:
    """One replica. Several may be given the same door: then they share what it knows."""

    def __init__(
        self, clock: Clock, policy: Policy, upstream: Upstream, stats: Stats, host: LimiterHost | None = None
    ) -> None:
        self._clock, self._policy, self._upstream = clock, policy, upstream
        self._teller = ExchangeBook(clock, stats)
        self._stats = stats
        self._passes = [policy_passes(policy, status) for status in range(1000)]
        self._budget = full_floor(policy.budget, clock.now)
        self._requests = 0
        self.durations: list[int] = []
        """How many answers took up to each bound; empty before the first."""
        self.total_seconds = 0.0
        self.waits = 0
        self.host = host or LimiterHost(clock, policy.breaker, policy.gate)
        self.host.members.append(self)

    @property
    def held(self) -> int:
        """Exchanges that wait inside; those behind a shared door are counted with its first member."""
        return self.waits + (self.host.limiter.waiting if self.host.members[0] is self else 0)

    def take(self, request: Request, index: int, done: Callable[[], None]) -> None:
        now = self._clock.now
        self._teller.begin()
        self._requests += 1
        self._ask(Exchange(replace(request, deadline_at=now + self._policy.deadline_seconds), index, now, done))

    def _ask(self, exchange: Exchange) -> None:
        self.host.tick()
        limiter, request = self.host.limiter, exchange.request
        exchange.number += 1
        exchange.ticket = None
        if limiter.calm:
            self._send(exchange)
            return
        can_repeat = request.method in IDEMPOTENT_METHODS or request.keyed
        exchange.ticket = Ticket(
            request.deadline_at - LEAST_ATTEMPT_SECONDS,
            self._scopes(request),
            number=exchange.number,
            began_at=exchange.began,
            retries=self._policy.attempts - 1,
            backoff_seconds=expected_backoff_seconds(self._policy),
            repeatable=can_repeat and exchange.number < self._policy.attempts,
            size_bytes=TYPICAL_BYTES,
            max_wait_seconds=self._policy.max_wait_seconds,
            owner=partial(self._settled, exchange),
        )
        limiter.ask(exchange.ticket, self._clock.now)
        if exchange.ticket.state is TicketState.REJECTED:
            self._settled(exchange, exchange.ticket)
        self.host.pump()

    def _scopes(self, request: Request) -> tuple[str, ...]:
        """As the loop names them: endpoint, credential or configured key, upstream."""
        names = self._policy.gate.key or CREDENTIALS
        key = "\0".join(request.headers.get(name) or "" for name in names)
        endpoint = endpoint_of(request.method, request.path)
        return scopes_of(endpoint, key.strip("\0"), is_keyed=bool(self._policy.gate.key))

    def _settled(self, exchange: Exchange, ticket: Ticket) -> None:
        if ticket.state is TicketState.ADMITTED:
            self._send(exchange)
        else:
            self._teller.end(exchange, False, f"held: {ticket.reason}")

    def _send(self, exchange: Exchange) -> None:
        exchange.sent_at = self._clock.now
        self.host.limiter.sends += 1
        self.host.limiter.lent.add(exchange.ticket or exchange)
        self._stats.sent.add(exchange.sent_at)
        call = Call(exchange.request, exchange.index, exchange.number)
        self._upstream.arrive(call, partial(self._answered, exchange))

    def _answered(self, exchange: Exchange, answer: Answer) -> None:
        now, status = self._clock.now, answer.status
        seconds = now - exchange.sent_at
        self.host.limiter.lent.discard(exchange.ticket or exchange)
        exchange.applied += answer.applied
        if status is not None and self._passes[status]:
            if status < 400:
                self._note(seconds)
                if exchange.paid:
                    self._budget = deposit(self._budget, self._policy.budget, exchange.paid)
            if not self.host.limiter.calm:
                self._tell(exchange, answer, "ok", seconds, None)
            self._teller.end(exchange, status < 400, "")
            return
        decision = self._judge(exchange, answer, now)
        kind = kind_of(status, holds=concerns_others(decision), hinted=decision.gate_until is not None)
        self._tell(exchange, answer, kind, seconds, decision.gate_until)
        self._follow(exchange, decision)

    def _note(self, seconds: float) -> None:
        if not self.durations:
            self.durations = [0] * (len(BOUNDS) + 1)
        self.durations[bisect_left(BOUNDS, seconds)] += 1
        self.total_seconds += seconds

    def _tell(self, exchange: Exchange, answer: Answer, kind: Kind, seconds: float, opens_at: float | None) -> None:
        figures = read_ratelimit_headers(answer.headers, self._clock.wall)
        result = Result(kind, seconds, opens_at, figures, exchange.number)
        self.host.limiter.finished(
            exchange.ticket, result, self._clock.now, self._clock.chance(), self._scopes(exchange.request)
        )
        self.host.pump()

    def _judge(self, exchange: Exchange, answer: Answer, now: float) -> Decision:
        attempt = Attempt(
            exchange.number,
            status=answer.status,
            headers=answer.headers,
            failure=answer.failure,
            started_at=exchange.sent_at,
            ended_at=now,
            waited_seconds=exchange.waited,
        )
        exchange.history += (attempt,)
        self._budget = refill(self._budget, self._policy.budget, now, self._requests)
        self._requests = 0
        facts = self.host.limiter.forecast(self._scopes(exchange.request), now, TYPICAL_BYTES)
        pressure = Pressure(
            self._budget.tokens, facts.breaker_open, facts.gate_closed_until, facts.rate_ready_at, facts.full
        )
        chance = self._clock.chance_of(exchange.index, exchange.number)
        return decide(self._policy, exchange.request, exchange.history, Now(now, self._clock.wall), chance, pressure)

    def _follow(self, exchange: Exchange, decision: Decision) -> None:
        if decision.verb is not Verb.RETRY or decision.wait is None:
            self._teller.end(exchange, False, str(decision.reason or Reason.NOT_RETRYABLE))
            return
        self._budget = withdraw(self._budget, decision.cost) or self._budget
        exchange.paid += decision.cost
        exchange.waited = decision.wait.seconds
        self.waits += 1
        self._clock.after(decision.wait.seconds, self._waited, exchange)

    def _waited(self, exchange: Exchange) -> None:
        self.waits -= 1
        self._ask(exchange)


class Fixed:
    """A stand-in: so many sends, exponential backoff with full jitter, hints of whole seconds honoured up to a cap."""

    def __init__(
        self,
        clock: Clock,
        upstream: Upstream,
        stats: Stats,
        sends: int = 5,
        base: float = 0.025,
        cap: float = 0.25,
        honours: bool = True,
    ) -> None:
        self._clock, self._upstream, self._stats = clock, upstream, stats
        self._teller = ExchangeBook(clock, stats)
        self._sends, self._base, self._cap, self._honours = sends, base, cap, honours
        self.held = 0
        self.active = 0
        self.retrying = 0

    def take(self, request: Request, index: int, done: Callable[[], None]) -> None:
        self._teller.begin()
        self.active += 1
        self._send(Exchange(request, index, self._clock.now, done))

    def _send(self, exchange: Exchange) -> None:
        exchange.number += 1
        self._stats.sent.add(self._clock.now)
        call = Call(exchange.request, exchange.index, exchange.number)
        self._upstream.arrive(call, partial(self._answered, exchange))

    def _answered(self, exchange: Exchange, answer: Answer) -> None:
        exchange.applied += answer.applied
        if exchange.number > 1:
            self.retrying -= 1
        good = answer.status is not None and answer.status < 400
        if good or exchange.number >= self._sends or not self._may_retry():
            self.active -= 1
            self._teller.end(exchange, good, "" if good else "gave up")
            return
        self.retrying += 1
        self.held += 1
        self._clock.after(self._pause(exchange, answer), self._again, exchange)

    def _may_retry(self) -> bool:
        return True

    def _pause(self, exchange: Exchange, answer: Answer) -> float:
        hint = answer.headers.get("retry-after") if self._honours else None
        if hint is not None and hint.isdigit():
            return int(hint) + self._clock.chance() * int(hint) * 0.5
        return self._clock.chance() * min(self._cap, self._base * 2.0 ** (exchange.number - 1))

    def _again(self, exchange: Exchange) -> None:
        self.held -= 1
        self._send(exchange)


class Budgeted(Fixed):
    """The same, but no more retries at once than a fifth of what is under way, and never fewer than three."""

    def _may_retry(self) -> bool:
        return self.retrying < max(3, 0.2 * self.active)
