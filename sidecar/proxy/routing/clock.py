"""The two clocks and the dice of the loop: the one place of the data plane that reads them.

Tests hand in their own; the core gets only values.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "SystemClock", "random_unit"]


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds that never jump: deadlines, waits, durations."""

    def wall(self) -> float:
        """Unix seconds: hints that name a date, records."""

    async def sleep(self, seconds: float) -> None:
        """A wait before a retry."""


class SystemClock:
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    sleep = staticmethod(asyncio.sleep)


random_unit: Callable[[], float] = random.random
"""0 ≤ x < 1."""
