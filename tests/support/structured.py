"""Structured fields (RFC 9651), read by a library that the sidecar does not use to write them."""

from __future__ import annotations

from typing import Any

import http_sf

__all__ = ["dictionary", "members"]


def dictionary(text: str | None) -> dict[str, Any]:
    """``a=1, b=c`` as plain values; tokens become text, decimals floats."""
    assert text is not None, "the field is absent"
    parsed: Any = http_sf.parse(text.encode(), tltype="dictionary")
    return {name: _plain(item[0]) for name, item in parsed.items()}


def members(text: str | None) -> list[tuple[str, dict[str, Any]]]:
    """``name; key=value, other`` as names with their parameters."""
    assert text is not None, "the field is absent"
    parsed: Any = http_sf.parse(text.encode(), tltype="list")
    return [(str(item), {key: _plain(value) for key, value in rest.items()}) for item, rest in parsed]


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int):
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)
