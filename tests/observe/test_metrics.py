"""The counters: what is counted shows, and nothing that a stranger sends can add a series."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from sidecar.core.enums import FailureKind, HedgeEnd, Outcome, Reason, WaitFrom
from sidecar.observe.families import FAMILIES, METHODS
from sidecar.observe.metrics import Metrics, SharedMeters, TraceMeters
from sidecar.observe.snapshot import snapshot

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def samples(metrics: Metrics) -> Samples:
    text = generate_latest(metrics.registry).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    labels = {key.rstrip("_"): word for key, word in labels.items()}
    return samples(metrics).get((f"sidecar_{name}", frozenset(labels.items())))


def series(metrics: Metrics) -> int:
    return len(samples(metrics))


def test_a_finished_exchange_is_counted_and_timed(metrics: Metrics) -> None:
    meters = metrics.upstream("meshqu")
    meters.finished("GET", Outcome.RECOVERED, 1.5)
    meters.finished("GET", Outcome.RECOVERED, 0.25)
    assert value(metrics, "requests_total", upstream="meshqu", method="GET", outcome="recovered") == 2
    told = {"upstream": "meshqu", "outcome": "recovered"}
    assert value(metrics, "request_duration_seconds_count", **told) == 2
    assert value(metrics, "request_duration_seconds_sum", **told) == 1.75
    assert value(metrics, "request_duration_seconds_bucket", **told, le="0.1") == 0
    assert value(metrics, "request_duration_seconds_bucket", **told, le="0.25") == 1
    assert value(metrics, "request_duration_seconds_bucket", **told, le="2.5") == 2
    assert value(metrics, "request_duration_seconds_bucket", **told, le="+Inf") == 2


def test_a_duration_beyond_all_buckets_is_in_the_last(metrics: Metrics) -> None:
    metrics.upstream("meshqu").finished("GET", Outcome.OK, 9_999.0)
    told = {"upstream": "meshqu", "outcome": "ok"}
    assert value(metrics, "request_duration_seconds_bucket", **told, le="300.0") == 0
    assert value(metrics, "request_duration_seconds_bucket", **told, le="+Inf") == 1


def test_attempts_retries_waits_and_reasons_are_counted(metrics: Metrics) -> None:
    meters = metrics.upstream("meshqu")
    meters.attempted("503", 0.1)
    meters.attempted("503", 0.1)
    meters.attempted(FailureKind.RESET, 0.2)
    meters.retried("503")
    meters.retried(FailureKind.RESET)
    meters.suppressed(Reason.BUDGET)
    meters.waited(WaitFrom.HINT, 2.0)
    assert value(metrics, "attempts_total", upstream="meshqu", result="503") == 2
    assert value(metrics, "attempts_total", upstream="meshqu", result="reset") == 1
    assert value(metrics, "attempt_duration_seconds_count", upstream="meshqu") == 3
    assert value(metrics, "retries_total", upstream="meshqu", cause="503") == 1
    assert value(metrics, "retries_total", upstream="meshqu", cause="reset") == 1
    assert value(metrics, "retries_suppressed_total", upstream="meshqu", reason="budget") == 1
    assert value(metrics, "retries_suppressed_total", upstream="meshqu", reason="deadline") == 0
    assert value(metrics, "wait_seconds_sum", upstream="meshqu", from_="hint") == 2


def test_a_send_that_was_cut_is_counted_and_not_timed(metrics: Metrics) -> None:
    meters = metrics.upstream("meshqu")
    meters.cancelled()
    meters.hedged(HedgeEnd.WON)
    assert value(metrics, "attempts_total", upstream="meshqu", result="hedge_cancelled") == 1
    assert value(metrics, "attempt_duration_seconds_count", upstream="meshqu") == 0
    assert value(metrics, "hedges_total", upstream="meshqu", result="won") == 1
    assert value(metrics, "hedges_total", upstream="meshqu", result="lost") is None


@pytest.mark.parametrize("result", ["99", "600", "1000", "", "abc", "-12", "５００", "2 0", "resets"])
def test_a_result_outside_the_closed_list_counts_as_other(metrics: Metrics, result: str) -> None:
    meters = metrics.upstream("meshqu")
    meters.attempted(result, 0.1)
    meters.retried(result)
    assert value(metrics, "attempts_total", upstream="meshqu", result="other") == 1
    assert value(metrics, "retries_total", upstream="meshqu", cause="other") == 1


def test_hostile_names_add_no_series(metrics: Metrics) -> None:
    meters = metrics.upstream("meshqu")
    meters.finished("BREW", Outcome.OK, 0.1)
    meters.attempted("777", 0.1)
    metrics.unknown.finished("GET", Outcome.OK, 0.1)
    before = series(metrics)
    for number in range(100_000):
        meters.finished(f"M{number}", Outcome.OK, 0.1)
        metrics.find(f"host{number}.example").finished("GET", Outcome.OK, 0.1)
        meters.attempted(f"x{number}", 0.1)
        metrics.protocol_error(f"kind{number}")
    assert series(metrics) == before
    assert value(metrics, "requests_total", upstream="meshqu", method="_OTHER", outcome="ok") == 100_001
    assert value(metrics, "requests_total", upstream="unknown", method="GET", outcome="ok") == 100_001
    assert value(metrics, "protocol_errors_total", kind="other") == 100_000


def test_a_kind_put_into_the_dict_by_hand_adds_no_series(metrics: Metrics) -> None:
    before = series(metrics)
    metrics.protocol_errors["surprise"] = 1
    metrics.upstream("unknown").held["surprise"] = 1
    assert series(metrics) == before


def test_every_status_and_every_method_has_its_own_series(metrics: Metrics) -> None:
    meters = metrics.upstream("meshqu")
    for status in range(100, 600):
        meters.attempted(str(status), 0.1)
    for method in METHODS:
        meters.finished(method, Outcome.OK, 0.1)
    told = [labels for name, labels in samples(metrics) if name == "sidecar_attempts_total"]
    assert len(told) == 500
    for method in METHODS:
        assert value(metrics, "requests_total", upstream="meshqu", method=method, outcome="ok") == 1


def test_gauges_show_what_the_loop_has_set(metrics: Metrics) -> None:
    meters = metrics.upstream("meshqu")
    meters.held["gate"] += 3
    meters.gates_closed["endpoint"] = 1
    meters.breaker_state = 2
    meters.budget_tokens = 4.5
    metrics.read_inflight = lambda: 7
    metrics.buffered_bytes = 4096
    metrics.tunnels = 2
    assert value(metrics, "held_requests", upstream="meshqu", by="gate") == 3
    assert value(metrics, "held_requests", upstream="meshqu", by="wait") == 0
    assert value(metrics, "gates_closed", upstream="meshqu", scope="endpoint") == 1
    assert value(metrics, "breaker_state", upstream="meshqu") == 2
    assert value(metrics, "budget_tokens", upstream="meshqu") == 4.5
    assert value(metrics, "inflight_requests") == 7
    assert value(metrics, "buffered_bytes") == 4096
    assert value(metrics, "tunnels_total") == 2


def test_a_registered_budget_is_read_at_every_scrape(metrics: Metrics) -> None:
    readings: Iterator[float] = iter((3.0, 2.0))
    metrics.upstream("meshqu").read_budget = lambda: next(readings)
    assert value(metrics, "budget_tokens", upstream="meshqu") == 3.0
    assert value(metrics, "budget_tokens", upstream="meshqu") == 2.0


def test_a_failed_reload_keeps_the_time_of_the_last_good_one(metrics: Metrics) -> None:
    metrics.reloaded(True, 1_700_000_000.0)
    metrics.reloaded(False, 1_700_000_100.0)
    assert value(metrics, "config_last_reload_successful") == 0
    assert value(metrics, "config_last_reload_success_timestamp_seconds") == 1_700_000_000.0


def test_overhead_and_lost_log_lines_show(metrics: Metrics) -> None:
    metrics.overhead(0.00003)
    metrics.read_log_dropped = lambda: 12
    assert value(metrics, "overhead_seconds_bucket", le="2.5e-05") == 0
    assert value(metrics, "overhead_seconds_bucket", le="5e-05") == 1
    assert value(metrics, "log_dropped_total") == 12


def test_the_same_name_gives_the_same_meters(metrics: Metrics) -> None:
    assert metrics.upstream("meshqu") is metrics.upstream("meshqu")
    assert metrics.find("meshqu") is metrics.upstream("meshqu")
    assert metrics.find("nobody") is metrics.unknown is metrics.upstream("unknown")


def test_everything_exposed_is_documented_and_everything_documented_is_exposed(metrics: Metrics) -> None:
    meters = metrics.upstream("meshqu")
    meters.finished("GET", Outcome.OK, 0.1)
    meters.attempted("200", 0.1)
    meters.retried("503")
    meters.waited(WaitFrom.HINT, 1.0)
    meters.hedged(HedgeEnd.WON)
    meters.erred("GONE", frozenset({"GONE"}))
    meters.shadowed("retry", "pass")
    meters.logins += 1
    meters.rate_limit_per_second, meters.concurrency_limit = 4.5, 3
    meters.flow_changed("gate", "hold", 1)
    metrics.has_outbox = True
    metrics.shared = SharedMeters()
    metrics.traces = TraceMeters()
    seen: dict[str, set[str]] = {}
    for name, labels in samples(metrics):
        base = name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
        seen.setdefault(base, set()).update(label for label, _ in labels if label != "le")
    assert seen == {family.name: set(family.labels) for family in FAMILIES}


def test_only_codes_that_the_policy_names_become_a_label(metrics: Metrics) -> None:
    meters = metrics.upstream("meshqu")
    for code in ("GONE", "GONE", "<script>", "x" * 5000, None):
        meters.erred(code, frozenset({"GONE"}))
    assert meters.errors == {"GONE": 2, "other": 3}


def test_openmetrics_is_valid_and_says_the_same(metrics: Metrics) -> None:
    metrics.upstream("meshqu").finished("GET", Outcome.OK, 0.1)
    families = list(parse_openmetrics(openmetrics(metrics.registry).decode()))  # type: ignore[no-untyped-call]
    told = {sample.name: sample.value for family in families for sample in family.samples}
    assert told["sidecar_requests_total"] == 1
    assert {family.name for family in families} == {
        family.name.removesuffix("_total").removesuffix("_info") for family in FAMILIES
    }


def test_a_registry_of_its_own_shows_the_process_too() -> None:
    assert b"process_resident_memory_bytes" in generate_latest(Metrics().registry)


def test_a_second_collector_with_one_of_our_names_is_refused(metrics: Metrics) -> None:
    class Stranger(Collector):
        def describe(self) -> Iterator[CounterMetricFamily]:
            return iter([CounterMetricFamily("sidecar_requests", "not ours")])

        def collect(self) -> Iterator[CounterMetricFamily]:
            return self.describe()

    with pytest.raises(ValueError, match="sidecar_requests"):
        metrics.registry.register(Stranger())


def test_the_snapshot_for_the_page_says_what_the_counters_say(metrics: Metrics) -> None:
    meters = metrics.upstream("meshqu")
    meters.finished("GET", Outcome.OK, 0.5)
    meters.attempted("200", 0.5)
    meters.held["wait"] = 1
    told = snapshot(metrics)
    assert told["upstreams"] == [
        {
            "name": "meshqu",
            "outcomes": {"ok": 1},
            "attempts": {"200": 1},
            "retries": 0,
            "suppressed": {},
            "duration_seconds": 0.5,
            "waited_seconds": 0,
            "held": {"wait": 1},
            "gate_closed": False,
            "rate_limit_per_second": None,
            "concurrency_limit": None,
            "breaker_state": 0,
            "budget_tokens": 0.0,
            "trend": [],
            "opened": 0,
            "shadow": None,
        }
    ]


def test_the_snapshot_shows_unknown_hosts_once_there_are_some(metrics: Metrics) -> None:
    assert snapshot(metrics)["upstreams"] == []
    metrics.unknown.finished("GET", Outcome.OK, 0.5)
    upstreams = snapshot(metrics)["upstreams"]
    assert isinstance(upstreams, list)
    assert [upstream["name"] for upstream in upstreams] == ["unknown"]


def test_an_exemplar_leads_from_a_slow_bucket_to_the_log(metrics: Metrics) -> None:
    meters = metrics.upstream("meshqu")
    for number, seconds in enumerate((0.1, 2.0, 2.1)):
        meters.finished("GET", Outcome.OK, seconds)
        meters.is_logged(Outcome.OK, seconds, f"req-{number}", 1_700_000_000.5)
    meters.is_logged(Outcome.OK, 100.0, "x" * 101, 1.0)
    families = list(parse_openmetrics(openmetrics(metrics.registry).decode()))  # type: ignore[no-untyped-call]
    found = {
        sample.labels["le"]: (sample.exemplar.labels["request_id"], sample.exemplar.value)
        for family in families
        for sample in family.samples
        if sample.exemplar
    }
    assert found == {"0.1": ("req-0", 0.1), "2.5": ("req-2", 2.1)}
    assert b"req-" not in generate_latest(metrics.registry)


def test_a_hundred_thousand_hosts_paths_and_methods_add_no_series(metrics: Metrics) -> None:
    def use(name: str, method: str, words: str) -> None:
        meters = metrics.find(name)
        meters.finished(method, Outcome.OK, 0.1)
        meters.attempted(words, 0.1)
        meters.retried(words)
        meters.erred(words, frozenset())
        meters.is_logged(Outcome.OK, 0.1, words, 1.0)

    use("host", "PURGE", "no status")
    before = len(list(samples(metrics)))
    for number in range(100_000):
        use(f"host-{number}", f"METHOD{number}", f"/path/{number}")
    assert len(list(samples(metrics))) == before
