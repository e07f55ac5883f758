"""The last minutes of each upstream, in slots."""

from __future__ import annotations

import sys

from prometheus_client import CollectorRegistry

from sidecar.core.enums import HedgeEnd, Outcome, WaitFrom
from sidecar.observe.metrics import Metrics
from sidecar.observe.snapshot import snapshot
from sidecar.observe.trend import SLOT_SAMPLES, SLOTS, Slot, Trend


def sampled(trend: Trend, times: int) -> None:
    for _ in range(times):
        trend.sample()


def made() -> tuple[Metrics, Trend]:
    metrics = Metrics(CollectorRegistry())
    metrics.upstream("meshqu")
    trend = Trend(metrics)
    sampled(trend, SLOT_SAMPLES)
    return metrics, trend


def test_a_slot_has_what_was_counted_in_it() -> None:
    metrics, trend = made()
    meters = metrics.upstream("meshqu")
    for outcome in (Outcome.OK, Outcome.RECOVERED, Outcome.EXHAUSTED, Outcome.FAILED, Outcome.REJECTED, Outcome.PASSED):
        meters.finished("GET", outcome, 0.1)
    for result in ("200", "503", "200"):
        meters.attempted(result, 0.1)
    meters.retried("503")
    meters.hedged(HedgeEnd.WON)
    meters.waited(WaitFrom.HINT, 1.5)
    assert trend.of(meters)[-1] == Slot(6, 1, 3, 3, 2, 1.5), "the slot that is not over yet"
    sampled(trend, SLOT_SAMPLES)
    assert trend.of(meters)[-2:] == [Slot(6, 1, 3, 3, 2, 1.5), Slot()]


def test_what_held_a_minute_ago_leaves_a_trace() -> None:
    metrics, trend = made()
    meters = metrics.upstream("meshqu")
    meters.breaker_state, meters.held["breaker"], meters.held["wait"] = 2, 7, 5
    trend.sample()
    meters.breaker_state, meters.held["breaker"] = 0, 2
    trend.sample()
    meters.held["breaker"], meters.held["wait"] = 0, 1
    sampled(trend, 12 * SLOT_SAMPLES)
    [slot] = [slot for slot in trend.of(meters) if slot != Slot()]
    assert (slot.held, slot.breaker) == (7, 2)


def test_it_is_bounded_and_quiet_slots_are_one_value() -> None:
    metrics, trend = made()
    sampled(trend, 3 * SLOTS * SLOT_SAMPLES)
    slots = trend.of(metrics.upstream("meshqu"))
    assert len(slots) == SLOTS + 1
    assert len({id(slot) for slot in slots[:-1]}) == 1
    assert sys.getsizeof(slots) < 1024


def test_an_upstream_that_comes_later_begins_with_what_it_has() -> None:
    metrics, trend = made()
    late = metrics.upstream("late")
    late.finished("GET", Outcome.OK, 0.1)
    assert trend.of(late) == []
    trend.sample()
    late.finished("GET", Outcome.OK, 0.1)
    assert trend.of(late)[-1].requests == 1


def test_the_snapshot_tells_it_shortly() -> None:
    metrics, trend = made()
    metrics.upstream("meshqu").finished("GET", Outcome.OK, 0.1)
    told = snapshot(metrics, trend=trend)
    [upstream] = told["upstreams"]  # type: ignore[misc]
    assert upstream["trend"] == [0, [1, 0, 0, 0, 0, 0.0, 0, 0, 0]]  # type: ignore[has-type]
    assert told["trend"] == {"slot_seconds": 5, "slots": SLOTS, "present_seconds": 0}
    assert snapshot(metrics)["upstreams"] != []
