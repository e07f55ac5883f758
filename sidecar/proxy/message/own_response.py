"""The responses that the sidecar makes itself, marked so that no client takes them for the upstream's.

Each carries ``Proxy-Status`` (RFC 9209), ``Sidecar``, the request id and the reason. The body has the shape of the
upstream's own errors where the policy gives one (so that the app's SDK parses it), else problem+json (RFC 9457). It
never holds an address, a path of this machine or the text of a foreign exception.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

import http_sf
import orjson

from sidecar.core.decision.policy import Policy
from sidecar.core.enums import FailureKind, Outcome, Reason

__all__ = ["PROXY_STATUS", "TURNED_AWAY", "OwnAnswer", "fill", "sidecar_field", "status_for"]

PROXY_STATUS: Final = {
    FailureKind.RESOLVE: "dns_error",
    FailureKind.REFUSED: "connection_refused",
    FailureKind.UNREACHABLE: "destination_ip_unroutable",
    FailureKind.TLS: "tls_protocol_error",
    FailureKind.CONNECT_TIMEOUT: "connection_timeout",
    FailureKind.HEAD_TIMEOUT: "http_response_timeout",
    FailureKind.RESET: "connection_terminated",
    FailureKind.CLOSED: "connection_terminated",
    FailureKind.PROTOCOL: "http_protocol_error",
    FailureKind.BODY_CUT: "http_response_incomplete",
}
"""Failure → proxy error type (RFC 9209 section 2.3)."""

TURNED_AWAY: Final = {
    Reason.GATE: "the upstream has asked for quiet, and this request cannot wait so long",
    Reason.RATE: "the upstream takes fewer requests a second, and this one cannot wait for its turn",
    Reason.CONCURRENCY: "the upstream takes fewer requests at once, and this one cannot wait for its turn",
    Reason.BREAKER: "the upstream is down, and this request cannot wait until it is back",
    Reason.DRAINING: "this proxy is shutting down",
}
"""Reason → the sentence that says why a request was not sent."""


def status_for(failure: FailureKind | None, reason: Reason | None) -> int:
    """The status of our own response: 502 no usable response, 503 not sent (breaker, gate, draining), 504 no response
    in time.
    """
    if reason is Reason.DEADLINE or failure in (FailureKind.HEAD_TIMEOUT, FailureKind.CONNECT_TIMEOUT):
        return 504
    if reason in (Reason.BREAKER, Reason.CONCURRENCY, Reason.DRAINING) and failure is None:
        return 503
    if reason in (Reason.GATE, Reason.RATE) and failure is None:
        return 429
    return 502


def sidecar_field(outcome: Outcome, attempts: int, waited_seconds: float, reason: Reason | None) -> bytes:
    """The ``Sidecar`` field's line: an RFC 9651 dictionary."""
    line = f"Sidecar: outcome={outcome}, attempts={attempts}"
    if waited_seconds:
        line += f", waited={waited_seconds:.3f}"
    if reason is not None:
        line += f", reason={reason}"
    return line.encode("ascii") + b"\r\n"


@dataclass(frozen=True, slots=True)
class OwnAnswer:
    """A response of our own, before it is bytes."""

    status: int
    code: str
    """The error code: a failure, a reason, or the kind of a refusal."""
    detail: str
    """One sentence for a person."""
    error: str
    """The proxy error type of RFC 9209."""
    outcome: Outcome
    attempts: int = 0
    waited_seconds: float = 0.0
    reason: Reason | None = None
    request_id: str = ""
    correlation_id: str = ""
    service: str = ""
    retry_after_seconds: int | None = None
    received_status: int | None = None

    def render(self, policy: Policy | None, id_lines: bytes, wall: float) -> tuple[bytes, bytes]:
        """Head (without the final empty line and without Connection) and body."""
        if self.status == 204:
            line = sidecar_field(self.outcome, self.attempts, self.waited_seconds, self.reason)
            return b"HTTP/1.1 204 No Content\r\n" + id_lines + line, b""
        shape = policy.errors.shape if policy is not None else None
        media = b"application/problem+json" if shape is None else b"application/json"
        document = self._problem() if shape is None else fill(shape, self._values(wall))
        body = orjson.dumps(document)
        phrase = HTTPStatus(self.status).phrase.encode("ascii")
        head = [
            b"HTTP/1.1 %d %b\r\n" % (self.status, phrase),
            b"Content-Type: " + media + b"\r\nContent-Length: %d\r\n" % len(body),
            id_lines,
            sidecar_field(self.outcome, self.attempts, self.waited_seconds, self.reason),
            self._proxy_status(),
        ]
        if self.retry_after_seconds is not None:
            head.append(b"Retry-After: %d\r\n" % self.retry_after_seconds)
        return b"".join(head), body

    def _proxy_status(self) -> bytes:
        parameters: dict[str, object] = {"error": http_sf.Token(self.error)}
        if self.received_status is not None:
            parameters["received-status"] = self.received_status
        parameters["details"] = self.code
        value: str = http_sf.ser([(http_sf.Token("sidecar"), parameters)])  # type: ignore[list-item]
        return b"Proxy-Status: " + value.encode("ascii") + b"\r\n"

    def _problem(self) -> dict[str, object]:
        document: dict[str, object] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "outcome": self.outcome,
            "attempts": self.attempts,
        }
        if self.reason is not None:
            document["reason"] = self.reason
        if self.request_id:
            document["request_id"] = self.request_id
            document["correlation_id"] = self.correlation_id
        return document

    def _values(self, wall: float) -> dict[str, object]:
        return {
            "{code}": self.code.upper(),
            "{message}": self.detail,
            "{status}": self.status,
            "{reason}": self.reason or self.code,
            "{request_id}": self.request_id,
            "{correlation_id}": self.correlation_id,
            "{timestamp}": datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds"),
            "{service}": self.service,
            "{attempts}": self.attempts,
        }


def fill(shape: object, values: dict[str, object]) -> object:
    """The template with its placeholders filled; one that stands alone keeps its type (``{status}`` is a number)."""
    if isinstance(shape, dict):
        return {key: fill(value, values) for key, value in shape.items()}
    if isinstance(shape, list | tuple):
        return [fill(value, values) for value in shape]
    if not isinstance(shape, str):
        return shape
    if shape in values:
        return values[shape]
    for place, value in values.items():
        shape = shape.replace(place, str(value))
    return shape
