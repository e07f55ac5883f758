"""Which upstream and policy a URL leads to, found by the router that ``serve`` runs; nothing is opened or resolved.

Used by ``explain``. A request that the router refuses is refused here with the same response.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import SplitResult

import click

from sidecar.core.decision.policy import Policy
from sidecar.core.settings.deployment import Deployment
from sidecar.observe.metrics import Metrics
from sidecar.proxy.routing.clock import SystemClock
from sidecar.proxy.routing.destination import Destination, TimersByLength
from sidecar.proxy.routing.limiter import Holding
from sidecar.proxy.routing.router import OWN_NAMES, Refused, Router, UserInfo
from sidecar.upstream.pool import Pools

__all__ = ["Found", "find"]


class Found(NamedTuple):
    """Which policy decides, and what it sees of the URL."""

    upstream: str
    policy: Policy
    path: str
    """As the upstream sees it, without its base path."""
    query: str


def find(deployment: Deployment, method: str, url: SplitResult, name: str | None = None) -> Found:
    """``url`` is the upstream's own, or one of a mount. ``name``: the upstream, where the URL does not tell.

    Raises ``Refused``, as the running sidecar would answer, and ``click.UsageError`` for an unknown name.
    """
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    with _router(deployment) as router:
        if name is not None:
            destination, target = _named(router, name, path)
        else:
            destination, target = _found(router, deployment, url, path)
        seen, _, query = target[len(destination.base_path) :].partition("?")
        bound = destination.policy_for(method, seen)
        return Found(destination.name, bound.policy, seen, query)


def _found(router: Router, deployment: Deployment, url: SplitResult, path: str) -> tuple[Destination, str]:
    host, listen = url.hostname or "", deployment.listen
    absolute = f"{url.scheme}://{url.netloc}{path}"
    if url.port != listen.port:
        return _by_host(router, absolute)
    if host in OWN_NAMES or host == listen.host:
        return router.find(path)
    try:
        return router.find(path)  # a container's name for the sidecar
    except Refused:
        return _by_host(router, absolute)


def _by_host(router: Router, target: str) -> tuple[Destination, str]:
    try:
        return router.find(target)
    except UserInfo as found:
        return router.find(found.target)


def _named(router: Router, name: str, path: str) -> tuple[Destination, str]:
    destination = router.destinations.get(name)
    if destination is None:
        known = ", ".join(router.destinations) or "none is configured"
        raise click.UsageError(f"There is no upstream `{name}`: {known}.")
    try:
        mounted, target = router.find(path)
    except Refused:
        mounted, target = destination, destination.base_path + path
    return (destination, target) if mounted is destination else (destination, destination.base_path + path)


@contextmanager
def _router(deployment: Deployment) -> Iterator[Router]:
    """The map of this deployment, in a loop that does not run: finding needs none."""
    loop = asyncio.new_event_loop()
    pools = Pools(loop)
    pools.own_port = deployment.listen.port
    pools.own_ports |= {deployment.listen.port, deployment.admin.port}
    timers = TimersByLength(loop)
    try:
        yield Router(
            deployment,
            pools,
            Metrics(),
            timers,
            "sidecar",
            loop,
            hold=lambda policy, meters: Holding(loop, SystemClock(), lambda: 0.5, policy, meters),
        )
    finally:
        timers.close()
        loop.run_until_complete(pools.close())
        loop.close()
