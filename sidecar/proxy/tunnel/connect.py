"""CONNECT: a tunnel to an allowed host and port (RFC 9110 section 9.3.6).

Until the 200 it is retried like anything that was never sent: other addresses within an attempt, then the policy's
attempts and waits. What is inside is opaque, so the first tunnel to each host logs once how its requests could be
retried. An ``Interceptor``, if there is one, may take a tunnel over in place of the relay.
"""

# Compiled in the wheel.

from __future__ import annotations

import asyncio
import re
import socket
from typing import ClassVar, Final

from multidict import CIMultiDict

from sidecar.core.enums import FailureKind, Outcome
from sidecar.proxy.exchange.prepare import Prepared, own_ids
from sidecar.proxy.exchange.send import Send
from sidecar.proxy.message.errors import Refused
from sidecar.proxy.message.own_response import PROXY_STATUS, sidecar_field
from sidecar.proxy.routing.access import admit
from sidecar.proxy.routing.destination import CompiledPolicy, Destination
from sidecar.proxy.routing.router import Router
from sidecar.proxy.tunnel.relay import End
from sidecar.proxy.tunnel.switch import Switching
from sidecar.upstream.address_guard import Forbidden
from sidecar.upstream.dialer import Dialer
from sidecar.upstream.errors import NotConnected, from_exception
from sidecar.wire.heads import RequestMessage, ResponseMessage

__all__ = ["Tunnel", "authority_of"]

_AUTHORITY: Final = re.compile(r"(?:([A-Za-z0-9._~-]{1,255})|\[([0-9A-Fa-f:.]{2,45})\]):([0-9]{1,5})")


class _Opened:
    """Our own 200, in place of an upstream's response: the tunnel is open."""

    version = (1, 1)
    code = 200
    reason = "Connection established"
    headers: ClassVar[CIMultiDict[str]] = CIMultiDict()
    raw_headers: tuple[tuple[bytes, bytes], ...] = ()
    should_close = True
    upgrade = False
    chunked = False


_OPENED: Final[ResponseMessage] = _Opened()


class _Way(Prepared):
    """What is known of a tunnel before it is opened."""

    def __init__(
        self, destination: Destination, compiled: CompiledPolicy, host: str, port: int, dialer: Dialer
    ) -> None:
        super().__init__(destination, compiled, "")
        self.host = host
        self.port = port
        self.dialer = dialer


class _Reaching(Send):
    """The attempts of a tunnel to reach its host. ``end`` is the upstream's side, once connected."""

    may_hedge = False
    end: End | None = None

    async def attempt(self, number: int, left_seconds: float, *, last: bool) -> ResponseMessage | None:
        """Resolve, judge, connect; all addresses of the name. ``last`` changes nothing: time to connect is bounded."""
        way = self._prepared
        assert isinstance(way, _Way)  # noqa: S101 - for the type checker; a tunnel makes no other
        self.failure = self.message = None
        seconds = min(way.compiled.policy.timeouts.connect_seconds, max(0.0, left_seconds))
        try:
            async with asyncio.timeout(seconds):
                self.end = await self._connect(way)
        except Forbidden as exc:
            raise Refused(403, "address", exc.detail) from None
        except (OSError, NotConnected, UnicodeError) as exc:
            failed = from_exception(exc)
            self.failed(failed.kind, failed.detail, PROXY_STATUS[failed.kind], lasting=failed.lasting)
            return None
        if self.end.is_lost:
            self.failed(FailureKind.CLOSED, "the host closed at once", "connection_terminated")
            return None
        self.message = _OPENED
        self.written = True
        return _OPENED

    async def _connect(self, way: _Way) -> End:
        origin, early = way.destination.origin, b""
        configured = not way.destination.host
        host, port = (origin.host, origin.port) if configured else (way.host, way.port)
        if origin.proxy is None:
            sock: socket.socket = await way.dialer.open(host, port, configured=configured)
        else:
            sock, early = await way.dialer.open_through(origin.proxy, host, port, configured=configured)
        end = End()
        if early:
            end.data_received(early)
        try:
            await self._services.loop.create_connection(lambda: end, sock=sock)
        except BaseException:
            sock.close()
            raise
        return end

    def abandon(self) -> None:
        super().abandon()
        self.drop()

    def drop(self) -> None:
        """Close a connection that is not needed any more."""
        end, self.end = self.end, None
        if end is not None:
            end.reset()


class Tunnel(Switching):
    """One CONNECT."""

    _sender = _Reaching
    _idle_seconds = 0.0

    def start(self, router: Router) -> None:
        message, services = self.message, self._services
        self.app.keep_alive = False
        try:
            host, port = authority_of(message)
            if router.credential is not None:
                admit(message, router.credential)
            if self.app.reader.length:
                raise Refused(400, "framing", "a CONNECT has no body (RFC 9110 section 9.3.6)")
            interceptor = services.interceptor
            scheme = interceptor.opens(host, port) if interceptor is not None else None
            if scheme is not None:
                destination, _ = router.find(f"{scheme}://{message.path}/")
            else:
                destination = router.tunnel(host, port)
        except Refused as refused:
            self._reject(refused, router.default)
            self.finish(cut=False)
            return
        way = self.prepared = _Way(destination, destination.compiled.for_tunnels(), host, port, router.dialer)
        way.request_id, way.correlation_id, way.id_lines = own_ids(message, way.compiled)
        destination.budget.requests += 1
        self._idle_seconds = router.deployment.tunnels.idle_seconds
        if interceptor is not None and scheme is not None:
            interceptor.take(self, scheme, host, port)
            return
        self._go_on(way)

    def accepted(self, attempts: int = 1) -> bytes:
        """The 200 for the app. It has neither length nor coding (RFC 9110 section 9.3.6)."""
        ids = self.prepared.id_lines if self.prepared is not None else b""
        line = sidecar_field(Outcome.TUNNELLED, attempts, self.waited_seconds, None)
        return b"HTTP/1.1 200 Connection established\r\n" + ids + line + b"\r\n"

    def left(self) -> None:
        """For an interceptor: the app's transport is its own now; only the record is still to be made."""
        app = self.app
        app.transport = None
        self.status = 200
        self.outcome, self.reason = Outcome.TUNNELLED, None
        self.finish(cut=False)
        app.connection_lost(None)

    async def pass_on(self, prepared: Prepared, sending: Send, number: int) -> None:
        assert isinstance(sending, _Reaching)  # noqa: S101 - for the type checker
        assert isinstance(prepared, _Way)  # noqa: S101
        end, sending.end = sending.end, None
        if end is None:
            return
        self.status = 200
        self.switch(self.accepted(number), end, self._idle_seconds)
        if self._services.notices is not None:
            destination = prepared.destination
            upstream = None if destination.host else destination.name
            self._services.notices.tunnel(prepared.host, prepared.port, upstream)

    def _clean_up(self) -> None:
        super()._clean_up()
        if isinstance(self._sending, _Reaching) and self.relay is None:
            self._sending.drop()


def authority_of(message: RequestMessage) -> tuple[str, int]:
    """Host (lower case, an IPv6 address without brackets) and port of a CONNECT target (RFC 9112 section 3.2.3).

    Raises ``Refused`` (400) for anything else: no port, a scheme, a path, credentials.
    """
    found = _AUTHORITY.fullmatch(message.path)
    if found is None or not 0 < int(found[3]) < 65536:
        raise Refused(400, "target", "the target of a CONNECT is HOST:PORT; an IPv6 address stands in brackets")
    return (found[1] or found[2]).lower(), int(found[3])
