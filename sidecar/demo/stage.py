"""Runs the demonstration: starts the sample upstream and the sidecar, runs the load against each, cleans up.

Nothing here leaves loopback or judges a retry; its output goes through ``tell``. Counterpart: ``cli.demo``.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from sidecar.app import Sidecar
from sidecar.config.load import load_deployment
from sidecar.core.settings.deployment import Address, Deployment
from sidecar.demo.load import Load, Tally, run_load
from sidecar.demo.table import Side
from sidecar.demo.upstream import SampleUpstream

__all__ = ["CONFIGURATION", "MOUNT", "compare", "deployment_for", "sample_upstream", "serving"]

CONFIGURATION = Path(__file__).with_name("sidecar.yaml")
MOUNT = "/sample"
ANY_PORT = Address("127.0.0.1", 0)

Progress = Callable[[str, Tally], None]


def deployment_for(upstream: SampleUpstream, environ: Mapping[str, str]) -> Deployment:
    """The demonstration's configuration, with the port that the sample upstream really has.

    Raises ``ConfigError`` if ``environ`` holds a setting that is wrong.
    """
    deployment = load_deployment(CONFIGURATION, environ=environ).deployment
    (sample,) = deployment.upstreams
    return replace(deployment, upstreams=(replace(sample, origin=replace(sample.origin, port=upstream.port)),))


@contextlib.asynccontextmanager
async def sample_upstream() -> AsyncIterator[SampleUpstream]:
    upstream = SampleUpstream()
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.stop()


@contextlib.asynccontextmanager
async def serving(deployment: Deployment, log_stream: TextIO) -> AsyncIterator[Sidecar]:
    """A sidecar in this process. Raises ``OSError`` if an address is taken."""
    sidecar = Sidecar(deployment, log_stream=log_stream)
    await sidecar.start()
    try:
        yield sidecar
    finally:
        await sidecar.stop()


async def compare(load: Load, progress: Progress) -> tuple[Side, Side]:
    """The same load twice, each time against a fresh upstream with the same failures: without, then with."""
    async with sample_upstream() as upstream:
        without = await run_load("127.0.0.1", upstream.port, "", load, lambda tally: progress("without", tally))
        left = _side(without, upstream)
    async with (
        sample_upstream() as upstream,
        serving(_on_free_ports(deployment_for(upstream, {})), io.StringIO()) as sidecar,
    ):
        address = sidecar.address
        with_it = await run_load(address.host, address.port, MOUNT, load, lambda tally: progress("with", tally))
        return left, _side(with_it, upstream)


def _on_free_ports(deployment: Deployment) -> Deployment:
    return replace(deployment, listen=ANY_PORT, admin=ANY_PORT)


def _side(tally: Tally, upstream: SampleUpstream) -> Side:
    twice = sum(count > 1 for count in upstream.placed.values())
    return Side(tally, upstream.calls.total(), placed=len(upstream.placed), placed_twice=twice)
