"""The other side of "do no harm": each request retries by itself, with the same policy and the same ``decide``.

Nothing is shared: no limiter, no budget. The counterpart is ``sidecars.Sidecar``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from sidecar.core.decision.attempt import Attempt, Now, Pressure, Request
from sidecar.core.decision.decide import decide
from sidecar.core.decision.policy import Policy
from sidecar.core.decision.table import policy_passes
from sidecar.core.enums import Reason, Verb
from sidecar.simulate.clock import Clock
from sidecar.simulate.contenders import Exchange, ExchangeBook
from sidecar.simulate.stats import Stats
from sidecar.simulate.upstream import Answer, Call, Upstream

__all__ = ["Plain"]

NO_PRESSURE = Pressure()


class Plain:
    """An app without a sidecar."""

    def __init__(self, clock: Clock, policy: Policy, upstream: Upstream, stats: Stats) -> None:
        self._clock, self._policy, self._upstream, self._stats = clock, policy, upstream, stats
        self._teller = ExchangeBook(clock, stats)
        self._passes = [policy_passes(policy, status) for status in range(1000)]
        self.held = 0

    def take(self, request: Request, index: int, done: Callable[[], None]) -> None:
        now = self._clock.now
        self._teller.begin()
        self._send(Exchange(replace(request, deadline_at=now + self._policy.deadline_seconds), index, now, done))

    def _send(self, exchange: Exchange) -> None:
        exchange.number += 1
        exchange.sent_at = self._clock.now
        self._stats.sent.add(exchange.sent_at)
        call = Call(exchange.request, exchange.index, exchange.number)
        self._upstream.arrive(call, partial(self._answered, exchange))

    def _answered(self, exchange: Exchange, answer: Answer) -> None:
        now, status = self._clock.now, answer.status
        exchange.applied += answer.applied
        if status is not None and self._passes[status]:
            self._teller.end(exchange, status < 400, "")
            return
        attempt = Attempt(
            exchange.number,
            status=status,
            headers=answer.headers,
            failure=answer.failure,
            started_at=exchange.sent_at,
            ended_at=now,
            waited_seconds=exchange.waited,
        )
        exchange.history += (attempt,)
        chance = self._clock.chance_of(exchange.index, exchange.number)
        moment = Now(now, self._clock.wall)
        decision = decide(self._policy, exchange.request, exchange.history, moment, chance, NO_PRESSURE)
        if decision.verb is not Verb.RETRY or decision.wait is None:
            self._teller.end(exchange, False, str(decision.reason or Reason.NOT_RETRYABLE))
            return
        exchange.waited = decision.wait.seconds
        self.held += 1
        self._clock.after(decision.wait.seconds, self._again, exchange)

    def _again(self, exchange: Exchange) -> None:
        self.held -= 1
        self._send(exchange)
