"""The counters as plain data, for the page: what /metrics says, small enough to poll.

It reads and never resets; rates are the reader's business. The counterpart is ``metrics``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sidecar.observe.metrics import Metrics, UpstreamMeters

__all__ = ["snapshot"]

NO_STATES: Final[Mapping[str, Mapping[str, object]]] = {}


def snapshot(metrics: Metrics, states: Mapping[str, Mapping[str, object]] = NO_STATES) -> dict[str, object]:
    """All counters and states at this moment. An ``unknown`` upstream that was never used is left out.

    ``states``: by upstream, what the loop knows beside the counters.
    """
    return {
        "build": metrics.build,
        "inflight": metrics.inflight,
        "buffered_bytes": metrics.buffered_bytes,
        "tunnels": metrics.tunnels,
        "log_dropped": metrics.log_dropped(),
        "protocol_errors": sum(metrics.protocol_errors.values()),
        "config": {"ok": metrics.config_ok, "loaded_at": metrics.config_loaded_at},
        "upstreams": [
            {**_upstream(meters), **states.get(meters.name, {})}
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
        "gate_closed": bool(meters.gate_closed),
        "breaker_state": meters.breaker_state,
        "budget_tokens": round(meters.budget(), 3),
    }


def _is_used(meters: UpstreamMeters) -> bool:
    return any(any(by.values()) for by in meters.requests.values()) or any(meters.attempts.values())


def _nonzero(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}
