"""Two tallies -> the table of the demonstration. Pure text; it measures nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sidecar.demo.load import Tally

__all__ = ["Side", "table"]


@dataclass(frozen=True, slots=True)
class Side:
    """One column: what the app saw, and what the upstream counted."""

    tally: Tally
    calls: int
    placed: int
    """Orders that took effect."""
    placed_twice: int


def table(without: Side, with_it: Side) -> str:
    """The lines to print, without a newline at the end."""
    rows = [
        ("", "without the sidecar", "with the sidecar"),
        *((name, read(without), read(with_it)) for name, read in _READINGS),
    ]
    return "\n".join(f"  {name:<24}{left:>20}{right:>20}".rstrip() for name, left, right in rows)


_READINGS: tuple[tuple[str, Callable[[Side], str]], ...] = (
    ("requests", lambda side: str(side.tally.requests)),
    ("success", lambda side: f"{100 * side.tally.succeeded / side.tally.requests:.1f} %"),
    ("calls per request", lambda side: f"{side.calls / side.tally.requests:.2f}"),
    ("p50", lambda side: _milliseconds(side.tally.percentile_seconds(0.50))),
    ("p99", lambda side: _milliseconds(side.tally.percentile_seconds(0.99))),
    ("orders placed", lambda side: str(side.placed)),
    ("orders placed twice", lambda side: str(side.placed_twice)),
)


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"
