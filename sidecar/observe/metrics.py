"""The metrics of one process, as Prometheus reads them.

Counting is a few increments in plain lists and dicts: no lock, no label look-up, no object per request. Everything that
``prometheus_client`` needs is made at a scrape. All of it belongs to the loop's thread; a scrape may read from another,
since it only copies. Labels come from the configuration and the closed lists alone: nothing that a client or an
upstream sends can add a series (docs/metrics.md). Counterpart: ``families``, the names.
"""

# Compiled in the wheel.

from __future__ import annotations

import asyncio
import platform
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version as installed_version

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from sidecar import __version__
from sidecar.core.enums import UNKNOWN
from sidecar.observe.families import (
    DURATION_BUCKETS,
    FAMILIES,
    HELD_BY,
    OTHER,
    OVERHEAD_BUCKETS,
    PROTOCOL_ERRORS,
)
from sidecar.observe.meters import OVERHEAD_SUM, Cells, SharedMeters, TraceMeters, UpstreamMeters, cells_of

__all__ = ["Metrics", "SharedMeters", "TraceMeters", "UpstreamMeters"]


class Metrics(Collector):
    """Everything that is counted in one process, registered as one collector.

    ``registry`` is the caller's, or a new one with the process's own metrics (``process_*``) beside ours.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.read_inflight: Callable[[], int] | None = None
        """If set, called at every scrape: exchanges that have begun and are not over."""
        self.buffered_bytes = 0
        self.tunnels = 0
        self.open_tunnels = 0
        self.accept_paused = False
        """Whether new connections wait because the limit of open files is near."""
        self.accept_pauses = 0
        self.protocol_errors = dict.fromkeys(PROTOCOL_ERRORS, 0)
        self.read_log_dropped: Callable[[], int] | None = None
        """If set, called at every scrape: lines that the log has lost."""
        self.has_outbox = False
        """Whether the outbox's metrics are shown."""
        self.shared: SharedMeters | None = None
        """The counters of a shared store, where one is configured."""
        self.traces: TraceMeters | None = None
        """The counters of exported spans, where they are asked for."""
        self.config_ok = True
        self.config_loaded_at = 0.0
        """Unix seconds of the last successful load."""
        self.build = _build()
        self._overhead = cells_of(OVERHEAD_BUCKETS)
        self._upstreams: dict[str, UpstreamMeters] = {}
        self.unknown = self.upstream(UNKNOWN)
        """The counters of every host that the configuration does not name."""
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
        """Count the sidecar's own share of one exchange, in seconds."""
        cells = self._overhead
        cells[bisect_left(OVERHEAD_BUCKETS, seconds)] += 1
        cells[OVERHEAD_SUM] += seconds

    def protocol_error(self, kind: str) -> None:
        """Count a malformed request; a kind outside the closed list counts as ``other``."""
        self.protocol_errors[kind if kind in self.protocol_errors else OTHER] += 1

    def reloaded(self, success: bool, at: float) -> None:
        """Count a read of the configuration (also at the start); ``at`` is Unix seconds."""
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
            "accept_paused": int(self.accept_paused),
            "accept_pauses_total": self.accept_pauses,
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
        if self.traces is not None:
            traces = self.traces
            states = {"exported": traces.exported, "failed": traces.failed, "queue_full": traces.queue_full}
            for state, count in states.items():
                _single(families["traced_total"], [state], count)
        build = families["build_info"]
        assert isinstance(build, InfoMetricFamily)  # noqa: S101 - for the type checker
        build.add_metric([], self.build)


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
            family, labels = families["request_duration_seconds"], [meters.name, str(outcome)]
            _histogram(family, labels, DURATION_BUCKETS, cells, meters.exemplars.get(outcome))


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
    for (actual, shadow), count in list(meters.shadow.items()):
        _single(families["shadow_decisions_total"], [meters.name, actual, shadow], count)
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
    for kind, count in meters.gates_closed.items():
        _single(families["gates_closed"], [meters.name, kind], count)
    if meters.rate_limit_per_second is not None:
        _single(families["rate_limit_per_second"], [meters.name], meters.rate_limit_per_second)
    if meters.concurrency_limit is not None:
        _single(families["concurrency_limit"], [meters.name], meters.concurrency_limit)
    for (by, to), count in list(meters.flow_changes.items()):
        _single(families["flow_changes_total"], [meters.name, by, to], count)
    _single(families["breaker_state"], [meters.name], meters.breaker_state)
    _single(families["budget_tokens"], [meters.name], meters.budget())
    _single(families["retries_off"], [meters.name], int(meters.retries_off))
    _single(families["opened_total"], [meters.name], meters.opened)
    _single(families["attempts_lost_total"], [meters.name], meters.attempts_lost)


def _collect_outbox(meters: UpstreamMeters, families: dict[str, Metric]) -> None:
    outbox = meters.outbox
    _single(families["outbox_items"], [meters.name], outbox.waiting)
    _single(families["outbox_dead_items"], [meters.name], outbox.dead)
    _single(families["outbox_oldest_age_seconds"], [meters.name], outbox.oldest_age_seconds)
    _single(families["outbox_delivered_total"], [meters.name], outbox.delivered)
    _single(families["outbox_dead_total"], [meters.name], outbox.died)


def _single(family: Metric, labels: list[str], value: float) -> None:
    family.add_metric(labels, value)  # type: ignore[attr-defined]


def _histogram(
    family: Metric,
    labels: list[str],
    bounds: Sequence[float],
    cells: Cells,
    exemplars: dict[int, Exemplar] | None = None,
) -> None:
    """Counts per bucket as Prometheus's running totals (``le``); OpenMetrics shows the exemplars."""
    *counts, total = list(cells)
    running = 0.0
    buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
    for at, (bound, count) in enumerate(zip([*map(_le, bounds), "+Inf"], counts, strict=True)):
        running += count
        exemplar = None if exemplars is None else exemplars.get(at)
        buckets.append((bound, running) if exemplar is None else (bound, running, exemplar))
    family.add_metric(labels, buckets, total)  # type: ignore[attr-defined]


def _le(bound: float) -> str:
    """The canonical number of OpenMetrics: always with a decimal point or an exponent."""
    return repr(float(bound))
