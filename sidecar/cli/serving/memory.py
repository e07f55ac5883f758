"""Memory, told how a proxy uses it: the C library's allocator keeps what it has, the collector keeps out of the way.

By default glibc maps every buffer above 128 KiB anew and gives freed memory back at once, and each page of it
faults in again for the next one: half of the cost of a large body (docs/performance.md). Elsewhere than on
glibc nothing happens.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Final

__all__ = ["collect_nothing_yet", "collect_rarely", "keep_freed_memory"]

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
"""The names and numbers of mallopt(3)."""
LARGE_BYTES: Final = 1 << 20
"""Above the event loop's read buffer (256 KiB); what is larger is rare, and mapped as before."""
KEPT_BYTES: Final = 8 << 20
THRESHOLDS: Final = (5_000, 5, 10_000)
"""Of the three generations (``gc.set_threshold``): the oldest waits for a quarter of a billion new objects."""


def keep_freed_memory() -> None:
    """For this process, from here on."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def collect_nothing_yet() -> None:
    """For the time in which everything is imported and built: nearly all of it stays, and looking for the rest takes
    a tenth of that time. ``collect_rarely`` ends it."""
    gc.disable()


def collect_rarely() -> None:
    """Call it when everything is imported and built.

    What is there by now stays for ever and need not be looked at, not even once: of 46,739 objects 1,343 could go, and
    to find them took 45 ms. The path of a request leaves no cycles behind;
    but ten thousand exchanges that wait are half a million young objects, and looking through them all, as often as
    the collector would by itself, stops the loop for a third of a second.
    """
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    gc.enable()
