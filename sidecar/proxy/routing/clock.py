"""The two clocks and the random numbers of the data plane: no other module there reads them.

Tests pass their own; the core gets values only.
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
        """Seconds that never jump: for deadlines, waits and durations."""

    def wall(self) -> float:
        """Unix seconds: for hints that name a date, and for records."""

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds``, before a retry."""


class SystemClock:
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    sleep = staticmethod(asyncio.sleep)


random_unit: Callable[[], float] = random.random
"""A random number, 0 ≤ x < 1."""
