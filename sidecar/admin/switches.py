"""What changes the running sidecar: reload, open, retries off and on. Each needs the token and the same origin.

A response says what is in force now, in one sentence for each upstream. Counterparts: ``guard``, which has checked the
host, and ``state.Operator``, which acts.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from sidecar.admin.guard import authorise
from sidecar.admin.state import AdminState
from sidecar.core.decision.times import duration
from sidecar.core.flow.retry_switch import LONGEST_SECONDS

__all__ = ["Switches"]


class Switches:
    """One method per path; ``state`` is all that they see."""

    def __init__(self, state: AdminState) -> None:
        self._state = state

    async def reload(self, request: web.Request) -> web.Response:
        """Read the configuration again: 200 if it is in force, 422 if the old one stays."""
        refusal = authorise(request, self._state.token)
        if refusal is not None:
            return refusal
        result = await self._state.reload()
        return _text(result.message, status=200 if result.ok else 422)

    async def open(self, request: web.Request) -> web.Response:
        """Forget what was learnt of an upstream (or all), and release its queue."""

        def act(upstream: str | None) -> str:
            released = self._state.operator.open(upstream)
            held = "1 exchange was" if released == 1 else f"{released} exchanges were"
            return f"opened {upstream or 'all upstreams'}: {held} held"

        return self._change(request, act, {"upstream"})

    async def retries_off(self, request: web.Request) -> web.Response:
        """Turn retries off: for the time ``for``, or until ``retries_on``."""
        written = request.query.get("for")
        seconds = None if written is None else duration(written)
        if written is not None and (seconds is None or not 0 < seconds <= LONGEST_SECONDS):
            return _text("for must be a duration like 10m or 1h30m, of a week at most", status=400)

        def act(upstream: str | None) -> str:
            self._state.operator.turn_retries_off(upstream, seconds)
            return self._retries_text()

        return self._change(request, act, {"upstream", "for"})

    async def retries_on(self, request: web.Request) -> web.Response:
        """Retry as the policy says again."""

        def act(upstream: str | None) -> str:
            self._state.operator.turn_retries_on(upstream)
            return self._retries_text()

        return self._change(request, act, {"upstream"})

    async def retries(self, _request: web.Request) -> web.Response:
        """Show where retries are off, and for how long."""
        return _text(self._retries_text())

    def _retries_text(self) -> str:
        off = self._state.operator.retries_off()
        if not off:
            return "retries are on"
        return "\n".join(
            f"{name}: retries are off" + ("" if left is None else f" for {left:.0f} s more")
            for name, left in off.items()
        )

    def _change(self, request: web.Request, act: Callable[[str | None], str], known: set[str]) -> web.Response:
        refusal = authorise(request, self._state.token)
        if refusal is not None:
            return refusal
        unknown = sorted(set(request.query) - known)
        if unknown or any(len(request.query.getall(name)) > 1 for name in request.query):
            # A misspelt `upstream` must not change all of them.
            return _text(f"what may be asked here, once each: {', '.join(sorted(known))}", status=400)
        upstream, names = request.query.get("upstream"), self._state.operator.names()
        if upstream is not None and upstream not in names:
            return _text(f"no upstream has this name; there are: {', '.join(names)}", status=404)
        return _text(act(upstream))


def _text(text: str, status: int = 200) -> web.Response:
    return web.Response(status=status, text=text + "\n")
