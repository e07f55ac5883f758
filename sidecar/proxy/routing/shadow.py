"""A second policy that judges the same answers, and acts on nothing: ``shadow: POLICY`` on an upstream.

It never holds a body for its judgement: where it would have to look into one that has not come whole, the answer counts
as not judged. Most answers are decided by status, method and number alone; those decisions are kept. Counterparts:
``exchange`` and ``facts``, which call it after the policy in force has judged.
"""

from __future__ import annotations

from typing import Any, Final

from multidict import istr

from sidecar.core.decision.attempt import Attempt, Now, Pressure, Replay, Request
from sidecar.core.decision.decide import LEAST_ATTEMPT_SECONDS, Decision, decide, needs_body
from sidecar.core.decision.policy import Policy
from sidecar.core.decision.rows import HintSource
from sidecar.core.decision.table import policy_passes
from sidecar.core.enums import Jitter, Verb
from sidecar.observe.families import METHODS, UNREAD_BODY
from sidecar.observe.metrics import UpstreamMeters

__all__ = ["Shadow", "is_calm"]

MOST_KNOWN: Final = 4096
"""Decisions kept: some statuses times eight methods times the attempts of a policy."""
SAME_WAIT_SECONDS: Final = 0.001
"""Seconds by which two waits may differ and be the same: a hint that is a date is read twice, at two moments."""

_CALM: Final = Pressure()


class Shadow:
    """The second policy of one upstream."""

    __slots__ = ("_deadline_seconds", "_hint_names", "_keyed_methods", "_known", "judges", "policy")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.judges = tuple([not policy_passes(policy, status) for status in range(1000)])
        """Indexed by status: whether it may do anything but hand that response over."""
        hints = {status: _plain_hints(policy, status) for status in range(1000) if self.judges[status]}
        self._hint_names = {status: names for status, names in hints.items() if names is not None}
        """Status → the headers that may hold a hint, where nothing else but method and number decides."""
        self._known: dict[tuple[int, str, int], Decision] = {}
        self._deadline_seconds = policy.deadline_seconds
        rule = policy.idempotency
        self._keyed_methods = frozenset() if rule is None else rule.methods

    def known(self, status: int, method: str, number: int, headers: Any, left_seconds: float) -> Decision | None:
        """The decision about a response where status, method and number settle it, and nothing is in the way of a
        retry; None: ``judge`` must be asked. ``headers``: of the response; ``left_seconds``: before its own deadline.
        """
        names = self._hint_names.get(status)
        if names is None:
            return None
        for name in names:
            if name in headers:
                return None
        key = (status, method, number)
        decision = self._known.get(key)
        if decision is None:
            if method not in METHODS or len(self._known) >= MOST_KNOWN:
                return None
            request = Request(method, keyed=method in self._keyed_methods)
            decision = decide(self.policy, request, (Attempt(number, status),), Now(0.0, 0.0), 0.5, _CALM)
            self._known[key] = decision
        wait = decision.wait
        if wait is not None and wait.max_seconds + LEAST_ATTEMPT_SECONDS > left_seconds:
            return None
        return decision

    def judge(self, request: Request, attempt: Attempt, now: Now, chance: float, pressure: Pressure) -> Decision | None:
        """The decision about an attempt; None: it depends on a body that was not read."""
        keyed = request.method in self._keyed_methods
        seen = Request(request.method, request.path, request.query, request.headers, keyed, request.deadline_at)
        if attempt.body is None and attempt.status is not None and needs_body(self.policy, seen, attempt):
            return None
        return decide(self.policy, seen, (attempt,), now, chance, pressure)

    def deadline_at(self, started: float, asked_seconds: float, own_seconds: float) -> float:
        """Its deadline of an exchange, in monotonic seconds. ``asked_seconds``: the exchange's, which the app may have
        made shorter than the ``own_seconds`` of the policy in force.
        """
        seconds = self._deadline_seconds
        return started + (min(seconds, asked_seconds) if asked_seconds < own_seconds else seconds)

    def tell(self, meters: UpstreamMeters, actual: Decision | None, shadow: Decision | None) -> Decision | None:
        """Count one answer. Returns the shadow's decision if it differs, else None.

        ``actual``: None: handed over without a judgement; ``shadow``: None: not judged, since it needs the body.
        """
        verb = Verb.PASS if actual is None else actual.verb
        if shadow is None:
            meters.shadowed(verb, UNREAD_BODY)
            return None
        meters.shadowed(verb, shadow.verb)
        if verb is not shadow.verb:
            return shadow
        return None if actual is None or _is_same_wait(actual, shadow) else shadow


def is_calm(pressure: Pressure, cost: float, now: float) -> bool:
    """Whether nothing is in the way of a retry that costs so much of the budget."""
    return (
        pressure.budget_tokens >= cost
        and pressure.replay is Replay.HELD
        and pressure.gate_closed_until <= now
        and pressure.rate_ready_at <= now
        and pressure.full is None
        and not (
            pressure.breaker_open
            or pressure.draining
            or pressure.switched_off
            or pressure.client_gone
            or pressure.response_started
        )
    )


def _is_same_wait(one: Decision, other: Decision) -> bool:
    if one.wait is None or other.wait is None:
        return one.wait is other.wait
    return (
        abs(one.wait.min_seconds - other.wait.min_seconds) < SAME_WAIT_SECONDS
        and abs(one.wait.max_seconds - other.wait.max_seconds) < SAME_WAIT_SECONDS
    )


def _plain_hints(policy: Policy, status: int) -> tuple[istr, ...] | None:
    """The headers that may hold a hint about this status; None: more than they, the method and the number decides."""
    rows = list(policy.table.candidates(status))
    if policy.verdict is not None or len(rows) > 1 or any(row.when for row in rows):
        return None
    row = rows[0] if rows else None
    sources = policy.wait if row is None or row.wait is None else row.wait
    backoff = policy.backoff if row is None or row.backoff is None else row.backoff
    if backoff.jitter is Jitter.DECORRELATED or any(map(_is_conditional, sources)):
        return None
    return tuple(dict.fromkeys(istr(source.name) for source in sources if source.place in ("header", "field")))


def _is_conditional(source: HintSource) -> bool:
    """Whether more than the presence of its header decides if it is usable."""
    return source.place == "body" or (source.place == "constant" and bool(source.when))
