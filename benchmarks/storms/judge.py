"""The judge: figures of one peer in one storm, out of what the upstream saw and what the apps were told.

Pure arithmetic on two logs, in monotonic seconds of one machine. It starts nothing and measures nothing; the counting
by slices of time is ``sidecar.simulate.stats``'s.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import accumulate
from typing import Any

from sidecar.simulate.run import Stood
from sidecar.simulate.stats import Stats
from sidecar.simulate.storms import Storm

__all__ = ["FLIGHT_SECONDS", "Arrival", "Reply", "Trial", "early", "stood"]

FLIGHT_SECONDS = 0.03
"""What arrives within this time of a hint may have been sent before it was read, and is not held against anybody."""
CLOCK_SECONDS = 0.002
"""A timer that rings within this time of the moment is no early one: clocks are read at both ends."""
SLICE_SECONDS = 0.1


@dataclass(slots=True)
class Arrival:
    """One request as the upstream saw it."""

    at: float
    name: str
    number: int
    """1 for the first of this name."""
    applied: bool = False
    answer: str = ""
    """Its status, or how its connection ended; empty while it is not answered."""
    answered_at: float = 0.0
    allowed_at: float | None = None
    """When the answer allowed the next send; None if it did not say."""
    method: str = "POST"

    def row(self) -> list[Any]:
        """For the wire, in the order of the fields."""
        return list(astuple(self))


@dataclass(frozen=True, slots=True)
class Reply:
    """What an app was told in the end."""

    name: str
    due_at: float
    """When the request was to be sent; its latency counts from then."""
    ended_at: float
    status: int
    """0: no answer, the connection ended."""
    reason: str = ""
    """The sidecar's own word for why it stopped; empty where a peer says none."""

    @property
    def good(self) -> bool:
        return 200 <= self.status < 400


@dataclass(frozen=True, slots=True)
class Trial:
    """Both logs of one peer in one storm."""

    began_at: float
    replies: Sequence[Reply]
    arrivals: Sequence[Arrival]

    @property
    def early(self) -> int:
        """Sends that arrived before the upstream's word allowed anybody another; see ``early``."""
        return early(self.arrivals)

    @property
    def early_again(self) -> int:
        """Of them, those that came too soon after the refusal of the same request: no flight time excuses these."""
        before: dict[str, float] = {}
        count = 0
        for arrival in sorted(self.arrivals, key=lambda one: one.at):
            count += arrival.at < before.get(arrival.name, 0.0) - CLOCK_SECONDS
            before[arrival.name] = arrival.allowed_at or 0.0
        return count

    @property
    def applied_twice(self) -> int:
        """POSTs that took effect more than once; to repeat a GET changes nothing."""
        effects = Counter(one.name for one in self.arrivals if one.applied and one.method == "POST")
        return sum(times > 1 for times in effects.values())

    @property
    def untold(self) -> int:
        """Requests that may have been applied and brought no answer, of which the app was told anything but
        502 ``not_safe``; one that got a good answer was sent again, and is counted by ``applied_twice``."""
        silent = {one.name for one in self.arrivals if one.answer and not one.answer.isdigit()}
        return sum(
            reply.name in silent and not reply.good and (reply.status, reply.reason) != (502, "not_safe")
            for reply in self.replies
        )

    @property
    def told(self) -> int:
        return sum(not reply.good and (reply.status, reply.reason) == (502, "not_safe") for reply in self.replies)

    @property
    def complaints(self) -> Counter[str]:
        """What the apps were told that was not good: status and reason."""
        return Counter(f"{reply.status or 'cut'} {reply.reason}".strip() for reply in self.replies if not reply.good)


def early(arrivals: Sequence[Arrival]) -> int:
    """Arrivals before the latest moment that any answer had allowed by then.

    An answer counts from ``FLIGHT_SECONDS`` after it was written: until then it may not have been read.
    """
    hints = sorted((one.answered_at + FLIGHT_SECONDS, one.allowed_at) for one in arrivals if one.allowed_at is not None)
    known_at = [known for known, _ in hints]
    quiet_until = list(accumulate((until for _, until in hints), max))
    count = 0
    for arrival in arrivals:
        known = bisect_right(known_at, arrival.at)
        count += known > 0 and arrival.at < quiet_until[known - 1] - CLOCK_SECONDS
    return count


def stood(name: str, storm: Storm, trial: Trial) -> Stood:
    """The same nouns as of a simulated run: figures, and the series that the page draws."""
    stats, zero = Stats(SLICE_SECONDS), trial.began_at
    for arrival in trial.arrivals:
        stats.sent.add(max(0.0, arrival.at - zero))
    for reply in trial.replies:
        begun, ended = reply.due_at - zero, reply.ended_at - zero
        stats.offered.add(max(0.0, begun))
        if reply.good:
            stats.succeeded.add(ended)
        stats.outcomes["ok" if reply.good else "error"] += 1
        stats.durations.append((begun, ended - begun, reply.good))
        stats.ended_at = max(stats.ended_at, ended)
    stats.applied_twice = trial.applied_twice
    stats.reasons = trial.complaints
    stats.held = _inside(trial)
    return Stood(name, storm, stats, trial.early)


def _inside(trial: Trial) -> list[int]:
    """Requests without an answer whose send is not at the upstream either, at the beginning of each slice."""
    changes: Counter[int] = Counter()
    spans = [(reply.due_at, reply.ended_at, 1) for reply in trial.replies]
    spans += [(one.at, one.answered_at or one.at, -1) for one in trial.arrivals]
    for begin, end, step in spans:
        changes[_slice(begin - trial.began_at)] += step
        changes[_slice(end - trial.began_at)] -= step
    held = list(accumulate(changes[index] for index in range(max(changes, default=0) + 1)))
    return [max(0, count) for count in held]


def _slice(seconds: float) -> int:
    return max(0, int(seconds / SLICE_SECONDS) + 1)
