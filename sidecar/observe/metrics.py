"""The counters of the loop, and how Prometheus reads them.

Counting is a few increments in plain lists and dicts: no lock, no label look-up, no object per request. Everything
that ``prometheus_client`` needs is made when somebody scrapes. All of it belongs to the loop's thread; a scrape may
read from another, since it only copies. Labels come from the configuration and the closed lists alone: nothing that
a client or an upstream sends can add a series (docs/metrics.md). The counterpart is ``families``: the names.
"""

# Compiled in the wheel.

from __future__ import annotations

import asyncio
import platform
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version as installed_version
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from sidecar import __version__
from sidecar.core.flow import latency
from sidecar.core.flow.latency import Latency
from sidecar.core.words import FailureKind, HedgeEnd, Outcome, Reason, WaitFrom
from sidecar.observe.families import (
    DURATION_BUCKETS,
    FAMILIES,
    HEDGE_CANCELLED,
    HELD_BY,
    METHODS,
    OTHER,
    OTHER_METHOD,
    OVERHEAD_BUCKETS,
    PROTOCOL_ERRORS,
    STORE_FAULTS,
    UNKNOWN,
)

__all__ = ["Metrics", "SharedMeters", "UpstreamMeters"]

_FAILURES = frozenset(str(word) for word in FailureKind)

Cells = list[float]
"""A histogram: the count of each bucket, of everything above the last, and at the end the sum."""
DURATION_SUM: Final = len(DURATION_BUCKETS) + 1
OVERHEAD_SUM: Final = len(OVERHEAD_BUCKETS) + 1


def _cells(buckets: Sequence[float]) -> Cells:
    return [0] * (len(buckets) + 2)


class OutboxMeters:
    """What the outbox has of one upstream."""

    __slots__ = ("dead", "delivered", "died", "oldest_age_seconds", "waiting")

    def __init__(self) -> None:
        self.waiting = 0
        self.dead = 0
        """Dead letters that are there now …"""
        self.died = 0
        """… and those that came to be since the start."""
        self.delivered = 0
        self.oldest_age_seconds = 0.0
        """Of those that wait."""


class UpstreamMeters:
    """What is counted for one upstream. Bound once, when the configuration is read."""

    __slots__ = (
        "attempt_durations",
        "attempts",
        "breaker_state",
        "budget_tokens",
        "durations",
        "errors",
        "gate_closed",
        "hedges",
        "held",
        "login_failures",
        "logins",
        "name",
        "outbox",
        "read_budget",
        "requests",
        "retries",
        "retries_off",
        "suppressions",
        "waits",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests = {outcome: dict.fromkeys((*METHODS, OTHER_METHOD), 0) for outcome in Outcome}
        self.durations = {outcome: _cells(DURATION_BUCKETS) for outcome in Outcome}
        self.attempts: dict[str, int] = {}
        self.attempt_durations = _cells(DURATION_BUCKETS)
        self.retries: dict[str, int] = {}
        self.hedges = dict.fromkeys(HedgeEnd, 0)
        self.suppressions = dict.fromkeys(Reason, 0)
        self.errors: dict[str, int] = {}
        """Error answers by the upstream's own code."""
        self.logins = 0
        self.login_failures = 0
        self.outbox = OutboxMeters()
        self.waits = {source: _cells(DURATION_BUCKETS) for source in WaitFrom}
        self.held = dict.fromkeys(HELD_BY, 0)
        """Exchanges standing still, by what holds them; the loop adds and subtracts."""
        self.gate_closed: bool | int = 0
        self.breaker_state = 0
        """0 closed, 1 probing, 2 open."""
        self.budget_tokens = 0.0
        self.retries_off = False
        """An operator has turned retries off."""
        self.read_budget: Callable[[], float] | None = None
        """If set, asked at every scrape in place of ``budget_tokens``; runs in the scraping thread."""

    def finished(self, method: str, outcome: Outcome, duration_seconds: float) -> None:
        """One exchange is over. Methods outside the closed list count as ``_OTHER``."""
        counts = self.requests[outcome]
        try:
            counts[method] += 1
        except KeyError:
            counts[OTHER_METHOD] += 1
        cells = self.durations[outcome]
        cells[bisect_left(DURATION_BUCKETS, duration_seconds)] += 1
        cells[DURATION_SUM] += duration_seconds

    def attempted(self, result: str, duration_seconds: float) -> None:
        """One send is over: its status code as text, or the word of its failure."""
        counts = self.attempts
        try:
            counts[result] += 1
        except KeyError:
            _admit(counts, result)
        cells = self.attempt_durations
        cells[bisect_left(DURATION_BUCKETS, duration_seconds)] += 1
        cells[DURATION_SUM] += duration_seconds

    def usual_seconds(self) -> float:
        """How long an attempt takes at the median, as finely as the buckets and the mean tell; 0 before the first."""
        *counts, total_seconds = self.attempt_durations
        return latency.median(DURATION_BUCKETS, counts, total_seconds)

    def told(self, known: Latency, *, calm: bool) -> Latency:
        """The same of late, once a second."""
        *counts, total_seconds = self.attempt_durations
        return latency.update(known, DURATION_BUCKETS, counts, total_seconds, calm=calm)

    def retried(self, cause: str) -> None:
        """A send after the first has begun, because of this status code or failure."""
        _admit(self.retries, cause)

    def hedged(self, end: HedgeEnd) -> None:
        """What came of a second send beside the first."""
        self.hedges[end] += 1

    def cancelled(self) -> None:
        """One send was cut, because the one beside it was quicker: how long it would have taken is not known."""
        self.attempts[HEDGE_CANCELLED] = self.attempts.get(HEDGE_CANCELLED, 0) + 1

    def suppressed(self, reason: Reason) -> None:
        """An error was not retried (again)."""
        self.suppressions[reason] += 1

    def erred(self, code: str | None, known: frozenset[str]) -> None:
        """One error answer with this code of the upstream's own; one that the policy does not name is ``other``."""
        word = code if code is not None and code in known else OTHER
        self.errors[word] = self.errors.get(word, 0) + 1

    def waited(self, source: WaitFrom, seconds: float) -> None:
        """A pause before a retry is over, or was cut short after ``seconds``."""
        cells = self.waits[source]
        cells[bisect_left(DURATION_BUCKETS, seconds)] += 1
        cells[-1] += seconds

    def budget(self) -> float:
        return self.budget_tokens if self.read_budget is None else self.read_budget()


class SharedMeters:
    """Of the store that replicas share."""

    __slots__ = ("errors", "up")

    def __init__(self) -> None:
        self.up = False
        self.errors = dict.fromkeys(STORE_FAULTS, 0)

    def failed(self, fault: str) -> None:
        """One operation failed; a fault outside the closed list counts as ``other``."""
        self.errors[fault if fault in self.errors else OTHER] += 1


class Metrics(Collector):
    """Everything that is counted in one process, registered as one collector.

    ``registry`` is the caller's or a new one with the process's own figures (``process_*``) beside ours.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.read_inflight: Callable[[], int] | None = None
        """If set, asked at every scrape: exchanges that have begun and are not over."""
        self.buffered_bytes = 0
        self.tunnels = 0
        self.open_tunnels = 0
        self.protocol_errors = dict.fromkeys(PROTOCOL_ERRORS, 0)
        self.read_log_dropped: Callable[[], int] | None = None
        """If set, asked at every scrape."""
        self.has_outbox = False
        """Whether the outbox's figures are told."""
        self.shared: SharedMeters | None = None
        """Where a store is configured."""
        self.config_ok = True
        self.config_loaded_at = 0.0
        """Unix seconds of the last successful load."""
        self.build = _build()
        self._overhead = _cells(OVERHEAD_BUCKETS)
        self._upstreams: dict[str, UpstreamMeters] = {}
        self.unknown = self.upstream(UNKNOWN)
        """For every host that the configuration does not name."""
        self.registry = registry if registry is not None else CollectorRegistry()
        if registry is None:
            ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def upstream(self, name: str) -> UpstreamMeters:
        """The meters of a configured upstream, made at first use. Call it when configuring, not per request.

        Meters outlive a reload: a counter that vanished would read as a restart.
        """
        meters = self._upstreams.get(name)
        if meters is None:
            meters = self._upstreams[name] = UpstreamMeters(name)
        return meters

    def find(self, name: str) -> UpstreamMeters:
        """The meters of ``name`` if it has been configured, else those of ``unknown``; never a new series."""
        return self._upstreams.get(name, self.unknown)

    def upstreams(self) -> list[UpstreamMeters]:
        return list(self._upstreams.values())

    def overhead(self, seconds: float) -> None:
        """The sidecar's own share of one exchange."""
        cells = self._overhead
        cells[bisect_left(OVERHEAD_BUCKETS, seconds)] += 1
        cells[OVERHEAD_SUM] += seconds

    def protocol_error(self, kind: str) -> None:
        """One malformed request was refused; a kind outside the closed list counts as ``other``."""
        self.protocol_errors[kind if kind in self.protocol_errors else OTHER] += 1

    def reloaded(self, success: bool, at: float) -> None:
        """The configuration was read (also at the start); ``at`` is unix seconds."""
        self.config_ok = success
        if success:
            self.config_loaded_at = at

    @property
    def inflight(self) -> int:
        """Exchanges under way."""
        return 0 if self.read_inflight is None else self.read_inflight()

    def log_dropped(self) -> int:
        return 0 if self.read_log_dropped is None else self.read_log_dropped()

    def describe(self) -> Iterator[Metric]:
        """The families without samples, so that a second collector with one of our names is refused."""
        return iter(_empty_families().values())

    def collect(self) -> Iterator[Metric]:
        """All families with their samples at this moment."""
        families = _empty_families()
        for meters in self.upstreams():
            _collect_requests(meters, families)
            _collect_attempts(meters, families)
            _collect_state(meters, families)
            if self.has_outbox:
                _collect_outbox(meters, families)
        self._collect_process(families)
        return iter(families.values())

    def _collect_process(self, families: dict[str, Metric]) -> None:
        _histogram(families["overhead_seconds"], [], OVERHEAD_BUCKETS, self._overhead)
        single: dict[str, float] = {
            "inflight_requests": self.inflight,
            "buffered_bytes": self.buffered_bytes,
            "tunnels_total": self.tunnels,
            "open_tunnels": self.open_tunnels,
            "log_dropped_total": self.log_dropped(),
            "config_last_reload_successful": int(self.config_ok),
            "config_last_reload_success_timestamp_seconds": self.config_loaded_at,
        }
        for name, value in single.items():
            _single(families[name], [], value)
        for kind, count in self.protocol_errors.items():
            if kind in PROTOCOL_ERRORS:
                _single(families["protocol_errors_total"], [kind], count)
        if self.shared is not None:
            _single(families["shared_store_up"], [], int(self.shared.up))
            for fault, count in self.shared.errors.items():
                _single(families["shared_store_errors_total"], [fault], count)
        build = families["build_info"]
        assert isinstance(build, InfoMetricFamily)  # noqa: S101 - for the type checker
        build.add_metric([], self.build)


def _admit(counts: dict[str, int], result: str) -> None:
    """Counts a result that may be new; whatever is no status or failure counts as ``other``."""
    word = str(result)
    if word not in _FAILURES and not _is_status(word):
        word = OTHER
    counts[word] = counts.get(word, 0) + 1


def _is_status(text: str) -> bool:
    return len(text) == 3 and text.isascii() and text.isdigit() and "100" <= text <= "599"


def _build() -> dict[str, str]:
    return {
        "version": __version__,
        "python": platform.python_version(),
        "loop": _loop_name(),
        "aiohttp": installed_version("aiohttp"),
    }


def _loop_name() -> str:
    try:
        return type(asyncio.get_running_loop()).__module__.partition(".")[0]
    except RuntimeError:
        return "none"


_MAKERS: dict[str, type[Metric]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
    "info": InfoMetricFamily,
}


def _empty_families() -> dict[str, Metric]:
    """Short name -> an empty family, in the documented order."""
    made: dict[str, Metric] = {}
    for family in FAMILIES:
        labels = [] if family.kind == "info" else family.labels
        base = family.name.removesuffix("_info") if family.kind == "info" else family.name
        made[family.name.removeprefix("sidecar_")] = _MAKERS[family.kind](base, family.meaning, labels=labels)  # type: ignore[call-arg]
    return made


def _collect_requests(meters: UpstreamMeters, families: dict[str, Metric]) -> None:
    for outcome, counts in meters.requests.items():
        for method, count in counts.items():
            if count:
                _single(families["requests_total"], [meters.name, method, str(outcome)], count)
    for outcome, cells in meters.durations.items():
        if any(cells):
            _histogram(families["request_duration_seconds"], [meters.name, str(outcome)], DURATION_BUCKETS, cells)


def _collect_attempts(meters: UpstreamMeters, families: dict[str, Metric]) -> None:
    for result, count in list(meters.attempts.items()):
        _single(families["attempts_total"], [meters.name, result], count)
    for cause, count in list(meters.retries.items()):
        _single(families["retries_total"], [meters.name, cause], count)
    for end, count in meters.hedges.items():
        if count:
            _single(families["hedges_total"], [meters.name, str(end)], count)
    for reason, count in meters.suppressions.items():
        _single(families["retries_suppressed_total"], [meters.name, str(reason)], count)
    for code, count in list(meters.errors.items()):
        _single(families["upstream_errors_total"], [meters.name, code], count)
    if meters.logins:
        _single(families["logins_total"], [meters.name], meters.logins)
        _single(families["login_failures_total"], [meters.name], meters.login_failures)
    _histogram(families["attempt_duration_seconds"], [meters.name], DURATION_BUCKETS, meters.attempt_durations)
    for source, cells in meters.waits.items():
        if any(cells):
            _histogram(families["wait_seconds"], [meters.name, str(source)], DURATION_BUCKETS, cells)


def _collect_state(meters: UpstreamMeters, families: dict[str, Metric]) -> None:
    for holder in HELD_BY:
        _single(families["held_requests"], [meters.name, holder], meters.held.get(holder, 0))
    _single(families["gate_closed"], [meters.name], int(meters.gate_closed))
    _single(families["breaker_state"], [meters.name], meters.breaker_state)
    _single(families["budget_tokens"], [meters.name], meters.budget())
    _single(families["retries_off"], [meters.name], int(meters.retries_off))


def _collect_outbox(meters: UpstreamMeters, families: dict[str, Metric]) -> None:
    outbox = meters.outbox
    _single(families["outbox_items"], [meters.name], outbox.waiting)
    _single(families["outbox_dead_items"], [meters.name], outbox.dead)
    _single(families["outbox_oldest_age_seconds"], [meters.name], outbox.oldest_age_seconds)
    _single(families["outbox_delivered_total"], [meters.name], outbox.delivered)
    _single(families["outbox_dead_total"], [meters.name], outbox.died)


def _single(family: Metric, labels: list[str], value: float) -> None:
    family.add_metric(labels, value)  # type: ignore[attr-defined]


def _histogram(family: Metric, labels: list[str], bounds: Sequence[float], cells: Cells) -> None:
    """Turns counts per bucket into Prometheus's running totals (``le``)."""
    *counts, total = list(cells)
    running = 0.0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip([*map(_le, bounds), "+Inf"], counts, strict=True):
        running += count
        buckets.append((bound, running))
    family.add_metric(labels, buckets, total)  # type: ignore[attr-defined]


def _le(bound: float) -> str:
    """The canonical number of OpenMetrics: always with a decimal point or an exponent."""
    return repr(float(bound))
