"""Bearer tokens that an emulated API gives out: they live for a while, then they are refused."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Tokens"]

LIFE_SECONDS = 600


class Tokens:
    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._ends_at: dict[str, float] = {}

    def give(self) -> str:
        token = f"emulated-{len(self._ends_at) + 1}"
        self._ends_at[token] = self._now() + LIFE_SECONDS
        return token

    def holds(self, authorization: str | None) -> bool:
        """Whether the field ``Authorization`` carries a token that still lives."""
        return self._ends_at.get((authorization or "").removeprefix("Bearer "), 0.0) > self._now()

    def revoke_all(self) -> None:
        self._ends_at = dict.fromkeys(self._ends_at, 0.0)
