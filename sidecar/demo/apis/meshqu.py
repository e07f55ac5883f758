"""MeshQu, emulated: decisions without keys, codes that may exist once, webhooks, a rate limit with its headers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from sidecar.demo.apis.emulator import Answer, Call, Emulator, Trouble

__all__ = ["MeshquApi"]

LIMIT = 100
WINDOW_SECONDS = 10.0


class MeshquApi(Emulator):
    """``POST /v1/decisions``, ``GET /v1/policies/NAME``, ``POST /v1/codes``, ``POST /v1/webhooks/NAME/retry``."""

    troubles: ClassVar[Mapping[str, Trouble]] = {
        "VALIDATION_ERROR": Trouble(400, "VALIDATION_ERROR", "Not valid"),
        "UNAUTHORIZED": Trouble(401, "UNAUTHORIZED", "Not authenticated"),
        "FORBIDDEN": Trouble(403, "FORBIDDEN", "Wrong tenant"),
        "NOT_FOUND": Trouble(404, "NOT_FOUND", "Not found"),
        "SNAPSHOT_NOT_FOUND": Trouble(404, "SNAPSHOT_NOT_FOUND", "No such snapshot"),
        "REQUEST_TIMEOUT": Trouble(408, "REQUEST_TIMEOUT", "The request took too long"),
        "DUPLICATE_CODE": Trouble(409, "DUPLICATE_CODE", "This code exists"),
        "ALREADY_DELIVERED": Trouble(409, "ALREADY_DELIVERED", "Delivered already"),
        "STILL_PENDING": Trouble(409, "STILL_PENDING", "Still under way"),
        "NO_ACTIVE_POLICIES": Trouble(422, "NO_ACTIVE_POLICIES", "No policy is active"),
        "NO_ACTIVE_RULES": Trouble(422, "NO_ACTIVE_RULES", "No rule is active"),
        "TOO_MANY_REQUESTS": Trouble(429, "TOO_MANY_REQUESTS", "Too many requests", hint=True),
        "INTERNAL_ERROR": Trouble(500, "INTERNAL_ERROR", "Internal error"),
        "SERVICE_UNAVAILABLE": Trouble(503, "SERVICE_UNAVAILABLE", "Unavailable"),
    }

    def __init__(self, now: Callable[[], float], secret: str) -> None:
        super().__init__(now, secret)
        self.codes: set[str] = set()
        self._window = 0.0
        self._taken = 0

    def refuse(self, status: int, code: str, message: str) -> Answer:
        error = {"code": code, "message": message, "details": {}}
        return Answer(status, {"error": error, "correlation_id": self._correlation_id})

    @property
    def _correlation_id(self) -> str:
        return f"mesh-{len(self.calls)}"

    def always(self, call: Call) -> dict[str, str]:
        return {
            "x-correlation-id": self._correlation_id,
            "rate-limit-limit": str(LIMIT),
            "rate-limit-remaining": str(max(0, LIMIT - self._taken)),
            "rate-limit-reset": f"{self._window + WINDOW_SECONDS - self.now():.0f}",
        }

    def serve(self, call: Call) -> Answer:
        if not self._admit():
            return self._limited(call)
        kind, name, action = [*call.segments, "", ""][1:4]
        if (kind, call.method) == ("decisions", "POST"):
            self.apply(call)
            return Answer(200, {"decision": "ALLOW", "correlation_id": self._correlation_id})
        if kind == "webhooks" and action == "retry":
            self.apply(call)
            return Answer(202, {"webhook": name})
        if (kind, call.method) == ("codes", "POST"):
            return self._create(call)
        return Answer(200, {kind: name}) if kind == "policies" else self.refuse(404, "NOT_FOUND", "Not found")

    def _create(self, call: Call) -> Answer:
        code = str(call.document().get("code"))
        if code in self.codes:
            return self.refuse(409, "DUPLICATE_CODE", "This code exists")
        self.codes.add(code)
        self.apply(call)
        return Answer(201, {"code": code})

    def _admit(self) -> bool:
        """A fixed window: a number of calls, then none until it is over."""
        if self.now() - self._window >= WINDOW_SECONDS:
            self._window, self._taken = self.now(), 0
        self._taken += 1
        return self._taken <= LIMIT

    def _limited(self, call: Call) -> Answer:
        left = max(1.0, self._window + WINDOW_SECONDS - self.now())
        call.hint_seconds = float(int(left) + 1)
        answer = self.refuse(429, "TOO_MANY_REQUESTS", "Too many requests")
        assert isinstance(answer.document, dict)  # noqa: S101 - for the type checker
        answer.document["retryAfter"] = call.hint_seconds
        answer.headers["Retry-After"] = f"{call.hint_seconds:g}"
        return answer
