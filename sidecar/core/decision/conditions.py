"""Whether the conditions of a row hold for a request and its result.

A ``Look`` is made per decision and parses the body at most once. Whatever a peer sends, a condition is true or false,
never an exception: a body that is not JSON, a pointer that leads nowhere, a missing header make it false (and
``present: false`` true). Counterpart: ``rows``, the conditions themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_plus

from sidecar.core.decision.attempt import Attempt, Request
from sidecar.core.decision.rows import Condition

__all__ = ["LOOK_BYTES", "MISSING", "READABLE_CODINGS", "Look", "NumberText"]

LOOK_BYTES: Final = 64 << 10
"""Bytes of a body that a row may look at."""
READABLE_CODINGS: Final = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})
"""Content codings (RFC 9110 section 8.4.1) of the bodies that can be looked into."""


class NumberText(str):
    """A JSON number, kept as its text: a megabyte of digits costs nothing, and ``1.0`` stays ``1.0``."""

    __slots__ = ()


class Missing:
    """The value of a pointer that leads nowhere; JSON's own null is a value."""

    __slots__ = ()


MISSING: Final = Missing()


class Look:
    """The request and one attempt, as conditions and hints see them."""

    __slots__ = ("_json", "attempt", "request")

    def __init__(self, request: Request, attempt: Attempt) -> None:
        self.request = request
        self.attempt = attempt
        self._json: list[object] = []

    def all_hold(self, conditions: tuple[Condition, ...]) -> bool:
        """Whether every condition holds; true for none."""
        return all(self.holds(condition) for condition in conditions)

    def holds(self, condition: Condition) -> bool:
        """Whether the condition holds for any value at its place."""
        if condition.test == "present":
            return self._is_present(condition) is condition.present
        texts = self.texts(condition.place, condition.name)
        if condition.test == "matches":
            pattern = condition.pattern
            return pattern is not None and any(pattern.search(text) for text in texts)
        return any(text in condition.values for text in texts)

    def texts(self, place: str, name: str) -> list[str]:
        """Every text at the place: none, one, or several for repeated headers and query parameters."""
        request, attempt = self.request, self.attempt
        if place == "header":
            return attempt.headers.all(name)
        if place == "body":
            return [text for value in self.body_values(name) for text in scalar_texts(value)]
        if place == "body_text":
            return body_texts(attempt.body)
        if place == "request_header":
            return request.headers.all(name)
        if place == "query":
            return query_texts(request.query, name)
        return [request.method if place == "method" else request.path]

    def body_values(self, pointer: str) -> list[object]:
        """The JSON values that the pointer (RFC 6901; a step ``*`` is any) leads to."""
        if not self._json:
            self._json.append(parse_json(self.attempt.body))
        return resolve_all(self._json[0], pointer)

    def _is_present(self, condition: Condition) -> bool:
        if condition.place == "body":
            return bool(self.body_values(condition.name))
        texts = self.texts(condition.place, condition.name)
        if condition.place in ("header", "request_header"):
            # A field without a value counts as absent; some proxies blank a field instead of removing it.
            return any(text.strip(" \t") for text in texts)
        return bool(texts)


def parse_json(body: bytes | None) -> object:
    """The document (RFC 8259), numbers as text; ``MISSING`` if there is none or it is not JSON."""
    if not body:
        return MISSING
    try:
        return json.loads(
            body[:LOOK_BYTES].decode("utf-8-sig"),
            parse_int=NumberText,
            parse_float=NumberText,
            parse_constant=_refuse,
        )
    except (ValueError, RecursionError):  # RecursionError: 64 KiB of "[" is a legal beginning
        return MISSING


def _refuse(_: str) -> object:
    raise ValueError("NaN and Infinity are not JSON")


def resolve(document: object, pointer: str) -> object:
    """The first of ``resolve_all``; ``MISSING`` where the pointer leads nowhere."""
    return next(iter(resolve_all(document, pointer)), MISSING)


def resolve_all(document: object, pointer: str) -> list[object]:
    """Every value that an RFC 6901 pointer leads to, in order; a step ``*`` is any, as in ``report.redact``.

    Bounded by the document: every step goes one level deeper, so that no value is met twice.
    """
    steps = pointer_steps(pointer)
    found = [] if steps is None or document is MISSING else [document]
    for step in steps or ():
        found = [child for value in found for child in _children(value, step)]
    return found


def _children(value: object, step: str) -> Iterable[object]:
    if isinstance(value, dict):
        if step == "*":
            return value.values()
        return (value[step],) if step in value else ()
    if isinstance(value, list):
        return value if step == "*" else _element(value, step)
    return ()


@lru_cache(maxsize=1024)  # pointers come from the configuration alone, never from a peer
def pointer_steps(pointer: str) -> tuple[str, ...] | None:
    """The unescaped reference tokens of a pointer (RFC 6901 section 4), or None if it is not one."""
    if not pointer:
        return ()
    if not pointer.startswith("/"):
        return None
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer[1:].split("/"))


def _element(items: list[object], step: str) -> Iterable[object]:
    """The element at an array index: ASCII digits without a leading zero (RFC 6901 section 4)."""
    if len(step) > 9 or not (step.isascii() and step.isdigit()) or (step[0] == "0" and step != "0"):
        return ()
    index = int(step)
    return items[index : index + 1]


def scalar_texts(value: object) -> list[str]:
    """A string by its content, any other scalar by its JSON text, nothing for objects and arrays."""
    if isinstance(value, str):
        return [value]
    if value is None:
        return ["null"]
    if isinstance(value, bool):
        return ["true" if value else "false"]
    return []


def body_texts(body: bytes | None) -> list[str]:
    """The body as text. Not strict: a page in Latin-1, or one cut within a character, can still be searched."""
    return [body[:LOOK_BYTES].decode("utf-8", "replace")] if body else []


def query_texts(query: str, name: str) -> list[str]:
    """Every value of a query parameter, decoded; the whole query as it came if no name is given."""
    if not name:
        return [query] if query else []
    pairs = (pair.partition("=") for pair in query.split("&"))
    return [unquote_plus(value) for key, _, value in pairs if key == name or unquote_plus(key) == name]
