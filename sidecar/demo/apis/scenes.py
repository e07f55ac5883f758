"""What the demonstration asks of each emulated API, and what befalls it: data, one story for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["STORIES", "ExchangeView", "Scene"]


@dataclass(frozen=True, slots=True)
class Scene:
    """One request. ``plan`` is for the emulator: the fate of each send."""

    title: str
    method: str
    path: str
    plan: str = ""
    body: str = ""


@dataclass(frozen=True, slots=True)
class ExchangeView:
    first: Scene
    """Asked alone, before the others."""
    scenes: tuple[Scene, ...]
    """Asked all at once."""
    crowd: Scene | None = None
    """Asked two hundred times at once, after every token has been revoked."""


STORIES: Final = {
    "resq-infrastructure": ExchangeView(
        Scene("no token yet", "PUT", "/v1/services/web", "", '{"size": 1}'),
        (
            Scene("the token has expired", "POST", "/v1/deployments", "TOKEN_EXPIRED", "{}"),
            Scene("too many requests", "POST", "/v1/deployments", "RATE_LIMITED;1", "{}"),
            Scene("down, idempotent", "PUT", "/v1/services/db", "UNAVAILABLE UNAVAILABLE", '{"size": 2}'),
            Scene("down, and it may have acted", "POST", "/v1/deployments", "UNAVAILABLE", "{}"),
            Scene("a request timeout", "GET", "/v1/services/web", "TIMEOUT"),
            Scene("scope is missing", "POST", "/v1/admin/users", "", "{}"),
        ),
        Scene("every token revoked", "POST", "/v1/deployments", "", "{}"),
    ),
    "resq-coordination": ExchangeView(
        Scene("no token yet", "GET", "/v1/missions/1"),
        (
            Scene("approve a mission", "POST", "/v1/missions/1/approve", "", "{}"),
            Scene("a conflict, still pending", "POST", "/v1/missions/2/approve", "CONFLICT", "{}"),
            Scene("not valid", "POST", "/v1/reports", "VALIDATION", "{}"),
            Scene("too many requests", "POST", "/v1/reports", "RATE_LIMITED;1", "{}"),
            Scene("the token has expired", "POST", "/v1/reports", "TOKEN_EXPIRED", "{}"),
            Scene("lost after it was sent", "POST", "/v1/reports", "after:reset", "{}"),
        ),
        Scene("every token revoked", "POST", "/v1/reports", "", "{}"),
    ),
    "status-svc": ExchangeView(
        Scene("an incident", "POST", "/v1/incidents", "", '{"title": "down"}'),
        (
            Scene("lost after it acted", "POST", "/v1/incidents", "after:reset", '{"title": "slow"}'),
            Scene("a failure behind, twice", "POST", "/v1/incidents", "after:DOWNSTREAM_FAILURE INTERNAL", "{}"),
            Scene("too many requests", "PATCH", "/v1/incidents/1", "RATE_LIMITED;1", '{"status": "MONITORING"}'),
            Scene("no such transition", "PATCH", "/v1/incidents/2", "", '{"status": "INVESTIGATING"}'),
            Scene("not valid", "PATCH", "/v1/incidents/3", "", '{"status": "SLEEPING"}'),
            Scene("gone for good", "GET", "/v1/incidents/4", "reset reset reset reset reset"),
        ),
    ),
    "devices-v3": ExchangeView(
        Scene("no token yet", "GET", "/v3/devices/camera"),
        (
            Scene("the token is not valid", "POST", "/v3/jobs", "INVALID_TOKEN", '{"device": "camera"}'),
            Scene("the device is offline", "POST", "/v3/jobs", "DEVICE_OFFLINE", '{"device": "camera"}'),
            Scene("lost after it acted", "POST", "/v3/jobs", "after:reset", '{"device": "camera"}'),
            Scene("no such device", "GET", "/v3/devices/x", "DEVICE_NOT_FOUND"),
            Scene("not allowed", "PATCH", "/v3/devices/camera", "INSUFFICIENT_PERMISSIONS", "{}"),
            Scene("wrong API version", "GET", "/v2/devices/camera"),
        ),
        Scene("every token revoked", "POST", "/v3/jobs", "", '{"device": "camera"}'),
    ),
    "meshqu": ExchangeView(
        Scene("a decision", "POST", "/v1/decisions", "", "{}"),
        (
            Scene("too many requests", "POST", "/v1/decisions", "TOO_MANY_REQUESTS;1", "{}"),
            Scene("a request timeout", "POST", "/v1/decisions", "REQUEST_TIMEOUT", "{}"),
            Scene("down, idempotent", "GET", "/v1/policies/p", "SERVICE_UNAVAILABLE INTERNAL_ERROR"),
            Scene("down, and it may have acted", "POST", "/v1/decisions", "SERVICE_UNAVAILABLE", "{}"),
            Scene("no rule is active", "POST", "/v1/decisions", "NO_ACTIVE_RULES", "{}"),
            Scene("delivered already", "POST", "/v1/webhooks/1/retry", "ALREADY_DELIVERED", "{}"),
            Scene("lost after it was sent", "POST", "/v1/decisions", "after:reset", "{}"),
        ),
    ),
}
