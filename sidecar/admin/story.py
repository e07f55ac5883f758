"""The story of one exchange: its record, the words of ``explain`` for each of its attempts, and a policy test of it.

The decisions are those made while it ran; nothing is judged again. The test is YAML in JSON's spelling (each JSON text
is one in YAML 1.2): statuses and failures only, since no record holds headers and bodies. Counterparts:
``core.dryrun.explain``, which words a decision, and the page, which draws this.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import orjson

from sidecar.core.decision.decide import ORDER, Decision
from sidecar.core.decision.rows import Row
from sidecar.core.dryrun.explain import explain_text
from sidecar.core.dryrun.story_words import condition_text
from sidecar.core.enums import FailureKind, Reason, Verb, WaitFrom
from sidecar.observe.fields import fields_of
from sidecar.observe.record import AttemptRecord, ExchangeRecord
from sidecar.observe.sanitize import clean

__all__ = ["story_of"]

_ALL_STATUSES: Final = 500
"""Statuses in one row; more is shown as ``any``."""
_SHOWN: Final = 12
"""Ranges of statuses that are written out."""
_OF_TRAFFIC: Final = frozenset(
    {
        Reason.DEADLINE,
        Reason.BODY_TOO_LARGE,
        Reason.SPOOL_FAILED,
        Reason.BODY_CONSUMED,
        Reason.RESPONSE_STARTED,
        Reason.BUDGET,
        Reason.BREAKER,
        Reason.GATE,
        Reason.LOGIN_FAILED,
        Reason.DRAINING,
        Reason.SWITCHED_OFF,
    }
)
"""Reasons that depend on other traffic or on times: the test expects only the row."""


def story_of(record: ExchangeRecord) -> dict[str, object]:
    """``exchange``: as in ``/debug/exchanges``; ``steps``: for each attempt its number, the words, the row that
    decided, and the words of the shadow policy where it differs; ``test``: text of a file for ``sidecar test``, or
    None.
    """
    return {
        "exchange": fields_of(record),
        "steps": [_step(record, attempt) for attempt in record.attempts],
        "test": _test(record),
    }


def _step(record: ExchangeRecord, attempt: AttemptRecord) -> dict[str, object]:
    decision = attempt.decision
    shadow: dict[str, object] = {}
    if attempt.shadow is not None:
        shadow = {"shadow": explain_text(record.upstream, record.shadow, attempt.shadow)}
    if decision is None:
        return {"n": attempt.number, "words": _unjudged(attempt), **shadow}
    step: dict[str, object] = {
        "n": attempt.number,
        **shadow,
        "words": explain_text(record.upstream, record.policy, decision),
        "row": row_text(decision.row),
        "judged": _judged(decision),
    }
    if decision.hint_seconds is not None:
        step["asked_seconds"] = round(decision.hint_seconds, 3)
    return step


def _judged(decision: Decision) -> str:
    """The steps of the judgement in order, up to the one that objected."""
    names = [name for name, _ in ORDER]
    if decision.verb is Verb.PASS:
        at = next((n for n, (_, reasons) in enumerate(ORDER) if decision.reason in reasons), None)
        return "table ✓" if at is None else ", ".join([*(f"{name} ✓" for name in names[:at]), f"{names[at]} ✗"])
    return ", ".join(f"{name} ✓" for name in (names[:6] if decision.verb is Verb.STORE else names))


def _unjudged(attempt: AttemptRecord) -> str:
    if attempt.cancelled:
        return "cut: the one beside it was quicker"
    is_error = attempt.status is None or attempt.status >= 400
    return "pass: the table hands such an answer over, whatever else it says" if is_error else "pass: no error"


def row_text(row: Row | None) -> str:
    """The row as it is in force, close to its YAML; settings that the policy decides are left out."""
    if row is None:
        return "no row matches"
    told = [_matches(row), *(f"when {condition_text(condition)}" for condition in row.when), f"then {row.verb}"]
    settings = {
        "attempts": row.attempts,
        "max_wait": None if row.max_wait_seconds is None else f"{row.max_wait_seconds:g}s",
        "over_max": row.over_max,
        "processed": row.processed,
        "gate": row.gate,
        "cost": None if row.cost == 1.0 else f"{row.cost:g}",
    }
    told += [f"{name} {str(value).lower()}" for name, value in settings.items() if value is not None]
    return clean(", ".join(told), 1000)


def _matches(row: Row) -> str:
    if row.failures:
        every = row.failures == frozenset(FailureKind)
        return "failure " + ("any" if every else " ".join(sorted(map(str, row.failures))))
    if len(row.statuses) > _ALL_STATUSES:
        return "status any"
    return "status " + _ranges(sorted(row.statuses))


def _ranges(statuses: list[int]) -> str:
    """``429 500-599``"""
    runs: list[tuple[int, int]] = []
    for status in statuses:
        if runs and status == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], status)
        else:
            runs.append((status, status))
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:_SHOWN]]
    return " ".join(shown) + (" …" if len(runs) > _SHOWN else "")


def _test(record: ExchangeRecord) -> str | None:
    """One case; None where no attempt was judged by a policy."""
    shown = fields_of(record)
    judged = [attempt for attempt in record.attempts if not attempt.cancelled]
    if not judged or not record.policy or not record.judged_path.startswith("/"):
        return None
    lines = [
        f"# From the exchange {shown.get('request_id', '')} of {shown.get('time', '')}.",
        "# Headers and bodies are not recorded: add those that a row looks at.",
        f"policy: {_json(record.policy)}",
        "cases:",
        f"  - name: {_json('as it happened to ' + str(shown.get('request_id', 'it')))}",
        f"    request: {{method: {_json(shown.get('method', ''))}, path: {_json(_path(record))}}}",
        "    answers:",
    ]
    lines += [f"      - {_answer(attempt)}" for attempt in judged]
    lines.append(f"    expect: {_expected(judged[-1])}")
    return "\n".join(lines) + "\n"


def _path(record: ExchangeRecord) -> str:
    """The path with percent-encoding where a URL requires it, as a file of tests wants it."""
    return quote(clean(record.judged_path, 2048), safe="/%:@-._~!$&*+,;=")


def _answer(attempt: AttemptRecord) -> str:
    if attempt.status is None:
        return f"{{failure: {attempt.failure}}}"
    decision = attempt.decision
    if decision is None or decision.hint_seconds is None or not _is_hint(decision):
        return f"{{status: {attempt.status}}}"
    return f"{{status: {attempt.status}, headers: {{Retry-After: {_json(f'{decision.hint_seconds:.6g}')}}}}}"


def _is_hint(decision: Decision) -> bool:
    return decision.wait is None or decision.wait.source is WaitFrom.HINT


def _expected(attempt: AttemptRecord) -> str:
    decision = attempt.decision
    if decision is None:
        is_error = attempt.status is None or attempt.status >= 400
        return f"{{decision: pass, reason: {Reason.NOT_RETRYABLE if is_error else 'null'}}}"
    if decision.verb is not Verb.PASS:
        return f"{{decision: {decision.verb}}}"
    if decision.reason in _OF_TRAFFIC:
        row = decision.row
        return f"{{row: {{file: {_json(row.file)}, line: {row.line}}}}}" if row is not None and row.file else "{}"
    return f"{{decision: pass, reason: {decision.reason or 'null'}}}"


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
