"""A record as plain data: the fields of a JSON log line and of ``/debug/exchanges``, one table for both.

Every text in it is cleaned and bounded here; empty fields are left out. It writes nothing. Counterparts: ``log``,
which writes, and ``docs/metrics.md``, whose table of fields is held equal to ``FIELDS`` by a test.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sidecar.core.dryrun.explain import decision_text
from sidecar.observe.record import AttemptRecord, ExchangeRecord, HeldRecord
from sidecar.observe.sanitize import clean, clean_message, clean_path

__all__ = ["ATTEMPT_FIELDS", "FIELDS", "HELD_FIELDS", "fields_of", "timestamp"]

FIELDS: dict[str, str] = {
    "time": "when the exchange began: RFC 3339, UTC, milliseconds",
    "level": "`warning` for exhausted, failed, rejected, client_gone and cut bodies; else `info`",
    "event": "always `exchange`",
    "outcome": "how it ended (closed list)",
    "reason": "why it was not retried (again) (closed list)",
    "status": "what the app got",
    "method": "of the request",
    "upstream": "name from the configuration, or `unknown`",
    "host": "the host that was asked for, where it is not a configured one",
    "policy": "name of the policy that decided",
    "shadow": "name of the upstream's shadow policy, where it would have done something else about an attempt",
    "path": "without the query; cut after 2 KiB",
    "attempts": "every send, in order: see below",
    "duration_seconds": "from the request head to the end of the answer",
    "waited_seconds": "all waits together: those of the attempts and those in `held`",
    "held": "every other time in which it stood still, in order: see below",
    "request_id": "the same on every attempt and on the answer",
    "correlation_id": "likewise",
    "trace_id": "of `traceparent`",
    "code": "of an answer that the sidecar made itself: why, in a word; also in its body and in `Proxy-Status`",
    "error_code": "the upstream's own error code, read where the policy says",
    "error_message": "the upstream's own message; URLs in it lose their query",
    "upstream_request_id": "the id that the upstream gave",
    "upstream_correlation_id": "likewise",
    "request_bytes": "of the request body",
    "response_bytes": "of the response body",
    "body_cut": "`true` where the response broke off",
}
"""Field of one exchange -> what it means; in the order in which they are written."""

ATTEMPT_FIELDS: dict[str, str] = {
    "n": "its number, from 1",
    "status": "of the response",
    "failure": "in place of a status: how it failed (closed list)",
    "seconds": "how long it took",
    "waited": "seconds waited before it",
    "from": "where that wait came from: `hint`, `constant` or `backoff`",
    "unsent": "`true` where not one byte had been written",
    "uncounted": "`true` where a pooled connection was closed under it at once: one more send was made in its place",
    "then": "`login` or `reread`, where one was carried out after it",
    "body_unread": "the content coding because of which the table could not look into the body",
    "hedge": "`true` where it was sent beside the first, which was slow",
    "cancelled": "`true`, in place of a status, where it was cut because the one beside it was quicker",
    "shadow": "what the shadow policy would have done about it, where that differs",
    "row": "file and line of the policy's row that decided about it, where one was asked",
}
"""Field of one entry of ``attempts`` -> what it means."""

HELD_FIELDS: dict[str, str] = {
    "by": "what held it: a value of the label `from` of `sidecar_wait_seconds`",
    "scope": "what was held: `upstream`, `endpoint …`, `key …`; absent where it was this exchange alone",
    "seconds": "for how long",
    "before": "the number of the attempt that was to come",
}
"""Field of one entry of ``held`` -> what it means."""

_WARNING = frozenset({"exhausted", "failed", "rejected", "client_gone"})
_ID_LIMIT = 128
_NAME_LIMIT = 255
_METHOD_LIMIT = 32
_CODE_LIMIT = 100
_MESSAGE_LIMIT = 300


def fields_of(record: ExchangeRecord) -> dict[str, object]:
    """The record as JSON-ready data, cleaned, in the order of ``FIELDS``, without the fields that are empty."""
    told = _of_exchange(record)
    return {name: value for name, value in told.items() if not _is_empty(value)}


def _is_empty(value: object) -> bool:
    return value is None or value is False or value == ""  # a zero is worth telling


def timestamp(unix_seconds: float) -> str:
    """RFC 3339 in UTC with milliseconds; a clock beyond the calendar becomes its first day."""
    try:
        moment = datetime.fromtimestamp(unix_seconds, UTC)
    except (ValueError, OverflowError, OSError):
        moment = datetime.fromtimestamp(0, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _of_exchange(record: ExchangeRecord) -> dict[str, object]:
    return {
        "time": timestamp(record.started_at),
        "level": "warning" if record.outcome in _WARNING or record.body_cut else "info",
        "event": "exchange",
        "outcome": str(record.outcome),
        "reason": str(record.reason) if record.reason else None,
        "status": record.status,
        "method": clean(record.method, _METHOD_LIMIT),
        "upstream": record.upstream,
        "host": clean(record.host, _NAME_LIMIT),
        "policy": record.policy,
        "shadow": record.shadow,
        "path": clean_path(record.path),
        "attempts": [_of_attempt(attempt) for attempt in record.attempts],
        "duration_seconds": round(record.duration_seconds, 6),
        "waited_seconds": round(record.waited_seconds, 6),
        "held": [_of_hold(hold) for hold in record.held] or None,
        "request_id": clean(record.request_id, _ID_LIMIT),
        "correlation_id": clean(record.correlation_id, _ID_LIMIT),
        "trace_id": clean(record.trace_id, _ID_LIMIT),
        "code": record.own_code,
        "error_code": clean(record.error_code or "", _CODE_LIMIT),
        "error_message": clean_message(record.error_message or "", _MESSAGE_LIMIT),
        "upstream_request_id": clean(record.upstream_request_id or "", _ID_LIMIT),
        "upstream_correlation_id": clean(record.upstream_correlation_id or "", _ID_LIMIT),
        "request_bytes": record.request_bytes,
        "response_bytes": record.response_bytes,
        "body_cut": record.body_cut,
    }


def _of_hold(hold: HeldRecord) -> dict[str, object]:
    told: dict[str, object] = {"by": hold.by}
    if hold.scope:
        told["scope"] = clean(hold.scope, _NAME_LIMIT)
    return {**told, "seconds": round(hold.seconds, 6), "before": hold.before}


def _of_attempt(attempt: AttemptRecord) -> dict[str, object]:
    told: dict[str, object] = {"n": attempt.number}
    if attempt.status is not None:
        told["status"] = attempt.status
    if attempt.failure is not None:
        told["failure"] = str(attempt.failure)
    told["seconds"] = round(attempt.duration_seconds, 6)
    if attempt.wait_from is not None:
        told["waited"] = round(attempt.waited_seconds, 6)
        told["from"] = str(attempt.wait_from)
    if not attempt.written:
        told["unsent"] = True
    if attempt.decision is not None and attempt.decision.uncounted:
        told["uncounted"] = True
    if attempt.then is not None:
        told["then"] = str(attempt.then)
    if attempt.body_unread:
        told["body_unread"] = clean(attempt.body_unread, _METHOD_LIMIT)
    if attempt.hedge:
        told["hedge"] = True
    if attempt.cancelled:
        told["cancelled"] = True
    if attempt.shadow is not None:
        told["shadow"] = decision_text(attempt.shadow)
    row = None if attempt.decision is None else attempt.decision.row
    if row is not None:
        told["row"] = f"{row.file}:{row.line}" if row.file else "built in"
    return told
