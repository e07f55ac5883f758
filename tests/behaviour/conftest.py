"""Fixtures for conversations over real sockets: a scripted upstream, and sidecars made from YAML text.

``make`` is what most tests want: ``sidecar = await make(upstream, "attempts: 3")``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Protocol

import pytest
import trustme
import uvloop

from sidecar.upstream.resolver import Lookup
from tests.support.clock import ManualClock
from tests.support.process import Processes
from tests.support.sidecar import QUICK, Running, running, yaml_for
from tests.support.upstream import Upstream, tls_server


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Conversations run on the loop that ``sidecar serve`` runs on."""
    return {"uvloop": uvloop.new_event_loop}


class Make(Protocol):
    """Starts a sidecar for one upstream; ``policy`` comes after the quick settings of ``QUICK``."""

    async def __call__(
        self,
        upstream: Upstream | int,
        policy: str = "",
        *,
        quick: str = QUICK,
        more: str = "",
        top: str = "",
        text: str | None = None,
        policies: Mapping[str, str] | None = None,
        clock: ManualClock | None = None,
        chance: float = 0.5,
        scheme: str = "http",
        lookup: Lookup | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Running: ...


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream.start() as started:
        yield started


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def make(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Make]:
    own_clock = clock
    async with contextlib.AsyncExitStack() as stack:
        count = 0

        async def start(
            upstream: Upstream | int,
            policy: str = "",
            *,
            quick: str = QUICK,
            more: str = "",
            top: str = "",
            text: str | None = None,
            policies: Mapping[str, str] | None = None,
            clock: ManualClock | None = None,
            chance: float = 0.5,
            scheme: str = "http",
            lookup: Lookup | None = None,
            environ: Mapping[str, str] | None = None,
        ) -> Running:
            nonlocal count
            count += 1
            folder = tmp_path / f"sidecar-{count}"
            folder.mkdir()
            files = {"test": f"extends: default\n{quick}\n{policy}\n", **(policies or {})}
            sidecar = text or yaml_for(upstream, more=more, top=top, scheme=scheme)
            return await stack.enter_async_context(
                running(
                    folder,
                    sidecar,
                    files,
                    clock=clock or own_clock,
                    chance=chance,
                    lookup=lookup,
                    environ=environ,
                )
            )

        yield start


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def authority_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
async def tls_upstream(authority: trustme.CA, tmp_path: Path) -> AsyncIterator[Upstream]:
    """An upstream with a certificate of ``authority`` for ``localhost``."""
    path = tmp_path / "localhost.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(path))
    async with Upstream.start(tls=tls_server(str(path))) as started:
        yield started


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Processes]:
    async with contextlib.AsyncExitStack() as stack:
        yield Processes(stack, tmp_path)
