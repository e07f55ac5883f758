"""The nouns of the outbox: a stored request, how full it is, and why it says no.

Plain values; they know neither SQLite nor HTTP connections. The counterpart is ``outbox_file``, which keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["HELD_UP_SECONDS", "Count", "Item", "OutboxError", "Refusal"]

HELD_UP_SECONDS: Final = 300.0
"""A request that may not be sent for longer than this does not hold up those behind it meanwhile."""


class OutboxError(Exception):
    """The outbox cannot be opened. The text is for a person: what is wrong, and what to do."""


class Refusal(Exception):
    """A request that is not accepted. ``code`` is a word for the answer, the text a sentence for a person."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Item:
    """One request, as it will be sent."""

    id: str
    """The receipt."""
    upstream: str
    """The name in the configuration; where that is, is looked up at each delivery."""
    method: str
    target: str
    """As the upstream will see it, but for the base path of its origin."""
    fields: bytes
    """Header lines, each ended by CRLF: ids, idempotency key and ``Host`` included, framing not."""
    body: bytes
    stored_at: float
    """Unix seconds."""
    begun: bool = False
    """A send was begun whose end is not known; written only where a second one could do harm."""
    tries: int = 0
    """Rounds of delivery in which the upstream got it and that have failed, so far."""
    note: str = ""
    """What came of the last of them."""
    dead_at: float | None = None
    """Unix seconds since when it is a dead letter; None: it waits for its delivery."""
    dead_reason: str = ""
    """A ``Reason``, or ``expired``, ``malformed``."""
    dead_status: int | None = None
    due_at: float = 0.0
    """Unix seconds before which it is not sent again: a hint outlives a restart."""
    aside: bool = False
    """Whether it no longer holds up those behind it."""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def size_bytes(self) -> int:
        """What it counts for against the limit: an allowance for the row, and its parts."""
        return 256 + len(self.target) + len(self.fields) + len(self.body)


@dataclass(frozen=True, slots=True)
class Count:
    """What there is of one upstream."""

    upstream: str
    waiting: int
    dead: int
    bytes: int
    oldest_at: float | None
    """Unix seconds at which the oldest that waits was stored."""
