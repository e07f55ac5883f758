"""Which names stand for a secret, and which part of a URL may be one: for reports, commands and captured requests.

A name is judged by its parts, so that ``Ocp-Apim-Subscription-Key``, ``accessKey`` and ``db_pwd`` are found without
being listed. In doubt a value is hidden. It shows nothing itself. Counterparts: ``observe.redact``, and ``config``,
which refuses a secret that is written out.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["HIDDEN", "bare_urls", "is_secret_name"]

HIDDEN: Final = "[redacted]"

_PARTS: Final = frozenset(
    [
        "apikey",
        "assertion",
        "auth",
        "authentication",
        "authorization",
        "cookie",
        "cookie2",
        "credential",
        "credentials",
        "creds",
        "csrf",
        "cvc",
        "cvv",
        "hmac",
        "jwt",
        "key",
        "otp",
        "pass",
        "passcode",
        "passphrase",
        "passwd",
        "password",
        "pat",
        "pin",
        "pwd",
        "sas",
        "secret",
        "session",
        "sid",
        "sig",
        "signature",
        "token",
        "unseal",
        "xsrf",
    ]
)
"""Parts of a name that stand for a secret."""
_ENDS: Final = (
    "cookie",
    "credential",
    "credentials",
    "jwt",
    "key",
    "passwd",
    "password",
    "pwd",
    "secret",
    "session",
    "sessionid",
    "token",
)
"""Ends of a name without separators: ``authtoken``, ``phpsessionid``."""
_HARMLESS: Final = frozenset(["cache", "idempotency", "monkey", "surrogate", "turkey", "websocket"])
"""A key with one of these parts is no secret: it distinguishes requests, or names what is stored."""

_PART: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+[0-9]*")
_QUERY: Final = re.compile(r"(?<=[\w/.~%-])[?#][^\s\"'<>]+")
_USER_INFO: Final = re.compile(r"(?<=://)[^\s/?#\"'<>@]*@")


def is_secret_name(name: str) -> bool:
    """Whether a field, parameter or member of that name carries a secret."""
    parts = [part.lower() for part in _PART.findall(name)]
    if not _HARMLESS.isdisjoint(parts):
        return False
    whole = "".join(parts)
    return not _PARTS.isdisjoint(parts) or whole.endswith(_ENDS) or "cardnumber" in whole


def bare_urls(text: str) -> str:
    """The text with user-info in URLs removed and everything behind ``?`` or ``#`` hidden."""
    return _USER_INFO.sub("", _QUERY.sub(lambda match: match[0][0] + HIDDEN, text))
