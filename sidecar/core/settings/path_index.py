"""The first of many patterns that matches a request, found by the literal segments that patterns begin with.

A request pays for the patterns that begin as its path does, not for all that there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Generic, TypeVar

__all__ = ["PathIndex"]

T = TypeVar("T")


class PathIndex(Generic[T]):
    """Values by methods (none: any) and pattern (``*`` is one segment, ``**`` any number); the first match wins.

    Made from ``(methods, pattern as written, pattern compiled, value)``.
    """

    __slots__ = ("_by_prefix", "_depth")

    def __init__(self, rows: Iterable[tuple[frozenset[str], str, re.Pattern[str], T]]) -> None:
        self._by_prefix: dict[str, list[tuple[int, frozenset[str], re.Pattern[str], T]]] = {}
        for place, (methods, written, pattern, value) in enumerate(rows):
            self._by_prefix.setdefault(_literal(written), []).append((place, methods, pattern, value))
        self._depth = max((prefix.count("/") for prefix in self._by_prefix), default=0)

    def first(self, method: str, path: str) -> T | None:
        """The value of the first row that matches; None: none does."""
        for _, methods, pattern, value in self._candidates(path):
            if (not methods or method in methods) and pattern.fullmatch(path):
                return value
        return None

    def _candidates(self, path: str) -> list[tuple[int, frozenset[str], re.Pattern[str], T]]:
        """All rows whose pattern may match, in order."""
        found = self._by_prefix.get("", [])
        at = 0
        for _ in range(self._depth):
            at = path.find("/", at + 1)
            more = self._by_prefix.get(path if at < 0 else path[:at])
            if more:
                found = sorted(found + more, key=_place) if found else more
            if at < 0:
                break
        return found


def _place(row: tuple[int, object, object, object]) -> int:
    return row[0]


def _literal(written: str) -> str:
    """``/v1/orders/*/items`` → ``/v1/orders``."""
    before, star, _ = written.partition("*")
    return before.rpartition("/")[0] if star else written
