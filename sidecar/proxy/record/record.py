"""An exchange that is over → its record: codes and ids read where the policy says, nothing secret.

Called only for exchanges that are logged or recorded; an untroubled one costs nothing here.
"""

from __future__ import annotations

from sidecar.core.decision.conditions import MISSING
from sidecar.core.decision.policy import IdRule
from sidecar.observe.record import ExchangeRecord, TraceRecord
from sidecar.observe.trace import SpanIds, parse
from sidecar.proxy.exchange.exchange import Exchange
from sidecar.proxy.exchange.prepare import Prepared
from sidecar.proxy.message.peek import first_text, parsed
from sidecar.wire.heads import ResponseMessage

__all__ = ["record_of"]


def record_of(exchange: Exchange, started_at: float, duration_seconds: float) -> ExchangeRecord:
    """``started_at`` is unix seconds."""
    prepared = exchange.prepared
    message = exchange.message
    trace = parse(prepared.trace) if prepared is not None and prepared.trace is not None else None
    codes = _read_back(exchange)
    spans = None if prepared is None else prepared.spans
    return ExchangeRecord(
        request_id=prepared.request_id if prepared is not None else exchange.ids[0],
        correlation_id=prepared.correlation_id if prepared is not None else exchange.ids[1],
        upstream=prepared.destination.name if prepared is not None else "unknown",
        policy=prepared.compiled.policy.name if prepared is not None else "",
        method=message.method,
        path=_path(message.path),
        outcome=exchange.outcome,
        status=exchange.status,
        attempts=exchange.all_attempts,
        started_at=started_at,
        duration_seconds=duration_seconds,
        reason=exchange.reason,
        waited_seconds=exchange.waited_seconds,
        held=exchange.held,
        own_code=exchange.own_code,
        trace_id=trace.trace_id if trace is not None else "",
        host=prepared.destination.host if prepared is not None else "",
        error_code=codes[0],
        error_message=codes[1],
        upstream_request_id=codes[2],
        upstream_correlation_id=codes[3],
        request_bytes=exchange.request_bytes,
        response_bytes=exchange.app.response_bytes,
        body_cut=exchange.app.broken is not None,
        trace=None if prepared is None or spans is None or not spans.is_sampled else _traced(prepared, spans),
        shadow="" if exchange.shadowed is None else _shadow(exchange),
        judged_path=_path(prepared.target[len(prepared.destination.base_path) :]) if prepared is not None else "",
    )


def _traced(prepared: Prepared, spans: SpanIds) -> TraceRecord:
    origin = prepared.destination.origin
    text = f"{origin.scheme}://{origin.authority}{origin.base_path}"
    return TraceRecord(spans, text, origin.host, origin.port)


def _shadow(exchange: Exchange) -> str:
    """The name of the shadow policy."""
    shadow = None if exchange.prepared is None else exchange.prepared.compiled.shadow
    return "" if shadow is None else shadow.policy.name


def _path(target: str) -> str:
    """The path without query, fragment and credentials, which may hold secrets."""
    path = target.partition("?")[0].partition("#")[0]
    if target[:1] != "/" and "://" not in path:
        return path.rpartition("@")[2]
    scheme, separator, rest = path.partition("://")
    authority, slash, tail = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{tail}" if separator else path


def _read_back(exchange: Exchange) -> tuple[str | None, str | None, str | None, str | None]:
    """Error code, error message, the upstream's request id and correlation id."""
    message, prepared = exchange.last_message, exchange.prepared
    if message is None or prepared is None:
        return None, None, None, None
    policy = prepared.compiled.policy
    document: object = parsed(message, exchange.last_body) if exchange.last_body else MISSING
    return (
        first_text(document, policy.errors.code),
        first_text(document, policy.errors.message),
        _id(message, document, policy.ids.request),
        _id(message, document, policy.ids.correlation),
    )


def _id(message: ResponseMessage, document: object, rule: IdRule) -> str | None:
    for name in rule.from_response:
        value = message.headers.get(name)
        if value is not None:
            return str(value)[:200]
    return first_text(document, rule.from_body)
