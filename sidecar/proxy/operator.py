"""What an operator may do to a running sidecar: open what holds requests, turn retries off and on, and see the state.

Every act is logged and counted, and part of ``states``, which the page draws. It outlives reloads, not the process. It
decides nothing. Counterparts: ``core.flow`` (what holds) and ``admin`` (the pages and switches).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

from sidecar.core.flow.limiter import Hold
from sidecar.core.flow.scopes import SCOPE_KINDS, scope_kind, scope_text
from sidecar.observe.log import EventLog
from sidecar.observe.sanitize import clean
from sidecar.proxy.exchange.context import Services
from sidecar.proxy.routing.router import Router

__all__ = ["Operator"]

REMIND_SECONDS: Final = 600.0
"""Seconds between two log lines while retries are off, so that they are not left off by mistake."""

MOST_HOLDS: Final = 20
"""Holds listed for one upstream: more do not fit on a page."""
SCOPE_CHARACTERS: Final = 200


class Operator:
    """The operator of one sidecar. ``router``: the map in force."""

    def __init__(self, services: Services, router: Callable[[], Router], events: EventLog) -> None:
        self._services = services
        self._router = router
        self._events = events
        self._timer: asyncio.TimerHandle | None = None

    def names(self) -> list[str]:
        """Every configured upstream's name, and the one name of all other hosts."""
        return [*self._router().destinations, self._services.metrics.unknown.name]

    def open(self, upstream: str | None) -> int:
        """Forget what was learnt of an upstream (None: of all), and release its queue; returns how many exchanges that
        released.
        """
        released = 0
        for name in self.names() if upstream is None else [upstream]:
            own = sum(holding.open() for holding in self._router().holdings_of(name))
            self._services.metrics.upstream(name).opened += 1
            self._events.event("opened", upstream=name, released=own)
            released += own
        return released

    def turn_retries_off(self, upstream: str | None, seconds: float | None) -> None:
        """Turn retries off for ``seconds``; None: until they are turned on."""
        until = math.inf if seconds is None else self._services.monotonic() + seconds
        self._services.retry_switch.turn_off(upstream, until)
        self._events.event("retries_off", "warning", upstream=upstream or "all", seconds=seconds)
        self._look()

    def turn_retries_on(self, upstream: str | None) -> None:
        """Retry as the policy says again."""
        self._services.retry_switch.turn_on(upstream)
        for meters in self._services.metrics.upstreams():
            if upstream in (None, meters.name):
                meters.retries_off = False
        self._events.event("retries_on", upstream=upstream or "all", cause="asked")
        self._look()

    def retries_off(self) -> dict[str, float | None]:
        """Upstream -> the seconds for which its retries are still off; None: until they are turned on."""
        now, switch = self._services.monotonic(), self._services.retry_switch
        found = {name: switch.off_until(name, now) for name in self.names()}
        return {
            name: None if until == math.inf else round(until - now, 3)
            for name, until in found.items()
            if until is not None
        }

    def states(self) -> dict[str, dict[str, object]]:
        """Upstream → ``state``, one word: ``flowing`` only if no exchange is held and a new one would not be;
        ``holds``: what holds; ``retries_off``: None, or for how many seconds (docs/metrics.md).
        """
        off = self.retries_off()
        told: dict[str, dict[str, object]] = {}
        for name in self.names():
            held = self._services.metrics.upstream(name).held
            holds = [_plain(hold) for hold in self._holds(name)][:MOST_HOLDS]
            most = max(held, key=held.__getitem__, default="")
            first = next((str(hold["by"]) for hold in holds if hold["by"] in ("breaker", "gate")), "flowing")
            told[name] = {
                "state": most if held.get(most) else first,
                "holds": holds,
                "retries_off": {"seconds": off[name]} if name in off else None,
            }
        return told

    def look(self) -> None:
        """Bring the gauges up to date: a gate opens by itself, and nothing reports that."""
        for name in self.names():
            meters, holds = self._services.metrics.upstream(name), self._holds(name)
            closed = dict.fromkeys(SCOPE_KINDS, 0)
            for hold in holds:
                closed[scope_kind(hold.scope)] += hold.by == "gate"
            meters.gates_closed = closed
            meters.rate_limit_per_second = min((rate for hold in holds if (rate := hold.per_second)), default=None)
            meters.concurrency_limit = min((hold.limit for hold in holds if hold.limit is not None), default=None)
            is_probing = any(holding.is_probing for holding in self._router().holdings_of(name))
            is_open = any(hold.by == "breaker" for hold in holds)
            meters.breaker_state = 1 if is_probing else 2 if is_open else 0

    def _holds(self, name: str) -> list[Hold]:
        return [hold for holding in self._router().holdings_of(name) for hold in holding.holds()]

    def apply(self) -> None:
        """Apply a new map: upstreams have come and gone."""
        self._look()

    def close(self) -> None:
        """Stop the reminders."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Bring the gauges up to date; look again when a time ends, or a reminder is due."""
        services = self._services
        now, left = services.monotonic(), REMIND_SECONDS
        for meters in services.metrics.upstreams():
            until = services.retry_switch.off_until(meters.name, now)
            if until is not None:
                left = min(left, until - now)
            elif meters.retries_off:
                self._events.event("retries_on", upstream=meters.name, cause="its time is over")
            meters.retries_off = until is not None
        self.close()
        if any(meters.retries_off for meters in services.metrics.upstreams()):
            self._timer = services.loop.call_later(max(0.001, left), self._look_again)

    def _look_again(self) -> None:
        self._look()
        off = self.retries_off()
        if off:
            self._events.event("retries_off", "warning", upstream=list(off), reminder=True)


def _plain(hold: Hold) -> dict[str, object]:
    """The hold as JSON."""
    return {
        "by": hold.by,
        "scope": clean(scope_text(hold.scope), SCOPE_CHARACTERS),
        "seconds": None if hold.seconds is None else round(hold.seconds, 3),
        "per_second": None if hold.per_second is None else round(hold.per_second, 3),
        "limit": hold.limit,
    }
