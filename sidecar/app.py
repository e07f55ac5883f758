"""The wiring: every part built once, started and stopped in order. The only room that knows them all.

``Sidecar`` is one running sidecar: two ports, one loop. It takes a ``Deployment`` and can be given another one
while it runs; where configurations come from, and signals, are ``life``'s.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import IO

from aiohttp import http_parser
from aiohttp.web import AppRunner, TCPSite

from sidecar.admin import AdminState, ReloadResult, make_admin, make_runner
from sidecar.core.deployment import Address, Deployment
from sidecar.observe.libraries import listen_to_libraries
from sidecar.observe.lines import LineWriter
from sidecar.observe.log import EventLog, ExchangeLog
from sidecar.observe.metrics import Metrics
from sidecar.observe.record import ExchangeRecord
from sidecar.observe.ring import Recent
from sidecar.proxy.clock import Clock, SystemClock, dice
from sidecar.proxy.destinations import TimerShelf
from sidecar.proxy.ids import new_id
from sidecar.proxy.listener import CannotListen, Listener
from sidecar.proxy.routing import Router
from sidecar.proxy.services import Services
from sidecar.upstream.pool import Pools

__all__ = ["CannotListen", "Sidecar"]

RECENT_EXCHANGES = 500


class Sidecar:
    """One running sidecar. ``clock`` and ``chance`` are for tests; ``on_record`` sees every exchange's record."""

    def __init__(
        self,
        deployment: Deployment,
        *,
        clock: Clock | None = None,
        chance: Callable[[], float] | None = None,
        on_record: Callable[[ExchangeRecord], None] | None = None,
        log_stream: IO[str] | None = None,
        config_text: Callable[[], str] | None = None,
        reload: Callable[[], Awaitable[ReloadResult]] | None = None,
        token: str | None = None,
    ) -> None:
        self.deployment = deployment
        self._clock = clock or SystemClock()
        self._chance = chance or dice
        self._on_record = on_record
        self._log_stream = log_stream if log_stream is not None else sys.stderr
        self._config_text = config_text or (lambda: "")
        self._reload = reload or _cannot_reload
        self._token = token
        self.address = deployment.listen
        """Where apps find us; the port that was really bound, once started."""
        self.admin_address = deployment.admin
        self._admin: AppRunner | None = None

    async def start(self) -> None:
        """Build and start everything. Raises ``CannotListen``; then nothing is left running."""
        loop = asyncio.get_running_loop()
        deployment = self.deployment
        _require_c_parser()
        self._writer = LineWriter(self._log_stream)
        self.events = EventLog(deployment.logging, self._writer, self._clock)
        self.log = ExchangeLog(deployment.logging, self._writer, self._clock)
        listen_to_libraries(self.events)
        self.metrics = Metrics()
        self.metrics.read_log_dropped = lambda: self._writer.dropped
        self.metrics.reloaded(True, self._clock.wall())
        self.recent = Recent(RECENT_EXCHANGES)
        self._pools = Pools(loop)
        self._timers = TimerShelf(loop)
        self.services = Services(loop, self._clock, self._chance, self.metrics, via=f"sidecar-{new_id()[:12]}")
        self.listener = Listener(
            self.services,
            self._router(deployment, None),
            deployment.limits,
            self.log,
            self.events,
            self.recent,
            self._on_record,
        )
        try:
            self.address = await self.listener.start(deployment.listen)
            await self._start_admin(deployment.admin)
            self._pools.own_port = self.address.port
            self._pools.own_ports.update((self.address.port, self.admin_address.port))
        except CannotListen:
            await self._tear_down()
            raise

    def _router(self, deployment: Deployment, before: Router | None) -> Router:
        services = self.services
        return Router(deployment, self._pools, self.metrics, self._timers, services.via, services.loop, before)

    async def _start_admin(self, address: Address) -> None:
        state = AdminState(
            ready=self._checks,
            metrics=self.metrics,
            recent=self.recent,
            config_text=self._config_text,
            reload=self._reload,
            token=self._token,
            hosts=(address.host,),
        )
        self._admin = make_runner(make_admin(state))
        await self._admin.setup()
        try:
            await TCPSite(self._admin, address.host, address.port).start()
        except OSError as exc:
            raise CannotListen.of(exc, address) from None
        self.admin_address = Address(address.host, self._admin.addresses[0][1])

    def _checks(self) -> Sequence[tuple[str, bool, str]]:
        draining = self.services.draining
        return (
            ("listening", not draining, "draining: shutting down" if draining else ""),
            (
                "configuration",
                True,
                "" if self.metrics.config_ok else "the last reload failed; the old one is in force",
            ),
        )

    def apply(self, deployment: Deployment) -> tuple[str, ...]:
        """Take over another deployment. Running exchanges keep theirs. Returns what needs a restart to take effect."""
        self.listener.router = self._router(deployment, self.listener.router)
        self.listener.limits = deployment.limits
        old, self.deployment = self.deployment, deployment
        later = {
            "listen": old.listen != deployment.listen,
            "admin": old.admin != deployment.admin,
            "log": old.logging != deployment.logging,
        }
        return tuple(name for name, differs in later.items() if differs)

    async def drain(self, seconds: float) -> int:
        """Stop taking requests, finish those under way; returns how many connections had to be cut."""
        self.listener.drain()
        return await self.listener.drained(seconds)

    async def stop(self) -> None:
        """End everything now."""
        await self.listener.close()
        await self._tear_down()

    async def _tear_down(self) -> None:
        if self._admin is not None:
            await self._admin.cleanup()
            self._admin = None
        await self.listener.close()
        self._timers.close()
        await self._pools.close()
        self._writer.close()


async def _cannot_reload() -> ReloadResult:
    return ReloadResult(ok=False, message="this sidecar was started without a way to reload")


def _require_c_parser() -> None:
    """Without its C extension aiohttp falls back to a slower, more lenient parser: not for a proxy."""
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise CannotListen("aiohttp's C extension is missing; install aiohttp from a wheel, or with a C compiler")
