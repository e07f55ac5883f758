"""Memory settings of a proxy: the C library's allocator keeps freed memory, the garbage collector runs rarely.

By default glibc maps every buffer above 128 KiB anew and gives freed memory back at once, and each page of it faults in
again for the next one: half of the cost of a large body. On other C libraries nothing happens.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Final

__all__ = ["collect_nothing_yet", "collect_rarely", "keep_freed_memory"]

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
"""The parameter numbers of mallopt(3)."""
LARGE_BYTES: Final = 1 << 20
"""Bytes from which a buffer is mapped: above the event loop's read buffer (256 KiB), so that only rare ones are."""
KEPT_BYTES: Final = 8 << 20
THRESHOLDS: Final = (5_000, 5, 10_000)
"""Thresholds of the three generations (``gc.set_threshold``): the oldest runs after a quarter of a billion new
objects.
"""


def keep_freed_memory() -> None:
    """Set the allocator's thresholds for this process."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def collect_nothing_yet() -> None:
    """Stop the collector while everything is imported and built: nearly all of it stays, and searching it takes a tenth
    of that time. ``collect_rarely`` ends it.
    """
    gc.disable()


def collect_rarely() -> None:
    """Call it when everything is imported and built.

    What exists by then stays and need never be searched: of 46,739 objects 1,343 could go, and finding them took 45 ms.
    The path of a request leaves no cycles behind. But ten thousand waiting exchanges are half a million young objects,
    and searching them as often as the default does stops the loop for a third of a second.
    """
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    gc.enable()
