"""A sidecar in a process of its own: for signals, exit codes, what stands on the terminal, and memory.

``sidecar serve`` prints where it listens; with port 0 that line is how a test learns the real port.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.client import Answer, Client, connect

__all__ = ["Exit", "Process", "Processes"]

_PATIENCE_SECONDS = 60.0
_ADDRESS = re.compile(r"127\.0\.0\.1:(\d+)")
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Exit:
    code: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        return self.stdout + self.stderr


class Process:
    """``python -m sidecar`` with these arguments."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self.child = child
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._changed = asyncio.Event()
        self._reading = asyncio.Event()
        self._reading.set()
        assert child.stdout is not None
        assert child.stderr is not None
        self._readers = [
            asyncio.create_task(self._read(child.stdout, self.stdout)),
            asyncio.create_task(self._read(child.stderr, self.stderr)),
        ]
        self.port = 0
        self.admin_port = 0

    async def _read(self, stream: asyncio.StreamReader, into: list[str]) -> None:
        while await self._reading.wait() and (line := await stream.readline()):
            into.append(line.decode(errors="replace"))
            self._changed.set()
        self._changed.set()

    @property
    def said(self) -> str:
        return "".join(self.stdout + self.stderr)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Returns when ``holds`` is true of what the process has said."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while not holds():
                    assert self.child.returncode is None, f"ended with {self.child.returncode}: {self.said}"
                    self._changed.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.02):
                            await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"waited in vain; it said: {self.said}") from None

    async def listening(self) -> None:
        """Waits for both addresses: the first one named is for apps, the second is the admin port."""
        await self.until(lambda: len(self._ports()) >= 2)
        self.port, self.admin_port = self._ports()[:2]

    def _ports(self) -> list[int]:
        return list(dict.fromkeys(int(port) for port in _ADDRESS.findall(self.said) if port != "0"))

    def client(self) -> contextlib.AbstractAsyncContextManager[Client]:
        return connect("127.0.0.1", self.port)

    async def ask(
        self,
        method: str = "GET",
        target: str = "/api/",
        headers: list[tuple[str, str]] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        async with self.client() as client:
            return await client.ask(method, target, headers or [], body)

    async def admin(self, target: str) -> Answer:
        async with connect("127.0.0.1", self.admin_port) as client:
            return await client.ask("GET", target, host=f"127.0.0.1:{self.admin_port}")

    async def metric(self, line: str) -> float | None:
        """The value of one sample, named exactly as it stands in the exposition; None if it is not there."""
        text = (await self.admin("/metrics")).body.decode()
        for sample in text.splitlines():
            if sample.startswith(line + " "):
                return float(sample.rpartition(" ")[2])
        return None

    def signal(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    def stop_reading(self) -> None:
        """Leaves what it says from now on in the pipes, until they are full."""
        self._reading.clear()

    async def exit(self) -> Exit:
        self._reading.set()
        async with asyncio.timeout(_PATIENCE_SECONDS):
            code = await self.child.wait()
            await asyncio.gather(*self._readers)
        return Exit(code, "".join(self.stdout), "".join(self.stderr))

    def resident_bytes(self) -> int:
        """The peak of resident memory so far (``VmHWM``)."""
        status = Path(f"/proc/{self.child.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def descriptors(self) -> list[str]:
        """What its open file descriptors lead to."""
        found = []
        for entry in Path(f"/proc/{self.child.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(os.readlink(entry))
        return found

    async def end(self) -> None:
        if self.child.returncode is None:
            self.child.kill()
        await self.exit()


class Processes:
    """Starts processes; all of them are ended with the test."""

    def __init__(self, stack: contextlib.AsyncExitStack, folder: Path, installed: str = "") -> None:
        """``installed``: the path of a ``sidecar`` to run in place of the source tree."""
        self._stack = stack
        self.folder = folder
        self._command = (installed,) if installed else (sys.executable, "-m", "sidecar")
        self._own = {} if installed else {"PYTHONPATH": str(_ROOT)}

    async def start(self, *arguments: str, environ: Mapping[str, str] | None = None) -> Process:
        """Starts ``python -m sidecar`` and returns at once."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("SIDECAR_")}
        child = await asyncio.create_subprocess_exec(
            *self._command,
            *arguments,
            cwd=self.folder,
            env={**inherited, **self._own, "NO_COLOR": "1", **(environ or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        process = Process(child)
        self._stack.push_async_callback(process.end)
        return process

    async def serve(self, path: Path, *more: str, environ: Mapping[str, str] | None = None) -> Process:
        """``sidecar serve -c PATH``, listening."""
        process = await self.start("serve", "-c", str(path), *more, environ=environ)
        await process.listening()
        return process
