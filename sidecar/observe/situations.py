"""Exchanges that happened, as situations to be judged again by another configuration.

A record holds neither headers nor bodies, so what a row looks at there is unknown: the answers are statuses, failures
and the hint that was read. Counterpart: ``core.dryrun.compare``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Final

from sidecar.core.decision.attempt import Attempt, Headers
from sidecar.core.dryrun.compare import Situation
from sidecar.core.enums import FailureKind, WaitFrom
from sidecar.observe.record import AttemptRecord, ExchangeRecord
from sidecar.observe.sanitize import clean

__all__ = ["situation_of_fields", "situations_of"]

NAME_CHARACTERS: Final = 128


def situations_of(records: Iterable[ExchangeRecord]) -> Iterator[Situation]:
    """The records in which an upstream answered or failed."""
    for record in records:
        answers = tuple(_answer(attempt) for attempt in record.attempts if not attempt.cancelled)
        if answers and record.judged_path.startswith("/"):
            name = f"exchange {clean(record.request_id, NAME_CHARACTERS)}"
            wall = record.started_at
            yield Situation(name, record.upstream, record.method, record.judged_path, answers, wall=wall)


def situation_of_fields(told: dict[str, Any], path: str) -> Situation | None:
    """The same from plain data (``fields_of``); None if it is not that, or nothing came back. ``path``: as the
    policy's rows see it. Raises nothing, whatever the data.
    """
    try:
        entries = [entry for entry in told["attempts"] if not entry.get("cancelled")]
        hints = [_hint_before(entry) for entry in entries[1:]] + [None]
        answers = tuple(_answer_of_fields(*pair) for pair in zip(entries, hints, strict=True))
        name = f"exchange {clean(str(told.get('request_id', '')), NAME_CHARACTERS)}"
        situation = Situation(name, str(told["upstream"]), str(told["method"]), path, answers)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    return situation if answers else None


def _answer(attempt: AttemptRecord) -> Attempt:
    decision = attempt.decision
    hint = None
    if decision is not None and decision.hint_seconds is not None:
        is_hint = decision.wait is None or decision.wait.source is WaitFrom.HINT
        hint = decision.hint_seconds if is_hint else None
    return Attempt(
        1,
        attempt.status,
        _hint_headers(hint),
        failure=attempt.failure,
        written=attempt.written,
        ended_at=attempt.duration_seconds,
    )


def _answer_of_fields(entry: dict[str, Any], hint: float | None) -> Attempt:
    status, failure = entry.get("status"), entry.get("failure")
    if status is not None and not (isinstance(status, int) and 100 <= status <= 999):
        raise ValueError(status)
    if (status is None) == (failure is None):
        raise ValueError("neither a status nor a failure")
    return Attempt(
        1,
        status,
        _hint_headers(hint),
        failure=None if failure is None else FailureKind(failure),
        written=not entry.get("unsent", False),
        ended_at=max(0.0, float(entry.get("seconds", 0.0))),
    )


def _hint_before(entry: dict[str, Any]) -> float | None:
    """The hint that led to the wait before this attempt."""
    return float(entry["waited"]) if entry.get("from") == WaitFrom.HINT else None


def _hint_headers(seconds: float | None) -> Headers:
    if seconds is None or not math.isfinite(seconds):
        return Headers()
    return Headers(((b"Retry-After", f"{max(0.0, seconds):.6f}".encode()),))
