"""An emulated API and a sidecar with the shipped policy of its name, both on a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest
import uvloop

from sidecar.app import Sidecar
from sidecar.demo.apis.emulator import Emulator
from sidecar.demo.apis.stage import deployment_of, emulated
from tests.support.clock import ManualClock
from tests.support.sidecar import Records, Running


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """On the loop that ``sidecar serve`` runs on."""
    return {"uvloop": uvloop.new_event_loop}


class Pair(NamedTuple):
    api: Emulator
    sidecar: Running


class Stage(Protocol):
    async def __call__(self, name: str) -> Pair: ...


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(name: str) -> Pair:
            clock, log, records = ManualClock(), io.StringIO(), Records()
            api = await stack.enter_async_context(emulated(name, clock.monotonic))
            deployment = deployment_of(name, api.port)
            app = Sidecar(deployment, clock=clock, chance=lambda: 0.5, on_record=records.note, log_stream=log)
            await app.start()
            stack.push_async_callback(app.stop)
            return Pair(api, Running(app, clock, log, Path(), records))

        yield start
