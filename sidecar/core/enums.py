"""The closed lists: every word that names how an exchange went, defined once.

The same words stand in the log, in metric labels, in the ``Sidecar`` response header, in the docs and on the page; a
test holds them equal. Adding a word here adds it everywhere. This module decides nothing.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "FINAL_REASONS",
    "IDEMPOTENT_METHODS",
    "UNKNOWN",
    "UNSTORED_METHODS",
    "FailureKind",
    "HedgeEnd",
    "Jitter",
    "Outcome",
    "OverMax",
    "Reason",
    "Safe",
    "Unit",
    "Verb",
    "WaitFrom",
]

UNKNOWN = "unknown"
"""The name, in logs and metrics, of every host that no upstream claims."""
IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"})
"""RFC 9110 section 9.2.2; QUERY by RFC 10008. Any other method may have an effect each time it is applied."""
UNSTORED_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "CONNECT", "QUERY"})
"""Methods that are never stored: their sender wants the response, not a receipt."""


class Outcome(StrEnum):
    """How an exchange ended."""

    OK = "ok"
    """First attempt (or a hedge beside it), no error status."""
    RECOVERED = "recovered"
    """An error, then success."""
    PASSED = "passed"
    """An error that the table says to hand over, or that was sent once and could not be repeated."""
    EXHAUSTED = "exhausted"
    """The last response handed over because retrying stopped."""
    FAILED = "failed"
    """No response to hand over; the sidecar answered itself."""
    REJECTED = "rejected"
    """Never sent: gate, breaker, loop, refused host, bad request."""
    STORED = "stored"
    """Accepted into the outbox."""
    TUNNELLED = "tunnelled"
    """Bytes were relayed, unseen."""
    CLIENT_GONE = "client_gone"
    """The app left before its response was complete."""


class Reason(StrEnum):
    """Why an exchange was not retried (again)."""

    NOT_RETRYABLE = "not_retryable"
    ATTEMPTS = "attempts"
    DEADLINE = "deadline"
    WAIT_TOO_LONG = "wait_too_long"
    NOT_SAFE = "not_safe"
    """May have been applied, and is neither idempotent nor keyed."""
    BODY_TOO_LARGE = "body_too_large"
    SPOOL_FAILED = "spool_failed"
    """The body was to be held on disk, but the disk refused a write."""
    BODY_CONSUMED = "body_consumed"
    RESPONSE_STARTED = "response_started"
    BUDGET = "budget"
    BREAKER = "breaker"
    GATE = "gate"
    RATE = "rate"
    """A learnt rate limit: more exchanges wait than it admits in time."""
    CONCURRENCY = "concurrency"
    """The concurrency limit: more exchanges wait than it admits in time."""
    SERVER_SAYS_NO = "server_says_no"
    LOGIN_FAILED = "login_failed"
    DRAINING = "draining"
    SWITCHED_OFF = "switched_off"


FINAL_REASONS = frozenset(
    {
        Reason.NOT_RETRYABLE,
        Reason.NOT_SAFE,
        Reason.BODY_TOO_LARGE,
        Reason.SPOOL_FAILED,
        Reason.BODY_CONSUMED,
        Reason.RESPONSE_STARTED,
        Reason.SERVER_SAYS_NO,
    }
)
"""Reasons that forbid another send for ever. Every other reason is checked after safety and speaks of the moment, so a
delivery from the outbox may be repeated: a new word of the closed list means a later delivery, not a dead letter.
"""


class FailureKind(StrEnum):
    """Why an attempt brought no whole response: in which phase, and how."""

    RESOLVE = "resolve"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TLS = "tls"
    CONNECT_TIMEOUT = "connect_timeout"
    HEAD_TIMEOUT = "head_timeout"
    RESET = "reset"
    CLOSED = "closed"
    PROTOCOL = "protocol"
    BODY_CUT = "body_cut"


class HedgeEnd(StrEnum):
    """How a race between a first send and its hedge ended."""

    WON = "won"
    """The app got the hedge's response."""
    LOST = "lost"
    """The app got the first send's response."""
    FAILED = "failed"
    """The app got neither: it went on as after any failed attempt."""
    ABANDONED = "abandoned"
    """The app left while both were under way."""


class Verb(StrEnum):
    """What a row of the policy table asks for."""

    PASS = "pass"
    RETRY = "retry"
    LOGIN = "login"
    REREAD = "reread"
    STORE = "store"


class Safe(StrEnum):
    """The permission that allows an attempt to be repeated; one of five."""

    NEVER_SENT = "never_sent"
    IDEMPOTENT = "idempotent"
    KEYED = "keyed"
    NOT_PROCESSED = "not_processed"
    RESEND_METHODS = "resend_methods"


class WaitFrom(StrEnum):
    """Where the length of a wait came from."""

    HINT = "hint"
    CONSTANT = "constant"
    BACKOFF = "backoff"


class Jitter(StrEnum):
    """How chance spreads a backoff value v."""

    FULL = "full"
    """0 … v"""
    EQUAL = "equal"
    """v/2 … v"""
    ADDITIVE = "additive"
    """v … 2v"""
    PROPORTIONAL = "proportional"
    """v·(1-r) … v·(1+r)"""
    DECORRELATED = "decorrelated"
    """base … 3·(the wait before), capped"""
    NONE = "none"
    """v"""


class OverMax(StrEnum):
    """What to do with a wait that is longer than ``max_wait``."""

    PASS = "pass"
    CLAMP = "clamp"
    BACKOFF = "backoff"


class Unit(StrEnum):
    """The unit of a hint. Names of headers never imply one, except ``Retry-After``."""

    S = "s"
    MS = "ms"
    EPOCH_S = "epoch-s"
    EPOCH_MS = "epoch-ms"
    HTTP_DATE = "http-date"
    ISO8601 = "iso8601"
    DURATION = "duration"
    AUTO = "auto"
    RETRY_AFTER = "retry-after"
    """Seconds or an HTTP-date: the grammar of the field ``Retry-After`` (RFC 9110 section 10.2.3)."""
