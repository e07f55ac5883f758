"""How many apps' connections there is room for, so that some descriptors are left for the upstreams.

Without that a crowd of apps would take them all, and no request of any of them could be sent.
"""

from __future__ import annotations

import resource
from typing import Final

__all__ = ["places"]

OWN_DESCRIPTORS: Final = 24
"""What the process itself holds open: both ports, the loop, the log, a reload."""


def places(wanted: int) -> int:
    """``wanted``, or as many as the file limit allows if each may need a second descriptor toward its upstream."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, max(1, (soft - OWN_DESCRIPTORS) // 2))
