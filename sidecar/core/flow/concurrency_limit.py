"""How many may be at an upstream at once, while it is overloaded or has just come back.

A frozen value that exists only then; at all other times nobody counts. It begins small after an outage and doubles with
each round of answers, as TCP's slow start does; it begins a third below what was too much after failures in numbers.
Then it goes by rounds of answers: less where many fail or answers are much slower than usual (a queue has grown inside
the upstream), more where they are quick and the limit was in the way. Where a queue was seen, the **knee** is known: as
many as are busy there at once. The limit stays at it for a while, then looks beyond it, ever faster. An upstream that
has become slow is not mistaken for a crowded one: where a smaller limit has cost answers per second there was no queue,
the limit is taken back, and what an answer takes now is usual from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import Final

__all__ = ["ConcurrencyLimit", "after_outage", "answered", "failed", "overloaded"]

FEWEST: Final = 2.0
FIRST: Final = 4.0
"""After an outage …"""
USUAL_SHARE: Final = 0.7
"""… or this share of what was usual before, where that is more."""
STEPS_BACK: Final = 0.7
"""To what share of the sends under way it goes when many fail."""
SLOW: Final = 1.25
"""Answers that take so many times longer than quick ones mean that a queue has grown …"""
SLOW_BY_NOW: Final = 1.1
"""… or so many, where one has been seen before: the way back to it is watched more closely."""
SLOW_WHILE_DOUBLING: Final = 2.0
"""… or so many after an outage, where nothing but that speaks for a queue: who is busy, or has grown slower, would
look like one who is crowded."""
LOOP_SECONDS: Final = 0.015
"""So much may be our own doing, when many are released at once or the machine is busy: it is no queue of theirs."""
MANY_SLOW: Final = 0.6
"""Where more than this share of a round takes as long."""
AFTER_DOUBLING: Final = 0.6
"""When the doubling ends it has gone one round too far."""
MOST_CUT: Final = 0.4
GROWTH: Final = 0.1
KNEE_STEP: Final = 0.1
"""The limit stays at the knee that was found, and is so far beyond it after twice the time."""
FIRST_FLAT_SECONDS: Final = 2.0
LONGEST_FLAT_SECONDS: Final = 4.0
CONFIRMED_WITHIN: Final = 0.2
LEAST_RESULTS: Final = 4
LEAST_ROUND_SECONDS: Final = 0.1
RECOVERED: Final = 0.7
"""Answers that take no more than this share of what was usual are usual now: the upstream has become quicker."""
COSTLY: Final = 0.75
"""A smaller limit that leaves no more than this share of the answers per second was no cure."""
SMALLER: Final = 0.9
"""Only a limit that is smaller than that of the best round by so much can have cost anything."""
FADES: Final = 0.95
"""What the best round counts for after another one."""
MANY_FAIL: Final = 0.5
FEW_IN_A_ROW: Final = 3
MOST: Final = 1e6


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    limit: float
    doubling: bool
    quick_seconds: float
    """How long an answer takes where nothing queues, as far as is known; 0: not known."""
    most_per_second: float
    """Answers, in the best round of late."""
    round_at: float
    """Monotonic seconds at which the present round of answers began."""
    cut_at: float = 0.0
    """When the limit became smaller the last time."""
    answers: int = 0
    slow: int = 0
    failures: int = 0
    total_seconds: float = 0.0
    """Of the answers of this round."""
    was_full: bool = False
    most_at: float = 0.0
    """The limit in that best round."""
    knee: float = 0.0
    """Where a queue begins to grow inside the upstream, as far as is known; 0: not known."""
    flat_seconds: float = FIRST_FLAT_SECONDS
    """How long the limit stays at the knee."""
    counted_at: float = 0.0
    """From when on answers are counted under about this limit; 0: not yet …"""
    counted: int = 0
    """… and how many came."""


def after_outage(now: float, usual_seconds: float, usual_under_way: float) -> ConcurrencyLimit:
    """Fewer than were usual before, a few at least. ``usual_seconds``: of an answer; both 0 if not known."""
    return ConcurrencyLimit(max(FIRST, USUAL_SHARE * usual_under_way), True, usual_seconds, 0.0, now)


def overloaded(now: float, under_way: int, usual_seconds: float) -> ConcurrencyLimit:
    """Many fail while others succeed: what is under way is too much."""
    return ConcurrencyLimit(max(FEWEST, under_way * STEPS_BACK), False, usual_seconds, 0.0, now, now)


def answered(current: ConcurrencyLimit, now: float, seconds: float, was_full: bool) -> ConcurrencyLimit:
    """A success that took so long; ``was_full``: somebody waits because of the limit."""
    if now - seconds < current.cut_at <= now:
        return replace(current, round_at=now, counted_at=now)  # sent before the last cut: it says nothing about it
    seconds = max(seconds, 1e-6)
    quick = current.quick_seconds or seconds
    full = current.was_full or was_full
    limit = min(MOST, current.limit + 1) if current.doubling and was_full else current.limit
    slow = current.slow + (seconds > _long(current, quick))
    total = current.total_seconds + seconds
    current = replace(
        current,
        limit=limit,
        quick_seconds=quick,
        answers=current.answers + 1,
        counted=current.counted + 1,
        counted_at=current.counted_at or current.round_at,
        slow=slow,
        total_seconds=total,
        was_full=full,
    )
    return _end_round(current, now)


def failed(current: ConcurrencyLimit, now: float, seconds: float, in_a_row: int) -> ConcurrencyLimit:
    """A failure of an attempt that was sent under this limit and took so long.

    A few in a row do not wait for the end of the round: who refuses at once makes room at once, and would draw in
    everybody who waits.
    """
    if now - seconds < current.cut_at <= now:
        return current
    if in_a_row >= FEW_IN_A_ROW:
        return _begin_round(_step_back(replace(current, doubling=False, knee=0.0), now), now)
    return _end_round(replace(current, failures=current.failures + 1), now)


def _end_round(current: ConcurrencyLimit, now: float) -> ConcurrencyLimit:
    """After as many results as the limit, and no sooner than half of what they take: then judge them.

    With fewer, answers that come in clumps would look like a rate that they do not have. While it doubles, the limit
    runs ahead of the answers, and half of it is enough.
    """
    results = current.answers + current.failures
    mean = current.total_seconds / current.answers if current.answers else 0.0
    seconds = now - current.round_at
    enough = max(LEAST_RESULTS, current.limit / 2 if current.doubling else current.limit)
    if results < enough or 0 <= seconds < max(LEAST_ROUND_SECONDS, mean / 2):
        return current
    per_second = current.answers / max(seconds, LEAST_ROUND_SECONDS)
    is_cured = current.failures < MANY_FAIL * results and current.slow <= MANY_SLOW * current.answers
    is_smaller = current.limit <= SMALLER * current.most_at
    is_slow = not is_cured and current.was_full and is_smaller and 0 < per_second < COSTLY * current.most_per_second
    if is_slow:
        taken_back = max(current.limit * (1 + GROWTH), current.most_at)
        judged = replace(current, limit=min(MOST, taken_back), quick_seconds=mean, knee=0.0)
    elif current.failures >= MANY_FAIL * results:
        judged = _step_back(replace(current, knee=0.0), now)
    elif not is_cured:
        judged = _queued(current, mean, now)
    else:
        quick = mean if 0 < mean < RECOVERED * current.quick_seconds else current.quick_seconds
        judged = replace(current, limit=_grown(current, now), quick_seconds=quick)
    most, most_at = FADES * current.most_per_second, current.most_at
    if per_second >= most:
        most, most_at = per_second, current.limit
    judged = replace(judged, doubling=current.doubling and is_cured, most_per_second=most, most_at=most_at)
    return _begin_round(judged, now)


def _long(current: ConcurrencyLimit, quick_seconds: float) -> float:
    """An answer that takes more seconds than this has waited in a queue."""
    times = SLOW_WHILE_DOUBLING if current.doubling else SLOW_BY_NOW if current.knee else SLOW
    return max(times * quick_seconds, quick_seconds + LOOP_SECONDS)


def _begin_round(current: ConcurrencyLimit, now: float) -> ConcurrencyLimit:
    return replace(current, round_at=now, answers=0, slow=0, failures=0, total_seconds=0.0, was_full=False)


def _cut(current: ConcurrencyLimit, limit: float, now: float) -> ConcurrencyLimit:
    return replace(current, limit=max(FEWEST, limit), cut_at=now, counted_at=0.0, counted=0)


def _step_back(current: ConcurrencyLimit, now: float) -> ConcurrencyLimit:
    """After failures: smaller, but with room for what the upstream has just been seen to take (Little's law)."""
    floor = min(current.limit, current.most_per_second * current.quick_seconds)
    return _cut(current, max(STEPS_BACK * current.limit, floor), now)


def _queued(current: ConcurrencyLimit, mean_seconds: float, now: float) -> ConcurrencyLimit:
    """After a round that crawled: what waits inside the upstream is the part of the limit that it does not need.

    By Little's law it needs its answers per second times how long one takes where nothing queues: of all answers since
    the last cut, or of this round where that is more, because the limit has grown since. If it crawls by chance, that
    is the limit itself, and hardly anything is lost.
    """
    if current.doubling:
        return _cut(current, current.limit * AFTER_DOUBLING, now)
    per_second = max(current.counted / max(now - current.counted_at, LEAST_ROUND_SECONDS), current.limit / mean_seconds)
    needed = max(current.quick_seconds, LOOP_SECONDS) * per_second
    knee = min(current.limit, max(float(ceil(needed)), MOST_CUT * current.limit))
    is_confirmed = abs(knee - current.knee) <= CONFIRMED_WITHIN * knee
    flat = min(LONGEST_FLAT_SECONDS, 2 * current.flat_seconds) if is_confirmed else FIRST_FLAT_SECONDS
    return _cut(replace(current, knee=knee, flat_seconds=flat), knee, now)


def _grown(current: ConcurrencyLimit, now: float) -> float:
    """The limit after a good round: larger, if it was in the way."""
    if not current.was_full or current.doubling:
        return current.limit
    faster = current.limit + max(1.0, GROWTH * current.limit)
    if not current.knee:
        return min(MOST, faster)
    age = max(0.0, now - current.cut_at)
    wanted = current.knee * (1 + KNEE_STEP * min(max(0.0, age / current.flat_seconds - 1), 100.0) ** 3)
    return min(MOST, faster, max(current.limit, wanted))
