"""Foreign exceptions of connecting, translated once, by phase, into the closed list of failures.

Nothing that fails here was sent: not one byte of a request can have been written.
"""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Final

from sidecar.core.enums import FailureKind

__all__ = ["NotConnected", "from_exception"]


class NotConnected(Exception):
    """No connection was made. ``kind`` is the phase; the text names no address unless the operator wrote it."""

    def __init__(self, kind: FailureKind, detail: str, *, certificate: bool = False, lasting: bool = False) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.certificate = certificate
        """True if the upstream's certificate was refused (``tls_certificate_error`` of RFC 9209)."""
        self.lasting = lasting or certificate
        """True if the next attempt would fail in the same way."""


_NO_SUCH_NAME: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
"""Resolver errors that mean: the name has no address. EAI_AGAIN and EAI_FAIL are about the resolver itself."""


def from_exception(exc: BaseException) -> NotConnected:
    """Translate an exception of resolving, connecting or the TLS handshake."""
    if isinstance(exc, NotConnected):
        return exc
    if isinstance(exc, ssl.SSLCertVerificationError):
        # Both attributes exist only if OpenSSL itself made the exception.
        words = getattr(exc, "verify_message", None) or "it cannot be verified"
        return NotConnected(FailureKind.TLS, f"certificate refused: {words}", certificate=True)
    if isinstance(exc, ssl.SSLError):
        return NotConnected(
            FailureKind.TLS, f"TLS handshake failed: {getattr(exc, 'reason', None) or 'protocol error'}"
        )
    if isinstance(exc, socket.gaierror):
        if exc.errno in _NO_SUCH_NAME:
            return NotConnected(FailureKind.RESOLVE, "the name does not resolve: it does not exist", lasting=True)
        return NotConnected(FailureKind.RESOLVE, "the name does not resolve")
    if isinstance(exc, TimeoutError):
        return NotConnected(FailureKind.CONNECT_TIMEOUT, "no connection in time")
    if isinstance(exc, ConnectionRefusedError) or getattr(exc, "errno", None) == errno.ECONNREFUSED:
        return NotConnected(FailureKind.REFUSED, "connection refused")
    if isinstance(exc, UnicodeError):
        return NotConnected(FailureKind.RESOLVE, "the name is not a host name", lasting=True)
    if isinstance(exc, OSError):
        return NotConnected(FailureKind.UNREACHABLE, _words(exc))
    raise exc


def _words(exc: OSError) -> str:
    code = exc.errno
    return errno.errorcode.get(code, "unreachable") if code is not None else "unreachable"
