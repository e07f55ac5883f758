"""The Status Service, emulated: incidents with their states, subscriptions, keys for every write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import ClassVar, Final

from sidecar.demo.apis.emulator import Answer, Call, Emulator, Trouble

__all__ = ["NEXT_STATES", "StatusApi"]

WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
NEXT_STATES: Final = {
    "INVESTIGATING": {"IDENTIFIED", "MONITORING", "RESOLVED"},
    "IDENTIFIED": {"MONITORING", "RESOLVED"},
    "MONITORING": {"RESOLVED"},
    "RESOLVED": set(),
}
"""Forward only; steps may be skipped."""


class StatusApi(Emulator):
    """``/v1/incidents`` (POST), ``/v1/incidents/NAME`` (GET, PATCH), ``/v1/subscriptions`` (POST).

    An incident that was not created counts as being investigated.
    """

    key_header = "X-Idempotency-Key"
    troubles: ClassVar[Mapping[str, Trouble]] = {
        "BAD_REQUEST": Trouble(400, "ERR_STATUS_BAD_REQUEST", "Malformed request"),
        "UNAUTHORIZED": Trouble(401, "ERR_STATUS_UNAUTHORIZED", "Not authenticated"),
        "FORBIDDEN": Trouble(403, "ERR_STATUS_FORBIDDEN", "Not allowed"),
        "NOT_FOUND": Trouble(404, "ERR_STATUS_NOT_FOUND", "No such incident"),
        "CONFLICT": Trouble(409, "ERR_STATUS_CONFLICT", "Conflict"),
        "VALIDATION": Trouble(422, "ERR_STATUS_VALIDATION", "Not valid"),
        "RATE_LIMITED": Trouble(429, "ERR_STATUS_RATE_LIMITED", "Too many requests", hint=True),
        "INTERNAL": Trouble(500, "ERR_STATUS_INTERNAL", "Internal error"),
        "DOWNSTREAM_FAILURE": Trouble(502, "ERR_STATUS_DOWNSTREAM_FAILURE", "A service behind failed"),
    }

    def __init__(self, now: Callable[[], float], secret: str) -> None:
        super().__init__(now, secret)
        self.incidents: dict[str, str] = {}
        self.subscribers: set[str] = set()

    def refuse(self, status: int, code: str, message: str) -> Answer:
        return Answer(status, self._envelope(None, {"code": code, "message": message, "http": status}))

    def conflicting_key(self) -> Answer:
        return self.refuse(409, "ERR_STATUS_CONFLICT", "This key was used with different data")

    def serve(self, call: Call) -> Answer:
        if call.method in WRITES and not call.headers.get(self.key_header):
            return self.refuse(400, "ERR_STATUS_BAD_REQUEST", "X-Idempotency-Key is required")
        return self.once(call, lambda: self._work(call))

    def _work(self, call: Call) -> Answer:
        kind, name = [*call.segments, ""][1:3]
        if (kind, call.method) == ("subscriptions", "POST"):
            return self._subscribe(call)
        if (kind, call.method) == ("incidents", "POST"):
            self.apply(call)
            return Answer(201, self._envelope({"incident": call.request_id, "status": "INVESTIGATING"}, None))
        if kind != "incidents" or not name:
            return self.refuse(404, "ERR_STATUS_NOT_FOUND", "Not found")
        if call.method == "PATCH":
            return self._move(call, name)
        return self._incident(name)

    def _subscribe(self, call: Call) -> Answer:
        email = str(call.document().get("email"))
        if email in self.subscribers:
            return self.refuse(409, "ERR_STATUS_CONFLICT", "Already subscribed")
        self.subscribers.add(email)
        self.apply(call)
        return Answer(201, self._envelope({"email": email}, None))

    def _move(self, call: Call, name: str) -> Answer:
        wanted, state = call.document().get("status"), self.incidents.get(name, "INVESTIGATING")
        if wanted not in NEXT_STATES:
            return self.refuse(422, "ERR_STATUS_VALIDATION", "No such status")
        if wanted not in NEXT_STATES[state]:
            return self.refuse(409, "ERR_STATUS_CONFLICT", f"From {state} to {wanted} is no transition")
        self.incidents[name] = str(wanted)
        self.apply(call)
        return self._incident(name)

    def _incident(self, name: str) -> Answer:
        return Answer(
            200, self._envelope({"incident": name, "status": self.incidents.get(name, "INVESTIGATING")}, None)
        )

    def _envelope(self, data: object, error: object) -> dict[str, object]:
        number = len(self.calls)
        timestamp = datetime.fromtimestamp(number, UTC).isoformat()
        meta = {"request_id": f"status-{number}", "service": "status-svc", "timestamp": timestamp}
        return {"data": data, "error": error, "meta": meta}
