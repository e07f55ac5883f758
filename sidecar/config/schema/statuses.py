"""What a row matches: sets of statuses and of failures, read from their short forms and written back as short.

``5xx``, ``500-504``, a code, a list of these, ``any``. Used by ``row``.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import PlainSerializer, WithJsonSchema, WrapValidator

from sidecar.config.schema.fields import clip, kind_of, refuse
from sidecar.config.text.problems import Code, nearest
from sidecar.core.enums import FailureKind

__all__ = ["ANY_STATUS", "FailureSet", "StatusSet"]

ANY_STATUS = frozenset(range(100, 1000))
"""Three digits (RFC 9110 section 15)."""

_STATUS_CLASS = re.compile(r"([1-9])xx", re.ASCII)
_STATUS_RANGE = re.compile(r"([1-9][0-9]{2})-([1-9][0-9]{2})", re.ASCII)


def _read_statuses(value: object) -> frozenset[int]:
    items = value if isinstance(value, list) else [value]
    if not items:
        raise refuse(Code.BAD_VALUE, "an empty list matches nothing", "name at least one status, or `any`")
    return frozenset().union(*(_read_status(item) for item in items))


def _read_status(value: object) -> frozenset[int]:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise refuse(Code.WRONG_TYPE, f"must be a status, not {kind_of(value)}", _STATUS_FORMS)
    text = str(value)
    if text == "any":
        return ANY_STATUS
    if match := _STATUS_CLASS.fullmatch(text):
        first = int(match[1]) * 100
        return frozenset(range(first, first + 100))
    if match := _STATUS_RANGE.fullmatch(text):
        return _read_range(text, int(match[1]), int(match[2]))
    if text.isascii() and text.isdigit() and int(text[:9]) in ANY_STATUS and len(text) == 3:
        return frozenset({int(text)})
    raise refuse(Code.BAD_VALUE, f"`{clip(text)}` is not a status", _STATUS_FORMS)


def _read_range(text: str, first: int, last: int) -> frozenset[int]:
    if first > last:
        raise refuse(Code.BAD_VALUE, f"the range `{text}` is empty", f"write `{last}-{first}`")
    return frozenset(range(first, last + 1))


_STATUS_FORMS = "a code from 100 to 999, a list of them, `5xx`, `500-504` or `any`"
_STATUS_ITEM: dict[str, Any] = {
    "anyOf": [
        {"type": "integer", "minimum": 100, "maximum": 999},
        {"type": "string", "pattern": "^([1-9]xx|[1-9][0-9]{2}(-[1-9][0-9]{2})?|any)$"},
    ]
}


def _write_statuses(statuses: frozenset[int] | None) -> object:
    """As short as it can be written: ``5xx``, ``500-504``, a code, or a list of these."""
    if statuses is None or statuses == ANY_STATUS:
        return statuses and "any"
    runs: list[list[int]] = []
    for status in sorted(statuses):
        if runs and status == runs[-1][1] + 1 and status % 100:
            runs[-1][1] = status
        else:
            runs.append([status, status])
    items = [_write_run(first, last) for first, last in runs]
    return items[0] if len(items) == 1 else items


def _write_run(first: int, last: int) -> int | str:
    if first == last:
        return first
    return f"{first // 100}xx" if last - first == 99 else f"{first}-{last}"


def _write_failures(kinds: frozenset[FailureKind] | None) -> object:
    if kinds is None or kinds == frozenset(FailureKind):
        return kinds and "any"
    words = [kind.value for kind in FailureKind if kind in kinds]
    return words[0] if len(words) == 1 else words


StatusSet = Annotated[
    frozenset[int],
    WrapValidator(lambda value, _handler: _read_statuses(value)),
    PlainSerializer(_write_statuses),
    WithJsonSchema({"anyOf": [*_STATUS_ITEM["anyOf"], {"type": "array", "minItems": 1, "items": _STATUS_ITEM}]}),
]


def _read_failures(value: object) -> frozenset[FailureKind]:
    items = value if isinstance(value, list) else [value]
    if not items:
        raise refuse(Code.BAD_VALUE, "an empty list matches nothing", "name at least one failure, or `any`")
    return frozenset().union(*(_read_failure(item) for item in items))


def _read_failure(value: object) -> frozenset[FailureKind]:
    known = [kind.value for kind in FailureKind]
    if not isinstance(value, str):
        raise refuse(Code.WRONG_TYPE, f"must be a failure, not {kind_of(value)}", f"one of {', '.join(known)}")
    if value == "any":
        return frozenset(FailureKind)
    if value not in known:
        raise refuse(Code.UNKNOWN_WORD, f"`{clip(value)}` is not a failure", nearest(value, [*known, "any"]))
    return frozenset({FailureKind(value)})


_FAILURE_ITEM: dict[str, Any] = {"enum": [*(kind.value for kind in FailureKind), "any"]}
FailureSet = Annotated[
    frozenset[FailureKind],
    WrapValidator(lambda value, _handler: _read_failures(value)),
    PlainSerializer(_write_failures),
    WithJsonSchema({"anyOf": [_FAILURE_ITEM, {"type": "array", "minItems": 1, "items": _FAILURE_ITEM}]}),
]
