"""The nouns of the sidecar as a proxy: who may use it, where tunnels may lead, and its own way out.

Frozen; made by ``sidecar.config``, judged by ``proxy.admission`` and ``upstream.wayout``. Secrets in them are never
shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Access", "Outbound", "OutboundProxy", "TunnelRule"]


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use the forward side (absolute-form and CONNECT), and for which hosts that no upstream names."""

    credential: str | None = field(default=None, repr=False)
    """``user:password``, as ``Proxy-Authorization: Basic`` must carry it; None: nobody is asked."""
    destinations: tuple[str, ...] | None = None
    """``name``, ``*.name`` (and everything below), each with an optional port; None: every host."""


@dataclass(frozen=True, slots=True)
class TunnelRule:
    """Where CONNECT may lead."""

    ports: frozenset[int] = frozenset({443})
    hosts: tuple[str, ...] | None = None
    """As ``Access.destinations``; None: wherever other requests may go. Empty: no tunnels."""
    idle_seconds: float = 3600.0
    """Without a byte either way, after which a tunnel, or an upgraded connection, is ended."""


@dataclass(frozen=True, slots=True)
class OutboundProxy:
    """A proxy that the sidecar itself goes out through."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)
    """The value of ``Proxy-Authorization`` for it; empty: none."""


@dataclass(frozen=True, slots=True)
class Outbound:
    """The ways out."""

    default: OutboundProxy | None = None
    no_proxy: tuple[str, ...] = ()
    """Hosts that the default does not hold for: names (with everything below), addresses, networks, ``*``."""
    by_upstream: tuple[tuple[str, OutboundProxy | None], ...] = ()
    """An upstream's own way, by its name; None: direct."""
