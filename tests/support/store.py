"""A real Redis (or Valkey) in a process of its own: started, killed, started again, frozen, filled, looked into.

It is the server that users have; where it is not installed the test fails and says what to install.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

__all__ = ["StoreServer", "store_server"]

_PATIENCE_SECONDS = 60.0
_PROGRAMS = ("redis-server", "valkey-server")


def _program() -> str:
    found = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    assert found is not None, "neither redis-server nor valkey-server is installed: apt install redis-server"
    return found


class StoreServer:
    def __init__(self, folder: Path, password: str = "", tls: Sequence[str] = ()) -> None:
        """``tls``: options for its certificate; then it speaks nothing but TLS."""
        self._folder = folder
        self._tls = tuple(tls)
        self._password = password
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Returns when it answers."""
        ports = ["--port", "0", "--tls-port", str(self.port), *self._tls] if self._tls else ["--port", str(self.port)]
        options = [*ports, "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        if self._password:
            options += ["--requirepass", self._password]
        self._process = await asyncio.create_subprocess_exec(_program(), *options, stdout=asyncio.subprocess.DEVNULL)
        async with asyncio.timeout(_PATIENCE_SECONDS), self.client() as client:
            while True:
                with contextlib.suppress(OSError, RedisError):
                    await client.ping()
                    return
                await asyncio.sleep(0.01)

    async def kill(self) -> None:
        """As a crash: nothing is said to anybody."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It takes connections and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def key(self, pattern: str) -> str:
        """The first key like this, once there is one."""
        async with asyncio.timeout(_PATIENCE_SECONDS), self.client() as client:
            while not (found := await client.keys(pattern)):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.005)
        return str(found[0])

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Redis]:
        """One who looks into it."""
        client = Redis(
            port=self.port,
            password=self._password or None,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
            ssl=bool(self._tls),
            ssl_cert_reqs="none",
            ssl_check_hostname=False,
        )
        try:
            yield client
        finally:
            await client.aclose()


@contextlib.asynccontextmanager
async def store_server(folder: Path, password: str = "", tls: Sequence[str] = ()) -> AsyncIterator[StoreServer]:
    server = StoreServer(folder, password, tls)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
