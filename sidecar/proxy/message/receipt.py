"""The response to a stored request: 202 and a receipt (RFC 9110 section 15.3.3), in the upstream's shape if it has one.

It promises that the request is on disk, and nothing about its outcome. Counterpart: ``proxy.exchange.store``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from sidecar.core.decision.policy import Policy
from sidecar.core.enums import Outcome
from sidecar.proxy.message.own_response import fill, sidecar_field

__all__ = ["Receipt"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt, rendered as our own responses are."""

    stored: str
    attempts: int
    waited_seconds: float
    request_id: str
    correlation_id: str
    service: str

    status = 202

    def render(self, policy: Policy | None, id_lines: bytes, wall: float) -> tuple[bytes, bytes]:
        """Head (without the final empty line and without Connection) and body."""
        shape = policy.stored_shape if policy is not None else None
        document = {"stored": self.stored} if shape is None else fill(shape, self._values(wall))
        body = orjson.dumps(document)
        line = sidecar_field(Outcome.STORED, self.attempts, self.waited_seconds, None)
        head = b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        return head + id_lines + line + b'Proxy-Status: sidecar; details="stored"\r\n', body

    def _values(self, wall: float) -> dict[str, object]:
        return {
            "{stored}": self.stored,
            "{request_id}": self.request_id,
            "{correlation_id}": self.correlation_id,
            "{timestamp}": datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds"),
            "{service}": self.service,
        }
