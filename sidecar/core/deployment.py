"""The nouns of what is deployed: listeners, upstreams, routes. Frozen; made by ``sidecar.config``.

A reload makes a new ``Deployment``; running exchanges keep the one that they began with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from sidecar.core.policy import Policy

__all__ = ["Address", "Deployment", "Limits", "Logging", "Origin", "Route", "Upstream"]


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Origin:
    """The real place of an upstream."""

    scheme: Literal["http", "https"]
    host: str
    """As dialled and as verified; an IPv6 address without brackets."""
    port: int
    base_path: str = ""
    """Prefixed to every path; no slash at its end."""
    ca_file: str | None = None
    """PEM file of certificates to trust in place of the system's. Verification cannot be turned off."""

    @property
    def authority(self) -> str:
        """For ``Host``: the port only where it is not the scheme's own (RFC 9110 section 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Route:
    """The policy of some requests of an upstream; the first route that matches wins."""

    policy: Policy
    methods: frozenset[str] = frozenset()
    """Empty: any."""
    path: str = "/**"
    """As written: ``*`` is one segment, ``**`` any number."""
    pattern: re.Pattern[str] = re.compile("")
    """``path`` compiled; matched in full against the path after the mount."""


@dataclass(frozen=True, slots=True)
class Upstream:
    name: str
    origin: Origin
    policy: Policy
    mount: str | None = None
    """``/name``: no slash at its end. ``/`` means everything."""
    hosts: tuple[str, ...] = ()
    """Lower case, for absolute-form requests (``HTTP_PROXY``)."""
    routes: tuple[Route, ...] = ()
    host: Literal["origin", "keep"] = "origin"
    """What ``Host`` says toward the upstream."""
    connections: int = 1000
    """At most this many at once; further attempts wait for one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the app's side: what one connection may cost us."""

    head_bytes: int = 64 << 10
    headers: int = 200
    head_seconds: float = 30.0
    idle_seconds: float = 3600.0
    """Between two requests on one connection: longer than any app's own, so that the app closes first."""
    drain_seconds: float = 25.0
    connections: int = 20_000


@dataclass(frozen=True, slots=True)
class Logging:
    format: Literal["auto", "pretty", "json"] = "auto"
    sample: float = 0.01
    """Share of uneventful exchanges that are logged; retried, failed and slow ones always are."""
    slow_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Deployment:
    listen: Address
    admin: Address
    upstreams: tuple[Upstream, ...]
    default_policy: Policy
    """For unknown hosts, where they are let through."""
    unknown_hosts: Literal["pass", "refuse"] = "pass"
    limits: Limits = Limits()
    logging: Logging = Logging()
    source: str = ""
    """The file that it was read from, or empty for the built-in one."""
