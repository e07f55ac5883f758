"""An upstream that answers early, then resets the connection under our bytes: what it said is heard all the same."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

import pytest
import uvloop

from sidecar.core.enums import FailureKind
from sidecar.upstream.connection import Connection

HEAD = b"PUT /x HTTP/1.1\r\nHost: test\r\nContent-Length: 10000000\r\n\r\n"
ANSWER = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"


class Owner:
    def put(self, connection: Connection) -> None:
        raise AssertionError("it may not be used again")

    def gone(self, connection: Connection) -> None:
        """The pool would forget it."""


async def hears(said: bytes) -> Connection:
    """The upstream says this and resets, all before our loop looks again; then we write on."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = Connection(loop, Owner())
        await loop.create_connection(lambda: connection, *server.getsockname())
        peer, _ = server.accept()
        assert connection.send(HEAD, "PUT", whole=False)
        await asyncio.sleep(0)  # the loop may write when it turns
        assert peer.recv(1000, socket.MSG_PEEK)
        peer.sendall(said)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        connection.write(bytes(1 << 20))
        async with asyncio.timeout(60):
            await connection.head()
            if connection.message is not None:
                await connection.whole(1000)
    return connection


@pytest.mark.parametrize("make_loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_an_answer_that_lies_unread_is_heard(make_loop: type[asyncio.AbstractEventLoop]) -> None:
    with contextlib.closing(make_loop()) as loop:
        connection = loop.run_until_complete(hears(ANSWER))
        assert connection.message is not None
        assert (connection.message.code, b"".join(connection.held)) == (413, b"big")
        assert connection.complete


@pytest.mark.parametrize("make_loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize("cut", [0, 10, len(ANSWER) - 2])
def test_half_an_answer_is_none(make_loop: type[asyncio.AbstractEventLoop], cut: int) -> None:
    with contextlib.closing(make_loop()) as loop:
        connection = loop.run_until_complete(hears(ANSWER[:cut]))
        assert connection.failure is (FailureKind.BODY_CUT if cut > 50 else FailureKind.RESET)
