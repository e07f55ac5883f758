"""How long to wait without a hint: exponential backoff with jitter.

``base · factor^(n-1)``, capped, then spread by chance (AWS Architecture Blog, *Exponential Backoff And Jitter*, 2015);
n is the number of the retry, from 1. Chance is an argument (0 … 1). Everything saturates: retry 10,000 waits the cap,
and nothing overflows. Invariant: **the cap is the longest wait of all**. Where jitter reaches above the value
(``additive``, ``proportional``, ``decorrelated``), the sum is cut at the cap, so that "250 ms · 2^n plus up to as much
again, capped at 30 s" never waits 31 s. Counterpart: ``retry_after``, which reads what an upstream asked for.
"""

from __future__ import annotations

from typing import Final

from sidecar.core.decision.rows import Backoff
from sidecar.core.enums import Jitter

__all__ = ["backoff_range", "backoff_seconds", "backoff_value"]

FOREVER_SECONDS: Final = 1e9
"""Seconds (thirty years) at which a value without any other bound saturates: finite, so that nothing becomes NaN."""


def backoff_value(rule: Backoff, retry_number: int) -> float:
    """``base · factor^(n-1)`` in seconds, before jitter; never above the cap, never negative."""
    base, cap = _bounded(rule.base_seconds), _bounded(rule.cap_seconds)
    try:
        value = base * max(0.0, rule.factor) ** max(0, retry_number - 1)
    except OverflowError:
        value = cap if base else 0.0
    return min(cap, value) if value == value else 0.0  # NaN is not equal to itself: 0 · infinity


def backoff_range(rule: Backoff, retry_number: int, previous_wait: float = 0.0) -> tuple[float, float]:
    """The least and the greatest wait, in seconds, before the retry of this number (from 1).

    ``previous_wait`` (seconds; 0 before the first retry) matters to ``decorrelated`` alone.
    """
    return _wait(rule, retry_number, 0.0, previous_wait), _wait(rule, retry_number, 1.0, previous_wait)


def backoff_seconds(rule: Backoff, retry_number: int, chance: float, previous_wait: float = 0.0) -> float:
    """The wait, in seconds, that this chance (0 … 1) gives; always within ``backoff_range``."""
    return _wait(rule, retry_number, min(1.0, max(0.0, chance)), previous_wait)


def _wait(rule: Backoff, retry_number: int, chance: float, previous_wait: float) -> float:
    cap = _bounded(rule.cap_seconds)
    value = backoff_value(rule, retry_number)
    if rule.jitter is Jitter.FULL:
        return value * chance
    if rule.jitter is Jitter.EQUAL:
        return value / 2 + value / 2 * chance
    if rule.jitter is Jitter.ADDITIVE:
        return min(cap, value + value * chance)
    if rule.jitter is Jitter.PROPORTIONAL:
        ratio = min(1.0, max(0.0, rule.ratio))
        return min(cap, value * (1 - ratio) + 2 * value * ratio * chance)
    if rule.jitter is Jitter.DECORRELATED:
        return _decorrelated(min(cap, _bounded(rule.base_seconds)), cap, chance, previous_wait)
    return value


def _decorrelated(base: float, cap: float, chance: float, previous_wait: float) -> float:
    """Between the base and three times the previous wait, capped (AWS's "decorrelated jitter")."""
    top = min(cap, 3 * max(base, _bounded(previous_wait)))
    return base + (top - base) * chance


def _bounded(seconds: float) -> float:
    """The value if it is neither negative, NaN nor infinite; else the nearest bound."""
    return min(FOREVER_SECONDS, max(0.0, seconds))
