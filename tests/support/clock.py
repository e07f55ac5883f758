"""A clock that is moved by hand.

``sleep`` notes the wait, moves the clock forward by it and returns at once, so that no test waits for a
backoff. ``hold`` makes the next sleeps block until ``release``: for what happens *during* a wait. Between
sleeps it runs with the real monotonic clock, because timeouts of attempts are real (and short).
Its counterpart is the clock that ``sidecar.app`` makes for itself.
"""

from __future__ import annotations

import asyncio
import time

__all__ = ["ManualClock", "RealClock"]


class ManualClock:
    def __init__(self, *, wall: float | None = None) -> None:
        self.waits: list[float] = []
        """Every wait that was asked for, in seconds, in order."""
        self._offset = 0.0
        self._wall = (time.time() if wall is None else wall) - time.monotonic()
        self._open = asyncio.Event()
        self._open.set()
        self._asleep = 0
        self._changed = asyncio.Event()

    def monotonic(self) -> float:
        return time.monotonic() + self._offset

    def wall(self) -> float:
        return time.monotonic() + self._offset + self._wall

    def advance(self, seconds: float) -> None:
        self._offset += seconds

    def set_wall(self, seconds: float) -> None:
        """Set the wall's clock forth or back, as NTP would."""
        self._wall += seconds

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self._asleep += 1
        self._changed.set()
        try:
            await self._open.wait()
            await asyncio.sleep(0)
        finally:
            self._asleep -= 1
            self._changed.set()
        self._offset += max(0.0, seconds)

    def hold(self) -> None:
        """From now on a sleep lasts until ``release``."""
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    async def sleeping(self, number: int = 1) -> None:
        """Returns when that many sleeps are going on."""
        async with asyncio.timeout(60):
            while self._asleep < number:
                self._changed.clear()
                await self._changed.wait()

    @property
    def asleep(self) -> int:
        return self._asleep


class RealClock(ManualClock):
    """Waits really pass: for what several sidecars do at once, whose clocks must agree."""

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(seconds)
