"""What happened, as frozen values: one request of the app, and its attempts so far.

They hold no socket, no clock and no body beyond the bounded look that a row of the table may ask for. Counterpart:
``policy``, what is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from sidecar.core.enums import FailureKind, Reason

__all__ = ["Attempt", "Headers", "Now", "Pressure", "Replay", "Request", "no_headers"]


class Headers:
    """A read-only, case-insensitive view of header fields, in the order in which they came."""

    __slots__ = ("_by_name",)

    def __init__(self, fields: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        by_name: dict[str, list[str]] = {}
        for name, value in fields:
            by_name.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        self._by_name = by_name

    def all(self, name: str) -> list[str]:
        """Every value of the field, in order; an empty list when absent."""
        return self._by_name.get(name.lower(), [])

    def get(self, name: str) -> str | None:
        """The first value of the field, or None."""
        values = self._by_name.get(name.lower())
        return values[0] if values else None


no_headers = Headers()


class Replay(StrEnum):
    """Whether the request body could be sent again from its first byte."""

    HELD = "held"
    """Held whole, or there is none."""
    TOO_LARGE = "too_large"
    """It outgrew the policy's limits and was streamed through."""
    SPOOL_FAILED = "spool_failed"
    """It was to be held on disk, but the disk refused a write: it was streamed through."""
    CONSUMED = "consumed"
    """It was not wholly sent when the response came (RFC 9112 section 9.5): the exchange ends here."""


@dataclass(frozen=True, slots=True)
class Request:
    """The app's request, as a decision sees it."""

    method: str
    path: str = "/"
    """The path as it came, without the query; never decoded."""
    query: str = ""
    """Without the question mark; never decoded."""
    headers: Headers = no_headers
    keyed: bool = False
    """True if it carries an idempotency key that this upstream honours."""
    deadline_at: float = float("inf")
    """Monotonic seconds at which the exchange must have its response."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One send and its result: a response head (``status``) or a ``failure``, never neither."""

    number: int
    """The number of the send, from 1."""
    status: int | None = None
    headers: Headers = no_headers
    body: bytes | None = None
    """At most 64 KiB of the response body, without its content coding, where a row had to look; else None."""
    failure: FailureKind | None = None
    lasting: bool = False
    """True if the failure cannot go away by itself: the name does not exist, the certificate is refused."""
    written: bool = True
    """False only if not one byte of the request was handed to a connection."""
    pooled: bool = False
    """True if it went over a connection that an earlier exchange had opened."""
    crossed: bool = False
    """True if that connection was closed so soon, and without a byte of a response, that the close may have crossed
    the request on its way (RFC 9112 section 9.5).
    """
    started_at: float = 0.0
    """When it was sent, in monotonic seconds."""
    ended_at: float = 0.0
    """When its response head or failure came, in monotonic seconds."""
    waited_seconds: float = 0.0
    """Seconds waited before this attempt."""


@dataclass(frozen=True, slots=True)
class Now:
    """The two clocks, read once by the loop."""

    monotonic: float
    """Seconds; for deadlines and waits. Never jumps."""
    wall: float
    """Unix seconds; only for hints that name a date."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """What protects the upstream, at this moment."""

    budget_tokens: float = float("inf")
    """Tokens in the upstream's retry budget."""
    breaker_open: bool = False
    """The breaker is open, and the policy says to answer at once."""
    gate_closed_until: float = 0.0
    """Monotonic seconds at which the gate opens; 0: it is open."""
    rate_ready_at: float = 0.0
    """Monotonic seconds at which a learnt rate limit would admit the attempt; 0: no limit."""
    full: Reason | None = None
    """The queue is full; the reason is what its exchanges wait for. None: there is a place."""
    draining: bool = False
    """The sidecar is shutting down: no new wait begins."""
    switched_off: bool = False
    """An operator has turned retries off at run time."""
    client_gone: bool = False
    replay: Replay = field(default=Replay.HELD)
    response_started: bool = False
    """True once a byte of a response has reached the app."""
