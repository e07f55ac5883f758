"""What the admin port shows and calls: its only connection to the rest of the process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from sidecar.core.dryrun.compare import Comparison
from sidecar.observe.metrics import Metrics
from sidecar.observe.recent import Recent
from sidecar.observe.trend import Trend

__all__ = ["AdminState", "Check", "Operator", "Reload", "ReloadResult"]


class Check(NamedTuple):
    """One line of ``/readyz?verbose``. A check never asks an upstream."""

    name: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ReloadResult:
    ok: bool
    message: str
    """What is in force now, or every error of the file; for people."""
    comparison: Comparison | None = None
    """What the configuration changes; None if it is not valid, or that could not be told."""


class Reload(Protocol):
    """Read the configuration anew, and take it over unless it is a dry run or not valid."""

    def __call__(self, *, dry_run: bool = False) -> Awaitable[ReloadResult]: ...


class Operator(Protocol):
    """The switches of the running sidecar. ``upstream`` None: all of them."""

    def names(self) -> list[str]:
        """Every upstream that can be named."""

    def open(self, upstream: str | None) -> int:
        """Forget what was learnt and release the queue; returns how many exchanges that released."""

    def turn_retries_off(self, upstream: str | None, seconds: float | None) -> None:
        """Turn retries off for ``seconds``; None: until they are turned on."""

    def turn_retries_on(self, upstream: str | None) -> None: ...

    def retries_off(self) -> dict[str, float | None]:
        """Upstream -> the seconds for which its retries are still off; None: until they are turned on."""

    def look(self) -> None:
        """Bring the gauges of what is in force up to date."""

    def states(self) -> dict[str, dict[str, object]]:
        """Upstream -> what holds its exchanges now, as plain data (docs/metrics.md)."""


@dataclass(frozen=True, slots=True)
class AdminState:
    """Made once by ``app``; the callables are asked at every request."""

    ready: Callable[[], Sequence[tuple[str, bool, str]]]
    """The checks of readiness, each (name, ok, detail); a false one makes /readyz answer 503."""
    metrics: Metrics
    recent: Recent
    config_text: Callable[[], str]
    """The effective configuration as YAML, secrets hidden."""
    reload: Reload
    operator: Operator
    report: Callable[[str], Mapping[str, object] | None]
    """The report of the exchange with this id, redacted."""
    trend: Trend | None = None
    """The last minutes, for the page."""
    token: str | None = None
    """The value of ``Authorization: Bearer`` that allows a change; None: nothing can be changed."""
    hosts: tuple[str, ...] = ()
    """Further host names that requests may name: the configured admin host."""
