"""What a row asks for besides a wait: log in, or look at the state; then whether to send again.

Only for exchanges in trouble, and each at most once per exchange (or as often as a reread says). It sends none of
the app's requests and hands nothing over: it turns a decision into another one. The counterpart is ``attempts``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Final

from sidecar.core.decide import LEAST_ATTEMPT_SECONDS, NO_WAIT, Decision
from sidecar.core.words import Reason, Verb
from sidecar.proxy.answering import Kept
from sidecar.proxy.preparation import Prepared
from sidecar.proxy.reread import look
from sidecar.proxy.services import Services
from sidecar.wire.heads import RequestMessage

__all__ = ["CARRIED_OUT", "Verbs"]

CARRIED_OUT: Final = frozenset({Verb.LOGIN, Verb.REREAD})


class Verbs:
    """Those of one exchange."""

    def __init__(self, services: Services, prepared: Prepared, message: RequestMessage, deadline_at: float) -> None:
        self._services = services
        self._prepared = prepared
        self._message = message
        self._deadline_at = deadline_at
        """Monotonic seconds."""
        self._done: Counter[Verb] = Counter()
        self.answer: Kept | None = None
        """What was read, where it is to be the app's answer; then the decision has no reason."""

    async def carry_out(self, decision: Decision) -> Decision:
        """``retry``, or ``pass`` with the reason. Never raises but for a cancellation."""
        verb = decision.verb
        if verb is Verb.LOGIN and self._prepared.credential is None:
            # No login is configured, or the app sent a credential of its own: the answer is the app's to deal with.
            return _hand_over(decision, Reason.NOT_RETRYABLE)
        most = decision.reread.times if decision.reread is not None else 1
        if self._done[verb] >= most:
            return _hand_over(decision, Reason.ATTEMPTS)
        self._done[verb] += 1
        objection = await (self._log_in() if verb is Verb.LOGIN else self._reread(decision))
        if objection is None and self._left_seconds() < LEAST_ATTEMPT_SECONDS:
            objection = Reason.DEADLINE
        if objection is None and decision.cost > self._tokens():
            # Judged before the wait, by tokens that others have paid meanwhile; from here on nothing waits.
            objection = Reason.BUDGET
        if objection is not None or self.answer is not None:
            return _hand_over(decision, objection)
        return replace(decision, verb=Verb.RETRY, wait=decision.wait or NO_WAIT)

    def _left_seconds(self) -> float:
        return max(0.0, self._deadline_at - self._services.clock.monotonic())

    def _tokens(self) -> float:
        return self._prepared.destination.purse.tokens(self._services.clock.monotonic())

    async def _log_in(self) -> Reason | None:
        prepared = self._prepared
        if prepared.credential is None:
            return Reason.LOGIN_FAILED
        held = prepared.destination.meters.held
        held["login"] += 1
        try:
            renewed = await prepared.credential.renewed(prepared.credential_number, self._left_seconds())
        finally:
            held["login"] -= 1
        return None if renewed else Reason.LOGIN_FAILED

    async def _reread(self, decision: Decision) -> Reason | None:
        if decision.reread is None:
            return Reason.NOT_RETRYABLE
        timeouts = self._prepared.bound.policy.timeouts
        seconds = min(timeouts.connect_seconds + timeouts.head_seconds, self._left_seconds())
        seen = await look(decision.reread, self._prepared, self._message, seconds)
        if isinstance(seen, Kept):
            self.answer = seen
            return None
        return None if seen else Reason.NOT_RETRYABLE


def _hand_over(decision: Decision, reason: Reason | None) -> Decision:
    return replace(decision, verb=Verb.PASS, reason=reason, wait=None, safe_because=None, cost=0.0, reread=None)
