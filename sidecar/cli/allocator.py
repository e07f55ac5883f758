"""The C library's allocator, told to keep what it has: a proxy allocates and frees buffers all day long.

By default glibc maps every buffer above 128 KiB anew and gives freed memory back at once, and each page of it
faults in again for the next one: half of the cost of a large body (docs/performance.md). Elsewhere than on
glibc nothing happens.
"""

from __future__ import annotations

import ctypes
from typing import Final

__all__ = ["keep_freed_memory"]

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
"""The names and numbers of mallopt(3)."""
LARGE_BYTES: Final = 1 << 20
"""Above the event loop's read buffer (256 KiB); what is larger is rare, and mapped as before."""
KEPT_BYTES: Final = 8 << 20


def keep_freed_memory() -> None:
    """For this process, from here on."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
