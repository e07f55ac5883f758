"""What every exchange uses and none owns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from sidecar.observe.metrics import Metrics
from sidecar.proxy.clock import Clock

__all__ = ["Services"]


@dataclass(slots=True)
class Services:
    loop: asyncio.AbstractEventLoop
    clock: Clock
    chance: Callable[[], float]
    """0 ≤ x < 1."""
    metrics: Metrics
    via: str
    """Our own name in ``Via``: unlike any other instance's, so that only a real loop looks like one."""
    draining: bool = False
    wants_attempts: bool = False
    """Whether even an untroubled exchange keeps a record of its attempt."""
    switched_off: bool = False
    """Retries are turned off at run time."""
