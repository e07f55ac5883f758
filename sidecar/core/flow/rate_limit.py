"""The rate limit: how many sends a second a scope takes, while the evidence says that it takes fewer than are offered.

A frozen value that exists only then. Down: multiplicative decrease around what was accepted, with the floor of
client-side throttling (Beyer et al., *Site Reliability Engineering*, chapter 21). Up: TCP's slow start (RFC 5681) where
nothing was accepted before, else trials as BBR's (Cardwell et al., *BBR: Congestion-Based Congestion Control*, 2016):
1.25 times the rate, then twice as long as that goes well, and one refusal takes the trial back; beside them a convex
growth in time (RFC 9438), alone where replicas share the rate. Invariants: after a decrease the rate is at least the
moving rate of acceptances; a rate for which nobody had to wait is not raised by a trial; where at most 0.85 of what was
sent before is sent and refusals did not become rarer, ``is_useless`` says so, and the limit is let go.

Where the upstream announces its quota, that is the rate, until it refuses below it. An attempt sent before the last
change was known is late: it is counted as accepted, but slows nothing down a second time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from sidecar.core.flow.evidence import WORTH, wilson
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
FIRST_NEEDED: Final = 4
"""Acceptances in a row after which a higher rate is tried: counted, not timed, so that low rates are left soon, too."""
MOST_NEEDED: Final = 128
"""Each trial that fails doubles what is needed for the next one, up to this: one refusal in so many."""
LEAST_TRIAL_SECONDS: Final = 0.15
"""What is accepted within less than this may be a burst that was saved up, not a rate."""
RAISE: Final = 1.25
"""Times the rate, for a trial; one that follows a trial that went well doubles it, as slow start does."""
FEWEST_TO_LET_GO: Final = 8
"""Answers after which it may be judged already, by the lower bound."""
JUDGED_ANSWERS: Final = 20
"""Answers after which it is judged whether refusals have become rarer."""
RARER: Final = 0.75
"""What is left of the refusals must lie nearer to what a quota would leave at this rate than to what there was before
by so much, or sending less has not helped."""
LESS: Final = 0.85
"""Of the rate at which a share of refusals was measured: at more than this, no fewer of them prove nothing."""
BURST_SECONDS: Final = 0.02
"""Sends of this time may go at once: what timers and one turn of the loop cannot tell apart."""
LEAST_BURST: Final = 1.9
"""Sends that may have been saved up, so that a timer that rings late loses nothing."""
HEADROOM: Final = 1.5
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
    share_rate: float = 0.0
    """The rate at which that share was measured; infinity: nobody was held, 0: not known, because nothing went."""
    tokens: float = 0.0
    """Sends that may go at once."""
    generation: int = 1
    accepted: int = 0
    """Answers to what was sent since ``since``."""
    refused: int = 0
    recent: float = 0.0
    """The moving rate of acceptances, reckoned up to ``recent_at``: the floor."""
    recent_at: float = 0.0
    in_a_row: int = 0
    """Accepted since the last refusal or change …"""
    needed: int = FIRST_NEEDED
    """… and how many are needed for a trial of a higher rate."""
    tried_from: float = 0.0
    """The rate before it was raised for a trial; 0: none is being tried."""
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
    rate = _bounded(max(accepted_per_second, FIRST_PER_SECOND))
    return RateLimit(
        rate,
        slow_start,
        opens,
        opens,
        share,
        share_rate=0.0 if slow_start or share >= 1 else rate / (1 - share),
        tokens=float(opens > now),
        recent=rate,
        recent_at=opens,
    )


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
    return replace(limit, tokens=min(_burst(rate), limit.tokens + (now - limit.at) * rate), at=now)


def _burst(rate: float) -> float:
    """Sends that may have been saved up."""
    return max(LEAST_BURST, BURST_SECONDS * rate)


def _is_in_the_way(limit: RateLimit, now: float) -> bool:
    """Whether sends came as soon as they might: nothing is saved up but what one answer takes to come."""
    return refill(limit, now).tokens < _burst(rate_at(limit, now)) - 1 - 1e-9


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


def succeeded(limit: RateLimit, now: float, sent_at: float, *, tries: bool = True) -> RateLimit:
    """One was accepted. Late ones say what the upstream takes, but nothing of whether less is refused now.

    ``tries``: enough of them in a row are followed by a trial of a higher rate.
    """
    memory = memory_seconds(rate_at(limit, now))
    begun = max(limit.recent_at, limit.since)  # quiet behind the gate is no lack of demand
    faded = limit.recent * math.exp(-max(0.0, now - begun) / memory)
    accepted, in_a_row = limit.accepted, limit.in_a_row
    if sent_at >= limit.since:
        accepted, in_a_row = accepted + 1, in_a_row + 1
    told = replace(
        limit, accepted=accepted, in_a_row=in_a_row, recent=faded + 1 / memory, recent_at=max(now, limit.recent_at)
    )
    needed = 1 if limit.slow_start else limit.needed
    is_due = tries and in_a_row >= needed and now - limit.since >= LEAST_TRIAL_SECONDS and limit.quota is None
    return raised(told, now) if is_due and _is_in_the_way(told, now) else told


def refused(limit: RateLimit, now: float, sent_at: float) -> RateLimit:
    """One that was sent at ``sent_at`` was refused. A new generation if the rate is another then."""
    if sent_at < limit.since:
        return limit
    if limit.tried_from:  # the trial has failed: back to where it began, or to what was accepted of late
        return replace(
            limit,
            rate=_bounded(max(limit.tried_from, (AFTER_SLOW_START if limit.slow_start else 1.0) * _faded(limit, now))),
            tried_from=0.0,
            slow_start=False,
            since=now,
            in_a_row=0,
            needed=min(MOST_NEEDED, 2 * limit.needed),
            tokens=min(0.0, limit.tokens),
        )
    limit = replace(limit, refused=limit.refused + 1, in_a_row=0)
    answers = limit.accepted + limit.refused
    if is_useless(limit) or (not limit.slow_start and answers < JUDGED_ANSWERS):
        return limit  # it does not depend on the rate, or that is not known yet
    used = rate_at(limit, sent_at)
    faded = _faded(limit, now)
    share = AFTER_SLOW_START if limit.slow_start else min(DECREASE, limit.accepted / answers)
    rate = _bounded(min(used, max(faded, share * used)))
    measured = limit.refused / answers, used
    if limit.slow_start:
        measured = limit.share, math.inf
    elif rate > LESS * used:
        measured = limit.share, limit.share_rate  # hardly less is sent: the older figure tells more
    return replace(
        limit,
        rate=rate,
        slow_start=False,
        since=now,
        at=max(now, limit.at),
        share=measured[0],
        share_rate=measured[1],
        tokens=min(0.0, limit.tokens),
        generation=limit.generation + 1,
        accepted=0,
        refused=0,
        recent=faded,
        recent_at=now,
        is_quota_shared=limit.quota is not None,
    )


def raised(limit: RateLimit, now: float) -> RateLimit:
    """A higher rate for a trial: the first refusal takes it back."""
    used = rate_at(limit, now)
    is_found = limit.slow_start or limit.tried_from > 0  # the last trial has gone well, too
    factor, needed = (SLOW_START_FACTOR, FIRST_NEEDED) if is_found else (RAISE, limit.needed)
    return replace(
        refill(limit, now),
        rate=_bounded(max(used, min(factor * used, 2 * HEADROOM * limit.recent))),
        tried_from=limit.tried_from or used,
        since=now,
        in_a_row=0,
        needed=needed,
    )


def is_useless(limit: RateLimit) -> bool:
    """Whether refusals are about as frequent as before although less is sent: they do not depend on the rate."""
    answers = limit.accepted + limit.refused
    if limit.share <= WORTH or limit.rate > LESS * limit.share_rate:
        return False  # it has helped until now, or no less is sent than before
    if answers < JUDGED_ANSWERS:
        return answers >= FEWEST_TO_LET_GO and limit.accepted > 0 and wilson(limit.refused, answers) > _rarer(limit)
    return limit.refused > _rarer(limit) * answers


def _faded(limit: RateLimit, now: float) -> float:
    """What was accepted a second of late."""
    return limit.recent * math.exp(-max(0.0, now - limit.recent_at) / memory_seconds(limit.rate))


def _rarer(limit: RateLimit) -> float:
    """The share of refusals between what it was and what a quota would leave."""
    left = 0.0 if math.isinf(limit.share_rate) else 1 - limit.share_rate * (1 - limit.share) / limit.rate
    return max(WORTH, RARER * limit.share + (1 - RARER) * max(0.0, left))


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
