"""What sharing needs of each upstream, and what the app needs of sharing. Nothing here imports ``redis``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from sidecar.core.flow.shared_limiter import SharedLimiter
from sidecar.core.settings.deployment import Origin

__all__ = ["Part", "Sync", "Waiting"]


class Peer(Protocol):
    def look(self) -> None: ...


class Waiting(Protocol):
    """The limiter of an upstream, with its queue."""

    salt: bytes
    peer: Peer | None

    def look_again(self) -> None: ...


class RetryBudget(Protocol):
    """The retry budget of an upstream."""

    paid: float
    earned: int

    def terms(self) -> tuple[float, float, float, float]:
        """Floor a second, ratio, capacity, and the tokens of a new budget."""

    def settle(self, tokens: float) -> None: ...

    def alone(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Part:
    """The shared state of one upstream."""

    name: str
    origin: Origin
    limiter: SharedLimiter
    holding: Waiting
    budget: RetryBudget


class Sync(Protocol):
    """The shared state of all upstreams."""

    def start(self) -> None: ...

    def apply(self, parts: Iterable[Part]) -> None:
        """Share the state of these upstreams from now on."""

    async def close(self) -> None: ...

    @property
    def is_up(self) -> bool: ...
