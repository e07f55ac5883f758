"""The counters: plain numbers in plain lists and dicts, one object for each upstream, bound once.

Nothing here takes a lock, looks up a label or makes an object per request. What a client or an upstream sends becomes a
word of a closed list before it is counted. Counterpart: ``metrics``, which shows them to Prometheus.
"""

# Compiled in the wheel.

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client.samples import Exemplar

from sidecar.core.enums import FailureKind, HedgeEnd, Outcome, Reason
from sidecar.core.flow import latency
from sidecar.core.flow.latency import Latency
from sidecar.core.flow.scopes import SCOPE_KINDS
from sidecar.observe.families import (
    DURATION_BUCKETS,
    HEDGE_CANCELLED,
    HELD_BY,
    METHODS,
    OTHER,
    OTHER_METHOD,
    OVERHEAD_BUCKETS,
    STORE_FAULTS,
    WAITED_FROM,
)

__all__ = ["DURATION_SUM", "OVERHEAD_SUM", "Cells", "SharedMeters", "TraceMeters", "UpstreamMeters", "cells_of"]

EXEMPLAR_CHARACTERS: Final = 100
"""Characters of a request id in an exemplar: OpenMetrics allows 128 for the names and values of its labels together."""

_FAILURES = frozenset(str(word) for word in FailureKind)

Cells = list[float]
"""A histogram: the count of each bucket, of everything above the last, and at the end the sum."""
DURATION_SUM: Final = len(DURATION_BUCKETS) + 1
OVERHEAD_SUM: Final = len(OVERHEAD_BUCKETS) + 1


def cells_of(buckets: Sequence[float]) -> Cells:
    """An empty histogram."""
    return [0] * (len(buckets) + 2)


class OutboxMeters:
    """The outbox's figures of one upstream."""

    __slots__ = ("dead", "delivered", "died", "oldest_age_seconds", "waiting")

    def __init__(self) -> None:
        self.waiting = 0
        self.dead = 0
        """Dead letters at this moment."""
        self.died = 0
        """Dead letters since the start."""
        self.delivered = 0
        self.oldest_age_seconds = 0.0
        """Seconds since the oldest waiting request was stored; 0: none waits."""


class UpstreamMeters:
    """The counters of one upstream. Bound once, when the configuration is read."""

    __slots__ = (
        "attempt_durations",
        "attempts",
        "attempts_lost",
        "breaker_state",
        "budget_tokens",
        "concurrency_limit",
        "durations",
        "errors",
        "exemplars",
        "flow_changes",
        "gates_closed",
        "hedges",
        "held",
        "login_failures",
        "logins",
        "name",
        "opened",
        "outbox",
        "rate_limit_per_second",
        "read_budget",
        "requests",
        "retries",
        "retries_off",
        "shadow",
        "suppressions",
        "waits",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests = {outcome: dict.fromkeys((*METHODS, OTHER_METHOD), 0) for outcome in Outcome}
        self.durations = {outcome: cells_of(DURATION_BUCKETS) for outcome in Outcome}
        self.exemplars: dict[Outcome, dict[int, Exemplar]] = {}
        """Bucket of ``durations`` → the last logged exchange in it."""
        self.attempts: dict[str, int] = {}
        self.attempt_durations = cells_of(DURATION_BUCKETS)
        self.attempts_lost = 0
        """Attempts that counted as under way though no exchange had them."""
        self.retries: dict[str, int] = {}
        self.hedges = dict.fromkeys(HedgeEnd, 0)
        self.suppressions = dict.fromkeys(Reason, 0)
        self.shadow: dict[tuple[str, str], int] = {}
        """What was done and what the shadow policy would have done → answers."""
        self.errors: dict[str, int] = {}
        """Error code of the upstream's own → error responses with it."""
        self.logins = 0
        self.login_failures = 0
        self.outbox = OutboxMeters()
        self.waits = {source: cells_of(DURATION_BUCKETS) for source in WAITED_FROM}
        self.held = dict.fromkeys(HELD_BY, 0)
        """What holds → the exchanges that it holds now; the loop adds and subtracts."""
        self.flow_changes: dict[tuple[str, str], int] = {}
        """How often each part of flow control began to hold, and released."""
        # What is in force; updated when it is read.
        self.gates_closed = dict.fromkeys(SCOPE_KINDS, 0)
        self.rate_limit_per_second: float | None = None
        """The lowest rate learnt, per second; None: none was learnt."""
        self.concurrency_limit: int | None = None
        self.breaker_state = 0
        """0 closed, 1 probing, 2 open."""
        self.budget_tokens = 0.0
        self.opened = 0
        """How often an operator released the queue."""
        self.retries_off = False
        """Whether an operator has turned retries off."""
        self.read_budget: Callable[[], float] | None = None
        """If set, called at every scrape in place of ``budget_tokens``, in the scraping thread."""

    def finished(self, method: str, outcome: Outcome, duration_seconds: float) -> None:
        """Count an exchange that is over. Methods outside the closed list count as ``_OTHER``."""
        counts = self.requests[outcome]
        try:
            counts[method] += 1
        except KeyError:
            counts[OTHER_METHOD] += 1
        cells = self.durations[outcome]
        cells[bisect_left(DURATION_BUCKETS, duration_seconds)] += 1
        cells[DURATION_SUM] += duration_seconds

    def is_logged(self, outcome: Outcome, duration_seconds: float, request_id: str, at: float) -> None:
        """Note that this exchange can be found in the log by its id; ``at``: Unix seconds."""
        if len(request_id) <= EXEMPLAR_CHARACTERS:
            found = Exemplar({"request_id": request_id}, duration_seconds, at)
            self.exemplars.setdefault(outcome, {})[bisect_left(DURATION_BUCKETS, duration_seconds)] = found

    def attempted(self, result: str, duration_seconds: float) -> None:
        """Count a send that is over: its status code as text, or the word of its failure."""
        counts = self.attempts
        try:
            counts[result] += 1
        except KeyError:
            _admit(counts, result)
        cells = self.attempt_durations
        cells[bisect_left(DURATION_BUCKETS, duration_seconds)] += 1
        cells[DURATION_SUM] += duration_seconds

    def usual_seconds(self) -> float:
        """The median seconds of an attempt, as finely as buckets and mean tell; 0 before the first."""
        *counts, total_seconds = self.attempt_durations
        return latency.median(DURATION_BUCKETS, counts, total_seconds)

    def told(self, known: Latency, *, calm: bool) -> Latency:
        """The recent latency; called once a second."""
        *counts, total_seconds = self.attempt_durations
        return latency.update(known, DURATION_BUCKETS, counts, total_seconds, calm=calm)

    def retried(self, cause: str) -> None:
        """Count a retry, by the status code or failure that caused it."""
        _admit(self.retries, cause)

    def hedged(self, end: HedgeEnd) -> None:
        """Count the end of a hedge."""
        self.hedges[end] += 1

    def cancelled(self) -> None:
        """Count a send that was cut because the other one was quicker; its duration is unknown."""
        self.attempts[HEDGE_CANCELLED] = self.attempts.get(HEDGE_CANCELLED, 0) + 1

    def shadowed(self, actual: str, shadow: str) -> None:
        """Count an answer that was judged by the shadow policy, too: verbs, or ``UNREAD_BODY``."""
        self.shadow[actual, shadow] = self.shadow.get((actual, shadow), 0) + 1

    def suppressed(self, reason: Reason) -> None:
        """Count an error that was not retried (again), by its reason."""
        self.suppressions[reason] += 1

    def erred(self, code: str | None, known: frozenset[str]) -> None:
        """Count an error response by the upstream's own code; one that the policy does not name is ``other``."""
        word = code if code is not None and code in known else OTHER
        self.errors[word] = self.errors.get(word, 0) + 1

    def flow_changed(self, by: str, to: str, times: int) -> None:
        """Count that a part of flow control began to ``hold``, or to ``release``."""
        self.flow_changes[by, to] = self.flow_changes.get((by, to), 0) + times

    def waited(self, source: str, seconds: float) -> None:
        """Count ``seconds`` of waiting; ``source``: a word of ``WAITED_FROM``."""
        cells = self.waits[source]
        cells[bisect_left(DURATION_BUCKETS, seconds)] += 1
        cells[-1] += seconds

    def budget(self) -> float:
        return self.budget_tokens if self.read_budget is None else self.read_budget()


class SharedMeters:
    """The counters of the store that replicas share."""

    __slots__ = ("errors", "up")

    def __init__(self) -> None:
        self.up = False
        self.errors = dict.fromkeys(STORE_FAULTS, 0)

    def failed(self, fault: str) -> None:
        """Count a failed operation; a fault outside the closed list counts as ``other``."""
        self.errors[fault if fault in self.errors else OTHER] += 1


class TraceMeters:
    """The counters of the export of spans, by exchange."""

    __slots__ = ("exported", "failed", "queue_full")

    def __init__(self) -> None:
        self.exported = 0
        self.failed = 0
        """The collector did not take them."""
        self.queue_full = 0
        """Dropped, since the collector had not taken those before."""


def _admit(counts: dict[str, int], result: str) -> None:
    """Count a result that may be new; one that is neither a status nor a failure counts as ``other``."""
    word = str(result)
    if word not in _FAILURES and not _is_status(word):
        word = OTHER
    counts[word] = counts.get(word, 0) + 1


def _is_status(text: str) -> bool:
    return len(text) == 3 and text.isascii() and text.isdigit() and "100" <= text <= "599"
