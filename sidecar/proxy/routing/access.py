"""Which clients may use the forward side, and which hosts may be asked for: by the configuration, before anything is
resolved.

Base URLs (origin-form targets) lead to configured upstreams only and are not checked here. Counterpart:
``upstream.address_guard``, which checks addresses after resolution.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Final

from sidecar.core.settings.deployment import Deployment
from sidecar.proxy.message.errors import Refused
from sidecar.upstream.outbound_proxy import named
from sidecar.wire.heads import RequestMessage

__all__ = ["Admission", "admit"]

CHALLENGE: Final = b'Proxy-Authenticate: Basic realm="sidecar", charset="UTF-8"\r\n'
"""The challenge of a 407 (RFC 9110 section 11.7.1, RFC 7617)."""


def admit(message: RequestMessage, credential: bytes) -> None:
    """Raises ``Refused`` (407) unless a request in absolute-form or a CONNECT carries the credential."""
    if message.path[:1] == "/":
        return
    values = message.headers.getall("Proxy-Authorization", ())
    if len(values) == 1 and hmac.compare_digest(_basic(values[0]), credential):
        return
    text = "the credential is not the right one" if values else "this proxy wants a credential"
    raise Refused(407, "credential", f"{text}: http://USER:PASSWORD@HOST:PORT in HTTP_PROXY", CHALLENGE)


def _basic(value: str) -> bytes:
    """User and password of ``Basic …`` (RFC 7617), or nothing."""
    scheme, _, encoded = value.partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""


class Admission:
    """The rules of one deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._refuses_unknown = deployment.unknown_hosts == "refuse"
        self._destinations = deployment.access.destinations
        self._tunnels = deployment.tunnels

    def check_host(self, host: str, port: int) -> None:
        """Check a host that no upstream names. Raises ``Refused`` (403)."""
        if self._refuses_unknown:
            raise Refused(403, "host", "this host is not configured, and unknown_hosts is refuse")
        allowed = self._destinations
        if allowed is not None and not any(named(pattern, host, port) for pattern in allowed):
            raise Refused(403, "host", "this host is not among the destinations that access allows")

    def check_tunnel(self, host: str, port: int) -> None:
        """Check the host and port of a CONNECT. Raises ``Refused`` (403)."""
        if port not in self._tunnels.ports:
            raise Refused(403, "tunnel_port", f"tunnels: {{ports: …}} does not name port {port}")
        allowed = self._tunnels.hosts
        if allowed is not None and not any(named(pattern, host, port) for pattern in allowed):
            raise Refused(403, "tunnel_host", "tunnels: {hosts: …} does not name this host")
