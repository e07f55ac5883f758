"""Reports of failed exchanges: the last few of each policy that asks for them, and their Markdown form.

In memory only, bounded by number; what arrives here has been redacted, and is plain data. Counterparts: ``redact``,
which comes before, and ``sidecar report``, which asks.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import orjson

from sidecar.observe.fields import fields_of
from sidecar.observe.recent import Recent
from sidecar.observe.record import ExchangeRecord
from sidecar.observe.sanitize import clean

__all__ = ["Report", "Reports", "markdown"]

Report = dict[str, Any]
"""``fields_of`` the record, and ``request`` and ``answer``, each with ``fields``, ``body`` and a ``remark``."""

_IDS: Final = ("request_id", "correlation_id", "trace_id", "upstream_request_id", "upstream_correlation_id")
_FACTS: Final = (
    ("Method", "method"),
    ("Path", "path"),
    ("Query", "query"),
    ("Status", "status"),
    ("X-Request-Id", "request_id"),
    ("Correlation id", "correlation_id"),
    ("Upstream's request id", "upstream_request_id"),
    ("Upstream's correlation id", "upstream_correlation_id"),
    ("Trace id", "trace_id"),
    ("Time", "time"),
    ("Upstream", "upstream"),
    ("Shadow policy", "shadow"),
    ("Outcome", "outcome"),
    ("Reason", "reason"),
    ("Error code", "error_code"),
    ("Error message", "error_message"),
    ("Seconds in all", "duration_seconds"),
    ("Seconds waited", "waited_seconds"),
)
_NOT_KEPT: Final = "not kept: the policy does not switch it on (`report: {bodies: true}`)"


class Reports:
    """The reports of one process."""

    def __init__(self) -> None:
        self._rings: dict[str, deque[Report]] = {}

    def add(self, policy: str, keep: int, report: Report) -> None:
        """Add a report; beyond ``keep`` the oldest of that policy is dropped."""
        ring = self._rings.get(policy)
        if ring is None or ring.maxlen != keep:
            ring = self._rings[policy] = deque(ring or (), maxlen=keep)
        ring.append(report)

    def find(self, wanted: str, recent: Recent) -> Report | None:
        """The newest report with this id, whichever of its ids that is; without bodies, if only the log has it."""
        for ring in self._rings.values():
            for report in reversed(ring):
                if wanted in [report.get(name) for name in _IDS]:
                    return report
        for record in recent.find(request_id=wanted, limit=1):
            return bare(record)
        return None


def bare(record: ExchangeRecord) -> Report:
    """A report without bodies, from the record alone."""
    nothing: dict[str, object] = {"fields": [], "body": None, "remark": _NOT_KEPT}
    return {**fields_of(record), "request": nothing, "answer": nothing}


def markdown(report: Report) -> str:
    """The whole report for a ticket."""
    lines = [f"# Failed request {_word(report.get('request_id', ''))}", "", "| | |", "|---|---|"]
    lines += [f"| {title} | {_word(report[name])} |" for title, name in _FACTS if report.get(name) not in (None, "")]
    shadows = "shadow" in report
    lines += ["", "## Attempts", "", "| n | result | seconds | waited before |" + " shadow |" * shadows]
    lines.append("|---|---|---|---|" + "---|" * shadows)
    for attempt in report.get("attempts", []):
        result = attempt.get("status", attempt.get("failure", ""))
        waited = f"{attempt['waited']} ({attempt['from']})" if "from" in attempt else ""
        shadow = f" {_word(attempt.get('shadow', ''))} |" if shadows else ""
        lines.append(f"| {attempt['n']} | {_word(result)} | {attempt['seconds']} | {waited} |{shadow}")
    lines += ["", *_message("Request", report["request"]), "", *_message("Response", report["answer"])]
    return "\n".join(lines) + "\n"


def _message(title: str, message: dict[str, Any]) -> list[str]:
    lines = [f"## {title}", ""]
    if message["fields"]:
        lines += [*_fenced("\n".join(f"{name}: {value}" for name, value in message["fields"])), ""]
    if message["body"] is not None:
        body = message["body"]
        text = body if isinstance(body, str) else orjson.dumps(body, option=orjson.OPT_INDENT_2).decode()
        lines += _fenced(text, "" if isinstance(body, str) else "json")
    else:
        lines.append(f"Body {message['remark']}" if message["remark"] else "No body.")
    return lines


def _fenced(text: str, language: str = "") -> list[str]:
    """A code block whose fence is longer than any in its text."""
    shown = "\n".join(clean(line, 1 << 20) for line in text.split("\n"))
    fence = "```"
    while fence in shown:
        fence += "`"
    return [fence + language, shown, fence]


def _word(value: object) -> str:
    """Foreign text as one cell of a table, without Markdown."""
    text = clean(str(value), 2048).replace("`", "'").replace("|", "\\|")
    return f"`{text}`" if text else ""
