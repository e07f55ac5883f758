"""What the fuzz must know of the sidecar's inside: one place, so that a change there is mended here alone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from sidecar.app import Sidecar
from sidecar.config.load import load_deployment
from sidecar.config.text.problems import ConfigError
from sidecar.core.settings.deployment import Deployment
from sidecar.outbox import worker as worker
from tests.fuzz.loop import CountedQueue, VirtualClock, VirtualLoop

__all__ = ["ConfigError", "Deployment", "Sidecar", "complaints", "deployment_of", "made"]


def deployment_of(path: Path) -> Deployment:
    return load_deployment(path, environ={}).deployment


def made(deployment: Deployment, loop: VirtualLoop, clock: VirtualClock, log: io.StringIO) -> Sidecar:
    """A sidecar, whose outbox's thread the loop waits for."""

    def counted() -> CountedQueue:
        queue = CountedQueue()
        loop.queues.append(queue)
        return queue

    setattr(worker, "SimpleQueue", counted)  # noqa: B010 - it exports no such name
    return Sidecar(deployment, clock=clock, chance=loop.random.random, log_stream=log)


def complaints(sidecar: Sidecar) -> Iterator[str]:
    """What is still held, lent or under way though nothing goes on."""
    services, listener = sidecar.services, sidecar.listener
    if services.write_batch.under_way:
        yield f"{services.write_batch.under_way} exchanges are under way"
    if listener.connections:
        yield f"{listener.connections} connections of apps are there"
    if services.metrics.buffered_bytes:
        yield f"{services.metrics.buffered_bytes} bytes are buffered"
    for name, destination in listener.router.destinations.items():
        holding, pool = destination.holding, destination.pool
        limiter = holding.limiter
        if limiter.lent:
            yield f"{name}: {len(limiter.lent)} sends count as under way"
        if destination.meters.attempts_lost:
            yield f"{name}: {destination.meters.attempts_lost} sends counted as under way, and no exchange had them"
        if limiter.waiting or limiter.waiting_bytes:
            yield f"{name}: {limiter.waiting} wait, with {limiter.waiting_bytes} bytes"
        if pool.lent or pool.waiting:
            yield f"{name}: {pool.lent} connections are lent, {pool.waiting} wait for one"
        held = {by: count for by, count in destination.meters.held.items() if count}
        if held:
            yield f"{name}: held {held}"
