"""The app's request body: recorded as it arrives, sent on as the upstream takes it, and sent again for a retry.

The body is held whole up to the policy's two limits: first in memory, then in an unlinked temporary file. Beyond them
(or on a full disk) it is streamed through once and cannot be replayed. The attempt that sends it lags at most
``AHEAD_BYTES`` behind the app; beyond that, reading from the app pauses. The module knows no policy but the two limits.
Counterpart: ``proxy.exchange.send``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Protocol

from sidecar.core.decision.policy import BodyLimits
from sidecar.proxy.client.spool import Spool
from sidecar.wire.chunked import LAST_CHUNK, encode_chunk
from sidecar.wire.framing import CHUNKED

__all__ = ["Body", "Taker"]

AHEAD_BYTES = 256 << 10
PIECE_BYTES = 256 << 10
MOST_PIECES = 512
"""Buffers in one write call; IOV_MAX is 1,024 on Linux."""


class Taker(Protocol):
    """Receives a body: an upstream's connection, or the buffer of a stored request."""

    writing_paused: bool
    request_sent: bool
    on_writable: Callable[[], None] | None

    def write(self, data: bytes) -> None: ...


class Body:
    """One request body.

    ``app_side`` has ``pause_reading`` and ``resume_reading``; ``account`` is told every change of the bytes held.
    """

    __slots__ = (
        "_account",
        "_closed",
        "_connection",
        "_file",
        "_file_bytes",
        "_index",
        "_limits",
        "_offset",
        "_on_sent",
        "_pausing",
        "_set_reading",
        "_spool",
        "_tail",
        "_tail_bytes",
        "complete",
        "consumed",
        "held",
        "length",
        "received_bytes",
        "spool_failed",
    )

    def __init__(
        self,
        length: int,
        limits: BodyLimits,
        spool: Spool,
        set_reading: Callable[[bool], None],
        account: Callable[[int], None],
    ) -> None:
        self._spool = spool
        self.length = length
        """Declared length in bytes, or ``CHUNKED``."""
        self._limits = limits
        self._set_reading = set_reading
        self._account = account
        self.received_bytes = 0
        self.complete = False
        self.held = length <= max(limits.memory_bytes, limits.disk_bytes)
        """Whether everything received so far can still be sent from the first byte."""
        self.consumed = False
        """Whether a byte has been sent that is no longer held."""
        self.spool_failed = False
        """Whether the body is not held because the disk refused a write."""
        self._file: int | None = None
        self._file_bytes = 0
        self._tail: list[bytes] = []
        self._tail_bytes = 0
        self._offset = 0
        self._index = 0
        self._connection: Taker | None = None
        self._on_sent: Callable[[], None] | None = None
        self._pausing = False
        self._closed = False

    @property
    def memory_bytes(self) -> int:
        """Bytes held in memory."""
        return self._tail_bytes

    @property
    def can_be_sent(self) -> bool:
        """Whether an attempt that begins now would carry the whole body."""
        return self.held or not self.consumed

    @property
    def is_pausing(self) -> bool:
        """Whether reading from the app is paused because the upstream does not keep up."""
        return self._pausing

    # -- from the app ------------------------------------------------------------------------------------

    def append(self, data: bytes) -> None:
        if self._closed:
            return
        self.received_bytes += len(data)
        self._tail.append(data)
        self._tail_bytes += len(data)
        self._account(len(data))
        # Sent before it is stored: what goes out at once need not be read back from the disk.
        self._pump()
        if self.held and self._tail_bytes > self._limits.memory_bytes:
            self._spill()
        self._flow()

    def finish(self) -> None:
        self.complete = True
        self._pump()

    def copy(self, limit_bytes: int) -> bytes:
        """The whole body for a report; empty if it is not held whole or is longer than ``limit_bytes``."""
        if not self.held or not self.complete or self.received_bytes > limit_bytes:
            return b""
        start = b"" if self._file is None else os.pread(self._file, self._file_bytes, 0)
        return start + b"".join(self._tail)

    # -- to an upstream ----------------------------------------------------------------------------------

    def attach(self, connection: Taker, on_sent: Callable[[], None]) -> None:
        """Send the body from its first byte over ``connection``; ``on_sent`` is called when all of it went out."""
        self._offset = 0
        self._index = 0
        self._connection = connection
        self._on_sent = on_sent
        connection.on_writable = self._writable
        self._pump()
        self._flow()

    def detach(self, connection: Taker | None = None) -> None:
        """End the attempt; what is held stays. With ``connection``, only if the body is attached to that one."""
        if connection is not None and connection is not self._connection:
            return
        self._connection = None
        self._on_sent = None
        self._flow()

    def let_go(self) -> None:
        """Release what has been sent: no other attempt will need it."""
        if self.held:
            self._stop_holding()

    def close(self) -> None:
        """Release everything, and ignore what still arrives."""
        self._closed = True
        self._connection = None
        self._on_sent = None
        self._account(-self._tail_bytes)
        self._account = self._set_reading = _ignore
        self._tail = []
        self._tail_bytes = 0
        self._close_file()

    def _writable(self) -> None:
        self._pump()
        self._flow()

    def _pump(self) -> None:
        connection = self._connection
        if connection is None:
            return
        while self._offset < self.received_bytes and not connection.writing_paused:
            data = self._next()
            self._offset += len(data)
            connection.write(encode_chunk(data) if self.length == CHUNKED else data)
        if self.complete and self._offset == self.received_bytes and not connection.request_sent:
            if self.length == CHUNKED:
                connection.write(LAST_CHUNK)
            connection.request_sent = True
            if self._on_sent is not None:
                self._on_sent()

    def _next(self) -> bytes:
        if self._offset < self._file_bytes:
            return self._read_file()
        data = self._tail[self._index]
        if self.held:
            self._index += 1
            return data
        # Streamed through: these bytes cannot be sent again.
        self.consumed = True
        del self._tail[: self._index + 1]
        self._tail_bytes -= len(data)
        self._account(-len(data))
        self._index = 0
        self._close_file()
        return data

    def _flow(self) -> None:
        """Pause the app when it is ``AHEAD_BYTES`` ahead of the upstream; resume it when it is not."""
        if self._closed:
            # A connection that is lost only now still calls; the app's connection may serve another request by then.
            return
        behind = self.received_bytes - (self._offset if self._connection is not None else 0)
        if self._connection is None and self.held:
            behind = self._tail_bytes
        pausing = behind > AHEAD_BYTES and not self.complete
        if pausing != self._pausing:
            self._pausing = pausing
            self._set_reading(not pausing)

    # -- the disk ----------------------------------------------------------------------------------------

    def _spill(self) -> None:
        """Move what is in memory to the file; past the disk limit, or on a disk error, stop holding."""
        if self._file_bytes + self._tail_bytes > self._limits.disk_bytes:
            self._stop_holding()
            return
        try:
            if self._file is None:
                self._file = self._spool.take()
            _write_all(self._file, self._tail, self._file_bytes)
        except OSError as error:
            self._spool.refused(error)
            self.spool_failed = True
            self._stop_holding()
            return
        self._file_bytes += self._tail_bytes
        self._account(-self._tail_bytes)
        self._tail = []
        self._tail_bytes = 0
        self._index = 0

    def _stop_holding(self) -> None:
        self.held = False
        # Bytes sent from memory are released; from here on the body cannot be replayed.
        sent = self._tail[: self._index]
        if sent or self._offset:
            self.consumed = True
        del self._tail[: self._index]
        freed = sum(map(len, sent))
        self._tail_bytes -= freed
        self._account(-freed)
        self._index = 0

    def _read_file(self) -> bytes:
        if self._file is None:
            raise RuntimeError("the held body's file is closed")
        return os.pread(self._file, min(PIECE_BYTES, self._file_bytes - self._offset), self._offset)

    def _close_file(self) -> None:
        if self._file is not None:
            self._spool.give_back(self._file)
            self._file = None


def _write_all(file: int, pieces: list[bytes], offset: int) -> None:
    """Write the pieces without joining them. Raises OSError, also where a full disk shows only as a short write."""
    for at in range(0, len(pieces), MOST_PIECES):
        part = pieces[at : at + MOST_PIECES]
        size = sum(map(len, part))
        if os.pwritev(file, part, offset) != size:
            raise OSError(errno.ENOSPC, "the disk is full")
        offset += size


def _ignore(_: int) -> None:
    """Replaces the callbacks of a closed body."""
