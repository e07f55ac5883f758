"""The rate limit: how many sends a second a scope takes, while the evidence says that it takes fewer than are offered.

A frozen value that exists only then. Algorithm: TCP's slow start (RFC 5681) where nothing was accepted before: it
doubles each second until the first refusals; then convex increase and multiplicative decrease (RFC 9438) around what
was accepted, with the floor of client-side throttling (Beyer et al., *Site Reliability Engineering*, chapter 21): never
below what was accepted of late. Invariants: after a decrease the rate is at least the moving rate of acceptances; where
less was sent and refusals did not become rarer, ``is_useless`` says so, and the limit is let go.

Where the upstream announces its quota, that is the rate, until it refuses below it. An attempt sent before the last
change was known is late: it is counted as accepted, but slows nothing down a second time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from sidecar.core.flow.evidence import FEWEST, wilson
from sidecar.core.flow.ratelimit_headers import RateLimitHeaders

__all__ = [
    "RateLimit",
    "begin",
    "held_until",
    "informed",
    "is_useless",
    "memory_seconds",
    "rate_at",
    "ready_at",
    "refused",
    "scaled",
    "succeeded",
    "take",
]

LEAST_PER_SECOND: Final = 0.1
"""Once in ten seconds: several times within the default deadline."""
MOST_PER_SECOND: Final = 1e6
"""A bound for arithmetic; no upstream is asked as often."""
FIRST_PER_SECOND: Final = 2.0
"""What slow start begins with at the least."""
SLOW_START_FACTOR: Final = 2.0
"""Growth each second until the first refusals, as TCP's each round trip."""
GROWTH_FACTOR: Final = 1.02
"""Growth in the first second, or the first ``JUDGED_ANSWERS`` answers where those take longer, and ever faster after it
(as RFC 9438's): what it overshoots is refused, and what was lifted is found within seconds."""
DECREASE: Final = 0.9
"""To this share on a refusal, if more than that was not accepted: one answer in ten makes room for what is queued."""
AFTER_SLOW_START: Final = 0.6
"""The same when slow start ends: it has gone up to one doubling too far, and what was accepted lags behind it."""
JUDGED_ANSWERS: Final = 20
"""Answers after which it is judged whether refusals have become rarer."""
RARER: Final = 0.6
"""Of the share of refusals at the beginning: what is left must be less, or sending less has not helped."""
BURST_SECONDS: Final = 0.02
"""Sends of this time may go at once: what timers and one turn of the loop cannot tell apart."""
LEAST_BURST: Final = 1.9
"""Sends that may have been saved up, so that a timer that rings late loses nothing."""
HEADROOM: Final = 2.0
"""Unused growth stops at this multiple of what is really accepted."""
MEMORY_SECONDS: Final = 1.0
"""Of the moving rate of acceptances, at ten a second and more; slower rates are remembered for ten of them."""
MOST_MEMORY_SECONDS: Final = 60.0
"""The longest memory, in seconds: the default deadline."""
OF_QUOTA: Final = 0.98
"""Share of an announced quota that is used: clocks differ, and answers travel."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    rate: float
    """Sends per second at ``since``, as all rates here."""
    slow_start: bool
    since: float
    """Monotonic seconds from which on it grows; nothing goes before it."""
    at: float
    """Up to when the allowance is reckoned."""
    share: float = 1.0
    """Of refusals, before it was there."""
    tokens: float = 0.0
    """Sends that may go at once."""
    generation: int = 1
    accepted: int = 0
    """Answers to what was sent since ``since``."""
    refused: int = 0
    recent: float = 0.0
    """The moving rate of acceptances, reckoned up to ``recent_at``: the floor."""
    recent_at: float = 0.0
    quota: float | None = None
    """Announced by the upstream: the rate, until a refusal below it shows that others use it, too."""
    is_quota_shared: bool = False
    """It was refused below the quota; then the quota is no more than a limit."""
    left: float | None = None
    """Announced: what remains, spread over the time until it is renewed …"""
    left_until: float = 0.0
    """… at this moment."""


def begin(now: float, opens_at: float, accepted_per_second: float, share: float, *, slow_start: bool) -> RateLimit:
    """With what is accepted of late; ``share``: of refusals. Nothing goes before ``opens_at``."""
    opens = max(opens_at, now)
    rate = _bounded(max(accepted_per_second, FIRST_PER_SECOND) if slow_start else accepted_per_second)
    return RateLimit(rate, slow_start, opens, opens, share, float(opens > now), recent=rate, recent_at=opens)


def rate_at(limit: RateLimit, now: float) -> float:
    """Sends per second at this moment, before what waits is looked at."""
    age = min(3600.0, max(0.0, now - limit.since))
    if limit.slow_start:
        rate = min(limit.rate * SLOW_START_FACTOR ** min(age, 40.0), max(limit.rate, 2 * HEADROOM * limit.recent))
    else:
        steps = age / max(1.0, JUDGED_ANSWERS / limit.rate)
        rate = limit.rate * GROWTH_FACTOR ** min(steps * steps, 1000.0)
        rate = min(rate, max(limit.rate, HEADROOM * limit.recent))
    if limit.quota is not None:
        most = OF_QUOTA * limit.quota
        rate = min(rate, most) if limit.is_quota_shared else most
    if limit.left is not None and now < limit.left_until:
        rate = min(rate, max(limit.left, 0.0))
    return _bounded(rate)


def refill(limit: RateLimit, now: float) -> RateLimit:
    """The allowance brought up to date."""
    if now <= limit.at:
        return limit
    rate = rate_at(limit, now)
    most = max(LEAST_BURST, BURST_SECONDS * rate)
    return replace(limit, tokens=min(most, limit.tokens + (now - limit.at) * rate), at=now)


def take(limit: RateLimit, now: float) -> RateLimit | None:
    """The limit after one send, or None if it has to wait until ``ready_at``."""
    limit = refill(limit, now)
    return replace(limit, tokens=limit.tokens - 1) if limit.tokens >= 1 - 1e-9 and now >= limit.since else None


def ready_at(limit: RateLimit, now: float) -> float:
    """When the next send may go, if nobody else takes it and the rate stays as it is."""
    limit = refill(limit, now)
    missing = max(0.0, 1 - limit.tokens)
    begin_at = max(now, limit.at)
    return begin_at if missing <= 1e-9 else begin_at + missing / rate_at(limit, begin_at)


def succeeded(limit: RateLimit, now: float, sent_at: float) -> RateLimit:
    """One was accepted. Late ones say what the upstream takes, but nothing of whether less is refused now."""
    memory = memory_seconds(rate_at(limit, now))
    begun = max(limit.recent_at, limit.since)  # quiet behind the gate is no lack of demand
    faded = limit.recent * math.exp(-max(0.0, now - begun) / memory)
    accepted = limit.accepted + (sent_at >= limit.since)
    return replace(limit, accepted=accepted, recent=faded + 1 / memory, recent_at=max(now, limit.recent_at))


def refused(limit: RateLimit, now: float, sent_at: float) -> RateLimit:
    """One that was sent at ``sent_at`` was refused. A new generation if the rate is another then."""
    if sent_at < limit.since:
        return limit
    limit = replace(limit, refused=limit.refused + 1)
    answers = limit.accepted + limit.refused
    if is_useless(limit) or (not limit.slow_start and answers < JUDGED_ANSWERS):
        return limit  # it does not depend on the rate, or that is not known yet
    used = rate_at(limit, sent_at)
    faded = limit.recent * math.exp(-max(0.0, now - limit.recent_at) / memory_seconds(used))
    rate = _bounded(min(used, max(faded, (AFTER_SLOW_START if limit.slow_start else DECREASE) * used)))
    return replace(
        limit,
        rate=rate,
        slow_start=False,
        since=now,
        at=max(now, limit.at),
        tokens=min(0.0, limit.tokens),
        generation=limit.generation + 1,
        accepted=0,
        refused=0,
        recent=faded,
        recent_at=now,
        is_quota_shared=limit.quota is not None,
    )


def is_useless(limit: RateLimit) -> bool:
    """Whether refusals are about as frequent as before although less is sent: they do not depend on the rate."""
    answers = limit.accepted + limit.refused
    if answers < JUDGED_ANSWERS:
        return answers >= FEWEST and limit.accepted > 0 and wilson(limit.refused, answers) > RARER * limit.share
    return limit.refused > RARER * limit.share * answers


def held_until(limit: RateLimit, opens_at: float) -> RateLimit:
    """Nothing goes before ``opens_at``; what is known stays."""
    return replace(limit, since=max(limit.since, opens_at), at=max(limit.at, opens_at))


def scaled(limit: RateLimit, share: float) -> RateLimit:
    """This share of the rate: for one of several who have lost sight of each other."""
    quota = None if limit.quota is None else limit.quota * share
    return replace(limit, rate=_bounded(limit.rate * share), recent=limit.recent * share, quota=quota, left=None)


def informed(limit: RateLimit, figures: RateLimitHeaders, now: float) -> RateLimit:
    """The figures beside an answer."""
    if figures.quota_per_second is None and figures.share_per_second is None:
        return limit
    left, until = limit.left, limit.left_until
    if figures.share_per_second is not None:
        left, until = figures.share_per_second, now + min(figures.renewed_seconds, 3600.0)
    return replace(limit, quota=figures.quota_per_second or limit.quota, left=left, left_until=until)


def memory_seconds(rate: float) -> float:
    """Over how long acceptances are remembered, at this rate."""
    return min(MOST_MEMORY_SECONDS, max(MEMORY_SECONDS, 10 / rate))


def _bounded(rate: float) -> float:
    return min(MOST_PER_SECOND, max(LEAST_PER_SECOND, rate))
