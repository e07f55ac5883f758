"""Names → addresses: off the loop, bounded in time by the caller, cached briefly and for few names.

Literal addresses cost nothing. Concurrent callers share one look-up (single flight).
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from sidecar.core.enums import FailureKind
from sidecar.upstream.errors import NotConnected

__all__ = ["AddressInfo", "Lookup", "Resolver"]

AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int]]

Lookup = Callable[[str, int], Awaitable[list[AddressInfo]]]
"""Looks up a name; raises ``socket.gaierror`` if it has no address."""

REMEMBER_SECONDS = 10.0
"""Seconds for which an answer is cached: getaddrinfo gives no time to live; nginx and Envoy re-resolve every 5-30 s."""
REMEMBER_NAMES = 1000


class Resolver:
    """``addresses(host, port)`` with a small cache."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lookup: Lookup | None = None) -> None:
        self._loop = loop
        self._lookup = lookup or self._ask_system
        self._known: OrderedDict[tuple[str, int], tuple[float, list[AddressInfo]]] = OrderedDict()
        self._asking: dict[tuple[str, int], asyncio.Task[list[AddressInfo]]] = {}

    async def addresses(self, host: str, port: int) -> list[AddressInfo]:
        """Every address of the name, in the resolver's order. Raises ``NotConnected`` (resolve)."""
        key = (host, port)
        known = self._known.get(key)
        if known is not None and known[0] > self._loop.time():
            return known[1]
        task = self._asking.get(key)
        if task is None:
            task = self._loop.create_task(self._ask(host, port), name=f"resolve {host}")
            self._asking[key] = task
            task.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(task)

    async def _ask(self, host: str, port: int) -> list[AddressInfo]:
        found = await self._lookup(host, port)
        if not found:
            raise NotConnected(FailureKind.RESOLVE, "the name has no address", lasting=True)
        return found

    async def _ask_system(self, host: str, port: int) -> list[AddressInfo]:
        # TCP sockets have only these address forms.
        return await self._loop.getaddrinfo(  # type: ignore[return-value]
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )

    def _answered(self, key: tuple[str, int], task: asyncio.Task[list[AddressInfo]]) -> None:
        del self._asking[key]
        if task.cancelled() or task.exception() is not None:
            return
        self._known[key] = (self._loop.time() + REMEMBER_SECONDS, task.result())
        self._known.move_to_end(key)
        while len(self._known) > REMEMBER_NAMES:
            self._known.popitem(last=False)

    def forget(self, host: str, port: int) -> None:
        """No address accepted a connection: look the name up again next time."""
        self._known.pop((host, port), None)

    async def close(self) -> None:
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
