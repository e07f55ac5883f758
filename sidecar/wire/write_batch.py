"""What is to be written in one turn of the event loop, written together at its end.

A write over loopback wakes its reader, if that sleeps; one that is made every few microseconds finds the reader awake.
Waking is the dearest part of a small write (docs/performance.md), so answers and requests that come up in one turn go
out in one go. Nothing waits for more to come: the turn ends when everything that had arrived has been looked at. Where
hardly anything is under way, nothing waits at all.

It holds no bytes: who has something to write says so here, and writes when asked.
"""

# Compiled in the wheel.

from __future__ import annotations

import asyncio
from typing import Final, Protocol

__all__ = ["WriteBatch", "Writer"]

FEW: Final = 4
"""With fewer exchanges under way, two writes rarely fall into one turn, and its end costs more than it saves."""
MOST: Final = 64
"""Writers that wait for the end of the turn; with more, they are asked at once, so that none waits for long."""


class Writer(Protocol):
    def write_out(self) -> None:
        """Write what is due, if it still is. It must not raise."""


class WriteBatch:
    """The current turn of one event loop."""

    __slots__ = ("_loop", "_writers", "under_way")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._writers: list[Writer] = []
        self.under_way = 0
        """Exchanges that have begun and are not over; whoever begins and ends them counts."""

    def add(self, writer: Writer) -> None:
        """Ask this writer at the end of the turn, after those before it; now, if there is no crowd."""
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
        """Ask all of them. What they add meanwhile belongs to the next turn."""
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.write_out()
