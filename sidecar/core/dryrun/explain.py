"""A decision in words: as the one JSON object of ``sidecar explain``, and as lines for a person.

It words what ``decide`` decided and judges nothing itself. Counterpart: ``sidecar.cli.explain``, which prints it.
"""

from __future__ import annotations

from sidecar.core.decision.decide import Decision
from sidecar.core.decision.policy import HedgeRule
from sidecar.core.decision.wait import Wait
from sidecar.core.enums import Reason, Safe, Verb, WaitFrom

__all__ = ["REASONS", "SAFE", "VERBS", "WAITS", "decision_text", "explain_object", "explain_text", "hedge_text"]

REASONS: dict[Reason, str] = {
    Reason.NOT_RETRYABLE: "the table hands this over",
    Reason.ATTEMPTS: "no attempt is left",
    Reason.DEADLINE: "the wait would leave no time before the deadline",
    Reason.WAIT_TOO_LONG: "the upstream asks for a longer wait than max_wait",
    Reason.NOT_SAFE: "it may have been applied, and is neither idempotent nor keyed",
    Reason.BODY_TOO_LARGE: "the request body outgrew what is held for replay",
    Reason.SPOOL_FAILED: "the request body could not be held on disk",
    Reason.BODY_CONSUMED: "the answer came before the request body was wholly sent",
    Reason.RESPONSE_STARTED: "part of a response has already reached the app",
    Reason.BUDGET: "the upstream's retry budget is empty",
    Reason.BREAKER: "the upstream's breaker is open",
    Reason.GATE: "the upstream asked for quiet for longer than this exchange can wait",
    Reason.RATE: "at the rate that the upstream accepts, its turn comes later than this exchange can wait",
    Reason.CONCURRENCY: "as many are under way as the upstream answers, and no place is left to wait in",
    Reason.SERVER_SAYS_NO: "the upstream's verdict header says no",
    Reason.LOGIN_FAILED: "the login failed",
    Reason.DRAINING: "the sidecar is shutting down",
    Reason.SWITCHED_OFF: "retries are switched off",
}

SAFE: dict[Safe, str] = {
    Safe.NEVER_SENT: "not one byte of it was sent",
    Safe.IDEMPOTENT: "its method is idempotent",
    Safe.KEYED: "it carries an idempotency key that the upstream honours",
    Safe.NOT_PROCESSED: "with this answer the upstream states that it did not act",
    Safe.RESEND_METHODS: "the policy lists its method under resend_methods",
}

VERBS: dict[Verb, str] = {
    Verb.PASS: "hand over what there is",
    Verb.RETRY: "send again",
    Verb.LOGIN: "refresh the credential, then send once more",
    Verb.REREAD: "look at the state, then decide",
    Verb.STORE: "put it into the outbox",
}

WAITS: dict[WaitFrom, str] = {
    WaitFrom.HINT: "asked for by the upstream",
    WaitFrom.CONSTANT: "a constant of the policy",
    WaitFrom.BACKOFF: "backoff",
}


def explain_object(upstream: str, policy: str, decision: Decision) -> dict[str, object]:
    """The object that ``sidecar explain --format json`` prints; its keys are a contract. Seconds are floats."""
    row, wait = decision.row, decision.wait
    return {
        "upstream": upstream,
        "policy": policy,
        "row": None if row is None else {"file": row.file, "line": row.line},
        "decision": decision.verb.value,
        "reason": None if decision.reason is None else decision.reason.value,
        "wait": None if wait is None else _wait_object(wait),
        "safe_because": None if decision.safe_because is None else decision.safe_because.value,
        "attempts_left": decision.attempts_left,
        "gate": decision.gate_until is not None,
    }


def _wait_object(wait: Wait) -> dict[str, object]:
    return {"from": wait.source.value, "min_seconds": wait.min_seconds, "max_seconds": wait.max_seconds}


def explain_text(upstream: str, policy: str, decision: Decision, hedge: HedgeRule | None = None) -> str:
    """The decision for a person: several lines, without an end of line after the last.

    ``hedge``: the policy's, if this send is one that may be hedged.
    """
    told = {
        "upstream": upstream,
        "policy": policy,
        "row": _row_text(decision),
        "reason": None if decision.reason is None else f"{decision.reason}: {REASONS[decision.reason]}",
        "safe": None if decision.safe_because is None else f"{decision.safe_because}: {SAFE[decision.safe_because]}",
        "wait": None if decision.wait is None else _wait_text(decision.wait),
        "asked": _asked_text(decision),
        "attempts left": str(decision.attempts_left),
        "gate": "closes for every exchange of this upstream" if decision.gate_until is not None else None,
        "hedge": None if hedge is None else hedge_text(hedge),
    }
    lines = [f"  {name:<13}  {text}" for name, text in told.items() if text is not None]
    return "\n".join([f"{decision.verb}: {VERBS[decision.verb]}", *lines])


def _row_text(decision: Decision) -> str:
    row = decision.row
    if row is None:
        return "none matches"
    return f"{row.file}:{row.line}" if row.file else f"line {row.line}" if row.line else "built in"


def _wait_text(wait: Wait) -> str:
    spread = f"{wait.min_seconds:.3g} s"
    if wait.max_seconds > wait.min_seconds:
        spread = f"{wait.min_seconds:.3g} … {wait.max_seconds:.3g} s"
    return f"{spread}, {WAITS[wait.source]}"


def decision_text(decision: Decision) -> str:
    """The decision in one line: ``retry, wait 0 … 0.25 s, backoff, 4 left``."""
    parts = [decision.verb.value if decision.reason is None else f"{decision.verb} ({decision.reason})"]
    if decision.wait is not None:
        parts.append(f"wait {_wait_text(decision.wait)}")
    if decision.verb is not Verb.PASS:
        parts.append(f"{decision.attempts_left} left")
    return ", ".join(parts)


def hedge_text(rule: HedgeRule) -> str:
    """When a second send goes beside a first, in words."""
    slow = (
        f"{rule.quantile * 100:.4g} % of first sends" if rule.after_seconds is None else f"{rule.after_seconds:.3g} s"
    )
    return f"a second goes beside it, if the budget allows and it takes longer than {slow}"


def _asked_text(decision: Decision) -> str | None:
    """The hint in words, where the wait does not already say it."""
    if decision.hint_seconds is None or decision.wait is not None:
        return None
    return f"{decision.hint_seconds:.6g} s"
