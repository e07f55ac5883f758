"""Lines out of the process, without ever holding up the loop.

A log without a reader must not stop a proxy. ``O_NONBLOCK`` would not do: it belongs to the open file, which a terminal
or a pipe shares with other processes. So a real file is written by a thread of its own, from a queue bounded in bytes;
when the queue is full, or the output is closed or full, lines are dropped and counted. A stream in memory is written
directly. It formats nothing. Counterpart: ``log``.
"""

from __future__ import annotations

import io
import os
import select
import threading
from queue import Empty, SimpleQueue
from typing import IO

__all__ = ["LineWriter"]

QUEUE_BYTES = 1 << 20  # some thousand lines: a stall of a second or two under load
_BATCH_BYTES = 64 << 10  # the usual capacity of a pipe
GATHER_SECONDS = 0.05  # a line waits this long for others


class LineWriter:
    """Writes whole lines to ``stream`` (None: a closed output; everything is dropped and counted).

    One writer per output: give the same one to every log, so that their lines stay in order.
    """

    def __init__(self, stream: IO[str] | None, queue_bytes: int = QUEUE_BYTES) -> None:
        self._stream = stream
        self._queue_bytes = queue_bytes
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._hurry = threading.Event()
        """Set on close: the thread waits for no further lines."""
        self._torn = False
        """The last write broke off, perhaps within a line: the next one begins a new line."""
        # Each of these four is written by one thread only, so that no increment is lost.
        self._queued_bytes = 0
        self._taken_bytes = 0
        self._dropped_here = 0
        self._dropped_there = 0
        self.is_terminal = _is_terminal(stream)
        self._descriptor = _own_descriptor(stream)

    @property
    def dropped(self) -> int:
        """Lines lost so far."""
        return self._dropped_here + self._dropped_there

    def write(self, line: bytes) -> None:
        """Takes one line without its newline. Never blocks, never raises."""
        if self._closed:
            self._dropped_here += 1
        elif self._descriptor is None:
            self._write_directly(line)
        elif self._queued_bytes - self._taken_bytes + len(line) > self._queue_bytes:
            self._dropped_here += 1
        else:
            self._queued_bytes += len(line)
            self._queue.put(line)
            if self._thread is None:
                self._start()

    def close(self, timeout_seconds: float = 1.0) -> None:
        """Writes what is queued, for at most ``timeout_seconds``; what is written after this is dropped."""
        if self._closed:
            return
        self._closed = True
        self._hurry.set()
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout_seconds)
        stuck = self._thread is not None and self._thread.is_alive()
        if self._descriptor is not None and not stuck:
            os.close(self._descriptor)
            self._descriptor = None

    def _write_directly(self, line: bytes) -> None:
        try:
            if self._stream is None:
                raise ValueError("closed")
            self._stream.write(line.decode("utf-8") + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self._dropped_here += 1

    def _start(self) -> None:
        # A daemon: a process that is told to end does not wait for a reader that never comes.
        self._thread = threading.Thread(target=self._run, name="sidecar-log", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            lines, more = self._next_batch()
            if lines:
                self._put_out(lines)
            if not more:
                return

    def _next_batch(self) -> tuple[list[bytes], bool]:
        """The lines that are there, up to a pipe's worth, and whether there may be more."""
        lines: list[bytes] = []
        size = 0
        line = self._queue.get()
        # Each wake of this thread costs the loop its lock and its caches: a hundred times the cost of the line.
        self._hurry.wait(GATHER_SECONDS)
        while line is not None:
            lines.append(line)
            size += len(line)
            if size >= _BATCH_BYTES:
                return lines, True
            try:
                line = self._queue.get_nowait()
            except Empty:
                return lines, True
        return lines, False

    def _put_out(self, lines: list[bytes]) -> None:
        start = b"\n" if self._torn else b""
        try:
            self._write_all(start + b"\n".join(lines) + b"\n")
            self._torn = False
        except (OSError, ValueError):
            self._torn = True
            # It is unknown which of them were written before the fault, so all of them count as lost.
            self._dropped_there += len(lines)
        self._taken_bytes += sum(map(len, lines))

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        descriptor = self._descriptor
        if descriptor is None:
            raise ValueError("closed")
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:
                # Another process has made the shared file non-blocking: wait here, in this thread.
                poll = select.poll()
                poll.register(descriptor, select.POLLOUT)
                poll.poll()


def _is_terminal(stream: IO[str] | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def _own_descriptor(stream: IO[str] | None) -> int | None:
    """A duplicate of the stream's file, so that its number cannot become another file's; None in memory."""
    if stream is None:
        return None
    try:
        return os.dup(stream.fileno())
    except (OSError, ValueError, AttributeError, io.UnsupportedOperation):
        return None
