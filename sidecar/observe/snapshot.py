"""The counters as plain data, for the page: what /metrics says, small enough to poll.

It reads and never resets; rates are the reader's business. The counterpart is ``metrics``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sidecar.observe.families import UNREAD_BODY
from sidecar.observe.metrics import Metrics, UpstreamMeters
from sidecar.observe.trend import SLOT_SAMPLES, SLOTS, Trend

__all__ = ["snapshot"]

NO_STATES: Final[Mapping[str, Mapping[str, object]]] = {}


def snapshot(
    metrics: Metrics, states: Mapping[str, Mapping[str, object]] = NO_STATES, trend: Trend | None = None
) -> dict[str, object]:
    """All counters and states at this moment. An ``unknown`` upstream that was never used is left out.

    ``states``: by upstream, what the loop knows beside the counters. ``trend``: the slots of each, oldest first, each a
    list in the order of ``Slot``, or 0 for a quiet one.
    """
    return {
        "build": metrics.build,
        "inflight": metrics.inflight,
        "buffered_bytes": metrics.buffered_bytes,
        "tunnels": metrics.tunnels,
        "log_dropped": metrics.log_dropped(),
        "protocol_errors": sum(metrics.protocol_errors.values()),
        "config": {"ok": metrics.config_ok, "loaded_at": metrics.config_loaded_at},
        "trend": {
            "slot_seconds": SLOT_SAMPLES,
            "slots": SLOTS,
            "present_seconds": 0 if trend is None else trend.present_seconds,
        },
        "upstreams": [
            {**_upstream(meters), **states.get(meters.name, {}), "trend": _slots(meters, trend)}
            for meters in metrics.upstreams()
            if meters is not metrics.unknown or _is_used(meters)
        ],
    }


def _upstream(meters: UpstreamMeters) -> dict[str, object]:
    return {
        "name": meters.name,
        "outcomes": _nonzero({str(outcome): sum(by.values()) for outcome, by in meters.requests.items()}),
        "attempts": dict(meters.attempts),
        "retries": sum(meters.retries.values()),
        "suppressed": _nonzero({str(reason): count for reason, count in meters.suppressions.items()}),
        "duration_seconds": sum(cells[-1] for cells in meters.durations.values()),
        "waited_seconds": sum(cells[-1] for cells in meters.waits.values()),
        "held": _nonzero(meters.held),
        "gate_closed": any(meters.gates_closed.values()),
        "rate_limit_per_second": meters.rate_limit_per_second,
        "concurrency_limit": meters.concurrency_limit,
        "breaker_state": meters.breaker_state,
        "budget_tokens": round(meters.budget(), 3),
        "opened": meters.opened,
        "shadow": _shadow(meters),
    }


def _shadow(meters: UpstreamMeters) -> dict[str, object] | None:
    """What the shadow policy has come to; None where it has judged nothing."""
    if not meters.shadow:
        return None
    told = [(actual, shadow, count) for (actual, shadow), count in list(meters.shadow.items())]
    unread = sum(count for _, shadow, count in told if shadow == UNREAD_BODY)
    return {
        "judged": sum(count for _, _, count in told) - unread,
        "unread_body": unread,
        "differs": {f"{actual} → {shadow}": n for actual, shadow, n in told if shadow not in (actual, UNREAD_BODY)},
    }


def _slots(meters: UpstreamMeters, trend: Trend | None) -> list[object]:
    slots = [] if trend is None else trend.of(meters)
    return [list(slot) if any(slot) else 0 for slot in slots]


def _is_used(meters: UpstreamMeters) -> bool:
    return any(any(by.values()) for by in meters.requests.values()) or any(meters.attempts.values())


def _nonzero(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}
