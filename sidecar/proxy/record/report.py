"""A failed exchange → its report: heads and bodies without their secrets, and all attempts.

Only where the policy has a ``report`` block. What leaves this module has been redacted. It keeps nothing. Counterpart:
``observe.reports``.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

from sidecar.core.decision.policy import ReportRule
from sidecar.observe.fields import fields_of
from sidecar.observe.record import ExchangeRecord
from sidecar.observe.redact import BODY_BYTES, redacted_body, redacted_fields
from sidecar.observe.reports import Report
from sidecar.proxy.client.body import Body
from sidecar.proxy.exchange.exchange import Exchange
from sidecar.proxy.message.peek import decoded
from sidecar.wire.heads import ResponseMessage

__all__ = ["report_of"]

_OFF: Final = "not kept: the policy does not switch it on (`report: {bodies: true}`)"


def report_of(exchange: Exchange, record: ExchangeRecord, rule: ReportRule) -> Report:
    """The report as plain data."""
    report: Report = fields_of(record)
    query = exchange.message.path.partition("?")[2]
    if query:
        # A parameter without a value may be the secret itself.
        pairs = parse_qsl(query, keep_blank_values=True)
        report["query"] = "&".join(f"{name}=…" if value else "…" for name, value in pairs) or "…"
    report["request"] = _request(exchange, rule)
    report["answer"] = _answer(exchange, exchange.last_message, rule)
    return report


def _request(exchange: Exchange, rule: ReportRule) -> dict[str, object]:
    message = exchange.message
    fields = redacted_fields(message.raw_headers)
    if not rule.bodies:
        return {"fields": fields, "body": None, "remark": _OFF}
    body: Body | None = exchange.body
    if body is not None and body.received_bytes > len(exchange.payload):
        return {"fields": fields, "body": None, "remark": f"not kept: {body.received_bytes} bytes are too many"}
    shown, remark = redacted_body(exchange.payload, message.headers.get("Content-Type", ""), rule.redact)
    return {"fields": fields, "body": shown, "remark": remark}


def _answer(exchange: Exchange, message: ResponseMessage | None, rule: ReportRule) -> dict[str, object]:
    if message is None:
        return {"fields": [], "body": None, "remark": "none: the sidecar answered itself"}
    fields = redacted_fields(message.raw_headers)
    if not rule.bodies:
        return {"fields": fields, "body": None, "remark": _OFF}
    size = exchange.app.response_bytes
    body: bytes | None = exchange.last_body
    if message.headers.get("Content-Encoding") is not None:
        body = decoded(message, exchange.last_body)
    if body is None or size > len(exchange.last_body):
        why = "are too many" if size > BODY_BYTES else "could not be read"
        return {"fields": fields, "body": None, "remark": f"not kept: {size} bytes {why}"}
    shown, remark = redacted_body(body, message.headers.get("Content-Type", ""), rule.redact)
    return {"fields": fields, "body": shown, "remark": remark}
