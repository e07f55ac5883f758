"""What changes the running sidecar: reload, open, retries off and on. Each needs the token and the same origin.

A response says what is in force now, in one sentence for each upstream. Counterparts: ``guard``, which has checked the
host, and ``state.Operator``, which acts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import orjson
from aiohttp import web

from sidecar.admin.guard import authorise
from sidecar.admin.state import AdminState
from sidecar.core.decision.times import duration
from sidecar.core.dryrun.compare_text import comparison_object, comparison_text
from sidecar.core.flow.retry_switch import LONGEST_SECONDS

__all__ = ["Switches"]

RELOAD_WORDS: Final = {"dry_run": frozenset({"0", "1"}), "format": frozenset({"text", "json"})}
"""What may be asked of a reload, and the values."""


class Switches:
    """One method per path; ``state`` is all that they see."""

    def __init__(self, state: AdminState) -> None:
        self._state = state

    async def reload(self, request: web.Request) -> web.Response:
        """Read the configuration again, and tell what it changes: 200 if it is in force, 422 if the old one stays.

        ``dry_run=1``: nothing is taken over. ``format=json``: one object, for tools.
        """
        refusal = authorise(request, self._state.token) or _misread(request, RELOAD_WORDS)
        if refusal is not None:
            return refusal
        result = await self._state.reload(dry_run=request.query.get("dry_run") == "1")
        status, found = 200 if result.ok else 422, result.comparison
        if request.query.get("format") == "json":
            told = {} if found is None else comparison_object(found)
            body = orjson.dumps({"ok": result.ok, "message": result.message, **told})
            return web.Response(status=status, body=body, content_type="application/json")
        text = result.message if found is None else f"{result.message}\n\n{comparison_text(found)}"
        return _text(text, status=status)

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
        refusal = _misread(request, dict.fromkeys(known, frozenset()))
        if refusal is not None:
            return refusal
        upstream, names = request.query.get("upstream"), self._state.operator.names()
        if upstream is not None and upstream not in names:
            return _text(f"no upstream has this name; there are: {', '.join(names)}", status=404)
        return _text(act(upstream))


def _misread(request: web.Request, known: Mapping[str, frozenset[str]]) -> web.Response | None:
    """The refusal of a query with other names than these, or with other values where some are listed: a misspelt
    ``upstream`` must not change all of them, nor a misspelt ``dry_run`` anything.
    """
    query = request.query
    if set(query) - set(known) or any(len(query.getall(name)) > 1 for name in query):
        return _text(f"what may be asked here, once each: {', '.join(sorted(known))}", status=400)
    for name, values in known.items():
        if values and name in query and query[name] not in values:
            return _text(f"{name} may be {' or '.join(sorted(values))}", status=400)
    return None


def _text(text: str, status: int = 200) -> web.Response:
    return web.Response(status=status, text=text + "\n")
