"""The one judgement: what to do about a finished attempt, and why.

``decide`` never sleeps, logs, counts, reads a clock or draws a random number: the time and one random number are
arguments. So ``serve``, ``explain``, ``test`` and ``simulate`` run the same engine. Counterpart:
``proxy.exchange.retry_loop``, which acts. It judges in this order; the first objection is the reason:

1. the first row that matches says what is wanted; the upstream's verdict header may overrule it; what met a pooled
   connection in its close is sent again whatever they say;
2. a response that has begun, or a body that is gone, ends the exchange;
3. safety: the five permissions (``safety``), and the body still held whole;
4. attempts left;
5. the wait: a hint, else backoff; against ``max_wait``, then against the deadline;
6. budget, breaker, gate, rate, a place to wait in; then draining and the switch.

What the table hands over is ``not_retryable`` however the rest stands: nothing was to be retried, so nothing
else was the reason. That keeps the loop's fast path (``table.policy_passes``) and this module in agreement.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from sidecar.core.decision.attempt import Attempt, Now, Pressure, Replay, Request
from sidecar.core.decision.conditions import Look
from sidecar.core.decision.policy import Policy
from sidecar.core.decision.retry_after import Hint, read_hint
from sidecar.core.decision.rows import HintSource, Reread, Row
from sidecar.core.decision.safety import why_safe
from sidecar.core.decision.table import BODY_PLACES, source_looks_into_body
from sidecar.core.decision.wait import Wait, limits_of, plan_wait
from sidecar.core.enums import IDEMPOTENT_METHODS, FailureKind, Outcome, OverMax, Reason, Safe, Verb, WaitFrom

__all__ = [
    "ORDER",
    "Decision",
    "Wait",
    "concerns_others",
    "decide",
    "hint_sources",
    "holds_others",
    "needs_body",
    "outcome_of",
    "wanted",
]

ORDER: Final[tuple[tuple[str, frozenset[Reason]], ...]] = (
    ("table", frozenset({Reason.NOT_RETRYABLE})),
    ("verdict", frozenset({Reason.SERVER_SAYS_NO})),
    ("response", frozenset({Reason.RESPONSE_STARTED})),
    ("body sent", frozenset({Reason.BODY_CONSUMED})),
    ("safety", frozenset({Reason.NOT_SAFE})),
    ("body held", frozenset({Reason.BODY_TOO_LARGE, Reason.SPOOL_FAILED})),
    ("attempts", frozenset({Reason.ATTEMPTS})),
    ("max_wait", frozenset({Reason.WAIT_TOO_LONG})),
    ("deadline", frozenset({Reason.DEADLINE})),
    ("budget", frozenset({Reason.BUDGET})),
    ("breaker", frozenset({Reason.BREAKER})),
    ("gate", frozenset({Reason.GATE})),
    ("draining", frozenset({Reason.DRAINING})),
    ("switch", frozenset({Reason.SWITCHED_OFF})),
)
"""The steps of the judgement, in order, each with the reasons that it can stop for: the steps before a stop were
passed. A test holds it to what ``decide`` does.
"""

LEAST_ATTEMPT_SECONDS: Final = 0.02
"""Seconds before the deadline below which no attempt is begun: it could only add load."""
LONGEST_GATE_SECONDS: Final = 3600.0
"""Seconds for which one hint may close the gate. The next response renews a true hint, and an absurd one cannot keep an
upstream shut.
"""

ANY_FAILURE: Final = frozenset(FailureKind)
"""The meaning of ``failure: any``."""

NOT_TO_BE_RETRIED: Final = frozenset({Reason.NOT_SAFE, Reason.SERVER_SAYS_NO, Reason.BODY_CONSUMED})
"""Reasons that lie in the request or in the upstream's own verdict: no other send was possible, whatever is left."""

NOW_IS_NO_MATTER: Final = Now(0.0, 0.0)
"""For checks whether a hint is usable, which does not depend on the time."""

NO_WAIT: Final = Wait(WaitFrom.BACKOFF, 0.0, 0.0, 0.0)
"""The wait before a login, a reread, or a send in place of one that does not count."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about the last attempt. ``pass`` hands over what there is; ``reason`` says why."""

    verb: Verb
    reason: Reason | None = None
    """Why it is not sent again; None with any verb but ``pass``, and for a plain success."""
    row: Row | None = None
    """The row that matched, if one did."""
    wait: Wait | None = None
    """The wait before the next send; with ``retry``, and with ``login`` and ``reread`` where the gate is closed."""
    safe_because: Safe | None = None
    """The permission to send again; None with ``pass``."""
    attempts_left: int = 0
    """Further sends that the policy (or the row) would allow after this attempt."""
    gate_until: float | None = None
    """Monotonic seconds until which the upstream asked all clients to wait; independent of the verb."""
    cost: float = 0.0
    """Budget tokens to withdraw; 0 with ``pass``."""
    reread: Reread | None = None
    """What to read; with the verb ``reread`` only."""
    hint_seconds: float | None = None
    """Seconds that the upstream (or the policy's constant) asked for, also where that was not followed."""
    uncounted: bool = False
    """Whether the attempt does not count: neither toward ``attempts`` and the budget, nor as a sign of trouble."""


@dataclass(frozen=True, slots=True)
class Case:
    """Everything about one finished attempt, gathered once."""

    policy: Policy
    request: Request
    attempt: Attempt
    row: Row | None
    now: Now
    chance: float
    pressure: Pressure
    hint: Hint | None
    uncounted: bool = False
    """See ``Decision``."""
    more: int = 0
    """Sends beyond the policy's limit, in place of one that did not count."""

    @property
    def attempts_left(self) -> int:
        row = self.row
        limit = self.policy.attempts if row is None or row.attempts is None else row.attempts
        if self._will_be_the_same and (row is None or (row.attempts is None and row.failures == ANY_FAILURE)):
            limit = 1
        return max(0, limit + self.more - self.attempt.number)

    @property
    def _will_be_the_same(self) -> bool:
        """Whether another attempt would fail in the same way: a response that is not HTTP, or a failure that lasts.

        A row that says ``failure: any`` does not ask for such an attempt; one that names the failure does.
        """
        return self.attempt.lasting or self.attempt.failure is FailureKind.PROTOCOL

    @property
    def cost(self) -> float:
        """Budget tokens; 0 for a pooled connection that was closed before a byte was written: that is no sign of
        load.
        """
        if self.uncounted or (self.attempt.pooled and not self.attempt.written and self.attempt.status is None):
            return 0.0
        return 1.0 if self.row is None else self.row.cost


def decide(
    policy: Policy, request: Request, history: tuple[Attempt, ...], now: Now, chance: float, pressure: Pressure
) -> Decision:
    """What to do about the last attempt of the history (all attempts so far, oldest first, at least one).

    ``chance`` is 0 … 1. Pure: the same arguments give the same decision. Never raises for what a peer sent.
    """
    attempt = history[-1]
    look = Look(request, attempt)
    row = policy.table.match(request, attempt, look)
    verb, reason = wanted(policy, row, attempt)
    more = int(_is_uncounted(request, history[0]))
    uncounted = more > 0 and len(history) == 1
    if uncounted:
        verb = Verb.RETRY
    elif row is None and verb is Verb.PASS:
        return Decision(Verb.PASS, reason, attempts_left=max(0, policy.attempts - attempt.number))
    hint = None if uncounted else _hint(policy, row, verb, look, now)
    case = Case(policy, request, attempt, row, now, chance, pressure, hint, uncounted, more)
    draft = Decision(
        Verb.PASS,
        reason,
        row,
        attempts_left=case.attempts_left,
        gate_until=_gate_until(case),
        hint_seconds=None if hint is None else hint.seconds,
        uncounted=uncounted,
    )
    return draft if verb is Verb.PASS else _follow(case, verb, draft)


def _is_uncounted(request: Request, first: Attempt) -> bool:
    """Whether the first attempt of an exchange met a pooled connection that the upstream was closing.

    An idempotent request is then sent once more at once, whatever the table says (RFC 9112 section 9.3.1, RFC 9110
    section 9.2.2). The first alone: later ones go over connections that have just been seen alive.
    """
    return first.crossed and request.method in IDEMPOTENT_METHODS


def needs_body(policy: Policy, request: Request, attempt: Attempt) -> bool:
    """Whether the decision about a response, of which only the head has been read, can depend on its body.

    Method, path, header fields and the hints in them are checked first: what they settle needs no body, and a response
    that is merely handed over is not held back. ``decide`` says the same of it with its body and without.
    """
    look = Look(request, attempt)
    row, is_open = policy.table.match_by_head(attempt, look)
    if is_open:
        return True
    verb, _ = wanted(policy, row, attempt)
    if verb is Verb.PASS and not holds_others(row):
        return False
    for source in policy.wait if row is None or row.wait is None else row.wait:
        if source_looks_into_body(source):
            if look.all_hold(tuple(each for each in source.when if each.place not in BODY_PLACES)):
                return True
        elif read_hint((source,), request, attempt, NOW_IS_NO_MATTER, look) is not None:
            return False
    return False


def wanted(policy: Policy, row: Row | None, attempt: Attempt) -> tuple[Verb, Reason | None]:
    """What the table asks for, overruled by the upstream's own verdict on an error.

    A verdict beside a success that the table hands over is ignored: a success is never sent again.
    """
    verb = Verb.PASS if row is None else row.verb
    succeeded = verb is Verb.PASS and attempt.failure is None and attempt.status is not None and attempt.status < 400
    if succeeded:
        return Verb.PASS, None
    says = _verdict(policy, attempt)
    if verb is Verb.PASS:
        return (Verb.RETRY, None) if says else (Verb.PASS, Reason.NOT_RETRYABLE)
    return (Verb.PASS, Reason.SERVER_SAYS_NO) if says is False else (verb, None)


def _verdict(policy: Policy, attempt: Attempt) -> bool | None:
    """The upstream's own verdict on a retry, to the letter: None if it is another word, or several that differ."""
    if policy.verdict is None:
        return None
    words = {word.strip(" \t") for word in attempt.headers.all(policy.verdict.header)}
    if words == {policy.verdict.yes}:
        return True
    return False if words == {policy.verdict.no} else None


def _hint(policy: Policy, row: Row | None, verb: Verb, look: Look, now: Now) -> Hint | None:
    """The hint is read even where nothing is sent again, if the row then closes the gate for others."""
    sources = _sources(policy, row, verb)
    return read_hint(sources, look.request, look.attempt, now, look) if sources else None


def hint_sources(policy: Policy, row: Row | None, attempt: Attempt) -> tuple[HintSource, ...]:
    """The sources that ``decide`` asks about this attempt, which this row matched; none if no hint is asked for."""
    return _sources(policy, row, wanted(policy, row, attempt)[0])


def _sources(policy: Policy, row: Row | None, verb: Verb) -> tuple[HintSource, ...]:
    if verb is Verb.PASS and not holds_others(row):
        return ()
    return policy.wait if row is None or row.wait is None else row.wait


def concerns_others(decision: Decision) -> bool:
    """Whether a response is evidence for other exchanges: not where its hint is longer than anybody waits. Then each of
    them ends at once by itself, and nothing is gained by holding one.
    """
    return holds_others(decision.row) and decision.reason is not Reason.WAIT_TOO_LONG


def holds_others(row: Row | None) -> bool:
    """Whether a response that this row matched may hold other exchanges: not where it says ``gate: false``, and by
    default not where it just hands over.
    """
    if row is None:
        return False
    return row.verb is not Verb.PASS if row.gate is None else row.gate


def _gate_until(case: Case) -> float | None:
    """When the wait ends that this response asks of all clients; None: it asks that of no other exchange.

    By default for 429, and for 503, with the upstream's own hint on a row that does not just hand over; ``gate: true``
    also takes the policy's constant for one.
    """
    row, hint = case.row, case.hint
    if hint is None or hint.seconds <= 0 or case.attempt.status is None:
        return None
    gated = None if row is None else row.gate
    if gated is None:
        gated = case.attempt.status in (429, 503) and hint.source is WaitFrom.HINT
    if not gated:
        return None
    max_wait, over_max = limits_of(case.policy, row)
    if hint.seconds > max_wait and over_max is not OverMax.PASS:
        # The app asked for an earlier answer than the hint allows, so the hint does not hold it here.
        return case.now.monotonic + max_wait if over_max is OverMax.CLAMP else None
    return case.now.monotonic + min(hint.seconds, LONGEST_GATE_SECONDS)


def _follow(case: Case, verb: Verb, draft: Decision) -> Decision:
    """The table wants more than handing over: look for an objection, in the order of judgement."""
    safe = why_safe(case.policy, case.row, case.request, case.attempt)
    stop = _unrepeatable(case.pressure, safe)
    if stop is not None:
        return replace(draft, reason=stop)
    if verb is Verb.STORE:
        return replace(draft, verb=verb, safe_because=safe)
    wait = _affordable_wait(case, verb)
    if isinstance(wait, Reason):
        return replace(draft, reason=wait)
    if case.pressure.client_gone:
        return draft
    return replace(
        draft,
        verb=verb,
        wait=wait if verb is Verb.RETRY or wait.seconds > 0 else None,
        safe_because=safe,
        cost=case.cost,
        reread=case.row.reread if case.row is not None and verb is Verb.REREAD else None,
    )


def _unrepeatable(pressure: Pressure, safe: Safe | None) -> Reason | None:
    """Section 3 of the design: what forbids another send, whatever asks for it."""
    if pressure.response_started:
        return Reason.RESPONSE_STARTED
    if pressure.replay is Replay.CONSUMED:
        return Reason.BODY_CONSUMED
    if safe is None:
        return Reason.NOT_SAFE
    if pressure.replay is Replay.SPOOL_FAILED:
        return Reason.SPOOL_FAILED
    return Reason.BODY_TOO_LARGE if pressure.replay is Replay.TOO_LARGE else None


def _affordable_wait(case: Case, verb: Verb) -> Wait | Reason:
    """The pause before the next send, or the first thing that speaks against it."""
    if case.attempts_left == 0:
        return Reason.ATTEMPTS
    is_timed = verb is Verb.RETRY and not case.uncounted
    wait = _timely_wait(case) if is_timed else _in_time(case, NO_WAIT)
    if isinstance(wait, Reason):
        return wait
    if not case.pressure.budget_tokens >= case.cost:  # written so that NaN does not pay
        return Reason.BUDGET
    if case.pressure.breaker_open:
        return Reason.BREAKER
    wait = _behind_gate(case, wait)
    if isinstance(wait, Reason):
        return wait
    if case.pressure.rate_ready_at - case.now.monotonic > _room_seconds(case):
        return Reason.RATE
    if case.pressure.full is not None:
        return case.pressure.full
    if case.pressure.draining:
        return Reason.DRAINING
    # A login is no retry for the upstream's sake: without it, every exchange would fail once the token has expired.
    return Reason.SWITCHED_OFF if case.pressure.switched_off and verb is not Verb.LOGIN else wait


def _timely_wait(case: Case) -> Wait | Reason:
    wait = plan_wait(case.policy, case.row, case.hint, case.attempt, case.chance)
    return Reason.WAIT_TOO_LONG if wait is None else _in_time(case, wait)


def _in_time(case: Case, wait: Wait) -> Wait | Reason:
    """The wait, if it leaves time for an attempt before the deadline.

    What chance adds to a hint gives way to the deadline; the hint itself, and backoff as it was drawn, do not.
    """
    room = _room_seconds(case)
    if wait.seconds <= room:
        return wait
    if wait.source is WaitFrom.BACKOFF or not wait.min_seconds <= room:
        return Reason.DEADLINE
    return wait.cut_at(room)


def _behind_gate(case: Case, wait: Wait) -> Wait | Reason:
    """The wait, begun when the gate opens if that is later and neither ``max_wait`` nor the deadline forbids it."""
    closed_seconds = case.pressure.gate_closed_until - case.now.monotonic
    if closed_seconds <= 0:
        return wait
    row_max = None if case.row is None else case.row.max_wait_seconds
    held = wait.moved_to(closed_seconds)
    room = _room_seconds(case)
    max_wait = case.policy.max_wait_seconds if row_max is None else row_max
    if closed_seconds > max_wait or not held.min_seconds <= room:
        return Reason.GATE
    return held.cut_at(room)


def _room_seconds(case: Case) -> float:
    """The longest wait in seconds that leaves time for an attempt."""
    return case.request.deadline_at - case.now.monotonic - LEAST_ATTEMPT_SECONDS


def outcome_of(history: tuple[Attempt, ...], decision: Decision) -> Outcome:
    """How an exchange ended whose last decision was to hand over what there is.

    One of ``ok recovered passed exhausted failed``; only the loop knows the other outcomes. ``passed`` is an error that
    the table hands over, whichever attempt brought it; so is one that was sent once and could not have been retried at
    all (``NOT_TO_BE_RETRIED``). An error whose retries stopped for another reason is ``exhausted``.
    """
    attempt = history[-1]
    if attempt.failure is not None or attempt.status is None:
        return Outcome.FAILED
    if attempt.status < 400:
        return Outcome.OK if len(history) == 1 else Outcome.RECOVERED
    is_plain = len(history) == 1 and decision.reason in NOT_TO_BE_RETRIED
    return Outcome.PASSED if decision.reason is Reason.NOT_RETRYABLE or is_plain else Outcome.EXHAUSTED
