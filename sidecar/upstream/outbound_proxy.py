"""How a host is reached: direct, or through an outbound proxy. Decided by configuration alone, before resolving.

``no_proxy`` is read as curl and Go read it: a name stands for itself and everything below it, an address for itself, a
network (``10.0.0.0/8``) for its addresses, each with an optional port; ``*`` for all. Loopback always goes direct.
Counterpart: ``dialer``.
"""

from __future__ import annotations

import ipaddress

from sidecar.core.settings.gateway import Outbound, OutboundProxy

__all__ = ["OutboundProxies", "named"]


class OutboundProxies:
    """The outbound proxies of one deployment."""

    def __init__(self, outbound: Outbound) -> None:
        self._default = outbound.default
        self._no_proxy = tuple(entry.strip().lower() for entry in outbound.no_proxy if entry.strip())
        self._by_upstream = dict(outbound.by_upstream)

    def of_upstream(self, name: str, host: str, port: int) -> OutboundProxy | None:
        """The proxy of a configured upstream: its own if it has one, whatever ``no_proxy`` says."""
        if name in self._by_upstream:
            return self._by_upstream[name]
        return self.of_host(host, port)

    def of_host(self, host: str, port: int) -> OutboundProxy | None:
        """The proxy of any host; None: direct."""
        if self._default is None or self._goes_direct(host.rstrip(".").lower(), port):
            return None
        return self._default

    def _goes_direct(self, host: str, port: int) -> bool:
        address = _address(host)
        if host == "localhost" or (address is not None and address.is_loopback):
            return True
        return any(_matches(entry, host, port, address) for entry in self._no_proxy)


def named(pattern: str, host: str, port: int) -> bool:
    """Whether ``name`` or ``*.name``, either with a port, means this host (``*.``: everything below it)."""
    name, wanted = _split_port(pattern.lower())
    if wanted not in (0, port):
        return False
    host = host.rstrip(".").lower()
    return host.endswith(name[1:]) if name.startswith("*.") else name.strip("[]") == host


def _matches(entry: str, host: str, port: int, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        network = _network(entry)
        return address is not None and network is not None and address in network
    name, wanted = _split_port(entry)
    if wanted not in (0, port):
        return False
    name = name.removeprefix("*").strip("[]")
    if address is not None:
        return _address(name) == address
    return host == name.lstrip(".") or host.endswith("." + name.lstrip("."))


def _split_port(entry: str) -> tuple[str, int]:
    """Host and port; 0: no port is given. An IPv6 address with a port is in brackets."""
    name, colon, port = entry.rpartition(":")
    if colon and port.isdigit() and (name.endswith("]") or ":" not in name):
        return name, int(port)
    return entry, 0


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
