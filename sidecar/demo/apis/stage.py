"""One emulated API and the configuration that leads to it, with the shipped policy of its name.

Nothing here leaves loopback. Used by ``sidecar demo --api`` and by the tests of the shipped policies.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from sidecar.config.load import load_deployment
from sidecar.core.settings.deployment import Deployment
from sidecar.demo.apis.devices import DevicesApi
from sidecar.demo.apis.emulator import Emulator
from sidecar.demo.apis.meshqu import MeshquApi
from sidecar.demo.apis.resq import CoordinationApi, InfrastructureApi
from sidecar.demo.apis.status import StatusApi

__all__ = ["APIS", "deployment_of", "emulated"]

CONFIGURATION: Final = Path(__file__).with_name("sidecar.yaml")
SECRET_VARIABLE: Final = "EMULATED_SECRET"

APIS: Final[dict[str, type[Emulator]]] = {
    "resq-infrastructure": InfrastructureApi,
    "resq-coordination": CoordinationApi,
    "status-svc": StatusApi,
    "devices-v3": DevicesApi,
    "meshqu": MeshquApi,
}


@contextlib.asynccontextmanager
async def emulated(name: str, now: Callable[[], float]) -> AsyncIterator[Emulator]:
    """The API of that name on a free port; ``now`` is its clock, in seconds."""
    emulator = APIS[name](now, os.environ.setdefault(SECRET_VARIABLE, os.urandom(16).hex()))
    await emulator.start()
    try:
        yield emulator
    finally:
        await emulator.stop()


def deployment_of(name: str, port: int) -> Deployment:
    """The configuration for it alone, on free ports."""
    deployment = load_deployment(CONFIGURATION, environ={}).deployment
    upstream = next(each for each in deployment.upstreams if each.name == name)
    login = upstream.login and replace(upstream.login, origin=replace(upstream.login.origin, port=port))
    return replace(deployment, upstreams=(replace(upstream, origin=replace(upstream.origin, port=port), login=login),))
