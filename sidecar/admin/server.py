"""The admin port as an aiohttp application, and the runner that serves it without a log.

It has a listener of its own and cannot be reached through the proxy. Counterpart: ``state``, all that it knows.
"""

from __future__ import annotations

import logging

from aiohttp import web

from sidecar.admin.guard import guard, sign
from sidecar.admin.page import Page
from sidecar.admin.state import AdminState
from sidecar.admin.switches import Switches
from sidecar.admin.views import Views

__all__ = ["make_admin", "make_runner"]

_BODY_BYTES = 64 << 10


def make_admin(state: AdminState) -> web.Application:
    """All paths of the admin port (docs/metrics.md lists them)."""
    views, switches, page = Views(state), Switches(state), Page()
    app = web.Application(middlewares=[guard(state)], client_max_size=_BODY_BYTES)
    app.on_response_prepare.append(sign)
    app.router.add_get("/", page.show)
    app.router.add_get("/livez", views.livez)
    app.router.add_get("/readyz", views.readyz)
    app.router.add_get("/healthz", views.livez)
    app.router.add_get("/metrics", views.metrics)
    app.router.add_get("/config", views.config)
    app.router.add_get("/debug/exchanges", views.exchanges)
    app.router.add_get("/debug/story", views.story)
    app.router.add_get("/debug/report", views.report)
    app.router.add_get("/debug/numbers", views.numbers)
    app.router.add_get("/-/retries", switches.retries)
    app.router.add_post("/-/reload", switches.reload)
    app.router.add_post("/-/open", switches.open)
    app.router.add_post("/-/retries/off", switches.retries_off)
    app.router.add_post("/-/retries/on", switches.retries_on)
    return app


def make_runner(app: web.Application, *, shutdown_seconds: float = 1.0) -> web.AppRunner:
    """A runner without an access log, and without the library's tracebacks for malformed requests."""
    silent = logging.getLogger(__name__)
    silent.setLevel(logging.CRITICAL + 1)
    return web.AppRunner(app, access_log=None, logger=silent, shutdown_timeout=shutdown_seconds)
