"""Plain TCP servers on loopback, for what is relayed unseen; a black hole; names that resolve as a test says.

Its counterparts are ``support.client`` (the app's side) and the sidecar's tunnels.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from sidecar.upstream.resolver import AddressInfo, Lookup

__all__ = ["black_hole", "listening", "names"]

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(talk: Talk, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """Serves each connection with ``talk``, then closes it; yields the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@contextlib.contextmanager
def black_hole(host: str, port: int) -> Iterator[None]:
    """An address of loopback that never answers: its accept queue is full, so that the kernel drops what comes."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((host, port))
        yield


def names(known: dict[str, list[str]]) -> Lookup:
    """A resolver that knows these names, and addresses; anything else does not resolve."""

    async def look_up(host: str, port: int) -> list[AddressInfo]:
        found = known.get(host)
        if found is None:
            found = [host] if host.replace(".", "").isdigit() or ":" in host else []
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [_info(address, port) for address in found]

    return look_up


def _info(address: str, port: int) -> AddressInfo:
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
