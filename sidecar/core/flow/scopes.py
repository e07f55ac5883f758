"""The names of scopes, in words: what a log line, a metric and the page say of what is held.

A scope's name is made by ``keys.scopes_of``. Of a tenant or credential only a keyed digest is known, and only its
first characters are told: enough to tell two apart, nothing of the value. The kinds are a closed list.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["SCOPE_KINDS", "scope_kind", "scope_text"]

SCOPE_KINDS: Final = ("endpoint", "key", "upstream")
"""Narrow first. ``key``: what the policy's ``gate.key`` names, else the credential."""
SHOWN_CHARACTERS: Final = 8
_OF_A_KEY: Final = re.compile(r"(?P<endpoint>.*):(?P<key>[0-9a-f]{24})", re.DOTALL)


def scope_kind(name: str) -> str:
    """One of ``SCOPE_KINDS``."""
    kind = name.partition(":")[0]
    return kind if kind in SCOPE_KINDS else "upstream"


def scope_text(name: str) -> str:
    """``upstream``, ``endpoint GET /v1/x``, ``key 3fa9c1d2``, ``endpoint GET /v1/x of key 3fa9c1d2``."""
    kind, _, rest = name.partition(":")
    if kind == "key":
        return f"key {rest[:SHOWN_CHARACTERS]}"
    if kind != "endpoint":
        return "upstream"
    found = _OF_A_KEY.fullmatch(rest)
    return (
        f"endpoint {rest}"
        if found is None
        else f"endpoint {found['endpoint']} of key {found['key'][:SHOWN_CHARACTERS]}"
    )
