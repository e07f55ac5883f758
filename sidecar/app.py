"""The wiring: every part built once, started and stopped in order. The only module that imports them all.

``Sidecar`` is one running sidecar: two ports, one loop. It takes a ``Deployment`` and can be given another one while it
runs. Counterpart: ``process``, which reads configurations and handles signals.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import IO

from aiohttp import http_parser
from aiohttp.web import AppRunner, TCPSite

from sidecar.admin import AdminState, Reload, ReloadResult, make_admin, make_runner
from sidecar.core.decision.policy import Policy
from sidecar.core.flow.shared_limiter import SharedLimiter
from sidecar.core.settings.deployment import Address, Deployment
from sidecar.intercept.open import CannotIntercept, contexts_for
from sidecar.observe.log import EventLog, ExchangeLog
from sidecar.observe.log_writer import LineWriter
from sidecar.observe.metrics import Metrics, SharedMeters, TraceMeters, UpstreamMeters
from sidecar.observe.recent import Recent
from sidecar.observe.record import ExchangeRecord
from sidecar.observe.stdlib_logging import listen_to_libraries
from sidecar.observe.trend import Trend
from sidecar.outbox.items import OutboxError
from sidecar.outbox.worker import OutboxWorker
from sidecar.proxy.client.spool import Spool
from sidecar.proxy.delivery.worker import DeliveryWorker
from sidecar.proxy.exchange.context import Notices, Services
from sidecar.proxy.message.ids import new_id
from sidecar.proxy.operator import Operator
from sidecar.proxy.routing.clock import Clock, SystemClock, random_unit
from sidecar.proxy.routing.destination import TimersByLength
from sidecar.proxy.routing.limiter import Holding, Ticker
from sidecar.proxy.routing.router import Router
from sidecar.proxy.server import CannotListen, Listener
from sidecar.proxy.tunnel.intercept import Contexts, TunnelInterceptor
from sidecar.shared.open import CannotShare, open_sync
from sidecar.shared.parts import Part, Sync
from sidecar.tracing.open import Tracing, open_tracing
from sidecar.upstream.login import Credentials
from sidecar.upstream.pool import Pools
from sidecar.upstream.resolver import Lookup

__all__ = ["CannotListen", "OutboxError", "Sidecar"]

RECENT_EXCHANGES = 500


class Sidecar:
    """One running sidecar.

    ``clock``, ``chance`` and ``lookup`` (of names) are for tests; ``on_record`` sees every exchange's record;
    ``environ`` has the ``OTEL_*`` variables.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        clock: Clock | None = None,
        chance: Callable[[], float] | None = None,
        on_record: Callable[[ExchangeRecord], None] | None = None,
        log_stream: IO[str] | None = None,
        config_text: Callable[[], str] | None = None,
        reload: Reload | None = None,
        token: str | None = None,
        lookup: Lookup | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.deployment = deployment
        self._clock = clock or SystemClock()
        self._chance = chance or random_unit
        self._on_record = on_record
        self._log_stream = log_stream if log_stream is not None else sys.stderr
        self._config_text = config_text or (lambda: "")
        self._reload = reload or _cannot_reload
        self._token = token
        self._lookup = lookup
        self._environ = environ or {}
        self._tracing: Tracing | None = None
        self.address = deployment.listen
        """The address that apps use; once started, with the port that was really bound."""
        self.admin_address = deployment.admin
        self._admin: AppRunner | None = None
        self._delivery: DeliveryWorker | None = None
        self._sharing: Sync | None = None

    async def start(self) -> None:
        """Build and start everything. Raises ``CannotListen`` or ``OutboxError``; then nothing is left running."""
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
        self.trend = Trend(self.metrics)
        self._pools = Pools(loop, self._lookup)
        self._timers = TimersByLength(loop)
        via = f"sidecar-{new_id()[:12]}"
        clock = self._clock
        self._spool = Spool()
        self._spool.on_trouble = self._spool_refused
        self._spool.try_out()
        self.services = Services(
            loop, clock, self._chance, self.metrics, via, self.crashed, clock.monotonic, self._spool
        )
        self.services.notices = Notices(self.events)
        self._credentials = Credentials(self._pools, self._clock.monotonic, self.events)
        self._trace()
        tracing = self._tracing
        self.listener = Listener(
            self.services,
            self._router(deployment, None),
            deployment.limits,
            self.log,
            self.events,
            self.recent,
            self._on_record,
            None if tracing is None else tracing.ended,
        )
        self.opener = TunnelInterceptor(loop, self.listener, self.events)
        self.services.interceptor = self.opener
        self.operator = Operator(self.services, lambda: self.listener.router, self.events)
        self._ticker = Ticker(loop, self._clock, self._holdings, self._sample)
        self._ticker.start()
        try:
            self._share(deployment)
            self.opener.apply(deployment, self._contexts(deployment))
            await self._open_outbox(deployment)
            self.address = await self.listener.start(deployment.listen)
            await self._start_admin(deployment.admin)
            self._pools.own_port = self.address.port
            self._pools.guard.open_door = self.listener.is_open
            self._pools.own_ports.update((self.address.port, self.admin_address.port))
            if self._delivery is not None:
                self._delivery.start()
        except (CannotListen, OutboxError):
            await self._tear_down()
            raise

    def _trace(self) -> None:
        """Begin to export spans, where the ``OTEL_*`` variables ask for them."""
        meters = TraceMeters()
        self._tracing = open_tracing(self._environ, self.events, meters)
        if self._tracing is not None:
            self.metrics.traces = meters

    def _contexts(self, deployment: Deployment) -> Contexts | None:
        """Raises ``CannotListen``."""
        rule = deployment.intercept
        try:
            return contexts_for(rule.folder, rule.hosts, self._clock.wall) if rule is not None else None
        except CannotIntercept as exc:
            raise CannotListen(str(exc)) from None

    async def _open_outbox(self, deployment: Deployment) -> None:
        """Open the outbox. Raises ``OutboxError``: accepted requests must not be lost silently."""
        if deployment.outbox is None:
            return
        worker = OutboxWorker(deployment.outbox)
        await worker.open()
        self.services.outbox = worker
        self.metrics.has_outbox = True
        listener = self.listener
        self._delivery = DeliveryWorker(self.services, worker, lambda: listener.router, self.events, listener.told)

    def _share(self, deployment: Deployment) -> None:
        """Raises ``CannotListen``."""
        if deployment.shared is None:
            return
        meters = self.metrics.shared = SharedMeters()
        clock, sender = self._clock, self.services.via
        try:
            sharing = open_sync(deployment.shared, self.events, meters, clock.monotonic, self._chance, sender)
        except CannotShare as exc:
            raise CannotListen(str(exc)) from None
        self._sharing = sharing
        sharing.apply(_parts(self.listener.router))
        sharing.start()

    def crashed(self, exc: Exception) -> None:
        """Log an internal fault that ended one exchange: one line with its kind and place, never its values."""
        trace = exc.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}" if trace is not None else "?"
        self.events.limited("internal_error", "error", error=type(exc).__name__, at=place)

    def _spool_refused(self, why: str) -> None:
        message = f"large request bodies cannot be held on disk, and not be sent again: {why}; set TMPDIR"
        self.events.limited("spool_trouble", "error", message=message)

    def _router(self, deployment: Deployment, before: Router | None) -> Router:
        services = self.services
        return Router(
            deployment,
            self._pools,
            self.metrics,
            self._timers,
            services.via,
            services.loop,
            before,
            self._credentials,
            hold=self._hold,
            sampler=None if self._tracing is None else self._tracing.sampler,
        )

    def _sample(self) -> None:
        """Sample the trend, once a second."""
        self.operator.look()
        self.trend.sample()

    def _holdings(self) -> Iterator[Holding]:
        return self.listener.router.holdings()

    def _hold(self, policy: Policy, meters: UpstreamMeters) -> Holding:
        is_replica = self.deployment.shared is not None and meters is not self.metrics.unknown
        return Holding(
            self.services.loop, self._clock, self._chance, policy, meters, is_replica=is_replica, events=self.events
        )

    async def _start_admin(self, address: Address) -> None:
        state = AdminState(
            ready=self._checks,
            metrics=self.metrics,
            recent=self.recent,
            config_text=self._config_text,
            reload=self._reload,
            operator=self.operator,
            report=lambda wanted: self.listener.reports.find(wanted, self.recent),
            trend=self.trend,
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
        trouble = self._spool.trouble
        bodies = () if not trouble else (("bodies", True, f"the disk takes none, only memory holds them: {trouble}"),)
        outbox = () if self._delivery is None else (("outbox", True, self._delivery.state()),)
        off = self.operator.retries_off()
        retries = () if not off else (("retries", True, f"turned off for {', '.join(off)}"),)
        shared: Sequence[tuple[str, bool, str]] = ()
        if self._sharing is not None:
            shared = (("shared", True, "" if self._sharing.is_up else "the store is gone: each replica goes on alone"),)
        return (
            ("listening", not draining, "draining: shutting down" if draining else ""),
            (
                "configuration",
                True,
                "" if self.metrics.config_ok else "the last reload failed; the old one is in force",
            ),
            *retries,
            *bodies,
            *outbox,
            *shared,
        )

    def apply(self, deployment: Deployment) -> tuple[str, ...]:
        """Take over another deployment. Running exchanges keep theirs. Returns the settings that need a restart."""
        self.listener.router = self._router(deployment, self.listener.router)
        self._pools.keep(self.listener.router.pools())
        self.listener.limits = deployment.limits
        self.operator.apply()
        if self._sharing is not None:
            self._sharing.apply(_parts(self.listener.router))
        opened = True
        try:
            self.opener.apply(deployment, self._contexts(deployment))
        except CannotListen as exc:
            opened = False
            self.events.event("intercept_failed", "error", message=str(exc))
        old = self.deployment
        self.deployment = replace(deployment, shared=old.shared)
        later = old.needs_restart(deployment)
        return later if opened else (*later, "intercept")

    async def drain(self, seconds: float) -> int:
        """Stop taking requests, finish those under way; returns how many connections had to be cut."""
        self.listener.drain()
        if self._delivery is None:
            return await self.listener.drained(seconds)
        self._delivery.drain()
        cut, _ = await asyncio.gather(self.listener.drained(seconds), self._delivery.drained(seconds))
        return cut

    async def stop(self) -> None:
        """Stop at once."""
        await self.listener.close()
        await self._tear_down()

    async def _tear_down(self) -> None:
        if self._admin is not None:
            await self._admin.cleanup()
            self._admin = None
        await self.opener.close()
        await self.listener.close()
        if self._delivery is not None:
            await self._delivery.close()
        if self.services.outbox is not None:
            await self.services.outbox.close()
        self._ticker.close()
        self.operator.close()
        if self._sharing is not None:
            await self._sharing.close()
        for holding in self.listener.router.holdings():
            holding.close()
        self._timers.close()
        if self._tracing is not None:
            await self._tracing.close()
        await self._credentials.close()
        await self._pools.close()
        self._spool.close()
        self._writer.close()


def _parts(router: Router) -> Iterator[Part]:
    for name, destination in router.destinations.items():
        limiter = destination.holding.limiter
        if isinstance(limiter, SharedLimiter):
            yield Part(name, destination.origin, limiter, destination.holding, destination.budget)


async def _cannot_reload(*, dry_run: bool = False) -> ReloadResult:
    return ReloadResult(ok=False, message="this sidecar was started without a way to reload")


def _require_c_parser() -> None:
    """Without its C extension aiohttp falls back to a slower, more lenient parser: not for a proxy."""
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise CannotListen("aiohttp's C extension is missing; install aiohttp from a wheel, or with a C compiler")
