"""A response whose body breaks in the very turn of the loop that brings its head: nothing has reached the app yet.

One TLS record with the head, and right behind it bytes that are none: both come with one read of the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest
import trustme

from tests.behaviour.conftest import Make
from tests.support.upstream import head_bytes, tls_server

NO_RECORD = b"\x17\x03\x03\x00\x20" + bytes(32)
"""As long as a TLS record says that it is, and not decipherable."""
T = TypeVar("T")


class Peer:
    """The server's end of one TLS connection: it says exactly which bytes go out together."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def until(self, act: Callable[[], T]) -> T:
        """Read until this can be done."""
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                return act()
            await self.flush()
            data = await asyncio.get_running_loop().sock_recv(self._sock, 65536)
            if not data:
                raise ConnectionResetError
            self._incoming.write(data)

    async def flush(self, behind: bytes = b"") -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, self._outgoing.read() + behind)

    async def serve(self, answer: Callable[[str], tuple[bytes, bytes]]) -> None:
        """Answer each request with what ``answer`` makes of its target: what is enciphered, and what comes behind."""
        with self._sock, contextlib.suppress(OSError):
            await self.until(self._tls.do_handshake)
            await self.flush()
            while head := await self.until(lambda: self._tls.read(65536)):
                enciphered, behind = answer(head.split()[1].decode())
                self._tls.write(enciphered)
                await self.flush(behind)


@contextlib.asynccontextmanager
async def listening(context: ssl.SSLContext, answer: Callable[[str], tuple[bytes, bytes]]) -> AsyncIterator[int]:
    loop, server = asyncio.get_running_loop(), socket.create_server(("127.0.0.1", 0))
    server.setblocking(False)

    async def accept() -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                sock, _ = await loop.sock_accept(server)
                group.create_task(Peer(sock, context).serve(answer))

    accepting = asyncio.create_task(accept())
    try:
        yield server.getsockname()[1]
    finally:
        accepting.cancel()
        await asyncio.wait([accepting])
        server.close()


@pytest.mark.parametrize("policy", ["", "hedge: {after: 10s}\n"], ids=["without-a-task", "hedged"])
@pytest.mark.parametrize("status", [200, 404])
async def test_a_body_that_breaks_with_its_head_is_a_failure_that_is_retried(
    make: Make, authority: trustme.CA, authority_file: str, tmp_path: Path, status: int, policy: str
) -> None:
    path = tmp_path / "localhost.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(path))
    seen: list[str] = []

    def answer(target: str) -> tuple[bytes, bytes]:
        seen.append(target)
        if len(seen) == 2:
            return head_bytes(status, [("Content-Length", "10")]) + b"hel", NO_RECORD
        return head_bytes(200, [("Content-Length", "2")]) + b"ok", b""

    async with listening(tls_server(str(path)), answer) as port:
        sidecar = await make(port, policy, scheme="https", more=f"    ca_file: {authority_file}\n")
        async with sidecar.client() as client:
            assert (await client.ask("GET", "/api/first")).body == b"ok"
            got = await client.ask("GET", "/api/second")
        await sidecar.sidecar.stop()
    assert (got.status, got.body, seen) == (200, b"ok", ["/first", "/second", "/second"])
    assert [str(attempt.failure) for attempt in (await sidecar.record(2)).attempts] == ["body_cut", "None"]
