"""The parts of a decision in words: the result of each step, where a wait came from, and why a source was skipped.

It words what was decided and judges nothing. ``story`` puts the words together; ``explain`` has those of the closed
lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final

from sidecar.core.decision.attempt import Attempt, Request
from sidecar.core.decision.conditions import Look
from sidecar.core.decision.decide import Decision, wanted
from sidecar.core.decision.policy import Policy
from sidecar.core.decision.retry_after import Reading, SourceState
from sidecar.core.decision.rows import Backoff, Condition, HintSource, Row
from sidecar.core.decision.safety import why_safe
from sidecar.core.decision.wait import limits_of
from sidecar.core.dryrun.explain import REASONS, SAFE
from sidecar.core.enums import Jitter, OverMax, Reason, Unit

__all__ = [
    "OFFLINE",
    "backoff_text",
    "condition_text",
    "count_text",
    "cut",
    "pass_text",
    "range_text",
    "reading_text",
    "result_text",
    "row_text",
    "seconds_text",
    "source_text",
    "stop_text",
]

TEXT_LIMIT: Final = 60
"""Characters shown of a text that an upstream sent."""

UNITS: Final[dict[Unit, str]] = {
    Unit.S: "seconds",
    Unit.MS: "milliseconds",
    Unit.EPOCH_S: "Unix seconds",
    Unit.EPOCH_MS: "Unix milliseconds",
    Unit.HTTP_DATE: "HTTP-date",
    Unit.ISO8601: "ISO 8601",
    Unit.DURATION: "duration",
    Unit.AUTO: "auto",
    Unit.RETRY_AFTER: "seconds or HTTP-date",
}
JITTERS: Final[dict[Jitter, str]] = {
    Jitter.FULL: "from 0 to that",
    Jitter.EQUAL: "from half of that to that",
    Jitter.ADDITIVE: "from that to twice that",
    Jitter.PROPORTIONAL: "that, give or take {ratio:.3g} of it",
    Jitter.DECORRELATED: "from the base to three times the wait before",
    Jitter.NONE: "without jitter",
}


def stop_text(policy: Policy, request: Request, attempt: Attempt, decision: Decision) -> str:
    reason, row = decision.reason, decision.row
    if reason is None:
        return "a success is handed over"
    if reason is Reason.NOT_RETRYABLE and row is None:
        return f"{reason}: no row matches, and what no row matches is handed over"
    text = f"{reason}: {REASONS[reason]}"
    if reason is Reason.WAIT_TOO_LONG and decision.hint_seconds is not None:
        max_wait, _ = limits_of(policy, row)
        return f"{text}: {seconds_text(decision.hint_seconds)} of at most {seconds_text(max_wait)}"
    if reason is Reason.DEADLINE:
        left = max(0.0, request.deadline_at - attempt.ended_at)
        return f"{text}: {seconds_text(left)} of {seconds_text(request.deadline_at)} are left"
    if reason is Reason.ATTEMPTS:
        return f"{text}: this was number {attempt.number}"
    return text


def pass_text(step: str, policy: Policy, request: Request, attempt: Attempt, decision: Decision) -> str:
    wait, row = decision.wait, decision.row
    if step == "table":
        return _table_text(policy, attempt, row)
    if step == "verdict":
        return _verdict_text(policy, attempt, row)
    if step == "safety":
        because = why_safe(policy, row, request, attempt)
        return "it may be sent again" if because is None else f"{because}: {SAFE[because]}"
    if step == "attempts":
        return f"{decision.attempts_left} left"
    if step == "max_wait":
        return _max_wait_text(policy, decision)
    if step == "deadline":
        left = max(0.0, request.deadline_at - attempt.ended_at)
        most = "" if wait is None else f"{range_text(wait.min_seconds, wait.max_seconds)} fits into "
        return f"{most}the {seconds_text(left)} that are left"
    return OFFLINE[step]


OFFLINE: Final = {
    "response": "no response has begun",
    "body sent": "the request was wholly sent",
    "body held": "its body is held",
    "budget": "budget full",
    "breaker": "breaker closed",
    "gate": "gate open",
    "draining": "not draining",
    "switch": "retries on",
}
"""The assumptions of a play without a network."""


def _table_text(policy: Policy, attempt: Attempt, row: Row | None) -> str:
    verb, _ = wanted(policy, row, attempt)
    if row is None:
        return "no row matches"
    return f"then: {row.verb}" + ("" if verb is row.verb else ", which the verdict overrules")


def _verdict_text(policy: Policy, attempt: Attempt, row: Row | None) -> str:
    rule = policy.verdict
    if rule is None:
        return "the policy names no header for it"
    texts = attempt.headers.all(rule.header)
    if not texts:
        return f"{rule.header} is absent"
    return f"{rule.header}: {shown(texts)}"


def _max_wait_text(policy: Policy, decision: Decision) -> str:
    wait, asked = decision.wait, decision.hint_seconds
    max_wait, over_max = limits_of(policy, decision.row)
    if asked is not None and asked > max_wait and over_max is not OverMax.PASS:
        return (
            f"{seconds_text(asked)} were asked for, at most {seconds_text(max_wait)} is allowed: over_max is {over_max}"
        )
    if wait is None:
        return "no wait"
    return f"at most {seconds_text(max_wait)}"


def backoff_text(rule: Backoff, number: int) -> str:
    how = JITTERS[rule.jitter].format(ratio=rule.ratio)
    return (
        f"backoff: {seconds_text(rule.base_seconds)} · {rule.factor:g}^{max(0, number - 1)}, "
        f"at most {seconds_text(rule.cap_seconds)}; {how}"
    )


def source_text(source: HintSource) -> str:
    """A source of a wait, as its author would call it."""
    if source.place == "constant":
        text = f"constant {seconds_text(source.constant_seconds)}"
    elif source.place == "body":
        text = f"body {source.name} ({UNITS[source.unit]})"
    elif source.place == "field":
        text = f"header {source.name}, field {source.field} ({UNITS[source.unit]})"
    else:
        text = f"header {source.name} ({UNITS[source.unit]})"
    if source.plus_seconds:
        text += f" plus {seconds_text(source.plus_seconds)}"
    if source.at_least_seconds:
        text += f", at least {seconds_text(source.at_least_seconds)}"
    return text


def condition_text(condition: Condition) -> str:
    """A condition, in words."""
    where = f"{condition.place} {condition.name}".rstrip()
    if condition.test == "present":
        return f"{where} is {'present' if condition.present else 'absent'}"
    if condition.test == "matches":
        return f"{where} matches {condition.pattern.pattern if condition.pattern is not None else ''}"
    return f"{where} is {' or '.join(f'`{value}`' for value in condition.values)}"


def reading_text(reading: Reading, look: Look) -> str:
    if reading.state is SourceState.USED and reading.hint is not None:
        said = f" (it says {shown(reading.found)})" if reading.found else ""
        return f"{seconds_text(reading.hint.seconds)}{said}"
    if reading.state is SourceState.GUARD_FAILED and reading.failed is not None:
        failed = reading.failed
        texts = look.texts(failed.place, failed.name)
        came = f"`{cut(texts[0])}`" if texts else "absent"
        return f"its guard does not hold: {condition_text(failed)}; it is {came}"
    if reading.state is SourceState.UNREADABLE:
        return f"unreadable: {shown(reading.found)}"
    return {SourceState.ABSENT: "absent"}.get(reading.state, "not asked: one before it was usable")


def result_text(attempt: Attempt) -> str:
    return str(attempt.status) if attempt.failure is None else str(attempt.failure)


def row_text(row: Row | None) -> str:
    if row is None:
        return "none matches"
    return f"{row.file}:{row.line}" if row.file else f"line {row.line}" if row.line else "built in"


def shown(texts: Sequence[str]) -> str:
    return ", ".join(f"`{cut(text)}`" for text in texts[:3])


def cut(text: str) -> str:
    """Untrusted text in one line, without control characters for the terminal."""
    short = text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1] + "…"
    return short if short.isprintable() else repr(short)[1:-1]


def range_text(least: float, most: float) -> str:
    return seconds_text(least) if most <= least else f"{least:.3g} … {seconds_text(most)}"


def seconds_text(seconds: float) -> str:
    return f"{seconds:.4g} s" if seconds < inf else "endless"


def count_text(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
