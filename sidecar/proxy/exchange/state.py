"""The states of an exchange, their transitions, and the one way to wait before a send.

    NEW       start       FAST      a whole request went out on a pooled connection, without a task
    NEW       start       LOOP      everything else: a task runs ``retry_loop``
    NEW       start       OVER      refused before it was sent
    FAST      answer      OVER      whole, and the table passes it on
    FAST      answer      LOOP      anything else that comes back, a failure too
    LOOP      ``Pause``   WAITING   it waits before a send: a wait of the table, or flow control
    WAITING   due         LOOP
    WAITING   drain       WOKEN     shutdown: the wait ends now, without the send (``cut_wait_short``)
    WOKEN     woken       LOOP      it hands over what it has
    LOOP      switch      RELAY     a tunnel or an upgrade: bytes go both ways until both connections are gone
    any       end         OVER      answered, or cancelled; ``over`` is called on this change, once

``Exchange.cancel`` is the one way to end it from outside, ``Exchange.finish`` the one way to end.
"""

# Compiled in the wheel.

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Protocol

from sidecar.core.enums import Reason
from sidecar.proxy.client.connection import ClientConnection
from sidecar.proxy.routing.limiter import Rejected

__all__ = ["FAST", "LOOP", "NEW", "OVER", "RELAY", "TRANSITIONS", "WAITING", "WOKEN", "Pause"]

NEW: Final = 0
FAST: Final = 1
LOOP: Final = 2
WAITING: Final = 3
WOKEN: Final = 4
RELAY: Final = 5
OVER: Final = 6

TRANSITIONS: Final = frozenset(
    {(NEW, FAST), (NEW, LOOP), (NEW, OVER), (FAST, LOOP), (FAST, OVER), (LOOP, WAITING), (LOOP, OVER)}
    | {(WAITING, LOOP), (WAITING, WOKEN), (WOKEN, LOOP), (LOOP, RELAY), (RELAY, OVER)}
)
"""Every change that there is; a test drives exchanges through all of them and through no other."""


class Pausing(Protocol):
    """The exchange, as its pause sees it."""

    app: ClientConnection
    state: int


class Pause:
    """``with Pause(exchange):`` around a wait. Raises ``Rejected`` (draining) if the wait was cut short to shut down.

    Shutting down cancels the task in state WOKEN; an app that has left cancels it in state WAITING. Here the two are
    told apart, and nowhere else.
    """

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Pausing) -> None:
        self._exchange = exchange

    def __enter__(self) -> None:
        self._exchange.state = WAITING

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        exchange = self._exchange
        was_woken = exchange.state == WOKEN
        exchange.state = LOOP
        if not was_woken or exchange.app.transport is None or not isinstance(error, asyncio.CancelledError):
            return
        task = asyncio.current_task()
        if task is not None and task.uncancel() <= 0:
            raise Rejected(Reason.DRAINING, 0.0) from None
