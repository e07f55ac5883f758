"""A record as one line for a person at a terminal.

``GET meshqu /v1/x → 503 ⟲ 0.26s → 503 ⟲ 0.61s → 200  recovered in 3 attempts, 1.1s  [request id]``
``GET meshqu /v1/x ⏸ rate 2.1s → 200  ok, 2.1s  [request id]``
``GET meshqu /v1/x → cancelled ⇉ 200  ok in 2 attempts, 0.31s  [request id]``

It writes nothing and decides nothing; everything foreign in the line is cleaned. The counterpart is ``fields``: the
same record for machines.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.core.enums import Outcome
from sidecar.observe.record import AttemptRecord, ExchangeRecord
from sidecar.observe.sanitize import clean, clean_message, clean_path

__all__ = ["Paint", "coloured", "plain", "pretty_line", "seconds_text"]

Paint = Callable[[str, str], str]
"""(text, colour name) -> text. ``plain`` leaves it as it is."""

_CODES = {"green": "32", "yellow": "33", "red": "31", "dim": "2", "bold": "1", "cyan": "36"}
_GOOD = frozenset({Outcome.OK, Outcome.RECOVERED, Outcome.STORED, Outcome.TUNNELLED})
_OWN_ANSWERS = frozenset({Outcome.FAILED, Outcome.REJECTED})


def plain(text: str, _colour: str) -> str:
    return text


def coloured(text: str, colour: str) -> str:
    """``text`` in an ANSI colour (ECMA-48 SGR)."""
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"


def pretty_line(record: ExchangeRecord, paint: Paint = plain) -> str:
    """The whole story of an exchange in one line, without a newline."""
    where = clean(record.host, 255) or record.upstream
    story = "".join(_holds(record, attempt.number, paint) + _attempt(attempt, paint) for attempt in record.attempts)
    story += _holds(record, len(record.attempts) + 1, paint)
    asked = f"{clean(record.method, 32)} {paint(where, 'cyan')} {clean_path(record.path)}"
    request_id = paint(f"[{clean(record.request_id, 128)}]", "dim")
    return f"{asked}{story}  {_ending(record, paint)}{_error(record)}  {request_id}"


def seconds_text(seconds: float) -> str:
    """``0.4ms``, ``26ms``, ``0.26s``, ``1.1s``: the unit and the decimals that a reader needs."""
    if seconds < 0.01:
        return f"{seconds * 1000:.1f}ms"
    if seconds < 0.1:
        return f"{seconds * 1000:.0f}ms"
    return f"{seconds:.2f}s" if seconds < 1 else f"{seconds:.1f}s"


def _attempt(attempt: AttemptRecord, paint: Paint) -> str:
    wait = "" if attempt.wait_from is None else f" ⟲ {attempt.waited_seconds:.2f}s"
    arrow = "⇉" if attempt.hedge else "→"
    return f"{paint(wait, 'dim') if wait else ''} {arrow} {_result(attempt, paint)}"


def _holds(record: ExchangeRecord, before: int, paint: Paint) -> str:
    held = (hold for hold in record.held if hold.before == before)
    return "".join(paint(f" ⏸ {hold.by} {seconds_text(hold.seconds)}", "dim") for hold in held)


def _result(attempt: AttemptRecord, paint: Paint) -> str:
    if attempt.cancelled:
        return paint("cancelled", "dim")
    if attempt.status is None:
        return paint(str(attempt.failure or "no answer"), "red")
    colour = "green" if attempt.status < 400 else "yellow" if attempt.status < 500 else "red"
    unread = f" (body unread: {clean(attempt.body_unread, 32)})" if attempt.body_unread else ""
    return paint(str(attempt.status), colour) + unread


def _ending(record: ExchangeRecord, paint: Paint) -> str:
    colour = "green" if record.outcome in _GOOD else "red"
    parts = [paint(str(record.outcome), colour) + _count(record)]
    if record.reason is not None:
        parts[0] += f" ({record.reason})"
    if record.outcome in _OWN_ANSWERS and record.status is not None:
        code = f" ({record.own_code})" if record.own_code not in (None, str(record.reason)) else ""
        parts.append(f"{record.status} to the app{code}")
    if record.body_cut:
        parts.append(paint("body cut", "red"))
    return ", ".join([*parts, seconds_text(record.duration_seconds)])


def _count(record: ExchangeRecord) -> str:
    return f" in {len(record.attempts)} attempts" if len(record.attempts) > 1 else ""


def _error(record: ExchangeRecord) -> str:
    told = [clean(record.error_code or "", 100), clean_message(record.error_message or "", 200)]
    text = ": ".join(part for part in told if part)
    return f'  "{text}"' if text else ""
