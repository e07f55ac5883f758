"""A sidecar in front of a TLS upstream, and clients in processes of their own that know nothing of either."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
import uvloop

from sidecar.client_setup.runtimes import Trust, trust_variables
from sidecar.client_setup.variables import proxy_variables
from sidecar.intercept.authority import create
from sidecar.observe.record import ExchangeRecord
from tests.clients.matrix import BASE, INTERCEPTION, ORIGINATION, TUNNEL, Call, Client
from tests.support.sidecar import Running, running
from tests.support.upstream import Upstream, tls_server

PATIENCE_SECONDS = 60.0
CA = "ca"


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@dataclass
class Stage:
    """Everything that a client meets."""

    running: Running
    upstream: Upstream
    """TLS, as ``localhost``; behind the sidecar it is ``api.example``."""
    plain: Upstream
    """Without TLS, for clients that are to come directly."""
    authority_file: str
    folder: Path

    @property
    def proxy(self) -> str:
        return f"http://127.0.0.1:{self.running.sidecar.address.port}"

    def call(self, way: str) -> Call:
        urls = {
            BASE: f"{self.proxy}/api",
            ORIGINATION: "http://api.example",
            TUNNEL: f"https://localhost:{self.upstream.port}",
            INTERCEPTION: "https://api.example",
        }
        bundle = str(self.folder / CA / "bundle.pem") if way == INTERCEPTION else self.authority_file
        folder = self.folder / "client"
        folder.mkdir()
        return Call(way, urls[way], bundle, folder)

    def environ(self, call: Call) -> dict[str, str]:
        """What ``sidecar env`` would set for this way, and nothing else."""
        clean = {"PATH": os.environ["PATH"], "HOME": str(call.folder), "LANG": "C.UTF-8", "NO_COLOR": "1"}
        if call.way == BASE:
            return clean
        proxies = proxy_variables(self.proxy, https=call.way in (TUNNEL, INTERCEPTION), direct=("metadata.invalid",))
        if call.way in (TUNNEL, INTERCEPTION):
            ca = str(self.folder / CA / "ca.pem") if call.way == INTERCEPTION else self.authority_file
            for variables in trust_variables(Trust(ca, call.bundle)).values():
                proxies |= variables
        return clean | proxies

    async def record(self, number: int) -> ExchangeRecord:
        """Of that request, the opening of tunnels not counted."""
        records = self.running.records
        await self.running.until(lambda: sum(record.method != "CONNECT" for record in records) >= number)
        return [record for record in records if record.method != "CONNECT"][number - 1]

    async def run(self, client: Client, call: Call) -> tuple[int, str]:
        """The client's exit code, and all that it said."""
        environ = self.environ(call) | dict(client.environ)
        if client.service == "index":
            environ["PIP_INDEX_URL"] = f"{call.url}/simple"
            environ["PIP_TRUSTED_HOST"] = "api.example" if call.url.startswith("http:") else ""
        child = await asyncio.create_subprocess_exec(
            *client.command(call),
            cwd=call.folder,
            env={name: value for name, value in environ.items() if value},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                said, _ = await child.communicate()
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        assert child.returncode is not None
        return child.returncode, said.decode(errors="replace")


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    authority = trustme.CA()
    authority_file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(authority_file))
    chain = tmp_path / "localhost.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(chain))
    async with Upstream.start(tls=tls_server(str(chain))) as upstream, Upstream.start() as plain:
        text = f"""
listen: 127.0.0.1:0
admin: 127.0.0.1:0
upstreams:
  - name: api
    origin: https://localhost:{upstream.port}
    ca_file: {authority_file}
    mount: /api
    hosts: [api.example]
tunnels: {{ports: [443, {upstream.port}]}}
intercept: {{hosts: [api.example], ca: {CA}}}
"""
        create(tmp_path / CA, ["api.example"], datetime.now(UTC))
        async with running(tmp_path, text, {}) as started:
            yield Stage(started, upstream, plain, str(authority_file), tmp_path)
