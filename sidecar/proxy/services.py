"""What every exchange uses and none owns."""

# Compiled in the wheel.

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from sidecar.core.flow.retry_switch import RetrySwitch
from sidecar.observe.metrics import Metrics
from sidecar.outbox.keeper import Keeper
from sidecar.proxy.clock import Clock
from sidecar.proxy.interceptor import Interceptor
from sidecar.proxy.notices import Notices
from sidecar.proxy.spool import Spool
from sidecar.wire.turn import Turn

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
    crashed: Callable[[Exception], None]
    """Told of a fault of ours that ended one exchange."""
    monotonic: Callable[[], float]
    """The clock's, bound once."""
    spool: Spool
    """Where bodies go that have outgrown memory."""
    notices: Notices | None = None
    """Told of tunnels."""
    interceptor: Interceptor | None = None
    """Takes tunnels over; None: all of them stay opaque."""
    draining: bool = False
    outbox: Keeper | None = None
    retry_switch: RetrySwitch = field(default_factory=RetrySwitch)
    """Retries that an operator has turned off."""
    turn: Turn = field(init=False)
    """The loop's: small writes are made at its end."""

    _wall_at_zero: float = field(init=False)
    """Unix seconds at monotonic zero, as of the start."""

    def __post_init__(self) -> None:
        self.turn = Turn(self.loop)
        self._wall_at_zero = self.clock.wall() - self.clock.monotonic()

    def steady_wall(self) -> float:
        """Unix seconds for what is due later, as the start of the process knew them: a clock that is set meanwhile
        neither shortens nor lengthens a wait."""
        return self._wall_at_zero + self.monotonic()
