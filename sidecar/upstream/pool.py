"""Connections to one origin, kept alive and shared; and all such pools.

A connection is lent to one attempt at a time, the most recently used first. Bounded: attempts beyond the limit wait,
first come, first served. Idle connections are closed before the upstream is likely to close them (RFC 9112 section
9.3).
"""

# Compiled in the wheel.

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Iterable
from typing import Final

from aiohttp import hdrs

from sidecar.core.enums import FailureKind
from sidecar.core.settings.deployment import Origin
from sidecar.upstream.address_guard import AddressGuard
from sidecar.upstream.connection import Connection
from sidecar.upstream.dialer import Dialer
from sidecar.upstream.errors import NotConnected, from_exception
from sidecar.upstream.resolver import Lookup, Resolver
from sidecar.upstream.tls import Resumption, TlsTransport, tls_context

__all__ = ["Pool", "Pools"]

IDLE_SECONDS: Final = 15.0
"""Seconds for which an idle connection is kept. Servers close after 5 s (node, Apache) to 75 s (nginx); a time that the
server announces goes before this.
"""
RESTED_SECONDS: Final = 0.5
"""Seconds of idleness after which the kernel is asked, for every method, whether the upstream has closed the
connection. Below it only a request that could not be sent again pays for that question."""
UNKNOWN_HOST_CONNECTIONS: Final = 100
"""Connections to one host that no upstream names, at most."""

_KEEP_ALIVE: Final = hdrs.KEEP_ALIVE


class Pool:
    """The connections to one origin."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        dialer: Dialer,
        origin: Origin,
        limit: int,
        *,
        configured: bool = True,
    ) -> None:
        self._loop = loop
        self._dialer = dialer
        self._configured = configured
        self.origin = origin
        self.limit = limit
        self._context: ssl.SSLContext | None = None
        """Made with the first TLS connection: a session belongs to one context."""
        self._resumption = Resumption()
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._connecting = 0
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._retired = False
        self._closed = False

    @property
    def size(self) -> int:
        """Connections that exist or are being made."""
        return len(self._open) + self._connecting

    @property
    def lent(self) -> int:
        """Connections with an attempt under way."""
        return len(self._open) - len(self._idle)

    @property
    def has_room(self) -> bool:
        """Whether an attempt would get a connection without waiting for another's."""
        return bool(self._idle) or self.size < self.limit

    @property
    def is_unused(self) -> bool:
        return not (self._open or self._connecting or self._waiting)

    @property
    def is_busy(self) -> bool:
        """Whether an attempt has a connection, or waits for one."""
        return self.lent > 0 or self._connecting > 0 or len(self._waiting) > 0

    def take_idle(self, *, careful: bool) -> Connection | None:
        """A pooled connection, or None. ``careful``: ask the kernel first whether it has been closed."""
        idle = self._idle
        now = self._loop.time()
        while idle:
            connection = idle.pop()
            transport = connection.transport
            if transport is None or transport.is_closing():
                continue
            limit, rested = connection.expired or IDLE_SECONDS, now - connection.idle_since
            if rested >= limit or (careful and connection.has_news(transport)):
                connection.abort()
                continue
            connection.reused = True
            connection.has_rested = rested >= RESTED_SECONDS
            return connection
        return None

    async def connect(self, seconds: float) -> Connection:
        """A new connection, made within ``seconds``; waits first if ``limit`` of them exist already.

        Raises ``NotConnected``. The caller bounds the wait for a place; a cancelled call leaves nothing behind.
        """
        while self.size >= self.limit:
            pooled = self.take_idle(careful=True)
            if pooled is not None:
                return pooled
            given = await self._wait_for_turn()
            if given is not None:
                if not given.is_stale():
                    given.reused = True
                    return given
                given.abort()
        self._connecting += 1
        try:
            async with asyncio.timeout(seconds):
                connection = await self._dial()
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            raise from_exception(exc) from None
        finally:
            self._connecting -= 1
            if self.size < self.limit:
                self._next_turn()
        return connection

    async def _wait_for_turn(self) -> Connection | None:
        """Wait in the queue. Returns a connection that was given back, or None: a new one may be made."""
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif not waiter.cancelled():
                self._pass_on(waiter.result())
            raise

    def _pass_on(self, given: Connection | None) -> None:
        """Pass on the turn of an attempt that was cancelled."""
        if given is None:
            self._next_turn()
        elif given.transport is not None:
            self.put(given)

    def _next_turn(self, given: Connection | None = None) -> bool:
        """Give the first waiting attempt its turn, with ``given`` if there is one; False: none waits."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(given)
                return True
        return False

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def _dial(self) -> Connection:
        origin = self.origin
        sock = await self._socket()
        try:
            if origin.scheme == "https":
                connection = await self._secured(sock)
            else:
                _, connection = await self._loop.create_connection(self._make, sock=sock)
        except BaseException as exc:
            sock.close()
            if origin.scheme == "https" and isinstance(exc, ConnectionError):
                # The upstream closed the connection during the handshake.
                raise NotConnected(FailureKind.TLS, "TLS handshake failed: the upstream closed") from None
            raise
        if connection.transport is None:
            raise NotConnected(FailureKind.CLOSED, "the upstream closed at once")
        if self._closed:
            connection.abort()
            raise NotConnected(FailureKind.CLOSED, "shutting down")
        self._open.add(connection)
        return connection

    async def _secured(self, sock: socket.socket) -> Connection:
        """Connect over TLS, with the certificate verified."""
        connection = self._make()
        if self._context is None:
            self._context = tls_context(self.origin.trust)
        tls = TlsTransport(
            self._loop, self._dialer.handshakes, self._resumption, self._context, self.origin.host, connection
        )
        try:
            await self._loop.create_connection(lambda: tls, sock=sock)
            await tls.handshake()
        except BaseException:
            tls.abort()
            raise
        return connection

    async def _socket(self) -> socket.socket:
        """Connect to the origin, or to the outbound proxy: joined to the origin by it if TLS is to follow."""
        origin = self.origin
        if origin.proxy is None:
            return await self._dialer.open(origin.host, origin.port, configured=self._configured)
        way = (origin.proxy, origin.host, origin.port)
        if origin.scheme == "http":
            return await self._dialer.open_proxy(*way, configured=self._configured)
        sock, early = await self._dialer.open_through(*way, configured=self._configured)
        if early:
            sock.close()
            raise NotConnected(FailureKind.PROTOCOL, "the outbound proxy sent more than its answer")
        return sock

    def _make(self) -> Connection:
        return Connection(self._loop, self)

    def put(self, connection: Connection) -> None:
        """Take back a connection whose response was whole."""
        if self._closed:
            connection.abort()
            return
        message = connection.message
        if message is not None:
            announced = message.headers.get(_KEEP_ALIVE)
            if announced is not None:
                connection.expired = _announced_seconds(announced)
        connection.idle_since = self._loop.time()
        if self._waiting and self._next_turn(connection):
            return
        if self._retired:
            connection.abort()
            return
        self._idle.append(connection)

    def gone(self, connection: Connection) -> None:
        if connection in self._open:
            self._open.discard(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            if self._waiting:
                self._next_turn()

    def sweep(self) -> None:
        """Close connections that have been idle for too long; called once a second."""
        now = self._loop.time()
        for connection in list(self._idle):
            if now - connection.idle_since >= (connection.expired or IDLE_SECONDS):
                connection.abort()

    def retire(self) -> None:
        """Keep no connection any more, since no new exchange will come. Those under way go on, and may dial."""
        self._retired = True
        for connection in list(self._idle):
            connection.abort()

    def close(self) -> None:
        """Shut down: abort every connection, and make none any more."""
        self._closed = True
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()


def _announced_seconds(value: str) -> float:
    """Seconds of ``Keep-Alive: timeout=5``, less one second; 0 if it is not usable (then the default holds)."""
    for part in value.split(","):
        name, _, seconds = part.strip().partition("=")
        if name.lower() == "timeout" and seconds.isascii() and seconds.isdigit() and len(seconds) < 7:
            return max(float(seconds) - 1.0, 0.5)
    return 0.0


class Pools:
    """All pools. The router owns them: a pool stays while a destination of the map in force uses it. Then it *retires*:
    exchanges under way may use it, but it keeps no connection.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, lookup: Lookup | None = None) -> None:
        self._loop = loop
        self.own_port = 0
        """The port of the data plane."""
        self.guard = AddressGuard()
        self.own_ports = self.guard.own_ports
        """Ports that this process itself listens on: never dialled."""
        self.resolver = Resolver(loop, lookup)
        self.dialer = Dialer(loop, self.resolver, self.guard)
        self._pools: dict[tuple[str, Origin], Pool] = {}
        """By the upstream's name, empty for a host that none names: each upstream has its own ``connections`` limit."""
        self._apart: list[Pool] = []
        self._sweep_handle: asyncio.TimerHandle | None = None

    def configured(self, name: str, origin: Origin, limit: int) -> Pool:
        """The pool of an upstream; the same across reloads while its origin stays the same."""
        pool = self._pools.get((name, origin))
        if pool is None:
            pool = self._pools[name, origin] = Pool(self._loop, self.dialer, origin, limit)
        pool.limit = limit
        self._arm()
        return pool

    def apart(self, origin: Origin, limit: int) -> Pool:
        """A pool for requests of our own (logins), so that they never wait behind the app's."""
        pool = Pool(self._loop, self.dialer, origin, limit)
        self._apart.append(pool)
        return pool

    def unknown(self, origin: Origin) -> Pool:
        """The pool of a host that no upstream names (``unknown_hosts: pass``); the router bounds their number."""
        pool = self._pools.get(("", origin))
        if pool is None:
            pool = self._pools["", origin] = Pool(
                self._loop, self.dialer, origin, UNKNOWN_HOST_CONNECTIONS, configured=False
            )
        self._arm()
        return pool

    def keep(self, wanted: Iterable[Pool]) -> None:
        """The pools of a new map; the others retire."""
        kept = set(wanted)
        for key in [key for key, pool in self._pools.items() if pool not in kept]:
            self._pools.pop(key).retire()

    def forget(self, origin: Origin) -> None:
        """The map in force no longer has this host."""
        pool = self._pools.pop(("", origin), None)
        if pool is not None:
            pool.retire()

    def _arm(self) -> None:
        if self._sweep_handle is None:
            self._sweep_handle = self._loop.call_later(IDLE_SECONDS / 3, self._sweep)

    def _sweep(self) -> None:
        self._sweep_handle = None
        for pool in (*self._pools.values(), *self._apart):
            pool.sweep()
        self._arm()

    async def close(self) -> None:
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
        for pool in (*self._pools.values(), *self._apart):
            pool.close()
        await self.resolver.close()
