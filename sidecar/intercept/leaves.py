"""Server-side TLS for one host at a time: its certificate made when first asked for, kept in memory, never on disk."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sidecar.intercept.authority import LEAF_LIFE, Authority

__all__ = ["Leaves"]

REMEMBERED = 1000


class Leaves:
    """Contexts by host. They share one key, made with this object and kept in memory only."""

    def __init__(self, authority: Authority, wall: Callable[[], float]) -> None:
        self._authority = authority
        self._wall = wall
        """Seconds since the epoch."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._private = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._known: OrderedDict[str, tuple[float, ssl.SSLContext]] = OrderedDict()

    def context(self, host: str) -> ssl.SSLContext:
        """For a handshake as ``host``: a name or an address, without brackets and port."""
        now = self._wall()
        known = self._known.get(host)
        if known is not None and now < known[0]:
            return known[1]
        context = self._make(host, now)
        self._known[host] = (now + LEAF_LIFE.total_seconds() / 2, context)
        self._known.move_to_end(host)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return context

    def _make(self, host: str, now: float) -> ssl.SSLContext:
        certificate = self._authority.leaf(host, self._key.public_key(), datetime.fromtimestamp(now, UTC))
        chain = certificate.public_bytes(serialization.Encoding.PEM)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        _load(context, self._private + chain)
        return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """``ssl`` reads keys from files only: from one in memory where the system has such, else from a private one."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("leaf", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
