"""One frozen record per exchange, with all its attempts: for the log, the recent list and the page.

The loop makes it once, when the exchange is over, and never changes it. It holds no body, no query string, no header
and no credential, so no view of it can leak one. Counterpart: ``fields``, the record as plain data.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.core.decision.decide import Decision
from sidecar.core.enums import FailureKind, Outcome, Reason, Verb, WaitFrom
from sidecar.observe.trace import SpanIds

__all__ = ["AttemptRecord", "ExchangeRecord", "HeldRecord", "TraceRecord"]


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One send: a ``status`` or a ``failure``, or neither if it was ``cancelled``."""

    number: int
    """The number of the send, from 1."""
    status: int | None = None
    failure: FailureKind | None = None
    waited_seconds: float = 0.0
    """Seconds waited before this attempt; 0 before the first."""
    wait_from: WaitFrom | None = None
    """Where the length of that wait came from; None before the first."""
    duration_seconds: float = 0.0
    written: bool = True
    """False only if not one byte of the request was handed to a connection."""
    then: Verb | None = None
    """``login`` or ``reread``, where one was carried out after it."""
    hedge: bool = False
    """Whether it was sent beside a slow first send."""
    body_unread: str = ""
    """The content coding because of which its body could not be read, though the policy asks for that."""
    began_seconds: float = 0.0
    """Seconds from the start of the exchange to this send."""
    cancelled: bool = False
    """Cut, because the other send was quicker."""
    decision: Decision | None = None
    """The decision about it; None where its response went to the app without one."""
    shadow: Decision | None = None
    """What the shadow policy would have done, where that differs."""


@dataclass(frozen=True, slots=True)
class HeldRecord:
    """One wait of an exchange, other than before an attempt that was made."""

    by: str
    """A word of ``WAITED_FROM``."""
    seconds: float
    before: int
    """The number of the attempt that was due."""
    scope: str = ""
    """The scope that was held, in words; empty: this exchange alone."""


@dataclass(frozen=True, slots=True)
class TraceRecord:
    """What spans need beside the record; only where they are exported."""

    spans: SpanIds
    origin: str
    """``https://host:port/base``: what precedes the path, without credentials."""
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ExchangeRecord:
    """One request of the app, with all its sends, until its response."""

    request_id: str
    upstream: str
    """The upstream's configured name, or ``unknown``."""
    policy: str
    method: str
    path: str
    """The path as it came, without the query."""
    outcome: Outcome
    status: int | None
    """The status that the app got; None if it left before."""
    attempts: tuple[AttemptRecord, ...]
    started_at: float
    """Unix seconds."""
    duration_seconds: float
    reason: Reason | None = None
    waited_seconds: float = 0.0
    """Seconds of all waits together: those of the attempts and those in ``held``."""
    held: tuple[HeldRecord, ...] = ()
    correlation_id: str = ""
    trace_id: str = ""
    """32 hexadecimal digits, or empty."""
    host: str = ""
    """The host asked for, if it is not a configured one. Never a metric label."""
    error_code: str | None = None
    error_message: str | None = None
    """Code and message of the last error, read where the policy says."""
    upstream_request_id: str | None = None
    upstream_correlation_id: str | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    """Bytes of the body, as it travelled."""
    own_code: str | None = None
    """The error code of a response that the sidecar made itself."""
    body_cut: bool = False
    """The response broke off, and so did our connection to the app."""
    trace: TraceRecord | None = None
    """None: no spans are exported of it."""
    shadow: str = ""
    """Name of the shadow policy, where it differs about an attempt."""
    judged_path: str = ""
    """The path as the policy's rows see it: without the mount and the origin's base path. Not logged; for policy
    tests.
    """
