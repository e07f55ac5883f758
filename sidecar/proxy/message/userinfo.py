"""Credentials in a URL (``http://user:password@host/``) → ``Authorization``: out of the target, never into a log.

RFC 9110 section 4.2.4 deprecates them in URLs; clients that are handed such a URL mean Basic (RFC 7617).
"""

from __future__ import annotations

import base64
from typing import Final
from urllib.parse import unquote_to_bytes

from multidict import CIMultiDict, CIMultiDictProxy

from sidecar.wire.heads import RequestMessage, altered

__all__ = ["moved"]

_AUTHORIZATION: Final = "Authorization"


def moved(message: RequestMessage, target: str, user_info: str) -> RequestMessage:
    """The head with the credentials of its target in a field; everything else as it was."""
    if not user_info or _AUTHORIZATION in message.headers:
        return altered(message, path=target)
    value = _basic(user_info)
    headers = CIMultiDict(message.headers)
    headers[_AUTHORIZATION] = value.decode("ascii")
    raw_headers = (*message.raw_headers, (_AUTHORIZATION.encode("ascii"), value))
    return altered(message, path=target, headers=CIMultiDictProxy(headers), raw_headers=raw_headers)


def _basic(user_info: str) -> bytes:
    plain = unquote_to_bytes(user_info)
    return b"Basic " + base64.b64encode(plain if b":" in plain else plain + b":")
