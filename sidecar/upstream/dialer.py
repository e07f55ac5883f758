"""A host and a port → a connected socket: resolved, checked, raced (Happy Eyeballs, RFC 8305); through an outbound
proxy where there is one.

The addresses that are checked are the ones that are dialled: there is no second look-up between (DNS rebinding).
Nothing of a request is sent here. Counterparts: ``resolver``, ``address_guard``, and ``pool``, which takes the socket.
"""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Final

import aiohappyeyeballs

from sidecar.core.enums import FailureKind
from sidecar.core.settings.gateway import OutboundProxy
from sidecar.upstream.address_guard import AddressGuard
from sidecar.upstream.errors import NotConnected
from sidecar.upstream.resolver import Resolver
from sidecar.upstream.tls import Handshakes
from sidecar.wire.heads import response_head_end

__all__ = ["Dialer"]

HAPPY_EYEBALLS_SECONDS: Final = 0.25
"""Seconds between connection attempts; the delay recommended by RFC 8305 section 8."""
MAX_PROXY_HEAD_BYTES: Final = 16 << 10

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r\n]")


class Dialer:
    """Opens sockets for pools and tunnels."""

    def __init__(self, loop: asyncio.AbstractEventLoop, resolver: Resolver, guard: AddressGuard) -> None:
        self._loop = loop
        self._resolver = resolver
        self.guard = guard
        self.handshakes = Handshakes(loop)

    async def open(self, host: str, port: int, *, configured: bool) -> socket.socket:
        """A socket connected to the first address of the name that accepts.

        Raises ``Forbidden`` if any of them must not be dialled, ``NotConnected`` or ``OSError`` if none accepts. The
        caller bounds the time.
        """
        addresses = await self._resolver.addresses(host, port)
        for address in addresses:
            self.guard.check(address[4][0], port, configured=configured)
        try:
            return await aiohappyeyeballs.start_connection(
                addresses, happy_eyeballs_delay=HAPPY_EYEBALLS_SECONDS, interleave=1, loop=self._loop
            )
        except BaseException:
            self._resolver.forget(host, port)
            raise

    async def open_proxy(self, proxy: OutboundProxy, host: str, port: int, *, configured: bool) -> socket.socket:
        """A socket to the outbound proxy, to be asked for ``host`` in absolute-form."""
        self.guard.check_name(host, port, configured=configured)
        return await self.open(proxy.host, proxy.port, configured=True)

    async def open_through(
        self, proxy: OutboundProxy, host: str, port: int, *, configured: bool
    ) -> tuple[socket.socket, bytes]:
        """A socket that the outbound proxy has joined to ``host`` (CONNECT, RFC 9110 section 9.3.6).

        With it, the bytes that came right behind the proxy's response.
        """
        sock = await self.open_proxy(proxy, host, port, configured=configured)
        try:
            authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            credential = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
            head = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{credential}\r\n"
            await self._loop.sock_sendall(sock, head.encode("ascii"))
            return sock, await self._joined(sock)
        except BaseException:
            sock.close()
            raise

    async def _joined(self, sock: socket.socket) -> bytes:
        data = b""
        while (end := response_head_end(data)) < 0:
            if len(data) > MAX_PROXY_HEAD_BYTES:
                raise NotConnected(FailureKind.PROTOCOL, "the outbound proxy's answer is too large")
            more = await self._loop.sock_recv(sock, 4096)
            if not more:
                raise NotConnected(FailureKind.CLOSED, "the outbound proxy closed without an answer")
            data += more
        line = _STATUS_LINE.match(data)
        if line is None:
            raise NotConnected(FailureKind.PROTOCOL, "the outbound proxy does not speak HTTP/1.1")
        status = int(line[1])
        if status // 100 != 2:
            raise _refused(status)
        return data[end:]


def _refused(status: int) -> NotConnected:
    """The failure that a proxy's refusal of CONNECT means (RFC 9110 section 15)."""
    if status == 504:
        return NotConnected(FailureKind.CONNECT_TIMEOUT, "the outbound proxy got no connection in time (504)")
    if status == 407:
        return NotConnected(FailureKind.UNREACHABLE, "the outbound proxy wants other credentials (407)")
    return NotConnected(FailureKind.UNREACHABLE, f"the outbound proxy refused ({status})")
