"""``shared``: the Redis or Valkey through which replicas share what they learn. A URL, or where one stands.

A password is a secret: a URL with one is named, not written (``env:NAME``, ``file:PATH``).
"""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import unquote, urlsplit

from pydantic import BeforeValidator, WithJsonSchema

from sidecar.config.schema.fields import clip, kind_of, refuse
from sidecar.config.schema.secrets import Reader, split_reference
from sidecar.config.text.document import Mark
from sidecar.config.text.problems import Code
from sidecar.core.settings.deployment import SharedRule

__all__ = ["SharedUrl", "shared_rule"]

SCHEMES: Final = {"redis": False, "rediss": True}
MOST_DATABASES: Final = 1_000_000
FORM: Final = "write `redis://HOST:PORT` or `redis://HOST:PORT/DATABASE` (`rediss://` for TLS)"


def _read_url(value: object) -> str:
    if not isinstance(value, str):
        raise refuse(Code.WRONG_TYPE, f"{kind_of(value)} is no URL", FORM)
    if split_reference(value) is not None:
        return value
    if "@" in value:
        raise refuse(
            Code.BAD_VALUE,
            "the password of a store is a secret, which must not stand in this file",
            "put the whole URL into a variable or a file, and write `env:NAME` or `file:PATH`",
        )
    if _parse(value) is None:
        raise refuse(Code.BAD_VALUE, f"`{clip(value)}` is not the URL of a Redis or Valkey", FORM)
    return value


SharedUrl = Annotated[
    str,
    BeforeValidator(_read_url),
    WithJsonSchema(
        {"type": "string", "pattern": "^(rediss?://|env:|file:)", "title": "URL, `env:NAME` or `file:PATH`"}
    ),
]


def shared_rule(text: str | None, mark: Mark | None, reader: Reader) -> SharedRule | None:
    """The store; None, and perhaps a problem, where there is none."""
    url = None if text is None else reader.read(text, mark)
    if url is None:
        return None
    rule = _parse(url)
    if rule is None:  # The text may hold a password: only its place is named.
        reader.tell(mark, Code.BAD_VALUE, f"what `{text}` holds is not the URL of a Redis or Valkey", FORM)
    return rule


def _parse(url: str) -> SharedRule | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    database = parts.path.strip("/") or "0"
    is_plain = url.isprintable() and " " not in url and not parts.query and not parts.fragment
    if parts.scheme not in SCHEMES or not parts.hostname or port == 0 or not is_plain:
        return None
    if not (database.isascii() and database.isdigit() and int(database[:9]) < MOST_DATABASES):
        return None
    return SharedRule(
        parts.hostname,
        port or 6379,
        int(database[:9]),
        SCHEMES[parts.scheme],
        unquote(parts.username or ""),
        unquote(parts.password or ""),
    )
