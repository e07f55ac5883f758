"""What replicas tell one another of an upstream: gate, pace and breaker as flat fields of text, and back.

Moments are told as seconds from the moment of telling, because clocks of processes have nothing to do with each other;
the names of such fields begin with ``@``, and a store turns them into its own time.
What comes in may be anybody's: a field that is missing, no number, or out of its range makes the whole note nothing.
The counterparts are ``limiter``, which takes notes over, and ``shared``, which carries them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sidecar.core.flow import gate as gates
from sidecar.core.flow.breaker import Breaker
from sidecar.core.flow.gate import Gate
from sidecar.core.flow.rate_limit import LEAST_PER_SECOND, MOST_PER_SECOND, RateLimit

__all__ = [
    "FOR_A_NEW_STORE",
    "JUST_BEGUN",
    "BreakerNews",
    "KeyNews",
    "breaker_note",
    "closed_note",
    "just_begun",
    "key_note",
    "read_breaker",
    "read_key",
]

LONGEST_AGO_SECONDS: Final = 30 * 86400.0
MOST_GENERATIONS: Final = 1 << 50
JUST_BEGUN: Final = 0
"""Where several begin at about the same moment, what they know adds up."""
JUST_SECONDS: Final = 0.5
FOR_A_NEW_STORE: Final = -1
"""Holds only where the store knows nothing."""


@dataclass(frozen=True, slots=True)
class KeyNews:
    """A gate was closed here, and perhaps a rate changed."""

    key: str
    gate: Gate
    rate: RateLimit | None
    expected: int
    """The generation of the rate that this one was made from; or ``JUST_BEGUN``, or ``FOR_A_NEW_STORE``."""


@dataclass(frozen=True, slots=True)
class BreakerNews:
    """The breaker opened, closed, or a probe went out or came back."""

    breaker: Breaker


def key_note(gate: Gate, rate: RateLimit | None, now: float) -> dict[str, str]:
    """What others need to know of a scope."""
    fields = {"@until": gates.left_seconds(gate, now)}
    return {name: _text(value) for name, value in {**fields, **_rate_fields(rate, now)}.items()}


def _rate_fields(rate: RateLimit | None, now: float) -> dict[str, float]:
    """The rate as numbers; nothing for none."""
    if rate is None:
        return {}
    fields: dict[str, float] = {
        "generation": rate.generation,
        "rate": rate.rate,
        "slow_start": int(rate.slow_start),
        "share": rate.share,
        "@since": rate.since - now,
        "recent": rate.recent,
        "@recent": rate.recent_at - now,
    }
    if rate.quota is not None:
        fields |= {"quota": rate.quota, "capped": int(rate.is_quota_shared)}
    if rate.left is not None and rate.left_until > now:
        fields |= {"left": rate.left, "@left": rate.left_until - now}
    return fields


def read_key(note: Mapping[str, str], now: float) -> tuple[Gate, RateLimit | None] | None:
    """The scope that a note tells of; None if it is none of ours."""
    try:
        left = _number(note, "@until", -LONGEST_AGO_SECONDS, gates.LONGEST_SECONDS)
        gate = gates.close(Gate(), now + left, now)
        return gate, _rate(note, now) if "generation" in note else None
    except ValueError:
        return None


def _rate(note: Mapping[str, str], now: float) -> RateLimit:
    """Raises ValueError."""
    since = now + _ago(note, "@since")
    return RateLimit(
        rate=_number(note, "rate", LEAST_PER_SECOND, MOST_PER_SECOND),
        slow_start=_number(note, "slow_start", 0, 1) > 0,
        since=since,
        at=since,
        share=_number(note, "share", 0, 1),
        generation=int(_number(note, "generation", 1, MOST_GENERATIONS)),
        recent=_number(note, "recent", 0, 2 * MOST_PER_SECOND),
        recent_at=now + _ago(note, "@recent"),
        quota=_number(note, "quota", 1e-6, 1e12) if "quota" in note else None,
        is_quota_shared="quota" in note and _number(note, "capped", 0, 1) > 0,
        left=_number(note, "left", 1e-6, 1e12) if "left" in note else None,
        left_until=now + _ago(note, "@left") if "left" in note else 0.0,
    )


def just_begun(note: Mapping[str, str]) -> bool:
    """Whether the first refusal, whoever met it, was a moment ago."""
    try:
        return _ago(note, "@begun") > -JUST_SECONDS
    except ValueError:
        return False


def breaker_note(breaker: Breaker, now: float) -> dict[str, str]:
    """What others need to know of an open breaker; of a closed one, that it is closed."""
    if not breaker.is_open:
        return {"open": "0"}
    return {
        "open": "1",
        "@opened": _text(breaker.opened_at - now),
        "@probe": _text(breaker.probe_at - now),
        "probes": _text(breaker.probes),
    }


def closed_note(note: Mapping[str, str]) -> bool:
    """Whether a note tells of a closed breaker."""
    return note.get("open") == "0"


def read_breaker(note: Mapping[str, str]) -> tuple[float, float, int] | None:
    """Of an open one: seconds since it opened, until the next probe, and how many probes there were. None: garbage."""
    if note.get("open") != "1":
        return None
    try:
        opened = min(0.0, _ago(note, "@opened"))
        probe = _number(note, "@probe", -LONGEST_AGO_SECONDS, 60.0)
        return -opened, max(0.0, probe), int(_number(note, "probes", 0, 1e9))
    except ValueError:
        return None


def _ago(note: Mapping[str, str], name: str) -> float:
    return _number(note, name, -LONGEST_AGO_SECONDS, gates.LONGEST_SECONDS)


def _number(note: Mapping[str, str], name: str, least: float, most: float) -> float:
    """Raises ValueError. Only what is a finite number within these bounds is one."""
    text = note.get(name)
    if not isinstance(text, str) or len(text) > 40:
        raise ValueError(name)
    value = float(text)
    if not math.isfinite(value) or not least - 1e-6 <= value <= most + 1e-6:
        raise ValueError(name)
    return min(most, max(least, value))


def _text(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".") if value != int(value) else str(int(value))
