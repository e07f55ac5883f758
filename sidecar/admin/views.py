"""The responses of the admin port: health, metrics, configuration, recent exchanges.

GET never changes anything. Readiness is the sidecar's own: an upstream that is down is no reason to take the app's
sidecar away from it. Counterpart: ``guard``, which has admitted the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from sidecar.admin.guard import is_local
from sidecar.admin.state import AdminState, Check
from sidecar.admin.story import story_of
from sidecar.observe.fields import fields_of, timestamp
from sidecar.observe.snapshot import snapshot

__all__ = ["Views"]

_PAGE_LIMIT = 500
_DEFAULT_LIMIT = 100
# Upstreams above which the text is made in a thread: it takes longer than the loop may be blocked.
_INLINE_UPSTREAMS = 30


class Views:
    """One method per path; ``state`` is all that they see."""

    def __init__(self, state: AdminState) -> None:
        self._state = state
        self._scraping = asyncio.Lock()

    async def livez(self, request: web.Request) -> web.Response:
        """200 while the loop runs: this response is the check. Also while draining: a draining process must not be
        killed.
        """
        return _text("[+]loop ok\nok" if "verbose" in request.query else "ok")

    async def readyz(self, request: web.Request) -> web.Response:
        """200 if every check holds, else 503; ``?verbose`` lists them."""
        checks = [Check(*check) for check in self._state.ready()]
        ready = all(check.ok for check in checks)
        lines = [_check_line(check) for check in checks if "verbose" in request.query or not check.ok]
        lines.append("ready" if ready else "not ready")
        return _text("\n".join(lines), status=200 if ready else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        """The counters, in the classic text format or OpenMetrics, as ``Accept`` says."""
        metrics = self._state.metrics
        self._state.operator.look()
        encode, content_type = _encoder(request.headers.get("Accept", ""))
        async with self._scraping:
            if len(metrics.upstreams()) > _INLINE_UPSTREAMS:
                body = await asyncio.to_thread(encode, metrics.registry)
            else:
                body = encode(metrics.registry)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def config(self, _request: web.Request) -> web.Response:
        return _text(self._state.config_text())

    async def exchanges(self, request: web.Request) -> web.Response:
        """The last exchanges, newest first; ``outcome``, ``upstream``, ``id`` and ``limit`` narrow it."""
        asked = request.query
        limit = asked.get("limit", str(_DEFAULT_LIMIT))
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= _PAGE_LIMIT):
            return _text(f"limit must be a number from 1 to {_PAGE_LIMIT}", status=400)
        records = self._state.recent.find(
            outcome=asked.get("outcome") or None,
            upstream=asked.get("upstream") or None,
            request_id=asked.get("id") or None,
            limit=int(limit),
        )
        return _json({"kept": self._state.recent.maxlen, "exchanges": [fields_of(r) for r in records]})

    async def numbers(self, _request: web.Request) -> web.Response:
        """What the page draws: counters, states, readiness."""
        checks = [Check(*check)._asdict() for check in self._state.ready()]
        operator = self._state.operator
        operator.look()
        return _json({"checks": checks, **snapshot(self._state.metrics, operator.states(), self._state.trend)})

    async def story(self, request: web.Request) -> web.Response:
        """One of the last exchanges with its story: ``id`` is any of its ids, ``time`` distinguishes those that share
        one.
        """
        wanted, time = request.query.get("id", ""), request.query.get("time")
        if not wanted:
            return _text("name the request: ?id=REQUEST_ID", status=400)
        for record in self._state.recent.find(request_id=wanted):
            if time is None or timestamp(record.started_at) == time:
                return _json(story_of(record))
        return _text("no exchange with this id is among the last ones (any more)", status=404)

    async def report(self, request: web.Request) -> web.Response:
        """The report of the exchange with the id ``id``; to this machine alone, since it may hold bodies."""
        if not is_local(request.remote):
            return _text("Reports are told on this machine alone: run `sidecar report` beside the sidecar.", status=403)
        wanted = request.query.get("id", "")
        if not wanted:
            return _text("name the request: ?id=REQUEST_ID", status=400)
        report = self._state.report(wanted)
        if report is None:
            return _text("nothing is known of a request with this id (any more)", status=404)
        return _json(report)


def _check_line(check: Check) -> str:
    sign, word = ("+", "ok") if check.ok else ("-", "failed")
    return f"[{sign}]{check.name} {word}" + (f": {check.detail}" if check.detail else "")


def _encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is no number
        return choose_encoder("")


def _text(text: str, status: int = 200) -> web.Response:
    return web.Response(status=status, text=text.rstrip("\n") + "\n")


def _json(data: object) -> web.Response:
    return web.Response(body=orjson.dumps(data), content_type="application/json")
