"""One line of the policy table, as frozen values: what it matches, what it asks for, how long to wait.

Text is parsed by ``sidecar.config``. Counterpart: ``table``, which compiles the lines of a policy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from sidecar.core.decision.expression import Expression
from sidecar.core.enums import FailureKind, Jitter, OverMax, Unit, Verb

__all__ = ["Backoff", "Condition", "HintSource", "Reread", "Row"]

Place = Literal["header", "body", "body_text", "request_header", "method", "path", "query"]
Test = Literal["equals", "in", "matches", "present"]


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that must hold for a row (or a hint source) to apply."""

    place: Place
    name: str = ""
    """Header name, JSON pointer (RFC 6901) or query parameter; empty for method, path and body_text."""
    test: Test = "present"
    values: tuple[str, ...] = ()
    """For ``equals`` (one) and ``in``. JSON scalars are compared by their JSON text, strings by their content."""
    pattern: re.Pattern[str] | Expression | None = None
    """For ``matches``: searched, not anchored."""
    present: bool = True
    """For ``present``: whether it must be there or must not."""


@dataclass(frozen=True, slots=True)
class HintSource:
    """A place where an upstream says how long to wait."""

    place: Literal["header", "field", "body", "constant"]
    name: str = ""
    """Header name or JSON pointer."""
    field: str = ""
    """For ``field``: the parameter inside a structured or ``key=value`` header."""
    unit: Unit = Unit.RETRY_AFTER
    constant_seconds: float = 0.0
    when: tuple[Condition, ...] = ()
    plus_seconds: float = 0.0
    at_least_seconds: float = 0.0
    clock: Literal["local", "server"] = "local"
    """``server``: measure dates and epochs against the response's own ``Date``."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """``base · factor^(n-1)``, capped, then jitter. n is the number of the retry, from 1."""

    base_seconds: float = 0.25
    factor: float = 2.0
    cap_seconds: float = 30.0
    jitter: Jitter = Jitter.FULL
    ratio: float = 0.25
    """r of ``proportional``, 0 … 1."""


@dataclass(frozen=True, slots=True)
class Reread:
    """What to read after a refusal, and what follows from it; where no condition holds, the refusal is handed over."""

    path: str = "same"
    resend_when: tuple[Condition, ...] = ()
    """Send again if all of these hold of what was read. Empty: never."""
    answer_when: tuple[Condition, ...] = ()
    """What was read is the response if all of these hold. Empty: never."""
    times: int = 1
    """Reads in one exchange, at most."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the policy table. None means: as the policy says."""

    verb: Verb
    statuses: frozenset[int] = frozenset()
    failures: frozenset[FailureKind] = frozenset()
    when: tuple[Condition, ...] = ()
    attempts: int | None = None
    backoff: Backoff | None = None
    wait: tuple[HintSource, ...] | None = None
    max_wait_seconds: float | None = None
    over_max: OverMax | None = None
    processed: bool | None = None
    """False: with this response the upstream states that it did not act. None: False for 429, else True."""
    gate: bool | None = None
    """None: true for 429, and for 503 with a hint."""
    cost: float = 1.0
    """Budget tokens that a retry by this row takes."""
    reread: Reread | None = None
    file: str = ""
    line: int = 0
