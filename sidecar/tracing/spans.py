"""The record of one exchange as OpenTelemetry spans, after the semantic conventions for HTTP (stable, 1.23 and later).

A SERVER span for the exchange, a CLIENT span for each attempt with ``http.request.resend_count``, and an INTERNAL span
for each wait with its cause. A record holds no query, credential, header or body, so no span does. It sends nothing.
Counterpart: ``exporter``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from sidecar import __version__
from sidecar.observe.families import METHODS, OTHER_METHOD
from sidecar.observe.record import AttemptRecord, ExchangeRecord, TraceRecord
from sidecar.observe.sanitize import clean, clean_path

__all__ = ["NAME", "spans_of"]

NAME: Final = "retry-sidecar"
"""The service's name where ``OTEL_SERVICE_NAME`` gives none, and the name of the instrumentation scope."""
SCOPE: Final = InstrumentationScope(NAME, __version__)
SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
TEXT_CHARACTERS: Final = 255
UPSTREAM: Final = f"sidecar.{'upstream'}"
"""The attribute with the upstream's configured name; written so that it is not taken for our package of that name."""

Value = str | int | float | bool


class _Made:
    """The spans of one record, as they are made."""

    def __init__(self, record: ExchangeRecord, trace: TraceRecord, resource: Resource) -> None:
        self._record = record
        self._trace = trace
        self._resource = resource
        self._trace_id = int(trace.spans.trace_id, 16)
        self._server = self._context(trace.spans.span_id(0))
        self._waits = 0

    def all(self) -> Iterator[ReadableSpan]:
        yield self._exchange()
        at = 0.0
        for attempt in self._record.attempts:
            began = max(attempt.began_seconds, 0.0)
            yield from self._waits_before(attempt.number, began, attempt)
            yield self._attempt(attempt, began)
            at = max(at, began + attempt.duration_seconds)
        after = len(self._record.attempts) + 1
        for hold in self._record.held:
            if hold.before >= after:
                yield self._wait(hold.by, at, hold.seconds, hold.before, hold.scope)
                at += hold.seconds

    def _waits_before(self, number: int, began: float, attempt: AttemptRecord) -> Iterator[ReadableSpan]:
        """What was waited for before this attempt, the last of it just before: the wait of the table, then holds."""
        ends = began
        waits: list[ReadableSpan] = []
        for hold in reversed([hold for hold in self._record.held if hold.before == number]):
            ends -= hold.seconds
            waits.append(self._wait(hold.by, ends, hold.seconds, number, hold.scope))
        if attempt.wait_from is not None:
            ends -= attempt.waited_seconds
            waits.append(self._wait(attempt.wait_from, ends, attempt.waited_seconds, number))
        yield from reversed(waits)

    def _exchange(self) -> ReadableSpan:
        record, spans = self._record, self._trace.spans
        attributes = _known(
            {
                "http.request.method": _method(record.method),
                "url.scheme": "http",
                "url.path": clean_path(record.path),
                "http.response.status_code": record.status,
                "http.request.body.size": record.request_bytes,
                "http.response.body.size": record.response_bytes,
                "error.type": self._server_error(),
                "sidecar.outcome": record.outcome.value,
                "sidecar.reason": None if record.reason is None else record.reason.value,
                UPSTREAM: record.upstream,
                "sidecar.policy": record.policy,
                "sidecar.request_id": clean(record.request_id, TEXT_CHARACTERS),
                "sidecar.waited_seconds": round(record.waited_seconds, 6),
                "sidecar.error_code": record.own_code,
            }
        )
        parent = None
        if spans.parent_id:
            parent = SpanContext(self._trace_id, int(spans.parent_id, 16), is_remote=True, trace_flags=SAMPLED)
        return self._span(
            f"{_method(record.method)} {record.upstream}",
            SpanKind.SERVER,
            self._server,
            parent,
            attributes,
            0.0,
            record.duration_seconds,
            is_error="error.type" in attributes,
        )

    def _server_error(self) -> str | None:
        record = self._record
        if record.body_cut:
            return "body_cut"
        if record.status is None:
            return record.outcome.value if record.outcome == "client_gone" else None
        return str(record.status) if record.status >= 500 else None

    def _attempt(self, attempt: AttemptRecord, began: float) -> ReadableSpan:
        record, trace = self._record, self._trace
        error: str | None = None
        if attempt.failure is not None:
            error = attempt.failure.value
        elif attempt.status is not None and attempt.status >= 400:
            error = str(attempt.status)
        attributes = _known(
            {
                "http.request.method": _method(record.method),
                "url.full": clean_path(f"{trace.origin}{record.judged_path}"),
                "server.address": trace.host,
                "server.port": trace.port,
                "http.response.status_code": attempt.status,
                "http.request.resend_count": attempt.number - 1 or None,
                "error.type": error,
                UPSTREAM: record.upstream,
                "sidecar.never_sent": True if not attempt.written else None,
                "sidecar.hedge": True if attempt.hedge else None,
                "sidecar.cancelled": True if attempt.cancelled else None,
                "sidecar.then": None if attempt.then is None else attempt.then.value,
            }
        )
        context = self._context(trace.spans.span_id(attempt.number))
        return self._span(
            _method(record.method),
            SpanKind.CLIENT,
            context,
            self._server,
            attributes,
            began,
            attempt.duration_seconds,
            is_error=error is not None,
        )

    def _wait(self, by: str, began: float, seconds: float, before: int, scope: str = "") -> ReadableSpan:
        self._waits += 1
        attributes = _known(
            {
                "sidecar.wait.by": str(by),
                "sidecar.wait.before_attempt": before,
                "sidecar.wait.scope": clean(scope, TEXT_CHARACTERS) or None,
            }
        )
        context = self._context(self._trace.spans.span_id(-self._waits))
        return self._span(f"wait {by}", SpanKind.INTERNAL, context, self._server, attributes, max(0.0, began), seconds)

    def _context(self, span_id: str) -> SpanContext:
        return SpanContext(self._trace_id, int(span_id, 16), is_remote=False, trace_flags=SAMPLED)

    def _span(
        self,
        name: str,
        kind: SpanKind,
        context: SpanContext,
        parent: SpanContext | None,
        attributes: dict[str, Value],
        began: float,
        seconds: float,
        *,
        is_error: bool = False,
    ) -> ReadableSpan:
        start = round((self._record.started_at + began) * 1e9)
        return ReadableSpan(
            name,
            context=context,
            parent=parent,
            resource=self._resource,
            attributes=attributes,
            kind=kind,
            instrumentation_scope=SCOPE,
            status=Status(StatusCode.ERROR) if is_error else Status(StatusCode.UNSET),
            start_time=start,
            end_time=start + round(seconds * 1e9),
        )


def spans_of(record: ExchangeRecord, resource: Resource) -> list[ReadableSpan]:
    """The spans of a record; none where it belongs to no trace."""
    return [] if record.trace is None else list(_Made(record, record.trace, resource).all())


def _method(method: str) -> str:
    """A method outside of the closed list is ``_OTHER``, as the conventions ask."""
    return method if method in METHODS else OTHER_METHOD


def _known(attributes: dict[str, Value | None]) -> dict[str, Value]:
    return {name: value for name, value in attributes.items() if value is not None}
