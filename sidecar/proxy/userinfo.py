"""Credentials in a URL (``http://user:password@host/``) → ``Authorization``: out of the target, never into a log.

RFC 9110 section 4.2.4 deprecates them in URLs; clients that are handed such a URL mean Basic (RFC 7617).
"""

from __future__ import annotations

import base64
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from multidict import CIMultiDict

from sidecar.wire.heads import RequestMessage

__all__ = ["Moved"]

_AUTHORIZATION: Final = "Authorization"


class Moved:
    """A request head with the credentials of its target in a field; everything else as it was."""

    __slots__ = ("_message", "headers", "path", "raw_headers")

    def __init__(self, message: RequestMessage, target: str, user_info: str) -> None:
        self._message = message
        self.path = target
        self.headers: Any = message.headers
        self.raw_headers = message.raw_headers
        if user_info and _AUTHORIZATION not in message.headers:
            value = _basic(user_info)
            self.headers = CIMultiDict(message.headers)
            self.headers[_AUTHORIZATION] = value.decode("ascii")
            self.raw_headers = (*message.raw_headers, (_AUTHORIZATION.encode("ascii"), value))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)


def _basic(user_info: str) -> bytes:
    plain = unquote_to_bytes(user_info)
    return b"Basic " + base64.b64encode(plain if b":" in plain else plain + b":")
