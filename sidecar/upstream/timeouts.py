"""Many timeouts of one length, on one timer.

An untroubled attempt starts and stops a timeout without touching the event loop's timer heap: two dictionary
operations. Insertion order is the order in which they end, because all have the same length.
"""

# Compiled in the wheel.

from __future__ import annotations

import asyncio
from typing import Protocol

__all__ = ["Timers"]


class Expiring(Protocol):
    """An item with a timeout."""

    def timed_out(self) -> None:
        """Called once, from the loop, when the time is over."""


class Timers:
    """Timeouts of ``seconds``; the same item at most once at a time."""

    __slots__ = ("_due", "_handle", "_loop", "seconds")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self.seconds = seconds
        self._due: dict[Expiring, float] = {}
        self._handle: asyncio.TimerHandle | None = None

    def start(self, item: Expiring) -> None:
        due = self._loop.time() + self.seconds
        self._due[item] = due
        if self._handle is None:
            self._handle = self._loop.call_at(due, self._fire)

    def stop(self, item: Expiring) -> None:
        self._due.pop(item, None)

    def close(self) -> None:
        """Forget every timeout. Safe to call twice."""
        self._due.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        now = self._loop.time()
        over: list[Expiring] = []
        for item, due in self._due.items():
            # uvloop's clock has millisecond steps: without the margin a timer could fire just before its time.
            if due > now + 0.001:
                self._handle = self._loop.call_at(due, self._fire)
                break
            over.append(item)
        for item in over:
            del self._due[item]
        for item in over:
            item.timed_out()
