"""One frozen record per exchange, with all its attempts: what the log, the ring and the page are told.

The loop makes it once, when the exchange is over, and never touches it again. It holds no body, no query string,
no header and no credential, so no window can leak one. The counterpart is ``fields``: the record as plain data.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.core.decision.decide import Decision
from sidecar.core.enums import FailureKind, Outcome, Reason, Verb, WaitFrom

__all__ = ["AttemptRecord", "ExchangeRecord", "HeldRecord"]


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One send: a ``status`` or a ``failure``, or neither if it was ``cancelled``."""

    number: int
    """From 1."""
    status: int | None = None
    failure: FailureKind | None = None
    waited_seconds: float = 0.0
    """The wait before this attempt; 0 before the first."""
    wait_from: WaitFrom | None = None
    """Where the length of that wait came from; None before the first."""
    duration_seconds: float = 0.0
    written: bool = True
    """False only if not one byte of the request was handed to a connection."""
    then: Verb | None = None
    """``login`` or ``reread``, where one was carried out after it."""
    hedge: bool = False
    """Sent beside the first, which was slow."""
    body_unread: str = ""
    """The content coding because of which its body could not be looked into, though the policy asks for that."""
    cancelled: bool = False
    """Cut, because the one beside it was quicker."""
    decision: Decision | None = None
    """What was judged about it; None where its answer went to the app without a judgement."""


@dataclass(frozen=True, slots=True)
class HeldRecord:
    """One time in which an exchange stood still, other than a wait before an attempt that was made."""

    by: str
    """A word of ``WAITED_FROM``."""
    seconds: float
    before: int
    """The number of the attempt that was to come."""
    scope: str = ""
    """What was held, in words; empty: this exchange alone."""


@dataclass(frozen=True, slots=True)
class ExchangeRecord:
    """One request of the app, with all its sends, until its answer."""

    request_id: str
    upstream: str
    """Its configured name, or ``unknown``."""
    policy: str
    method: str
    path: str
    """As it came, without the query."""
    outcome: Outcome
    status: int | None
    """What the app got; None if it left before."""
    attempts: tuple[AttemptRecord, ...]
    started_at: float
    """Unix seconds."""
    duration_seconds: float
    reason: Reason | None = None
    waited_seconds: float = 0.0
    """Of all waits together: those of the attempts and those in ``held``."""
    held: tuple[HeldRecord, ...] = ()
    correlation_id: str = ""
    trace_id: str = ""
    """32 hexadecimal digits, or empty."""
    host: str = ""
    """The host that was asked for, if it is not a configured one. Never a metric label."""
    error_code: str | None = None
    error_message: str | None = None
    """Code and message of the last error, read where the policy says."""
    upstream_request_id: str | None = None
    upstream_correlation_id: str | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    """Of the bodies, as they travelled."""
    own_code: str | None = None
    """Of an answer that the sidecar made itself: why, in a word."""
    body_cut: bool = False
    """The response broke off, and so did our connection to the app."""
    judged_path: str = ""
    """As the policy's rows see it: without the mount and the origin's base path. Not told; for policy tests."""
