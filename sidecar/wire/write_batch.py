"""Small writes of one iteration of the event loop, made together at its end.

A write over loopback wakes its reader, if that sleeps; writes every few microseconds find the reader awake. Waking is
the costliest part of a small write (docs/performance.md), so the requests and responses of one iteration go out
together. No write waits for more to come: the iteration ends when everything that had arrived has been handled. With
few exchanges under way, no write waits at all. It holds no bytes: a writer registers here, and writes when called.
"""

# Compiled in the wheel.

from __future__ import annotations

import asyncio
from typing import Final, Protocol

__all__ = ["WriteBatch", "Writer"]

FEW: Final = 4
"""Exchanges under way below which a write is made at once: two rarely fall into one iteration, and its end costs more
than it saves.
"""
MOST: Final = 64
"""Writers that wait for the end of the iteration, at most; with more, they are called at once, so that none waits for
long.
"""


class Writer(Protocol):
    def write_out(self) -> None:
        """Write what is due, if it still is. It must not raise."""


class WriteBatch:
    """The writers of the current iteration of one event loop."""

    __slots__ = ("_loop", "_writers", "under_way")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._writers: list[Writer] = []
        self.under_way = 0
        """Exchanges that have begun and are not over; counted by their owner."""

    def add(self, writer: Writer) -> None:
        """Call this writer at the end of the iteration, after those before it; at once if few exchanges are under
        way.
        """
        writers = self._writers
        if not writers:
            if self.under_way < FEW:
                writer.write_out()
                return
            self._loop.call_soon(self.end)
        elif len(writers) >= MOST:
            self.end()
            self._loop.call_soon(self.end)
            writers = self._writers
        writers.append(writer)

    def end(self) -> None:
        """Call all writers. Those that register meanwhile belong to the next iteration."""
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.write_out()
