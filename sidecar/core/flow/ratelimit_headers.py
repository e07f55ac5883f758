"""What an upstream says of its quota beside an answer: the ``RateLimit`` family of header fields.

Read only where an upstream is under pressure. Three dialects: the IETF draft's ``RateLimit-Policy`` and ``RateLimit``
(structured: ``"default";q=50;w=1`` and ``"default";r=3;t=1``), its older fields (``RateLimit-Limit: 50, 50;w=1``,
``RateLimit-Remaining``, ``RateLimit-Reset``), and the same with ``X-`` in front. What is garbage says nothing; nothing
here raises. What the figures lead to is told by ``rate_limit``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sidecar.core.decision.attempt import Headers
from sidecar.core.decision.retry_after import members_of
from sidecar.core.decision.times import number

__all__ = ["NO_RATELIMIT_HEADERS", "RateLimitHeaders", "read_ratelimit_headers"]

SHORTEST_SHARE_SECONDS: Final = 2.0
"""A reset that is nearer than this is mostly rounding: a rate made of it would be wild."""
MOST_PER_SECOND: Final = 1e9
FIRST_EPOCH: Final = 1e9
"""A reset this large is a moment in Unix seconds, not a span."""


@dataclass(frozen=True, slots=True)
class RateLimitHeaders:
    """What is known of a quota; None where the upstream does not say."""

    quota_per_second: float | None = None
    """Units of the quota divided by its window; the smallest, if several are announced."""
    share_per_second: float | None = None
    """What remains, spread over the time until it is renewed."""
    renewed_seconds: float = 0.0
    """How long that share is good for."""


NO_RATELIMIT_HEADERS: Final = RateLimitHeaders()


def read_ratelimit_headers(headers: Headers, wall: float) -> RateLimitHeaders:
    """The figures beside an answer. ``wall`` is the Unix time, for a reset that is a moment."""
    quota = min(_quotas(headers), default=None)
    left, reset = _remaining(headers, wall)
    if left is None or reset is None or reset < SHORTEST_SHARE_SECONDS:
        return RateLimitHeaders(quota) if quota is not None else NO_RATELIMIT_HEADERS
    return RateLimitHeaders(quota, max(left, 1.0) / reset, reset)


def _quotas(headers: Headers) -> list[float]:
    found = []
    for field in ("ratelimit-policy", "ratelimit-limit", "x-ratelimit-policy", "x-ratelimit-limit"):
        for line in headers.all(field):
            for member in members_of(line):
                units, window = number(member.get("q") or next(iter(member))), number(member.get("w", ""))
                if units and window and units / window < MOST_PER_SECOND:  # also false for NaN
                    found.append(units / window)
    return found


def _remaining(headers: Headers, wall: float) -> tuple[float | None, float | None]:
    """Units left and seconds until they are renewed, of the member with the fewest left."""
    pairs = [
        (left, reset)
        for line in headers.all("ratelimit")
        for member in members_of(line)
        if (left := number(member.get("r", ""))) is not None and (reset := number(member.get("t", ""))) is not None
    ]
    if pairs:
        return min(pairs)
    for prefix in ("ratelimit-", "x-ratelimit-"):
        left, reset = _alone(headers, prefix + "remaining"), _alone(headers, prefix + "reset")
        if left is not None and reset is not None:
            return left, max(0.0, reset - wall) if reset >= FIRST_EPOCH else reset
    return None, None


def _alone(headers: Headers, name: str) -> float | None:
    """The number in a field, or None if it is absent, garbage, or said twice with different values."""
    texts = {text.strip(" \t") for text in headers.all(name)}
    return number(texts.pop()) if len(texts) == 1 else None
