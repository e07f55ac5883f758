"""What every exchange uses and none owns: clock, limits, metrics, spool, outbox, interceptor. It decides nothing."""


# Compiled in the wheel.

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from sidecar.core.flow.retry_switch import RetrySwitch
from sidecar.observe.log import EventLog
from sidecar.observe.metrics import Metrics
from sidecar.outbox.worker import OutboxWorker
from sidecar.proxy.client.connection import ClientConnection
from sidecar.proxy.client.spool import Spool
from sidecar.proxy.routing.clock import Clock
from sidecar.wire.write_batch import WriteBatch

__all__ = ["Interceptor", "Notices", "Services", "TakenTunnel"]

TOLD_HOSTS: Final = 1000


class Notices:
    """Lines that are written at most once per host."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._told: set[tuple[str, int]] = set()

    def tunnel(self, host: str, port: int, upstream: str | None) -> None:
        """Log once that a tunnel to this host was opened; ``upstream``: the upstream configured for the host, if
        any.
        """
        if (host, port) in self._told or len(self._told) >= TOLD_HOSTS:
            return
        self._told.add((host, port))
        self._events.event(
            "tunnel",
            host=f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            message=f"what is inside a tunnel cannot be retried; for retries {_advice(host, port, upstream)}",
        )


def _advice(host: str, port: int, upstream: str | None) -> str:
    name = f"[{host}]" if ":" in host else host
    call = f"call http://{name}/… through this proxy, or use the upstream's mount as base URL"
    if upstream is not None:
        return f"{call} (upstream {upstream})"
    origin = f"https://{name}" if port == 443 else f"https://{name}:{port}"
    return f"add an upstream with `hosts: [{name}]` and `origin: {origin}`, and {call}"


class TakenTunnel(Protocol):
    """A CONNECT that was allowed and has no response yet."""

    app: ClientConnection

    def accepted(self, attempts: int = 1) -> bytes:
        """The 200 for the app."""

    def left(self) -> None:
        """Called once the app's transport has another protocol: the CONNECT is over and recorded."""


class Interceptor(Protocol):
    """Takes tunnels over: the app's TLS ends here, and the requests inside get the full engine."""

    def opens(self, host: str, port: int) -> str | None:
        """The scheme inside a tunnel to this host if it is to be taken over (``http`` or ``https``), else None.

        Called for each CONNECT, so it must be cheap. The tunnel is then routed and allowed as ``scheme://host:port/``
        is.
        """

    def take(self, tunnel: TakenTunnel, scheme: str, host: str, port: int) -> None:
        """Answer the CONNECT, and go on with ``tunnel.app.transport``; bytes that the app sent ahead are in
        ``app.reader.behind``.
        """


@dataclass(slots=True)
class Services:
    loop: asyncio.AbstractEventLoop
    clock: Clock
    chance: Callable[[], float]
    """A random number, 0 ≤ x < 1."""
    metrics: Metrics
    via: str
    """Our own name in ``Via``, different for each instance, so that only a real loop is taken for one."""
    crashed: Callable[[Exception], None]
    """Called with an internal fault that ended one exchange."""
    monotonic: Callable[[], float]
    """The clock's ``monotonic``, bound once."""
    spool: Spool
    """Files for bodies that have outgrown memory."""
    notices: Notices | None = None
    """Logs tunnels; None: none are logged."""
    interceptor: Interceptor | None = None
    """Takes tunnels over; None: all of them stay opaque."""
    draining: bool = False
    outbox: OutboxWorker | None = None
    retry_switch: RetrySwitch = field(default_factory=RetrySwitch)
    """The upstreams whose retries an operator has turned off."""
    write_batch: WriteBatch = field(init=False)
    """Collects the loop's small writes, which are made at the end of each iteration."""

    _wall_at_zero: float = field(init=False)
    """Unix seconds at monotonic zero, measured at the start."""

    def __post_init__(self) -> None:
        self.write_batch = WriteBatch(self.loop)
        self._wall_at_zero = self.clock.wall() - self.clock.monotonic()

    def steady_wall(self) -> float:
        """Unix seconds for stored moments, derived from the monotonic clock: setting the wall clock neither shortens
        nor lengthens a wait.
        """
        return self._wall_at_zero + self.monotonic()
