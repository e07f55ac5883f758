"""The listening port: its connections, the sweep that ends stalled ones, and the start and end of each exchange.

It starts exchanges, tells log and metrics when they are over, and sweeps all connections with one timer instead of a
timer for each. Counterpart for one connection: ``client.connection``.
"""


# Compiled in the wheel.

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Callable
from typing import Any, Final

from sidecar.core.enums import Outcome
from sidecar.core.settings.deployment import Address, Limits
from sidecar.observe.log import EventLog, ExchangeLog
from sidecar.observe.recent import Recent
from sidecar.observe.record import ExchangeRecord
from sidecar.observe.reports import Reports
from sidecar.proxy.client.connection import ClientConnection
from sidecar.proxy.exchange.context import Services
from sidecar.proxy.exchange.exchange import Exchange
from sidecar.proxy.exchange.prepare import own_ids
from sidecar.proxy.exchange.respond import give_own
from sidecar.proxy.message.own_response import OwnAnswer
from sidecar.proxy.record.record import record_of
from sidecar.proxy.record.report import report_of
from sidecar.proxy.routing.router import Router
from sidecar.proxy.tunnel.connect import Tunnel
from sidecar.proxy.tunnel.upgrade import Upgrade, wanted_protocols
from sidecar.upstream.address_guard import is_loopback
from sidecar.wire.heads import BadHead, RequestMessage

__all__ = ["CannotListen", "Listener", "places"]

OWN_DESCRIPTORS: Final = 24
"""File descriptors of the process itself: both ports, the loop, the log, a reload."""


SCARCE: Final = 4096
"""Connections below which each of the app's is counted with one toward its upstream. Above it three in four are the
apps': upstream connections are shared, and bounded for each upstream.
"""


def places(wanted: int) -> int:
    """The number of app connections to accept: ``wanted``, or what the file limit allows with enough left for the
    upstreams.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    left = soft - OWN_DESCRIPTORS
    return min(wanted, max(1, left // 2 if soft < SCARCE else left * 3 // 4))


BACKLOG: Final = 1024
OVERSHOOT: Final = 8
"""Connections that may come after accepting was paused: those that the loop had taken already."""
RESUME_SHARE: Final = 0.9
"""Share of the places that must be taken at most before accepting resumes, so that it does not flap."""
PAUSED_IDLE_SECONDS: Final = 1.0
"""Seconds for which an idle connection is kept while others wait to be accepted."""
_OK: Final = Outcome.OK
STALL_SECONDS: Final = 60.0
"""Seconds for which an app may leave our response unread before we cut it."""


class CannotListen(Exception):
    """The address cannot be bound; the text says why and what to do."""

    @classmethod
    def of(cls, exc: OSError, address: Address) -> CannotListen:
        return cls(_why(exc, address))


class Listener:
    """One port of the data plane."""

    def __init__(
        self,
        services: Services,
        router: Router,
        limits: Limits,
        log: ExchangeLog,
        events: EventLog,
        recent: Recent,
        on_record: Callable[[ExchangeRecord], None] | None = None,
        on_traced: Callable[[ExchangeRecord], None] | None = None,
    ) -> None:
        """``on_record`` sees every record, ``on_traced`` those of sampled traces."""
        self._services = services
        self.router = router
        """Replaced by a reload; a running exchange keeps the one it began with."""
        self.limits = limits
        self._log = log
        self._events = events
        self._recent = recent
        self.write_batch = services.write_batch
        self.reports = Reports()
        self._on_record = on_record
        self._on_traced = on_traced
        self._is_watched = on_record is not None or on_traced is not None
        self._connections: set[ClientConnection] = set()
        self._servers: list[Any] = []
        """Declared Any: uvloop's server is no subclass of asyncio's type, and compiled code checks types."""
        self._sweep_handle: asyncio.TimerHandle | None = None
        self._idle: asyncio.Event = asyncio.Event()
        self._waiting_room: list[socket.socket] = []
        """The listening sockets while accepting is paused: the kernel goes on queueing connections. Else empty."""
        self._resuming: asyncio.Task[None] | None = None
        self._is_public = False
        self.stall_seconds = STALL_SECONDS
        self.exchanges = 0
        """Exchanges that are over."""
        services.metrics.read_inflight = lambda: services.write_batch.under_way

    @property
    def draining(self) -> bool:
        return self._services.draining

    # -- the port ----------------------------------------------------------------------------------------

    async def start(self, address: Address) -> Address:
        """Listen; returns the address really bound (port 0 asks for any). Raises ``CannotListen``."""
        loop = self._services.loop
        try:
            server: Any = await loop.create_server(
                lambda: ClientConnection(loop, self), address.host, address.port, backlog=BACKLOG, reuse_address=True
            )
        except OSError as exc:
            raise CannotListen.of(exc, address) from None
        self._servers.append(server)
        self._sweep()
        self._is_public = any(not is_loopback(sock.getsockname()[0]) for sock in server.sockets)
        compiled = server.sockets[0].getsockname()
        return Address(address.host, compiled[1])

    @property
    def is_open(self) -> bool:
        """Whether other machines can reach the port."""
        return self._is_public

    def stop_listening(self) -> None:
        for server in self._servers:
            server.close()
        if self._resuming is not None:
            self._resuming.cancel()
        waiting, self._waiting_room = self._waiting_room, []
        for sock in waiting:
            sock.close()

    def _pause(self) -> None:
        """Accept no more: the limit of open files is near, and a connection that waits is better than one refused."""
        if self._waiting_room or self.draining:
            return
        # A listening socket lives on, with its queue, as long as one descriptor of it is open.
        waiting: list[socket.socket] = []
        try:
            for server in self._servers:
                waiting += [socket.socket(fileno=os.dup(sock.fileno())) for sock in server.sockets]
        except OSError:  # the limit was lowered meanwhile: not one is left
            for sock in waiting:
                sock.close()
            return
        for server in self._servers:
            server.close()
        self._servers, self._waiting_room = [], waiting
        self._services.metrics.accept_pauses += 1
        self._services.metrics.accept_paused = True
        self._events.limited(
            "accept_paused",
            connections=len(self._connections),
            message="new connections wait: raise the limit of open files (ulimit -n), or lower `limits.connections`",
        )

    def _resume(self) -> None:
        if self._resuming is None and not self.draining:
            self._resuming = self._services.loop.create_task(self._accept_again())
            self._resuming.add_done_callback(self._resumed)

    async def _accept_again(self) -> None:
        loop = self._services.loop
        while self._waiting_room:
            server: Any = await loop.create_server(
                lambda: ClientConnection(loop, self), sock=self._waiting_room[-1], backlog=BACKLOG
            )
            self._waiting_room.pop()
            self._servers.append(server)

    def _resumed(self, task: asyncio.Task[None]) -> None:
        self._resuming = None
        fault = None if task.cancelled() else task.exception()
        if isinstance(fault, Exception):
            self._services.crashed(fault)  # the next sweep tries again
        self._services.metrics.accept_paused = bool(self._waiting_room)

    def drain(self) -> None:
        """Shut down: take no new request, cut waits short, let what is under way go on."""
        self._services.draining = True
        self.stop_listening()
        for app in list(self._connections):
            app.cut_wait_short()
            app.close_after_last()
        if not self._connections:
            self._idle.set()

    async def drained(self, seconds: float) -> int:
        """Wait for the last connection; returns how many were cut after ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            pass
        left = list(self._connections)
        for app in left:
            app.cut()
        return len(left)

    async def close(self) -> None:
        """Cut the connections that are left, and wait until they are gone."""
        self.drain()
        for app in list(self._connections):
            app.cut()
        await self._idle.wait()
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
        for server in self._servers:
            await server.wait_closed()

    @property
    def connections(self) -> int:
        return len(self._connections)

    # -- connections -------------------------------------------------------------------------------------

    def joined(self, app: ClientConnection) -> bool:
        most, there = self.limits.connections, len(self._connections)
        room = places(most)
        if self.draining or there >= (most if room == most else room + OVERSHOOT):
            self._events.limited("connection_refused", connections=there)
            return False
        self._connections.add(app)
        if there + 1 >= room < most:
            self._pause()
        return True

    def left(self, app: ClientConnection) -> None:
        self._connections.discard(app)
        if self._waiting_room and len(self._connections) <= RESUME_SHARE * places(self.limits.connections):
            self._resume()
        if self.draining and not self._connections:
            self._idle.set()

    def _sweep(self) -> None:
        """End stalled connections: slow heads, idle connections, unread responses (CWE-400)."""
        limits = self.limits
        shortest = min(limits.head_seconds, limits.idle_seconds, self.stall_seconds)
        self._sweep_handle = self._services.loop.call_later(min(5.0, max(0.02, shortest / 4)), self._sweep)
        now = self._services.loop.time()
        if self._waiting_room and len(self._connections) < places(limits.connections):
            self._resume()
        for app in list(self._connections):
            app.note_activity()
            if self._is_stuck(app.stalled_since, now) or self._is_stuck(app.leaving_since, now):
                app.cut()
            elif app.current is None and not app.leaving_since:
                self._sweep_idle(app, now)

    def _is_stuck(self, since: float, now: float) -> bool:
        return since > 0 and now - since > self.stall_seconds

    def _sweep_idle(self, app: ClientConnection, now: float) -> None:
        """Sweep a connection without an exchange."""
        limits, reader = self.limits, app.reader
        if not reader.has_part:
            idle = PAUSED_IDLE_SECONDS if self._waiting_room else limits.idle_seconds
            if now - app.active_at > idle:
                app.close_if_idle()
        elif app.part != reader.parts:
            app.part, app.part_since = reader.parts, now
        elif now - app.part_since > limits.head_seconds:
            app.time_out("the request head did not come in time")

    # -- exchanges ---------------------------------------------------------------------------------------

    def exchange(self, app: ClientConnection, message: RequestMessage) -> None:
        self.write_batch.under_way += 1
        kind = Exchange if not message.upgrade else _kind_of(message)
        exchange = kind(self._services, app, message, self._over)
        app.current = exchange
        exchange.start(self.router)

    def _over(self, exchange: Exchange, cut: bool) -> None:
        services, log = self._services, self._log
        seconds = services.monotonic() - exchange.started
        outcome, reason = exchange.outcome, exchange.reason
        self.exchanges += 1
        self.write_batch.under_way -= 1
        prepared = exchange.prepared
        if prepared is not None:
            meters = prepared.destination.meters
            services.metrics.overhead(seconds - exchange.upstream_seconds - exchange.waited_seconds)
        else:
            meters = services.metrics.unknown
        meters.finished(exchange.message.method, outcome, seconds)
        if reason is not None:
            meters.suppressed(reason)
        chance = services.chance()
        tell = outcome is not _OK or chance < log.sample or seconds >= log.slow_seconds
        if tell or self._is_watched or exchange.is_hedged:
            try:
                self._tell(exchange, seconds, chance, self._on_record)
            except Exception as exc:
                # A fault in log or metrics must not leave the app waiting.
                services.crashed(exc)
        exchange.app.exchange_over(cut=cut, last=services.draining)

    def _tell(
        self,
        exchange: Exchange,
        seconds: float,
        chance: float,
        on_record: Callable[[ExchangeRecord], None] | None = None,
    ) -> None:
        """Report an exchange that is over to log, recent list, reports and tests; an uneventful one mostly is not."""
        status, prepared = exchange.status or 0, exchange.prepared
        wanted = self._log.wants(exchange.outcome, exchange.attempts_made, seconds, chance, status)
        policy = prepared.compiled.policy if prepared is not None and status >= 400 else None
        rule = policy.report if policy is not None else None
        differs = exchange.shadowed is not None
        on_traced = self._on_traced
        if on_traced is not None and (prepared is None or prepared.spans is None or not prepared.spans.is_sampled):
            on_traced = None
        if not wanted and not differs and rule is None and on_record is None and on_traced is None:
            return
        record = record_of(exchange, self._services.clock.wall() - seconds, seconds)
        if wanted or differs:
            self._recent.add(record)
        if wanted:
            self._log.write(record)
            meters = prepared.destination.meters if prepared is not None else self._services.metrics.unknown
            meters.is_logged(record.outcome, seconds, record.request_id, self._services.clock.wall())
        if policy is not None and rule is not None:
            self.reports.add(policy.name, rule.keep, report_of(exchange, record, rule))
        if on_record is not None:
            on_record(record)
        if on_traced is not None:
            on_traced(record)

    def told(self, exchange: Exchange) -> None:
        """Report one delivery from the outbox. As a request of an app it was counted when it was stored."""
        self._tell(exchange, self._services.monotonic() - exchange.started, self._services.chance())

    def refuse(self, app: ClientConnection, bad: BadHead) -> None:
        """Answer a malformed request briefly, then close. No upstream sees it."""
        metrics = self._services.metrics
        metrics.protocol_error(bad.kind)
        metrics.unknown.finished("", Outcome.REJECTED, 0.0)
        self._events.limited("malformed_request", kind=bad.kind, status=bad.status, detail=bad.detail)
        # A request that broke off in its body has a head, and perhaps the app's ids.
        message = app.reader.message if app.reader.is_receiving else None
        request_id, correlation_id, lines = own_ids(message, self.router.default)
        answer = OwnAnswer(
            bad.status,
            bad.kind,
            bad.detail,
            "http_request_error",
            Outcome.REJECTED,
            request_id=request_id,
            correlation_id=correlation_id,
        )
        give_own(app, None, None, answer, lines, self._services.clock.wall())


def _kind_of(message: RequestMessage) -> type[Exchange]:
    """The class of an exchange that needs more than a response: a tunnel or an upgrade."""
    if message.method == "CONNECT":
        return Tunnel
    return Upgrade if wanted_protocols(message) else Exchange


def _why(exc: OSError, address: Address) -> str:
    place = f"{address.host}:{address.port}"
    if exc.errno == errno.EADDRINUSE:
        return f"cannot listen on {place}: the port is in use; stop what uses it, or choose another"
    if exc.errno == errno.EACCES:
        return f"cannot listen on {place}: no permission; choose a port above 1023"
    if exc.errno == errno.EADDRNOTAVAIL:
        return f"cannot listen on {place}: this machine has no such address"
    if isinstance(exc, socket.gaierror):
        return f"cannot listen on {place}: the name does not resolve"
    return f"cannot listen on {place}: {exc.strerror or type(exc).__name__}"
