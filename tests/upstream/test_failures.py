"""Foreign errors of connecting → the closed list. Nothing falls through, and no address is told."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest

from sidecar.core.enums import FailureKind
from sidecar.upstream.address_guard import Forbidden
from sidecar.upstream.errors import NotConnected, from_exception
from tests.core.making import short


def tls(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, "[SSL] something")
    error.reason = reason
    return error


def refused_certificate() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "self-signed certificate"
    return error


TABLE = [
    (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), FailureKind.RESOLVE, "does not resolve"),
    (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), FailureKind.RESOLVE, "does not resolve"),
    (UnicodeError("label too long"), FailureKind.RESOLVE, "not a host name"),
    (UnicodeEncodeError("idna", "ü", 0, 1, "no"), FailureKind.RESOLVE, "not a host name"),
    (TimeoutError(), FailureKind.CONNECT_TIMEOUT, "in time"),
    (OSError(errno.ETIMEDOUT, "timed out"), FailureKind.CONNECT_TIMEOUT, "in time"),
    (ConnectionRefusedError(errno.ECONNREFUSED, "x"), FailureKind.REFUSED, "refused"),
    (OSError(errno.ECONNREFUSED, "Multiple exceptions: 1.2.3.4"), FailureKind.REFUSED, "refused"),
    (OSError(errno.EHOSTUNREACH, "to 1.2.3.4"), FailureKind.UNREACHABLE, "EHOSTUNREACH"),
    (OSError(errno.ENETUNREACH, "to 1.2.3.4"), FailureKind.UNREACHABLE, "ENETUNREACH"),
    (OSError(errno.EMFILE, "Too many open files"), FailureKind.UNREACHABLE, "EMFILE"),
    (OSError("Multiple exceptions: 1.2.3.4, ::1"), FailureKind.UNREACHABLE, "unreachable"),
    (OSError(99999, "1.2.3.4"), FailureKind.UNREACHABLE, "unreachable"),
    (ConnectionResetError(errno.ECONNRESET, "1.2.3.4"), FailureKind.UNREACHABLE, "ECONNRESET"),
    (tls("WRONG_VERSION_NUMBER"), FailureKind.TLS, "WRONG_VERSION_NUMBER"),
    (tls(""), FailureKind.TLS, "protocol error"),
    (ssl.SSLEOFError(8, "EOF"), FailureKind.TLS, "TLS handshake failed"),
    (refused_certificate(), FailureKind.TLS, "self-signed certificate"),
]


@pytest.mark.parametrize(("error", "kind", "words"), TABLE, ids=short)
def test_an_error_becomes_a_word(error: BaseException, kind: FailureKind, words: str) -> None:
    found = from_exception(error)
    assert found.kind is kind
    assert words in found.detail
    assert "1.2.3.4" not in found.detail


def test_only_a_refused_certificate_is_told_as_one() -> None:
    assert [error for error, _, _ in TABLE if from_exception(error).certificate] == [TABLE[-1][0]]


def test_what_is_translated_already_stays_as_it_is() -> None:
    for error in (NotConnected(FailureKind.CLOSED, "shutting down"), Forbidden("never dialled")):
        assert from_exception(error) is error


@pytest.mark.parametrize("error", [KeyError("x"), ZeroDivisionError(), RuntimeError("x")], ids=short)
def test_a_mistake_of_ours_is_not_taken_for_a_failure(error: Exception) -> None:
    with pytest.raises(type(error)):
        from_exception(error)
