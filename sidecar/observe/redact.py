"""What must never be kept or shown of a request or a response: credentials, cookies, and what the policy names.

Redaction comes before keeping. A body that cannot be searched is not kept. It keeps nothing itself. Counterpart:
``reports``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qsl, urlencode

import orjson

from sidecar.core.decision.conditions import pointer_steps
from sidecar.core.secret_names import HIDDEN, bare_urls, is_secret_name

__all__ = ["HIDDEN", "redacted_body", "redacted_field", "redacted_fields"]

BODY_BYTES: Final = 256 << 10
"""Bytes; a larger body is not kept."""

_BEARER: Final = re.compile(r"\b(Bearer|Basic|Token)\s+[A-Za-z0-9._~+/=-]{4,}", re.I)
_URL_FIELDS: Final = frozenset(
    {"location", "content-location", "referer", "link", "refresh", "destination", "x-original-url", "x-forwarded-uri"}
)
"""Fields whose value is, or holds, a reference that may be relative."""
_DEEPEST: Final = 200


def redacted_field(name: str, value: str) -> str:
    """The value of a header field, or a word in its place."""
    return HIDDEN if is_secret_name(name) else _shown(value, holds_url=name.lower() in _URL_FIELDS)


def _shown(text: str, *, holds_url: bool = False) -> str:
    """The text without secrets that show by their form: credentials of a scheme, and what a URL carries besides its
    path.
    """
    text = _BEARER.sub(lambda match: f"{match[1]} {HIDDEN}", text)
    return bare_urls(text) if holds_url or "://" in text else text


def redacted_fields(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """A whole head, as text."""
    texts = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in fields)
    return [(name, redacted_field(name, value)) for name, value in texts]


def redacted_body(body: bytes, media_type: str, pointers: tuple[str, ...]) -> tuple[object, str]:
    """The body without its secrets, and a remark if it was not kept or not kept whole.

    JSON comes back as a document, a form and other text as text. ``pointers``: RFC 6901; a step ``*`` is any.
    """
    if not body:
        return None, ""
    if len(body) > BODY_BYTES:
        return None, f"not kept: {len(body)} bytes are too many"
    kind = media_type.partition(";")[0].strip().lower()
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    else:
        return _json(document, pointers), ""
    if kind == "application/x-www-form-urlencoded":
        return _form(body), ""
    if "json" in kind or pointers:
        return None, "not kept: it is not JSON, so that what must not be kept could not be found in it"
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return None, f"not kept: {len(body)} bytes that are not text"
    return _shown(text), ""


def _form(body: bytes) -> str:
    pairs = parse_qsl(body.decode("latin-1"), keep_blank_values=True, max_num_fields=None)
    return urlencode([(name, HIDDEN if is_secret_name(name) else _shown(value)) for name, value in pairs])


def _json(document: object, pointers: tuple[str, ...]) -> object:
    for pointer in pointers:
        steps = pointer_steps(pointer)
        if steps is not None:
            document = _without(document, steps)
    return _named(document, 0)


def _without(value: object, steps: tuple[str, ...]) -> object:
    if not steps:
        return HIDDEN
    step, rest = steps[0], steps[1:]
    if isinstance(value, dict):
        return {key: _without(item, rest) if step in ("*", key) else item for key, item in value.items()}
    if isinstance(value, list):
        return [_without(item, rest) if step in ("*", str(index)) else item for index, item in enumerate(value)]
    return value


def _named(value: object, depth: int) -> object:
    """Hides every value under a name that stands for a secret, at any depth."""
    if depth > _DEEPEST:
        return HIDDEN
    if isinstance(value, dict):
        return {k: HIDDEN if is_secret_name(k) else _named(item, depth + 1) for k, item in value.items()}
    if isinstance(value, list):
        return [_named(item, depth + 1) for item in value]
    return _shown(value) if isinstance(value, str) else value
