"""The app's request body: recorded as it arrives, sent on as the upstream takes it, and again if need be.

Held whole up to the policy's limits: in memory first, then in an unlinked temporary file. Beyond them (or on
a full disk) it is streamed through once and cannot be replayed. Whoever sends lags at most ``AHEAD_BYTES``
behind the app: then reading from the app pauses. This room knows no policy beyond the two limits.
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
"""In one system call (IOV_MAX is 1,024)."""


class Taker(Protocol):
    """Who a body is written to: an upstream's connection, or whoever gathers it."""

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
        """Declared bytes, or ``CHUNKED``."""
        self._limits = limits
        self._set_reading = set_reading
        self._account = account
        self.received_bytes = 0
        self.complete = False
        self.held = length <= max(limits.memory_bytes, limits.disk_bytes)
        """Whether everything received so far can still be sent from the first byte."""
        self.consumed = False
        """Whether a byte that is no longer held has been sent."""
        self.spool_failed = False
        """Whether it is not held because the disk refused."""
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
        """What is held in memory."""
        return self._tail_bytes

    @property
    def can_be_sent(self) -> bool:
        """Whether an attempt that begins now would carry the whole body."""
        return self.held or not self.consumed

    @property
    def is_pausing(self) -> bool:
        """Whether the app is held back because the upstream does not keep up."""
        return self._pausing

    # -- from the app ------------------------------------------------------------------------------------

    def append(self, data: bytes) -> None:
        if self._closed:
            return
        self.received_bytes += len(data)
        self._tail.append(data)
        self._tail_bytes += len(data)
        self._account(len(data))
        # Sent first: what goes out at once need not be read back from the disk.
        self._pump()
        if self.held and self._tail_bytes > self._limits.memory_bytes:
            self._spill()
        self._flow()

    def finish(self) -> None:
        self.complete = True
        self._pump()

    def copy(self, limit_bytes: int) -> bytes:
        """All of it, for whoever looks afterwards; nothing if it is not held whole, or is more than that."""
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
        """The attempt is over; what is held stays. ``connection``: only if it is this one that takes it."""
        if connection is not None and connection is not self._connection:
            return
        self._connection = None
        self._on_sent = None
        self._flow()

    def let_go(self) -> None:
        """No other attempt will need it: what has been sent need not be held."""
        if self.held:
            self._stop_holding()

    def close(self) -> None:
        """Forget everything, also what is still to come."""
        self._closed = True
        self._connection = None
        self._on_sent = None
        self._account(-self._tail_bytes)
        self._account = self._set_reading = _nobody
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
        # Streamed through: nobody will ask for it again.
        self.consumed = True
        del self._tail[: self._index + 1]
        self._tail_bytes -= len(data)
        self._account(-len(data))
        self._index = 0
        self._close_file()
        return data

    def _flow(self) -> None:
        """Pause the app when it is too far ahead of the upstream, let it go on when it is not."""
        if self._closed:
            # A connection that is lost only now still calls; the app's may be busy with something else by then.
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
        """Move what is in memory to the file; past its limit, or where the disk refuses, stop holding."""
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
        # What has been sent from memory already is not needed any more; from here on it cannot be replayed.
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
    """As they are, without joining them first. Raises OSError (a full disk also tells itself by writing less)."""
    for at in range(0, len(pieces), MOST_PIECES):
        part = pieces[at : at + MOST_PIECES]
        size = sum(map(len, part))
        if os.pwritev(file, part, offset) != size:
            raise OSError(errno.ENOSPC, "the disk is full")
        offset += size


def _nobody(_: int) -> None:
    """Whom a closed body tells."""
