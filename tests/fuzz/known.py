"""Faults that the fuzz finds and that are not mended yet: each with what it is. The goal is an empty table."""

from __future__ import annotations

import re

__all__ = ["KNOWN", "is_known"]

KNOWN = {
    r"afterwards a plain request by \w+ got 429": "a gate stays closed after its hint is over",
}


def is_known(fault: str) -> bool:
    return any(re.search(pattern, fault) for pattern in KNOWN)
