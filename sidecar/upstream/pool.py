"""Connections to one origin, kept alive and shared; and all such pools.

A connection is lent to one attempt at a time, the most recently used first. Bounded: attempts beyond the
limit wait for their turn, in order. Idle ones are closed before the upstream is likely to do it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections import OrderedDict, deque
from collections.abc import Collection
from functools import lru_cache

import aiohappyeyeballs

from sidecar.core.deployment import Origin
from sidecar.core.words import FailureKind
from sidecar.upstream.connection import Connection
from sidecar.upstream.failures import NotConnected, from_exception
from sidecar.upstream.resolve import Resolver

__all__ = ["Pool", "Pools"]

IDLE_SECONDS = 15.0
"""Common servers close after 5 (node, Apache) to 75 s (nginx); what a server announces goes before this."""
HAPPY_EYEBALLS_SECONDS = 0.25
"""RFC 8305 section 8: the recommended connection attempt delay."""
UNKNOWN_HOST_CONNECTIONS = 100
UNKNOWN_HOSTS = 1000


@lru_cache(maxsize=64)
def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Verified TLS, always; HTTP/1.1 only. ``ca_file`` replaces the system's trust."""
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


class Pool:
    """The connections to one origin."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        resolver: Resolver,
        origin: Origin,
        limit: int,
        own_ports: Collection[int] = (),
    ) -> None:
        self._own_ports = own_ports
        self._loop = loop
        self._resolver = resolver
        self.origin = origin
        self.limit = limit
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._connecting = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False

    @property
    def size(self) -> int:
        """Connections that exist or are being made."""
        return len(self._open) + self._connecting

    @property
    def is_unused(self) -> bool:
        return not (self._open or self._connecting or self._waiting)

    def take_idle(self, *, careful: bool) -> Connection | None:
        """A pooled connection, or None. ``careful``: look into the kernel first whether it has died meanwhile."""
        idle = self._idle
        now = self._loop.time()
        while idle:
            connection = idle.pop()
            transport = connection.transport
            if transport is None or transport.is_closing():
                continue
            limit = connection.expired or IDLE_SECONDS
            if now - connection.idle_since >= limit or (careful and connection.is_stale()):
                connection.abort()
                continue
            connection.reused = True
            return connection
        return None

    async def connect(self, seconds: float) -> Connection:
        """A new connection, made within ``seconds``; waits for a place first if there are ``limit`` already.

        Raises ``NotConnected``. The wait for a place is the caller's to bound; a cancelled call leaves nothing behind.
        """
        while self.size >= self.limit:
            pooled = self.take_idle(careful=True)
            if pooled is not None:
                return pooled
            await self._turn()
        self._connecting += 1
        try:
            async with asyncio.timeout(seconds):
                connection = await self._dial()
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            self._resolver.forget(self.origin.host, self.origin.port)
            raise from_exception(exc) from None
        finally:
            self._connecting -= 1
            if self.size < self.limit:
                self._next_turn()
        return connection

    async def _turn(self) -> None:
        waiter = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._next_turn()
            else:
                self._waiting.remove(waiter)
            raise

    def _next_turn(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def _dial(self) -> Connection:
        origin = self.origin
        addresses = await self._resolver.addresses(origin.host, origin.port)
        if origin.port in self._own_ports and any(is_loopback(info[4][0]) for info in addresses):
            raise NotConnected(FailureKind.UNREACHABLE, "that is this sidecar's own port")
        sock = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=HAPPY_EYEBALLS_SECONDS, interleave=1, loop=self._loop
        )
        try:
            if origin.scheme == "https":
                _, connection = await self._loop.create_connection(
                    self._make, sock=sock, ssl=tls_context(origin.ca_file), server_hostname=origin.host
                )
            else:
                _, connection = await self._loop.create_connection(self._make, sock=sock)
        except BaseException as exc:
            sock.close()
            if origin.scheme == "https" and isinstance(exc, ConnectionError):
                # The peer hung up in the middle of the handshake.
                raise NotConnected(FailureKind.TLS, "TLS handshake failed: the upstream closed") from None
            raise
        if connection.transport is None:
            raise NotConnected(FailureKind.CLOSED, "the upstream closed at once")
        if self._closed:
            connection.abort()
            raise NotConnected(FailureKind.CLOSED, "shutting down")
        self._open.add(connection)
        return connection

    def _make(self) -> Connection:
        return Connection(self._loop, self)

    def put(self, connection: Connection) -> None:
        """A connection whose answer was whole comes back."""
        if self._closed:
            connection.abort()
            return
        message = connection.message
        if message is not None:
            announced = message.headers.get("Keep-Alive")
            if announced is not None:
                connection.expired = _announced_seconds(announced)
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if self._waiting:
            self._next_turn()

    def gone(self, connection: Connection) -> None:
        if connection in self._open:
            self._open.discard(connection)
            if self._waiting:
                self._next_turn()

    def sweep(self) -> None:
        """Close what has been idle for too long; called now and then."""
        now = self._loop.time()
        keep: list[Connection] = []
        for connection in self._idle:
            if connection.transport is None or connection.transport.is_closing():
                continue
            if now - connection.idle_since >= (connection.expired or IDLE_SECONDS):
                connection.abort()
            else:
                keep.append(connection)
        self._idle = keep

    def close(self) -> None:
        self._closed = True
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()


def is_loopback(address: str) -> bool:
    """Whether an address, as resolved, is this machine's own (IPv4-mapped forms unwrapped)."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    ip = mapped or ip
    return ip.is_loopback or ip.is_unspecified


def _announced_seconds(value: str) -> float:
    """``Keep-Alive: timeout=5``: stay a second below it; 0 if it says nothing usable (then the default holds)."""
    for part in value.split(","):
        name, _, seconds = part.strip().partition("=")
        if name.lower() == "timeout" and seconds.isascii() and seconds.isdigit() and len(seconds) < 7:
            return max(float(seconds) - 1.0, 0.5)
    return 0.0


class Pools:
    """All pools: those of configured upstreams for as long as they are configured, the rest bounded in number."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.own_port = 0
        """The port of the data plane."""
        self.own_ports: set[int] = set()
        """Ports that this process listens on itself: never dialled on loopback."""
        self.resolver = Resolver(loop)
        self._pools: dict[Origin, Pool] = {}
        self._unknown: OrderedDict[Origin, Pool] = OrderedDict()
        self._sweep_handle: asyncio.TimerHandle | None = None

    def configured(self, origin: Origin, limit: int) -> Pool:
        """The pool of an upstream; the same across reloads while its origin stays the same."""
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = Pool(self._loop, self.resolver, origin, limit, self.own_ports)
        pool.limit = limit
        self._arm()
        return pool

    def unknown(self, origin: Origin) -> Pool:
        """The pool of a host that no upstream names (``unknown_hosts: pass``)."""
        pool = self._unknown.get(origin)
        if pool is None:
            self._make_room()
            pool = self._unknown[origin] = Pool(
                self._loop, self.resolver, origin, UNKNOWN_HOST_CONNECTIONS, self.own_ports
            )
        else:
            self._unknown.move_to_end(origin)
        self._arm()
        return pool

    def _make_room(self) -> None:
        while len(self._unknown) >= UNKNOWN_HOSTS:
            victim = next((o for o, pool in self._unknown.items() if pool.is_unused), None)
            if victim is None:
                victim = next(iter(self._unknown))
                self._unknown[victim].sweep()
                self._unknown.move_to_end(victim)
                return
            self._unknown.pop(victim).close()

    def _arm(self) -> None:
        if self._sweep_handle is None:
            self._sweep_handle = self._loop.call_later(IDLE_SECONDS / 3, self._sweep)

    def _sweep(self) -> None:
        self._sweep_handle = None
        for pool in (*self._pools.values(), *self._unknown.values()):
            pool.sweep()
        for origin in [o for o, pool in self._unknown.items() if pool.is_unused]:
            self._unknown.pop(origin).close()
        self._arm()

    async def close(self) -> None:
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
        for pool in (*self._pools.values(), *self._unknown.values()):
            pool.close()
        await self.resolver.close()
