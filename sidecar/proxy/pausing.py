"""An exchange that stands still before a send, and the one way in which shutting down ends that.

Shutting down cancels the exchange's task with ``woken`` set (``AppConnection.cut_wait_short``); an app that has left
cancels it without. Here the two are told apart. The counterpart is ``attempts``.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from sidecar.core.words import Reason
from sidecar.proxy.front import AppConnection
from sidecar.proxy.holding import Rejected

__all__ = ["Pause"]


class Pause:
    """``with Pause(app):`` around a wait. Raises ``Rejected`` (draining) if the wait was cut short to shut down."""

    __slots__ = ("_app",)

    def __init__(self, app: AppConnection) -> None:
        self._app = app

    def __enter__(self) -> None:
        self._app.waiting = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        app = self._app
        woken, app.woken, app.waiting = app.woken, False, False
        if not woken or app.transport is None or not isinstance(error, asyncio.CancelledError):
            return
        task = asyncio.current_task()
        if task is not None and task.uncancel() <= 0:
            raise Rejected(Reason.DRAINING, 0.0) from None
