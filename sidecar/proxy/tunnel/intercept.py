"""Tunnels that do not stay opaque: the requests inside get the full engine.

Two kinds are intercepted. A tunnel to port 80 holds plain HTTP (Node's fetch and undici ask for such tunnels even for
``http://`` URLs), so it is read as it is. For a host that the configuration names under ``intercept``, the app's TLS
ends here, with a certificate of the local authority. Every other tunnel is relayed. Toward the upstream nothing
changes. It makes no certificates (``sidecar.intercept`` does) and adds no trust.
"""

# Compiled in the wheel.

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

from aiohttp import hdrs

from sidecar.core.settings.deployment import Deployment
from sidecar.observe.log import EventLog
from sidecar.proxy.client.connection import ClientConnection, ConnectionOwner
from sidecar.proxy.exchange.context import TakenTunnel
from sidecar.wire.heads import BadHead, RequestMessage, altered

__all__ = ["Contexts", "TunnelInterceptor"]

HANDSHAKE_SECONDS: Final = 10.0
HANDSHAKES: Final = 1000
"""Handshakes under way at once; they are not counted as connections of the server yet."""

Contexts = Callable[[str], ssl.SSLContext]
"""Host → TLS as that host."""


class TunnelInterceptor:
    """The ``Interceptor`` of one listener."""

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: ConnectionOwner, events: EventLog) -> None:
        self._loop = loop
        self._owner = owner
        self._events = events
        self._contexts: Contexts | None = None
        self._hosts: frozenset[str] = frozenset()
        self._opaque_ports: frozenset[int] = frozenset()
        self._handshakes: set[asyncio.Task[None]] = set()

    def apply(self, deployment: Deployment, contexts: Contexts | None) -> None:
        """Apply a configuration; ``contexts`` where it has an ``intercept`` block."""
        rule = deployment.intercept
        self._hosts = frozenset(rule.hosts) if rule is not None and contexts is not None else frozenset()
        self._contexts = contexts
        self._opaque_ports = frozenset(deployment.tunnels.ports)

    def opens(self, host: str, port: int) -> str | None:
        """The scheme of a tunnel to intercept: port 80 is plain HTTP unless ``tunnels.ports`` names it; TLS only where
        it is configured.
        """
        if port == 80 and port not in self._opaque_ports:
            return "http"
        hosts = self._hosts
        if hosts and (_authority(host, port, 443) in hosts or f"{_bracketed(host)}:{port}" in hosts):
            return "https"
        return None

    def take(self, tunnel: TakenTunnel, scheme: str, host: str, port: int) -> None:
        app = tunnel.app
        transport = app.transport
        if transport is None:
            return
        ahead = app.reader.behind
        if scheme == "http":
            inside = InterceptedConnection(self._loop, self._owner, "http://" + _authority(host, port, 80))
            transport.write(tunnel.accepted())
            app.reader.behind = b""
            transport.set_protocol(inside)
            tunnel.left()
            inside.connection_made(transport)
            if ahead:
                inside.data_received(ahead)
        elif ahead or len(self._handshakes) >= HANDSHAKES:
            # TLS that began before the 200 cannot be taken over whole.
            app.cut()
        else:
            transport.pause_reading()
            task = self._loop.create_task(self._shake_hands(tunnel, transport, host, port))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, tunnel: TakenTunnel, transport: asyncio.Transport, host: str, port: int) -> None:
        contexts = self._contexts
        if contexts is None or transport.is_closing():
            tunnel.app.cut()
            return
        try:
            context = contexts(host)
        except Exception as exc:
            # Nothing has been accepted yet: the app sees its CONNECT fail, and does not wait.
            tunnel.app.cut()
            text = f"no certificate could be made ({type(exc).__name__}): see `sidecar ca` and `sidecar doctor`"
            self._events.limited("intercept_refused", "error", host=host, message=text)
            return
        inside = InterceptedConnection(self._loop, self._owner, "https://" + _authority(host, port, 443))
        transport.write(tunnel.accepted())
        tunnel.left()
        try:
            secured = await self._loop.start_tls(
                transport, inside, context, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except (OSError, RuntimeError) as exc:
            # RuntimeError: the transport was closed meanwhile.
            transport.abort()
            self._events.limited("intercept_refused", "warning", host=host, message=_why(exc, host))
            return
        except BaseException:
            transport.abort()
            raise
        if secured is None:
            transport.abort()
        else:
            inside.connection_made(secured)

    async def close(self) -> None:
        """End the handshakes that are under way."""
        handshakes = list(self._handshakes)
        for task in handshakes:
            task.cancel()
        await asyncio.gather(*handshakes, return_exceptions=True)


class InterceptedConnection(ClientConnection):
    """A connection through an intercepted tunnel: its origin-form targets mean the tunnel's host, and no other."""

    __slots__ = ("_ahead", "_base")

    is_inside = True

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: ConnectionOwner, base: str) -> None:
        super().__init__(loop, owner)
        self._base = base
        """``https://host``, to be put before a target."""
        self._ahead: list[bytes] | None = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        ahead, self._ahead = self._ahead, None
        for data in ahead or ():
            super().data_received(data)

    def data_received(self, data: bytes) -> None:
        if self._ahead is None:
            super().data_received(data)
        else:
            # A request may come with the last bytes of the handshake.
            self._ahead.append(data)

    def eof_received(self) -> bool:
        # TLS has no half-close: to keep it open would have no effect, and be logged by the library.
        return super().eof_received() and self._base.startswith("http://")

    def _begin_exchange(self) -> None:
        reader = self.reader
        if reader.bad is None and reader.message is not None:
            try:
                reader.message = _with_base(reader.message, self._base)
            except BadHead as bad:
                reader.bad = bad
        super()._begin_exchange()


def _with_base(message: RequestMessage, base: str) -> RequestMessage:
    """The message in absolute-form. Raises ``BadHead`` if it names another host (RFC 9110 section 15.5.20)."""
    target = message.path
    if message.method == "CONNECT":
        raise BadHead(405, "method", "a tunnel within an opened tunnel")
    authority = base.partition("://")[2]
    host = message.headers.get(hdrs.HOST)
    if host is not None and not _same(host.lower(), authority):
        raise BadHead(421, "host", "the Host field names another host than the tunnel")
    if target[:1] == "/":
        return altered(message, path=base + target)
    if target == "*" or target.lower().startswith((base + "/", base + "?")) or target.lower() == base:
        return message
    raise BadHead(421, "target", "the target is at another host than the tunnel")


def _same(host: str, authority: str) -> bool:
    """Whether both name the same host and port; the default port may be written out."""
    return host == authority or host in (f"{authority}:443", f"{authority}:80")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _authority(host: str, port: int, default: int) -> str:
    return _bracketed(host) if port == default else f"{_bracketed(host)}:{port}"


def _why(exc: Exception, host: str) -> str:
    if isinstance(exc, ssl.SSLError) and exc.reason and "ALERT" in exc.reason:
        return f"the app does not trust the sidecar's certificate for {host}: `sidecar ca` says what it needs"
    if isinstance(exc, TimeoutError):
        return "the app did not finish its TLS handshake in time"
    return "what the app sent through the tunnel is not TLS, or it went away"
