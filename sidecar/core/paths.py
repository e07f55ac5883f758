"""Which of many path patterns may match a path: found by the literal segments that they begin with.

A request pays for the patterns that begin as its path does, not for all that there are. Whether one of them does match
is for whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

__all__ = ["PathIndex"]

T = TypeVar("T")


class PathIndex(Generic[T]):
    """Items by pattern (``*`` is one segment, ``**`` any number), in the order in which they count."""

    __slots__ = ("_by_prefix", "_depth")

    def __init__(self, items: Iterable[tuple[str, T]]) -> None:
        self._by_prefix: dict[str, list[tuple[int, T]]] = {}
        for place, (pattern, item) in enumerate(items):
            self._by_prefix.setdefault(_literal(pattern), []).append((place, item))
        self._depth = max((prefix.count("/") for prefix in self._by_prefix), default=0)

    def candidates(self, path: str) -> list[T]:
        """All whose pattern may match, in their order; no other does."""
        found = self._by_prefix.get("", [])
        at = 0
        for _ in range(self._depth):
            at = path.find("/", at + 1)
            more = self._by_prefix.get(path if at < 0 else path[:at])
            if more:
                found = sorted(found + more, key=_place) if found else more
            if at < 0:
                break
        return [item for _, item in found]


def _place(found: tuple[int, T]) -> int:
    return found[0]


def _literal(pattern: str) -> str:
    """``/v1/orders/*/items`` → ``/v1/orders``."""
    before, star, _ = pattern.partition("*")
    return before.rpartition("/")[0] if star else pattern
