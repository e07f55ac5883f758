"""Files for request bodies that have outgrown memory: unlinked, and used again.

Writing into a file that has its blocks already costs an eighth of writing into a new one. No other process can open
them. What an earlier body left behind is overwritten before it could be read, because a body reads only what it has
written. Counterpart: ``body``.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from typing import Final

__all__ = ["Spool"]

KEPT_FILES: Final = 4
KEPT_BYTES: Final = 16 << 20
"""Bytes kept of each idle file; the rest of a larger one is given back to the disk."""


class Spool:
    """Lends files. Call ``close`` at the end."""

    __slots__ = ("_free", "on_trouble", "trouble")

    def __init__(self) -> None:
        self._free: list[int] = []
        self.trouble = ""
        """Why the disk refused its last write; empty while it takes them."""
        self.on_trouble: Callable[[str], None] | None = None

    def try_out(self) -> None:
        """Write once at start, before a body needs the disk; a fault is in ``trouble``."""
        try:
            self.give_back(self.take())
        except OSError as error:
            self.refused(error)

    def refused(self, error: OSError) -> None:
        """Note that the disk refused a body, which is held in memory alone from now on."""
        self.trouble = error.strerror or str(error)
        if self.on_trouble is not None:
            self.on_trouble(self.trouble)

    def take(self) -> int:
        """A file descriptor, for one body at a time. Raises OSError if the disk gives none."""
        if self._free:
            return self._free.pop()
        with tempfile.TemporaryFile(prefix="sidecar-") as file:
            self.trouble = ""
            return os.dup(file.fileno())

    def give_back(self, file: int) -> None:
        if len(self._free) < KEPT_FILES:
            with contextlib.suppress(OSError):
                if os.fstat(file).st_size > KEPT_BYTES:
                    os.ftruncate(file, KEPT_BYTES)
                self._free.append(file)
                return
        os.close(file)

    def close(self) -> None:
        for file in self._free:
            os.close(file)
        self._free.clear()
