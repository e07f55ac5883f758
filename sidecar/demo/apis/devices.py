"""The Devices API v3, emulated: OAuth 2.0 client credentials, devices that are offline for a while, jobs with keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Final
from urllib.parse import parse_qsl

from sidecar.demo.apis.emulator import Answer, Call, Emulator, Trouble
from sidecar.demo.apis.tokens import Tokens

__all__ = ["DevicesApi"]

CLIENT: Final = "emulated"
OFFLINE: Final = "offline"
"""A device of this name is never there; every other one always."""


class DevicesApi(Emulator):
    """``/v3/devices/NAME`` (GET, PATCH), ``POST /v3/jobs``, ``/v3/auth/token``."""

    key_header = "Idempotency-Key"
    troubles: ClassVar[Mapping[str, Trouble]] = {
        "INVALID_TOKEN": Trouble(401, "INVALID_TOKEN", "The token is not valid"),
        "INSUFFICIENT_PERMISSIONS": Trouble(403, "INSUFFICIENT_PERMISSIONS", "Not allowed"),
        "DEVICE_NOT_FOUND": Trouble(404, "DEVICE_NOT_FOUND", "No such device"),
        "JOB_NOT_FOUND": Trouble(404, "JOB_NOT_FOUND", "No such job"),
        "MISSION_NOT_FOUND": Trouble(404, "MISSION_NOT_FOUND", "No such mission"),
        "IDEMPOTENCY_CONFLICT": Trouble(409, "IDEMPOTENCY_CONFLICT", "Same key, different payload"),
        "WRONG_VERSION": Trouble(415, "UNSUPPORTED_VERSION", "Wrong API version"),
        "VALIDATION_ERROR": Trouble(422, "VALIDATION_ERROR", "Not valid"),
        "RATE_LIMITED": Trouble(429, "RATE_LIMITED", "Too many requests", hint=True),
        "INTERNAL": Trouble(500, "INTERNAL_ERROR", "Internal error"),
        "UNAVAILABLE": Trouble(503, "UNAVAILABLE", "Unavailable"),
        "DEVICE_OFFLINE": Trouble(503, "DEVICE_OFFLINE", "The device is offline"),
    }

    def __init__(self, now: Callable[[], float], secret: str) -> None:
        super().__init__(now, secret)
        self.tokens = Tokens(now)

    def refuse(self, status: int, code: str, message: str) -> Answer:
        number = len(self.calls)
        document = {"error": "Error", "message": message, "code": code, "details": {}}
        return Answer(status, {**document, "requestId": f"dev-{number}", "timestamp": f"{self.now():.0f}"})

    def conflicting_key(self) -> Answer:
        return self.refuse(409, "IDEMPOTENCY_CONFLICT", "Same key, different payload")

    def serve(self, call: Call) -> Answer:
        if call.path == "/v3/auth/token":
            return self._give_token(call)
        if not self.tokens.holds(call.headers.get("Authorization")):
            return self.refuse(401, "INVALID_TOKEN", "The token is not valid")
        if call.segments[0] != "v3":
            return self.refuse(415, "UNSUPPORTED_VERSION", "Wrong API version")
        return self.once(call, lambda: self._work(call))

    def _give_token(self, call: Call) -> Answer:
        """RFC 6749 sections 4.4 and 5.2."""
        self.logins += 1
        form = dict(parse_qsl(call.body.decode("latin-1")))
        if "grant_type" not in form:
            return _oauth(400, "invalid_request", "grant_type is missing")
        if form["grant_type"] != "client_credentials":
            return _oauth(400, "unsupported_grant_type", "only client_credentials")
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT, self.secret):
            return _oauth(401, "invalid_client", "unknown client")
        return Answer(200, {"access_token": self.tokens.give(), "token_type": "Bearer", "expires_in": 600})

    def _work(self, call: Call) -> Answer:
        kind, name = [*call.segments, ""][1:3]
        if (kind, call.method) == ("jobs", "POST"):
            name = str(call.document().get("device"))
        if name == OFFLINE:
            return self.refuse(503, "DEVICE_OFFLINE", "The device is offline")
        if call.method in ("POST", "PATCH"):
            self.apply(call)
        if kind == "jobs":
            return Answer(201, {"job": call.request_id, "device": name})
        return Answer(200, {"device": name}) if kind == "devices" else self.refuse(404, "JOB_NOT_FOUND", "No such job")


def _oauth(status: int, error: str, description: str) -> Answer:
    return Answer(status, {"error": error, "error_description": description})
