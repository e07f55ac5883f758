"""What is deployed, as frozen values: listeners, upstreams, routes. Made by ``sidecar.config``.

A reload makes a new ``Deployment``; running exchanges keep the one that they began with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Literal

from sidecar.core.decision.policy import Policy
from sidecar.core.settings.gateway import Access, Outbound, OutboundProxy, TunnelRule
from sidecar.core.settings.path_index import PathIndex

__all__ = [
    "RESTART_SETTINGS",
    "Address",
    "Deployment",
    "Intercept",
    "Limits",
    "Logging",
    "Login",
    "Origin",
    "OutboxRule",
    "Reference",
    "Route",
    "SharedRule",
    "Upstream",
]

RESTART_SETTINGS: Final = ("listen", "admin", "log", "outbox", "shared")
"""Settings that are read once, when the sidecar starts."""


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Origin:
    """The real scheme, host and port of an upstream."""

    scheme: Literal["http", "https"]
    host: str
    """As dialled and as verified; an IPv6 address without brackets."""
    port: int
    base_path: str = ""
    """Prefixed to every path; no slash at its end."""
    ca_file: str | None = None
    """PEM file of certificates to trust in place of the system's. Verification cannot be turned off."""
    trust: str | None = field(default=None, repr=False)
    """The content of ``ca_file`` when the configuration was read: part of the identity, for files rotated in place."""
    proxy: OutboundProxy | None = None
    """The proxy that it is reached through; None: direct."""

    @property
    def authority(self) -> str:
        """The value of ``Host``: with the port only where it is not the scheme's own (RFC 9110 section 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference to a secret; the secret itself is read at each use and kept nowhere."""

    kind: Literal["env", "file"]
    name: str
    """Name of the variable, or path of the file."""


@dataclass(frozen=True, slots=True)
class Login:
    """How a token is obtained, and put on requests: for rows that say ``then: login``."""

    origin: Origin
    target: str
    """The request target of the login; the origin's base path is not prefixed."""
    method: str
    body: object = field(hash=False)
    """A JSON template; every ``Reference`` in it stands for a secret."""
    encoding: Literal["json", "form"]
    token: str
    """JSON pointer (RFC 6901) to the token in the response."""
    expires_in: str | None = None
    """JSON pointer to the token's life in seconds; None: unknown, renewed only when it is refused."""
    header: str = "Authorization"
    scheme: str = "Bearer"
    replace: bool = False
    """True: in place of what the app sent; False: only where it sent no such header."""
    timeout_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Route:
    """The policy of some requests of an upstream; the first route that matches wins."""

    policy: Policy
    methods: frozenset[str] = frozenset()
    """Methods of the route; empty: any."""
    path: str = "/**"
    """As written: ``*`` is one segment, ``**`` any number."""
    pattern: re.Pattern[str] = re.compile("")
    """``path`` compiled; matched in full against the path after the mount."""
    store_first: bool = False
    """Whether its requests are stored instead of sent while the app waits (``store: always``)."""


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
    """The ``Host`` sent to the upstream: the origin's, or the app's own."""
    connections: int = 1000
    """Connections at once, at most; further attempts wait for one."""
    login: Login | None = None
    shadow: Policy | None = None
    """A second policy that judges every answer as well, and acts on nothing."""

    def route_of(self, method: str, path: str) -> Route | None:
        """The first route that takes such a request; ``path`` is after the mount, without the query. None: no route."""
        return PathIndex((route.methods, route.path, route.pattern, route) for route in self.routes).first(method, path)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the app's side: what one connection may cost us."""

    head_bytes: int = 64 << 10
    headers: int = 200
    head_seconds: float = 30.0
    idle_seconds: float = 3600.0
    """Seconds between two requests on one connection: longer than any app's own limit, so that the app closes first."""
    drain_seconds: float = 25.0
    connections: int = 20_000


@dataclass(frozen=True, slots=True)
class Logging:
    format: Literal["auto", "pretty", "json"] = "auto"
    sample: float = 0.01
    """Share of uneventful exchanges that are logged; retried, failed and slow ones always are."""
    slow_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class OutboxRule:
    """The outbox: where stored requests are kept, and how many."""

    file: str
    max_bytes: int = 256 << 20
    """Bytes of everything in it, dead letters included."""
    max_count: int = 100_000
    max_age_seconds: float = 72 * 3600.0
    """Seconds after which an undelivered request becomes a dead letter."""


@dataclass(frozen=True, slots=True)
class Intercept:
    """Which tunnels are intercepted, so that the requests inside are retried as well."""

    hosts: tuple[str, ...]
    """Hosts in lower case; with a port where it is not 443."""
    folder: str
    """The folder of the authority's certificate and key."""


@dataclass(frozen=True, slots=True)
class SharedRule:
    """The Redis or Valkey through which replicas share what they learn."""

    host: str
    port: int = 6379
    database: int = 0
    tls: bool = False
    """Whether TLS is used; certificates are always verified."""
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def place(self) -> str:
        """The address for the log, without secrets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' if self.tls else ''}://{host}:{self.port}/{self.database}"


@dataclass(frozen=True, slots=True)
class Deployment:
    listen: Address
    admin: Address
    upstreams: tuple[Upstream, ...]
    default_policy: Policy
    """The policy of unknown hosts, where they are passed on."""
    unknown_hosts: Literal["pass", "refuse"] = "pass"
    limits: Limits = Limits()
    logging: Logging = Logging()
    outbox: OutboxRule | None = None
    intercept: Intercept | None = None
    shared: SharedRule | None = None
    access: Access = Access()
    tunnels: TunnelRule = TunnelRule()
    outbound: Outbound = Outbound()
    source: str = ""
    """The file that it was read from; empty for the built-in configuration."""

    def needs_restart(self, new: Deployment) -> tuple[str, ...]:
        """The settings that differ in ``new``, and that a running sidecar does not take over."""
        differs = {
            "listen": self.listen != new.listen,
            "admin": self.admin != new.admin,
            "log": self.logging != new.logging,
            "outbox": self.outbox != new.outbox,
            "shared": self.shared != new.shared,
        }
        return tuple(name for name in RESTART_SETTINGS if differs[name])
