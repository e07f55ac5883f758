"""Which addresses may be dialled: checked after name resolution, on the very addresses that are dialled (against DNS
rebinding).

Always refused: link-local and cloud metadata addresses, and this sidecar's own ports. Where other machines can reach
the data plane (``listen`` is not loopback), loopback and the machine's own addresses are refused as well, unless they
are a configured upstream's. IPv4 addresses inside IPv6 ones are unwrapped and checked too. It resolves nothing and
dials nothing. Counterpart: ``dialer``.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator

from sidecar.core.enums import FailureKind
from sidecar.upstream.errors import NotConnected

__all__ = ["AddressGuard", "Forbidden", "is_loopback", "is_own", "literal_address"]

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

METADATA = frozenset(
    map(
        ipaddress.ip_address,
        (
            "100.100.100.200",  # Alibaba Cloud
            "168.63.129.16",  # Azure's wire server
            "fd00:ec2::254",  # AWS over IPv6
            "fd20:ce::254",  # Google Cloud over IPv6
        ),
    )
)
"""Metadata services outside of the link-local ranges (169.254.169.254 is inside)."""
METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "instance-data.ec2.internal"})
"""Names that are refused where an outbound proxy resolves them."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052 section 2.1."""
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
"""RFC 8215. The IPv4 address stands in the last 32 bits, or around bit 64 (RFC 6052 section 2.2)."""
_TRANSLATED = ipaddress.IPv6Network("::ffff:0:0:0/96")
"""RFC 7915 (SIIT)."""
_COMPATIBLE = ipaddress.IPv6Network("::/96")
"""IPv4-compatible, deprecated by RFC 4291 section 2.5.5.1."""
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"""RFC 5214 section 6.1: the upper half of the interface identifier."""


class Forbidden(NotConnected):
    """The address must not be dialled: the request is rejected, and not tried again."""

    def __init__(self, detail: str) -> None:
        super().__init__(FailureKind.UNREACHABLE, detail)


def is_own(address: str) -> bool:
    """Whether this machine has the address, as the kernel would route to it now. No packet is sent.

    Toward its own address a host sends from that same address; toward any other it cannot.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            source: str = probe.getsockname()[0]
    except OSError:
        return False
    return _plain(source) == _plain(address)


class AddressGuard:
    """The address rules of one sidecar. ``open_door`` and ``own_ports`` are set once the ports are bound."""

    def __init__(self, has_address: Callable[[str], bool] = is_own) -> None:
        self.has_address = has_address
        self.open_door = False
        """Whether other machines can reach the data plane."""
        self.own_ports: set[int] = set()
        """Ports that this process listens on itself."""

    def check(self, address: str, port: int, *, configured: bool) -> None:
        """Raises ``Forbidden`` if an address, as resolved, is never dialled. ``configured``: an upstream names it."""
        for form in _forms(_plain(address)):
            self._check_form(form, port, configured=configured)

    def _check_form(self, ip: IpAddress, port: int, *, configured: bool) -> None:
        if ip.is_link_local or ip in METADATA:
            raise Forbidden("link-local and metadata addresses are never dialled")
        if ip.is_multicast or ip == _BROADCAST:
            raise Forbidden("that is not the address of one host")
        ours = port in self.own_ports
        if not ours and (configured or not self.open_door):
            return
        if ip.is_loopback or ip.is_unspecified or self.has_address(str(ip)):
            if ours:
                raise Forbidden("that is this sidecar's own port")
            raise Forbidden("this machine's own addresses are not dialled for others")

    def check_name(self, host: str, port: int, *, configured: bool) -> None:
        """As ``check``, for a host that an outbound proxy resolves: only its name and a literal address can be
        checked.
        """
        name = host.rstrip(".").lower()
        if name in METADATA_NAMES:
            raise Forbidden("link-local and metadata addresses are never dialled")
        if name == "localhost" or name.endswith(".localhost"):
            self.check("127.0.0.1", port, configured=configured)
        address = literal_address(host)
        if address is not None:
            self.check(address, port, configured=configured)


_BROADCAST = ipaddress.IPv4Address("255.255.255.255")


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address (wrapped forms included)."""
    return any(ip.is_loopback for ip in _forms(_plain(address)))


def literal_address(host: str) -> str | None:
    """The address that ``host`` is one way or another of writing (``127.1``, ``0x7f000001``, ``::1``), or None."""
    text = host.rstrip(".").partition("%")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(text)) if text and " " not in text else None
    except (OSError, ValueError):
        return None


def _plain(address: str) -> IpAddress:
    """Without the zone of a scoped IPv6 address (RFC 4007)."""
    return ipaddress.ip_address(address.partition("%")[0])


def _forms(ip: IpAddress) -> Iterator[IpAddress]:
    """The address, and every IPv4 address that it stands for or carries."""
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        yield ip.ipv4_mapped  # to the kernel it is that address
        return
    yield ip
    if isinstance(ip, ipaddress.IPv4Address):
        return
    if ip.sixtofour is not None:
        yield ip.sixtofour
    if ip.teredo is not None:
        yield from ip.teredo
    last = int(ip) & 0xFFFFFFFF
    carries = ip in _NAT64 or ip in _TRANSLATED or (ip in _COMPATIBLE and last > 0xFFFF)
    if carries or (int(ip) >> 32) & 0xFFFFFFFF in _ISATAP:
        yield ipaddress.IPv4Address(last)
    if ip in _LOCAL_NAT64:
        around = (int(ip) >> 48 & 0xFFFF0000) | (int(ip) >> 40 & 0xFFFF)
        # One of the two places is all zeros, unless the address is forged; then both are checked.
        yield from (ipaddress.IPv4Address(number) for number in {last, around} - {0} or {0})
