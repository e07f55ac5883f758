"""A stretch of network between a sidecar and its store: slow, cut, or silent, as a test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

__all__ = ["Between", "between"]

_CHUNK_BYTES = 65536


class Between:
    """Passes bytes both ways; ``port`` is where it listens."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self.port = 0
        self.delay_seconds = 0.0
        """One way."""
        self.cut_after_bytes: int | None = None
        """Of answers, on one connection; then it is cut."""
        self.mute_ports: set[int] = set()
        """Source ports of connections on which nothing is passed any more, without their being cut."""
        self.ports: list[int] = []
        """Source ports of all connections so far, in order."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        source = writer.get_extra_info("peername")[1]
        self.ports.append(source)
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, back}
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(
                    self._pass(reader, back, source, None), self._pass(there, writer, source, self.cut_after_bytes)
                )
        finally:
            for end in (writer, back):
                end.close()
                self._writers.discard(end)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: int, left: int | None
    ) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                if source in self.mute_ports:
                    continue
                if left is not None:
                    data = data[:left]
                    left -= len(data)
                if self.delay_seconds:
                    loop.call_later(self.delay_seconds, _write, writer, data)
                else:
                    _write(writer, data)
                if left == 0:
                    break
        writer.close()

    def cut(self) -> None:
        """Every connection that there is."""
        for writer in self._writers:
            writer.transport.abort()

    async def close(self) -> None:
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)


@contextlib.asynccontextmanager
async def between(target_port: int) -> AsyncIterator[Between]:
    made = Between(target_port)
    server = await asyncio.start_server(made.take, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await made.close()
