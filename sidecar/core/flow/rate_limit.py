"""The pace: how many a second an upstream really takes, learnt from what it takes and what it refuses.

A frozen value that exists only after a refusal for the rate (429, or 503 with a hint that closes the gate); an upstream
that never refuses never notices that pacing exists. It begins with what was taken before, doubles each second until the
next refusal, and then stays near the rate that it knows. Each refusal tells it: what was taken since the gate opened is
the upstream's rate times that time, and the **burst** that had gathered meanwhile: what was taken at once before the
first refusal, if that was little; if it is not known, the truth lies between none and all that the time in quiet can
have gathered. The longer the time, the less the burst matters. Growth near the rate is cubic (flat, then steeper), and
flatter each time it is confirmed.

Where the upstream announces its quota, that is the rate, until it refuses below it. An attempt sent before the last
refusal was known is late (it carries an older ``generation``): it is counted, but slows nothing down a second time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from sidecar.core.flow.ratelimit_headers import RateLimitHeaders

__all__ = [
    "RateLimit",
    "begin",
    "held_until",
    "informed",
    "memory_seconds",
    "rate_at",
    "ready_at",
    "refused",
    "scaled",
    "succeeded",
    "take",
]

LEAST_PER_SECOND: Final = 0.02
"""Once in fifty seconds: within the default deadline."""
MOST_PER_SECOND: Final = 1e6
LEAST_SPAN_SECONDS: Final = 1.0
"""What was taken in a shorter time says nothing about a second."""
MEMORY_SECONDS: Final = 1.0
"""Of the moving rate of successes, at ten a second and more; slower rates are remembered for ten successes."""
MOST_MEMORY_SECONDS: Final = 60.0
BURST_SECONDS: Final = 0.01
"""So much may go at once …"""
LEAST_BURST: Final = 1.9
"""… or one, and a timer that rings late loses nothing."""
DOUBLES_IN_SECONDS: Final = 1.0
BELOW: Final = 0.97
"""Of the rate that was found: to begin with."""
HIGHEST_SHARE: Final = 0.95
LOWEST_SHARE: Final = 0.4
"""A refusal brings the rate to between these shares of itself."""
LOWEST_AFTER_DOUBLING: Final = 0.55
"""What is guessed too high costs a refusal, what is guessed too low costs a long way up."""
EARLY_SHARE: Final = 0.7
"""Of a rate that was refused at once, or that doubled until it was refused by an upstream of unknown burst."""
FEW_TAKEN: Final = 2
PLAUSIBLE_BURST_SECONDS: Final = 0.5
"""What was taken before the first refusal was the burst, if it is no more than so much of the rate; else it was traffic
that had flowed for long, and nothing is known of the burst."""
LEAST_STEP: Final = 0.02
FIRST_FLAT_SECONDS: Final = 6.0
LONGEST_FLAT_SECONDS: Final = 60.0
CONFIRMED_WITHIN: Final = 0.2
HEADROOM: Final = 2.0
"""Unused growth stops at so many times what is really asked for."""
JUMP_SECONDS: Final = 1.0
OF_QUOTA: Final = 0.98
"""Of an announced quota: clocks differ, and answers travel."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    burst: float
    """The most that the upstream can have saved up, as far as is known."""
    low: float
    """Sends per second at ``since``, as all rates here."""
    high: float
    """Where growth is flat; equal to ``low`` while it doubles."""
    doubling: bool
    flat_seconds: float
    """How long the way from low to high takes."""
    since: float
    """Monotonic seconds at which the gate opens, or opened; nothing goes before it."""
    refused_at: float
    """When the last refusal that counted was told."""
    at: float
    """Up to when the allowance is reckoned."""
    tokens: float = 0.0
    """Sends that may go at once."""
    generation: int = 1
    taken: int = 0
    """Successes since the last refusal that counted."""
    recent: float = 0.0
    """The moving rate of successes, reckoned up to ``recent_at``."""
    recent_at: float = 0.0
    quota: float | None = None
    """Announced by the upstream: the rate, until a refusal below it shows that others use it, too."""
    is_quota_shared: bool = False
    """It was refused below the quota; then the quota is no more than a limit."""
    share: float | None = None
    share_until: float = 0.0


def begin(now: float, opens_at: float, taken: int, span_seconds: float) -> RateLimit:
    """After a first refusal; the upstream took so many in the span before it."""
    rate = taken / max(LEAST_SPAN_SECONDS, span_seconds, opens_at - now)
    start = _bounded(max(rate, 1.0 / max(LEAST_SPAN_SECONDS, opens_at - now)))
    opens = max(opens_at, now)
    burst, first = max(1.0, taken), float(opens > now)  # who waits for the gate goes when it opens
    return RateLimit(
        burst, start, start, True, FIRST_FLAT_SECONDS, opens, now, opens, first, recent=start, recent_at=opens
    )


def rate_at(pace: RateLimit, now: float) -> float:
    """Sends per second at this moment, before what waits is looked at."""
    age = max(0.0, now - pace.since)
    if pace.doubling:
        rate = pace.low * 2 ** min(age / DOUBLES_IN_SECONDS, 60.0)
    else:
        step = max(pace.high - pace.low, LEAST_STEP * pace.high)
        rate = pace.high + step * min((age / pace.flat_seconds - 1) ** 3, 1e6)
    rate = min(rate, max(pace.low if pace.doubling else pace.high, HEADROOM * pace.recent))
    if pace.quota is not None:
        most = OF_QUOTA * pace.quota
        rate = min(rate, most) if pace.is_quota_shared else most
    if pace.share is not None and now < pace.share_until:
        rate = min(rate, pace.share)
    return _bounded(rate)


def refill(pace: RateLimit, now: float) -> RateLimit:
    """What the time since has allowed; a clock that goes back allows nothing, and nothing twice."""
    if now < pace.refused_at - JUMP_SECONDS or (pace.since <= now < pace.at - 1 / LEAST_PER_SECOND):
        quiet = max(0.0, pace.since - pace.refused_at) if now < pace.refused_at else 0.0
        return replace(pace, since=now + quiet, refused_at=now, at=now + quiet)  # the clock jumped back
    if now <= pace.at:
        return pace
    rate = rate_at(pace, now)
    tokens = min(max(LEAST_BURST, rate * BURST_SECONDS), pace.tokens + (now - pace.at) * rate)
    return replace(pace, tokens=tokens, at=now)


def take(pace: RateLimit, now: float) -> RateLimit | None:
    """The pace after one send, or None if it has to wait until ``ready_at``."""
    pace = refill(pace, now)
    return replace(pace, tokens=pace.tokens - 1) if pace.tokens >= 1 - 1e-9 and now >= pace.since else None


def ready_at(pace: RateLimit, now: float) -> float:
    """When the next send may go, if nobody else takes it and the rate stays as it is."""
    pace = refill(pace, now)
    missing = max(0.0, 1 - pace.tokens)
    begin_at = max(now, pace.at)
    return begin_at if missing <= 1e-9 else begin_at + missing / rate_at(pace, begin_at)


def succeeded(pace: RateLimit, now: float, generation: int) -> RateLimit:
    """One was taken. Late ones are a sign of demand, but say nothing about the rate of now."""
    memory = memory_seconds(rate_at(pace, now))
    begun = max(pace.recent_at, pace.since)  # quiet behind the gate is no lack of demand
    faded = pace.recent * math.exp(-max(0.0, now - begun) / memory)
    taken = pace.taken + (generation == pace.generation)
    return replace(pace, taken=taken, recent=faded + 1 / memory, recent_at=max(now, pace.recent_at))


def refused(pace: RateLimit, now: float, opens_at: float, generation: int, sent_at: float) -> RateLimit:
    """One that was sent at ``sent_at`` was refused; nothing goes before ``opens_at``.

    Late ones only hold the gate longer.
    """
    opens = max(opens_at, now)
    if generation != pace.generation:
        return held_until(pace, opens) if opens > now else pace
    used = rate_at(pace, sent_at)
    is_early = pace.doubling and pace.taken <= FEW_TAKEN  # nothing is learnt but to begin lower
    found = EARLY_SHARE * used if is_early else _found(pace, now, sent_at, used)
    confirmed = not pace.doubling and abs(found - pace.high) <= CONFIRMED_WITHIN * pace.high
    return replace(
        pace,
        low=_bounded(found if is_early else min(HIGHEST_SHARE * used, BELOW * found)),
        high=_bounded(found),
        doubling=is_early,
        flat_seconds=min(LONGEST_FLAT_SECONDS, pace.flat_seconds * 2) if confirmed else FIRST_FLAT_SECONDS,
        since=opens,
        refused_at=now,
        at=opens,
        tokens=float(opens > now),
        generation=pace.generation + 1,
        taken=0,
        is_quota_shared=pace.quota is not None,
    )


def held_until(pace: RateLimit, opens_at: float) -> RateLimit:
    """Nothing goes before ``opens_at``; what is known stays."""
    return replace(pace, since=max(pace.since, opens_at), at=max(pace.at, opens_at))


def scaled(pace: RateLimit, share: float) -> RateLimit:
    """This share of the rate: for one of several who have lost sight of each other."""
    quota = None if pace.quota is None else pace.quota * share
    low, high = _bounded(pace.low * share), _bounded(pace.high * share)
    return replace(pace, low=low, high=high, recent=pace.recent * share, quota=quota, share=None)


def informed(pace: RateLimit, figures: RateLimitHeaders, now: float) -> RateLimit:
    """The figures beside an answer."""
    if figures.quota_per_second is None and figures.share_per_second is None:
        return pace
    share, until = pace.share, pace.share_until
    if figures.share_per_second is not None:
        share, until = figures.share_per_second, now + min(figures.renewed_seconds, 3600.0)
    return replace(pace, quota=figures.quota_per_second or pace.quota, share=share, share_until=until)


def _found(pace: RateLimit, now: float, sent_at: float, used: float) -> float:
    """The rate that the upstream takes, by what it took since the gate opened, until it refused."""
    is_known = pace.burst <= PLAUSIBLE_BURST_SECONDS * used
    seconds = max(sent_at - pace.since, 1e-3)
    with_quiet = pace.taken / max(sent_at - pace.refused_at, LEAST_SPAN_SECONDS)
    if pace.doubling:
        found = _rate_below(used, pace.burst) if is_known else EARLY_SHARE * used
    elif is_known:
        without_burst = (pace.taken - pace.burst) / seconds
        of_late = pace.recent - pace.burst / memory_seconds(used)
        found = max(without_burst, with_quiet, of_late)
    else:
        found = (with_quiet + min(used, pace.taken / seconds)) / 2
    return min(used, max(LOWEST_SHARE * used, found))


def memory_seconds(rate: float) -> float:
    """Over how long successes are remembered, at this rate."""
    return min(MOST_MEMORY_SECONDS, max(MEMORY_SECONDS, 10 / rate))


def _rate_below(used: float, burst: float) -> float:
    """The rate that a doubling one went past so long ago that it has used up the burst when it reaches ``used``.

    While it doubles in D seconds, the sends above a rate r since it went past r are
    (used - r)·D/ln 2 - r·D·log2(used/r): the r for which they are the burst, by bisection.
    """
    low, high = LOWEST_AFTER_DOUBLING * used, used
    for _ in range(30):
        rate = (low + high) / 2
        above = ((used - rate) / math.log(2) - rate * math.log2(used / rate)) * DOUBLES_IN_SECONDS
        low, high = (rate, high) if above > burst else (low, rate)
    return (low + high) / 2


def _bounded(rate: float) -> float:
    return min(MOST_PER_SECOND, max(LEAST_PER_SECOND, rate))
