"""A running sidecar on port 0, in this process, from YAML text, with its records kept.

It goes through the real loader and the real wiring; only the clock and the dice are the test's own. For
the life cycle of a whole process see ``support.process``.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from sidecar.app import Sidecar
from sidecar.config.load import load_deployment
from sidecar.observe.record import ExchangeRecord
from sidecar.upstream.resolver import Lookup
from tests.support import words
from tests.support.client import Answer, Client, connect
from tests.support.clock import ManualClock
from tests.support.upstream import Upstream

__all__ = ["QUICK", "SHORT", "Running", "running", "write_files", "yaml_for"]

_PATIENCE_SECONDS = 60.0
TOKEN = "a token of the tests"
"""Of the admin port."""

QUICK = """
attempt: {connect: 2s, head: 400ms, idle: 400ms}
backoff: {base: 100ms, factor: 2, cap: 10s, jitter: none}
"""
"""Settings of most tests: timeouts that a busy machine keeps, waits that can be told exactly."""

SHORT = QUICK.replace("connect: 2s", "connect: 500ms")
"""The same, for a deadline below two seconds."""


def yaml_for(upstream: Upstream | int, *, scheme: str = "http", more: str = "", top: str = "") -> str:
    """``sidecar.yaml`` for one upstream named ``api``, mounted at ``/api``, with the policy ``test``."""
    port = upstream if isinstance(upstream, int) else upstream.port
    host = "localhost" if scheme == "https" else "127.0.0.1"
    return f"""
listen: 127.0.0.1:0
admin: 127.0.0.1:0
{top}
upstreams:
  - name: api
    origin: {scheme}://{host}:{port}
    mount: /api
    hosts: [api.example]
    policy: test
{more}
"""


def write_files(folder: Path, sidecar: str, policies: Mapping[str, str]) -> Path:
    """Lays ``sidecar.yaml`` and ``policies/NAME.yaml``; returns the path of the former."""
    (folder / "policies").mkdir(exist_ok=True)
    for name, text in policies.items():
        (folder / "policies" / f"{name}.yaml").write_text(text, encoding="utf-8")
    path = folder / "sidecar.yaml"
    path.write_text(sidecar, encoding="utf-8")
    return path


class Records(list[ExchangeRecord]):
    """Every record, in order; a test can wait for one."""

    def __init__(self) -> None:
        super().__init__()
        self._noted = asyncio.Event()

    def note(self, record: ExchangeRecord) -> None:
        self.append(record)
        words.note(record)
        self._noted.set()

    async def number(self, number: int) -> ExchangeRecord:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while len(self) < number:
                self._noted.clear()
                await self._noted.wait()
        return self[number - 1]


class Running:
    """One sidecar, and what it has recorded."""

    def __init__(self, sidecar: Sidecar, clock: ManualClock, log: io.StringIO, path: Path, records: Records) -> None:
        self.sidecar = sidecar
        self.clock = clock
        self.log = log
        self.path = path
        self.records = records

    async def record(self, number: int = 1) -> ExchangeRecord:
        """The record with that number, once it is written."""
        return await self.records.number(number)

    def held(self, by: str, upstream: str = "api") -> int:
        """How many exchanges stand still, held by this."""
        return self.sidecar.metrics.upstream(upstream).held[by]

    def holds(self, upstream: str = "api") -> list[dict[str, object]]:
        """What would hold a newcomer now, as /debug/numbers tells it."""
        holds = self.sidecar.operator.states()[upstream]["holds"]
        assert isinstance(holds, list)
        return holds

    def client(self, *, receive_buffer_bytes: int | None = None) -> contextlib.AbstractAsyncContextManager[Client]:
        address = self.sidecar.address
        return connect(address.host, address.port, receive_buffer_bytes=receive_buffer_bytes)

    async def ask(
        self,
        method: str = "GET",
        target: str = "/api/",
        headers: list[tuple[str, str]] | None = None,
        body: bytes | None = None,
        *,
        chunks: list[bytes] | None = None,
        host: str | None = "sidecar.test",
    ) -> Answer:
        """One request on a connection of its own."""
        async with self.client() as client:
            return await client.ask(method, target, headers or [], body, chunks=chunks, host=host)

    async def admin(self, target: str, headers: list[tuple[str, str]] | None = None) -> Answer:
        address = self.sidecar.admin_address
        async with connect(address.host, address.port) as client:
            host = f"{address.host}:{address.port}"
            return await client.ask("GET", target, headers or [], host=host)

    async def change(self, target: str) -> Answer:
        """A POST to the admin port, with the token."""
        address = self.sidecar.admin_address
        async with connect(address.host, address.port) as client:
            host = f"{address.host}:{address.port}"
            return await client.ask("POST", target, [("Authorization", f"Bearer {TOKEN}")], host=host)

    async def metric(self, line: str) -> float:
        """The value of a sample, named with its labels in the order of the design; 0 if it is not there."""
        answer = await self.admin("/metrics")
        name, _, labels = line.partition("{")
        wanted = frozenset(filter(None, labels.rstrip("}").split(",")))
        for sample in answer.body.decode().splitlines():
            left, _, value = sample.rpartition(" ")
            found, _, rest = left.partition("{")
            if found == name and frozenset(filter(None, rest.rstrip("}").split(","))) == wanted:
                return float(value)
        return 0.0

    async def until(self, holds: Callable[[], bool]) -> None:
        """Returns when ``holds`` is true; looked at on every turn of the loop."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not holds():  # noqa: ASYNC110 - any condition; nothing signals all of them
                await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def running(
    folder: Path,
    sidecar: str,
    policies: Mapping[str, str],
    *,
    clock: ManualClock | None = None,
    chance: float = 0.5,
    lookup: Lookup | None = None,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Running]:
    """Starts a sidecar from these texts; stops it at the end."""
    path = write_files(folder, sidecar, policies)
    loaded = load_deployment(path, environ=environ or {})
    clock = clock or ManualClock()
    log = io.StringIO()
    records = Records()
    app = Sidecar(
        loaded.deployment,
        clock=clock,
        chance=lambda: chance,
        on_record=records.note,
        log_stream=log,
        lookup=lookup,
        token=TOKEN,
        environ=environ,
    )
    await app.start()
    try:
        yield Running(app, clock, log, path, records)
    finally:
        clock.release()
        await app.stop()
