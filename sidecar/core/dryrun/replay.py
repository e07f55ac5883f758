"""An exchange played through without sending: each response is judged by ``decide`` on a clock of its own.

The responses are given; waits pass at once and count toward the deadline. Nothing else is under way: no gate, breaker
or empty budget objects, and a login or a reread leads to another send. Used by ``sidecar test`` and ``sidecar
explain``. Counterpart: ``proxy.exchange.retry_loop``, which acts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

from sidecar.core.decision.attempt import Attempt, Headers, Now, Pressure, Request
from sidecar.core.decision.decide import Decision, decide
from sidecar.core.decision.policy import Policy
from sidecar.core.decision.times import duration
from sidecar.core.enums import FailureKind, Reason, Verb

__all__ = ["NEVER_SENT", "Step", "rehearse", "request_of"]

NEVER_SENT: Final = frozenset(
    {
        FailureKind.RESOLVE,
        FailureKind.REFUSED,
        FailureKind.UNREACHABLE,
        FailureKind.TLS,
        FailureKind.CONNECT_TIMEOUT,
    }
)
"""Failures that come before a byte of the request is written."""
SENDS_AGAIN: Final = frozenset({Verb.RETRY, Verb.LOGIN, Verb.REREAD})


@dataclass(frozen=True, slots=True)
class Step:
    """One send that came back, and the decision about it."""

    attempt: Attempt
    decision: Decision


def request_of(policy: Policy, method: str, path: str, query: str, headers: Headers) -> Request:
    """The app's request as the loop would judge it, begun at second 0: with its key and its deadline."""
    asked = duration((headers.get("sidecar-timeout") or "").strip())
    deadline = min(asked, policy.deadline_seconds) if asked else policy.deadline_seconds
    return Request(method, path, query, headers, _is_keyed(policy, method), deadline)


def _is_keyed(policy: Policy, method: str) -> bool:
    """Whether the request carries the app's own key, or would be given one."""
    rule = policy.idempotency
    return rule is not None and method in rule.methods


def rehearse(
    policy: Policy, request: Request, answers: tuple[Attempt, ...], wall: float, chance: float
) -> tuple[Step, ...]:
    """The decision about each response, in order; it ends with the first after which nothing is sent again.

    ``ended_at`` of a response says how many seconds it took; its number, times and the wait before it are filled in.
    ``wall`` is Unix time at the first send; ``chance`` (0 … 1) is the same for every wait: 0 makes them as short as
    they can be, 1 as long.
    """
    steps: list[Step] = []
    clock = waited = 0.0
    done: Counter[Verb] = Counter()
    for answer in answers:
        began, clock = clock, clock + answer.ended_at
        attempt = replace(answer, number=len(steps) + 1, started_at=began, ended_at=clock, waited_seconds=waited)
        history = (*(step.attempt for step in steps), attempt)
        decision = _once(decide(policy, request, history, Now(clock, wall + clock), chance, Pressure()), done)
        steps.append(Step(attempt, decision))
        if decision.verb not in SENDS_AGAIN:
            break
        waited = 0.0 if decision.wait is None else decision.wait.seconds
        clock += waited
    return tuple(steps)


def _once(decision: Decision, done: Counter[Verb]) -> Decision:
    """A login happens once in an exchange, a reread as often as its rule says; then the response is handed over, as by
    the loop.
    """
    if decision.verb not in (Verb.LOGIN, Verb.REREAD):
        return decision
    done[decision.verb] += 1
    if done[decision.verb] <= (1 if decision.reread is None else decision.reread.times):
        return decision
    return replace(
        decision, verb=Verb.PASS, reason=Reason.ATTEMPTS, wait=None, safe_because=None, cost=0.0, reread=None
    )
