"""How many may be at an upstream at once, while it is overloaded or has just come back.

A frozen value that exists only then; at all other times nobody counts. It begins small after an outage and doubles with
each round of answers, as TCP's slow start does; it begins a third below what was too much after failures in numbers.
Then it is additive increase and multiplicative decrease by rounds: less where many fail or answers are much slower than
usual (a queue has grown inside the upstream), more where they are quick and the limit was in the way. An upstream that
has become slow is not mistaken for a crowded one: where a smaller limit has cost answers per second there was no queue,
and what it takes now is usual from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

__all__ = ["Crowd", "after_outage", "answered", "failed", "overloaded"]

FEWEST: Final = 2.0
FIRST: Final = 4.0
"""After an outage …"""
USUAL_SHARE: Final = 0.7
"""… or this share of what was usual before, where that is more."""
STEPS_BACK: Final = 0.7
"""To what share of the sends under way it goes when many fail."""
SLOW: Final = 1.25
"""Answers that take so many times longer than quick ones mean that a queue has grown …"""
MANY_SLOW: Final = 0.6
"""… where more than this share of a round takes as long."""
AFTER_DOUBLING: Final = 0.6
"""When the doubling ends it has gone one round too far."""
MOST_CUT: Final = 0.5
GROWTH: Final = 0.1
LEAST_RESULTS: Final = 4
LEAST_ROUND_SECONDS: Final = 0.1
COSTLY: Final = 0.75
"""A smaller limit that leaves no more than this share of the answers per second was no cure."""
FADES: Final = 0.95
"""What the best round counts for after another one."""
MANY_FAIL: Final = 0.5
FEW_IN_A_ROW: Final = 3
MOST: Final = 1e6


@dataclass(frozen=True, slots=True)
class Crowd:
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


def after_outage(now: float, usual_seconds: float, usual_crowd: float) -> Crowd:
    """Fewer than were usual before, a few at least. ``usual_seconds``: of an answer; both 0 if not known."""
    return Crowd(max(FIRST, USUAL_SHARE * usual_crowd), True, usual_seconds, 0.0, now)


def overloaded(now: float, under_way: int, usual_seconds: float) -> Crowd:
    """Many fail while others succeed: what is under way is too much."""
    return Crowd(max(FEWEST, under_way * STEPS_BACK), False, usual_seconds, 0.0, now, now)


def answered(crowd: Crowd, now: float, seconds: float, was_full: bool) -> Crowd:
    """A success that took so long; ``was_full``: somebody waits because of the limit."""
    if now - seconds < crowd.cut_at <= now:
        return replace(crowd, round_at=now)  # sent before the last cut: it says nothing about it
    seconds = max(seconds, 1e-6)
    quick = crowd.quick_seconds or seconds
    full = crowd.was_full or was_full
    limit = min(MOST, crowd.limit + 1) if crowd.doubling and was_full else crowd.limit
    slow = crowd.slow + (seconds > SLOW * quick)
    total = crowd.total_seconds + seconds
    crowd = replace(
        crowd,
        limit=limit,
        quick_seconds=quick,
        answers=crowd.answers + 1,
        slow=slow,
        total_seconds=total,
        was_full=full,
    )
    return _end_round(crowd, now)


def failed(crowd: Crowd, now: float, seconds: float, in_a_row: int) -> Crowd:
    """A failure of an attempt that was sent under this limit and took so long.

    A few in a row do not wait for the end of the round: who refuses at once makes room at once, and would draw in
    everybody who waits.
    """
    if now - seconds < crowd.cut_at <= now:
        return crowd
    if in_a_row >= FEW_IN_A_ROW:
        return _begin_round(
            replace(crowd, limit=max(FEWEST, crowd.limit * STEPS_BACK), doubling=False, cut_at=now), now
        )
    return _end_round(replace(crowd, failures=crowd.failures + 1), now)


def _end_round(crowd: Crowd, now: float) -> Crowd:
    """After as many results as half the limit, and no sooner than the answers take: then judge them."""
    results = crowd.answers + crowd.failures
    mean = crowd.total_seconds / crowd.answers if crowd.answers else 0.0
    seconds = now - crowd.round_at
    if results < max(LEAST_RESULTS, crowd.limit / 2) or 0 <= seconds < max(LEAST_ROUND_SECONDS, mean / 2):
        return crowd
    per_second = crowd.answers / max(seconds, LEAST_ROUND_SECONDS)
    is_cured = crowd.failures < MANY_FAIL * results and crowd.slow <= MANY_SLOW * crowd.answers
    is_slow = not is_cured and crowd.was_full and 0 < per_second < COSTLY * crowd.most_per_second
    limit = crowd.limit * (1 + GROWTH) if is_slow else _next_limit(crowd, results, mean)
    judged = replace(
        crowd,
        limit=min(MOST, max(FEWEST, limit)),
        cut_at=now if limit < crowd.limit else crowd.cut_at,
        doubling=crowd.doubling and is_cured,
        quick_seconds=mean if is_slow else crowd.quick_seconds,
        most_per_second=max(per_second, FADES * crowd.most_per_second),
    )
    return _begin_round(judged, now)


def _begin_round(crowd: Crowd, now: float) -> Crowd:
    return replace(crowd, round_at=now, answers=0, slow=0, failures=0, total_seconds=0.0, was_full=False)


def _next_limit(crowd: Crowd, results: int, mean_seconds: float) -> float:
    """After a round. One that fails or crawls makes it smaller, a good one that was full makes it larger."""
    if crowd.failures >= MANY_FAIL * results:
        return crowd.limit * STEPS_BACK
    if crowd.slow > MANY_SLOW * crowd.answers:
        cut = AFTER_DOUBLING if crowd.doubling else SLOW * crowd.quick_seconds / mean_seconds
        return crowd.limit * min(1.0, max(MOST_CUT, cut))
    if crowd.was_full and not crowd.doubling:
        return crowd.limit + max(1.0, GROWTH * crowd.limit)
    return crowd.limit
