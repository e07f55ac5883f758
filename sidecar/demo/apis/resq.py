"""The ResQ APIs, emulated: Infrastructure (services, deployments) and Coordination (missions, telemetry).

Both speak ``{"error": …}``, give tokens at ``/auth/login`` and answer 401 before anything is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Final

from sidecar.demo.apis.emulator import Answer, Call, Emulator, Trouble
from sidecar.demo.apis.tokens import Tokens

__all__ = ["CoordinationApi", "InfrastructureApi"]

USER: Final = "emulated"

TROUBLES: Final = {
    "BAD_REQUEST": Trouble(400, "", "Malformed request"),
    "TOKEN_EXPIRED": Trouble(401, "", "Token expired"),
    "FORBIDDEN": Trouble(403, "", "Insufficient scope: infra:write"),
    "NOT_FOUND": Trouble(404, "", "Not found"),
    "TIMEOUT": Trouble(408, "", "Request timeout"),
    "CONFLICT": Trouble(409, "", "Conflict"),
    "VALIDATION": Trouble(422, "", "Validation failed"),
    "RATE_LIMITED": Trouble(429, "", "Too many requests", hint=True),
    "INTERNAL": Trouble(500, "", "Internal error"),
    "UNAVAILABLE": Trouble(503, "", "Service unavailable"),
    "BUSY": Trouble(503, "", "Service unavailable", hint=True),
}


class ResqApi(Emulator):
    """What both have in common."""

    troubles: ClassVar[Mapping[str, Trouble]] = TROUBLES

    def __init__(self, now: Callable[[], float], secret: str) -> None:
        super().__init__(now, secret)
        self.tokens = Tokens(now)

    def refuse(self, status: int, code: str, message: str) -> Answer:
        return Answer(status, {"error": message})

    def always(self, call: Call) -> dict[str, str]:
        return {"X-Request-Id": call.request_id} if call.request_id else {}

    def serve(self, call: Call) -> Answer:
        if call.path == "/auth/login":
            return self._log_in(call)
        if not self.tokens.holds(call.headers.get("Authorization")):
            return self.refuse(401, "", "Token expired")
        if call.segments[1] == "admin":
            return self.refuse(403, "", "Insufficient scope: infra:admin")
        return self.work(call)

    def _log_in(self, call: Call) -> Answer:
        self.logins += 1
        if call.document() != {"username": USER, "password": self.secret}:
            return self.refuse(401, "", "Invalid credentials")
        return Answer(200, {"token": self.tokens.give(), "expires_in": 600})

    def work(self, call: Call) -> Answer:
        raise NotImplementedError


class InfrastructureApi(ResqApi):
    """``/v1/services/NAME`` (GET, PUT, DELETE) and ``POST /v1/deployments``."""

    def __init__(self, now: Callable[[], float], secret: str) -> None:
        super().__init__(now, secret)
        self.services: dict[str, dict[str, object]] = {}

    def work(self, call: Call) -> Answer:
        kind, name = [*call.segments, ""][1:3]
        if kind == "deployments" and call.method == "POST":
            self.apply(call)
            return Answer(201, {"deployment": call.request_id})
        if kind != "services" or not name:
            return self.refuse(404, "", "Not found")
        if call.method == "PUT":
            self.services[name] = {"name": name, **call.document()}
        elif call.method == "DELETE":
            self.services.pop(name, None)
            return Answer(204)
        found = self.services.get(name)
        return Answer(200, found) if found is not None else self.refuse(404, "", "Not found")


class CoordinationApi(ResqApi):
    """``/v1/missions/NAME`` (GET), ``POST /v1/missions/NAME/approve``, ``POST /v1/reports``, ``POST /v1/telemetry``.

    Any name is a mission that waits for its approval, until it has it.
    """

    troubles: ClassVar[Mapping[str, Trouble]] = {
        **TROUBLES,
        "VALIDATION": Trouble(422, "validation_failed", "The request is not valid"),
    }

    def __init__(self, now: Callable[[], float], secret: str) -> None:
        super().__init__(now, secret)
        self.approved: set[str] = set()

    def refuse(self, status: int, code: str, message: str) -> Answer:
        if not code:
            return super().refuse(status, code, message)
        details = [{"path": "/name", "rule": "required"}]
        return Answer(status, {"error": code, "message": message, "details": details})

    def work(self, call: Call) -> Answer:
        kind, name, action = [*call.segments, "", ""][1:4]
        if kind in ("telemetry", "reports") and call.method == "POST":
            self.apply(call)
            return Answer(202, {"queued": True}) if kind == "telemetry" else Answer(201, {"report": call.request_id})
        if kind != "missions" or not name:
            return self.refuse(404, "", "Not found")
        if action == "approve":
            return self._approve(call, name)
        return Answer(200, self._mission(name))

    def _approve(self, call: Call, name: str) -> Answer:
        if name in self.approved:
            return self.refuse(409, "", "Mission already approved")
        self.apply(call)
        self.approved.add(name)
        return Answer(200, self._mission(name))

    def _mission(self, name: str) -> dict[str, object]:
        return {"mission": name, "status": "approved" if name in self.approved else "pending_approval"}
