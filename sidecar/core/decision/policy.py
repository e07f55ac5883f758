"""What is allowed, as frozen values: one policy, as the engine reads it.

Validated once by ``sidecar.config``; nothing here parses text. Durations are float seconds and end in ``_seconds``,
sizes are ints and end in ``_bytes``. The lines of its table are in ``rows``, compiled in ``table``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sidecar.core.decision.rows import Backoff, HintSource
from sidecar.core.decision.table import Table
from sidecar.core.enums import OverMax

__all__ = [
    "BodyLimits",
    "BreakerRule",
    "BudgetRule",
    "Errors",
    "GateRule",
    "HedgeRule",
    "IdRule",
    "Idempotency",
    "Ids",
    "Policy",
    "ReportRule",
    "Timeouts",
    "Verdict",
]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The timeouts of one attempt."""

    connect_seconds: float = 5.0
    head_seconds: float = 15.0
    """Seconds from the last byte of the request to the response head."""
    idle_seconds: float = 60.0
    """Seconds between two bytes of a body, either way; not for server-sent events."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A response header in which the upstream itself says whether to retry."""

    header: str
    yes: str
    no: str


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The header in which this upstream honours a key, and how to make one."""

    header: str
    methods: frozenset[str]
    format: Literal["uuid", "quoted"] = "uuid"


@dataclass(frozen=True, slots=True)
class IdRule:
    """How one id is named, sent on and read back."""

    header: str
    from_response: tuple[str, ...] = ()
    from_body: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ids:
    request: IdRule = IdRule("X-Request-Id")
    correlation: IdRule = IdRule("X-Correlation-Id")


@dataclass(frozen=True, slots=True)
class Errors:
    """Where this upstream's error code and message are, and the shape of our own responses."""

    code: tuple[str, ...] = ()
    message: tuple[str, ...] = ()
    shape: object = None
    """A JSON template over ``{code} {message} …``; None means problem+json (RFC 9457)."""
    known_codes: frozenset[str] = frozenset()
    """Codes named in the policy: the only ones that may become a metric label."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    memory_bytes: int = 1 << 20
    disk_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True)
class BudgetRule:
    """The rule of an upstream's retry budget."""

    ratio: float = 0.25
    floor_per_second: float = 10.0


@dataclass(frozen=True, slots=True)
class BreakerRule:
    failures: float = 0.5
    of_at_least: int = 20
    within_seconds: float = 10.0
    when_open: Literal["hold", "fail"] = "hold"


@dataclass(frozen=True, slots=True)
class GateRule:
    key: tuple[str, ...] = ()
    """Request headers whose values split the gate: one tenant's quota does not stop another's."""
    queue: int = 1000


@dataclass(frozen=True, slots=True)
class HedgeRule:
    """When a second send goes beside a first one that is slow."""

    quantile: float = 0.95
    """The share of durations that the first send must have exceeded."""
    after_seconds: float | None = None
    """Fixed seconds instead of a learnt duration."""


@dataclass(frozen=True, slots=True)
class ReportRule:
    """What is kept of failed exchanges for ``sidecar report``."""

    bodies: bool = False
    redact: tuple[str, ...] = ()
    """JSON pointers (RFC 6901; a step ``*`` is any) whose values are never kept."""
    keep: int = 50


@dataclass(frozen=True, slots=True)
class Policy:
    """What is allowed toward one upstream (or one route of it)."""

    name: str
    table: Table
    deadline_seconds: float = 60.0
    attempts: int = 5
    """Sends in all: the first one and its retries."""
    timeouts: Timeouts = Timeouts()
    backoff: Backoff = Backoff()
    wait: tuple[HintSource, ...] = (HintSource("header", "retry-after"),)
    max_wait_seconds: float = 120.0
    over_max: OverMax = OverMax.PASS
    verdict: Verdict | None = None
    resend_methods: frozenset[str] = frozenset()
    idempotency: Idempotency | None = None
    ids: Ids = field(default_factory=Ids)
    trace: Literal["keep", "create"] = "keep"
    errors: Errors = Errors()
    body: BodyLimits = BodyLimits()
    budget: BudgetRule = BudgetRule()
    breaker: BreakerRule = BreakerRule()
    gate: GateRule = GateRule()
    attempt_header: str | None = None
    """Request header with the number of the send; None: not sent."""
    deadline_header: str | None = None
    """Request header with the whole milliseconds left until the deadline; None: not sent."""
    stored_shape: object = None
    """A JSON template over ``{stored} {request_id} …`` for the response to a stored request; None: the receipt
    alone.
    """
    report: ReportRule | None = None
    hedge: HedgeRule | None = None
    """The rule of a second send; None: never two sends at a time."""
