"""The last minutes of each upstream, in slots of five seconds: what the page draws along its time axis.

Sampled once a second from the counters, so that a request pays nothing for it; a slot without traffic and trouble is
one shared value. Nothing is averaged: a slot holds what was counted in it, and the worst value of its samples. A state
that begins and ends between two samples shows only in its counters. Counterpart: ``snapshot``.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from sidecar.core.enums import Outcome
from sidecar.observe.meters import DURATION_SUM, UpstreamMeters
from sidecar.observe.metrics import Metrics

__all__ = ["SLOTS", "SLOT_SAMPLES", "Slot", "Trend"]

SLOT_SAMPLES: Final = 5
"""Samples in one slot, one a second: five seconds."""
SLOTS: Final = 60
"""Slots kept: five minutes, so that an outage that is noticed late is still shown."""
_GAVE_UP: Final = (Outcome.EXHAUSTED, Outcome.FAILED, Outcome.REJECTED)


class Slot(NamedTuple):
    """Counts of five seconds; the last three are the worst values sampled."""

    requests: int = 0
    """Requests that ended."""
    saved: int = 0
    """Requests that recovered."""
    gave_up: int = 0
    """Requests that were exhausted, failed or rejected."""
    sends: int = 0
    extra: int = 0
    """Sends that were retries or hedges."""
    waited_seconds: float = 0.0
    """Seconds of waits before a retry that ended."""
    held: int = 0
    """Exchanges held, without those that only wait before their own retry: these hold no other exchange, and count in
    ``waited_seconds``.
    """
    gates: int = 0
    """Gates that are closed."""
    breaker: int = 0
    """0 closed, 1 probing, 2 open."""


_QUIET: Final = Slot()


class _Line:
    """The slots of one upstream."""

    __slots__ = ("before", "breaker", "gates", "held", "slots")

    def __init__(self, meters: UpstreamMeters) -> None:
        self.slots: deque[Slot] = deque(maxlen=SLOTS)
        self.before = _counts(meters)
        self.held = self.gates = self.breaker = 0

    def sample(self, meters: UpstreamMeters) -> None:
        held = sum(meters.held.values()) - meters.held["wait"]
        gates = sum(meters.gates_closed.values())
        if held or gates or meters.breaker_state:
            self.held = max(self.held, held)
            self.gates = max(self.gates, gates)
            self.breaker = max(self.breaker, meters.breaker_state)

    def end_slot(self, meters: UpstreamMeters) -> None:
        slot = self.present(meters)
        self.slots.append(_QUIET if slot == _QUIET else slot)
        self.before = _counts(meters)
        self.held = self.gates = self.breaker = 0

    def present(self, meters: UpstreamMeters) -> Slot:
        """The counts of the slot that is not over yet."""
        now, before = _counts(meters), self.before
        requests, saved, gave_up, sends, extra = (max(0, int(n - b)) for n, b in zip(now[:5], before, strict=False))
        waited = round(max(0.0, now[5] - before[5]), 3)
        return Slot(requests, saved, gave_up, sends, extra, waited, self.held, self.gates, self.breaker)


class Trend:
    """The slots of all upstreams of one process."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._lines: dict[str, _Line] = {}
        self._samples = 0

    def sample(self) -> None:
        """Take a sample; called once a second."""
        self._samples += 1
        ends = self._samples >= SLOT_SAMPLES
        for meters in self._metrics.upstreams():
            line = self._lines.get(meters.name)
            if line is None:
                line = self._lines[meters.name] = _Line(meters)
            line.sample(meters)
            if ends:
                line.end_slot(meters)
        if ends:
            self._samples = 0

    @property
    def present_seconds(self) -> int:
        """Seconds for which the current slot has lasted."""
        return self._samples

    def of(self, meters: UpstreamMeters) -> list[Slot]:
        """The slots of an upstream, oldest first; the last one is not over yet."""
        line = self._lines.get(meters.name)
        if line is None:
            return []
        line.sample(meters)
        return [*line.slots, line.present(meters)]


def _counts(meters: UpstreamMeters) -> tuple[float, ...]:
    requests = {outcome: sum(by.values()) for outcome, by in meters.requests.items()}
    return (
        sum(requests.values()),
        requests[Outcome.RECOVERED],
        sum(requests[outcome] for outcome in _GAVE_UP),
        sum(meters.attempts.values()),
        sum(meters.retries.values()) + sum(meters.hedges.values()),
        sum(cells[DURATION_SUM] for cells in meters.waits.values()),
    )
