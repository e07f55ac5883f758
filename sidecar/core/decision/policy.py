"""The nouns of what is allowed: one policy, as the engine reads it.

Frozen values, validated once by ``sidecar.config``; nothing here parses text. Durations are float seconds
and end in ``_seconds``, sizes are ints and end in ``_bytes``. The lines of its table are in ``core.rows``,
compiled in ``core.table``.
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
    """Of one attempt."""

    connect_seconds: float = 5.0
    head_seconds: float = 15.0
    """From the last byte of the request to the response head."""
    idle_seconds: float = 60.0
    """Between two bytes of a body, either way. Does not apply to server-sent events."""


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
    """Where this upstream's error code and message stand, and the shape of our own answers."""

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
    """Retries earned by an upstream's traffic."""

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
    """Request headers whose values split the gate (one tenant's quota does not stop another's)."""
    queue: int = 1000


@dataclass(frozen=True, slots=True)
class HedgeRule:
    """When a second send goes beside a first one that is slow."""

    quantile: float = 0.95
    """When the first has taken longer than this share of all."""
    after_seconds: float | None = None
    """A fixed time instead of a learnt one."""


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
    """Sends in all: the first and its retries."""
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
    """Tells the upstream the number of the send."""
    deadline_header: str | None = None
    """Tells the upstream the whole milliseconds that are left."""
    stored_shape: object = None
    """A JSON template over ``{stored} {request_id} …`` for the answer to a stored request; None: the receipt alone."""
    report: ReportRule | None = None
    hedge: HedgeRule | None = None
    """None: never two sends at a time."""
