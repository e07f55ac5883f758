"""How many apps' connections there is room for, so that some descriptors are left for the upstreams.

Without that a crowd of apps would take them all, and no request of any of them could be sent.
"""

from __future__ import annotations

import resource
from typing import Final

__all__ = ["places"]

OWN_DESCRIPTORS: Final = 24
"""What the process itself holds open: both ports, the loop, the log, a reload."""


SCARCE: Final = 4096
"""Below this each app's connection is counted with one toward its upstream; above it, three in four are apps':
upstreams' connections are shared, and bounded for each upstream."""


def places(wanted: int) -> int:
    """``wanted``, or as many as the file limit allows with enough left for the upstreams."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    left = soft - OWN_DESCRIPTORS
    return min(wanted, max(1, left // 2 if soft < SCARCE else left * 3 // 4))
