"""The way into this room for those who may not have ``redis``.

It is loaded when it is needed; without the extra, a sentence says what to install.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from sidecar.core.deployment import Origin, SharedRule
from sidecar.core.flow.shared_limiter import SharedLimiter
from sidecar.observe.log import EventLog
from sidecar.observe.metrics import SharedMeters

__all__ = ["CannotShare", "Part", "Sharing", "Waiting", "open_sharing"]


class CannotShare(Exception):
    """The store cannot be used as configured; the text says why and what to do."""


class Peer(Protocol):
    def look(self) -> None: ...


class Waiting(Protocol):
    """The waiting room of an upstream."""

    salt: bytes
    peer: Peer | None

    def look_again(self) -> None: ...


class Purse(Protocol):
    """The retry budget of an upstream."""

    paid: float
    earned: int

    def terms(self) -> tuple[float, float, float, float]:
        """Floor a second, ratio, capacity, tokens of a new one."""

    def settle(self, tokens: float) -> None: ...

    def alone(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Part:
    """What of one upstream is shared."""

    name: str
    origin: Origin
    limiter: SharedLimiter
    holding: Waiting
    purse: Purse


class Sharing(Protocol):
    """What is shared of all upstreams."""

    def start(self) -> None: ...

    def apply(self, parts: Iterable[Part]) -> None:
        """These are the upstreams from now on."""

    async def close(self) -> None: ...

    @property
    def is_up(self) -> bool: ...


def open_sharing(
    rule: SharedRule,
    events: EventLog,
    meters: SharedMeters,
    monotonic: Callable[[], float],
    chance: Callable[[], float],
    sender: str,
) -> Sharing:
    """Raises ``CannotShare``. ``sender``: a name unlike any other replica's."""
    try:
        room = importlib.import_module("sidecar.shared.sharing")
    except ImportError:
        text = "`shared` is configured and its extra is not installed: pip install 'retry-sidecar[redis]'"
        raise CannotShare(text) from None
    opened: Sharing = room.StoreSharing(rule, events, meters, monotonic, chance, sender)
    return opened
