"""The sidecar as a proxy, as frozen values: which clients may use it, where tunnels may lead, and its outbound proxies.

Made by ``sidecar.config``, applied by ``proxy.routing.access`` and ``upstream.outbound_proxy``. Secrets in them are
never shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Access", "Outbound", "OutboundProxy", "TunnelRule"]


@dataclass(frozen=True, slots=True)
class Access:
    """Which clients may use the forward side (absolute-form and CONNECT), and for which hosts that no upstream
    names.
    """

    credential: str | None = field(default=None, repr=False)
    """``user:password``, as ``Proxy-Authorization: Basic`` must carry it; None: no credential is required."""
    destinations: tuple[str, ...] | None = None
    """``name``, ``*.name`` (and everything below), each with an optional port; None: every host."""


@dataclass(frozen=True, slots=True)
class TunnelRule:
    """Where CONNECT may lead."""

    ports: frozenset[int] = frozenset({443})
    hosts: tuple[str, ...] | None = None
    """As ``Access.destinations``; None: the same hosts as other requests. Empty: no tunnels."""
    idle_seconds: float = 3600.0
    """Seconds without a byte either way, after which a tunnel, or an upgraded connection, is ended."""


@dataclass(frozen=True, slots=True)
class OutboundProxy:
    """A proxy that the sidecar itself uses toward upstreams."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)
    """The value of ``Proxy-Authorization`` for it; empty: none."""


@dataclass(frozen=True, slots=True)
class Outbound:
    """The outbound proxies of a deployment."""

    default: OutboundProxy | None = None
    no_proxy: tuple[str, ...] = ()
    """Hosts that the default proxy is not used for: names (with everything below), addresses, networks, ``*``."""
    by_upstream: tuple[tuple[str, OutboundProxy | None], ...] = ()
    """Name of an upstream → its own outbound proxy; None: direct."""
