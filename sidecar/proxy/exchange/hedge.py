"""Hedged requests (Dean and Barroso, *The Tail at Scale*, 2013): a second send beside a slow first one; the first
usable response counts, and the other send is cut.

Only where the policy has a ``hedge``. This module runs the two sends and cuts the loser. ``core.decision.hedge`` says
when the second may go and which response ends the race; ``retry_loop`` judges, records and hands over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace

from sidecar.core.decision.attempt import Request
from sidecar.core.decision.hedge import Durations, can_be_hedged, hedge_after
from sidecar.core.decision.policy import HedgeRule
from sidecar.core.enums import FailureKind
from sidecar.proxy.client.body import Body
from sidecar.proxy.client.connection import ClientConnection
from sidecar.proxy.exchange.prepare import Prepared
from sidecar.proxy.exchange.send import InFlight, Send
from sidecar.proxy.message.errors import Refused

__all__ = ["Hedging", "hedging_of"]


class Hedging:
    """The hedge of one exchange: its first send, and at most one beside it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, prepared: Prepared, rule: HedgeRule, request: Request) -> None:
        self._loop = loop
        self._prepared = prepared
        self._request = request
        self._rule = rule
        self._durations: Durations = prepared.destination.durations_of(prepared.compiled.policy.name)
        self._tasks: dict[asyncio.Task[object], InFlight] = {}
        """The sends that are under way, in the order of their start."""
        self.second: InFlight | None = None
        """The hedge, once it was sent."""
        self.aside: InFlight | None = None
        """The send that came back first with a response that could not be used; its connection is still open."""
        self.is_over = False
        """Whether it is settled which response the app gets."""

    def after(self, now: float, deadline_at: float) -> float | None:
        """Seconds after which the second send may go; None: not for this exchange."""
        return hedge_after(self._rule, self._durations, replace(self._request, deadline_at=deadline_at), now)

    def learn(self, seconds: float, status: int | None, failure: FailureKind | None) -> None:
        """Record how long a first send took. A reset or a refusal says nothing about that. A send that was cut or timed
        out took at least that time, and must count: otherwise only quick sends would.
        """
        if self._rule.after_seconds is not None:
            return
        answered = status is not None and status < 500 and status != 429
        if answered or (status is None and failure in (None, FailureKind.HEAD_TIMEOUT)):
            self._durations.add(seconds)

    def has_way(self, first: Send, body: Body | None) -> bool:
        """Whether the request can be sent a second time now: its body is held whole, and a connection is free."""
        if not self._prepared.destination.pool.has_room:
            return False
        if body is None:
            return True
        connection = first.connection
        # A body that is still arriving or going out explains the slowness by itself.
        return body.complete and body.held and connection is not None and connection.request_sent

    @property
    def is_under_way(self) -> bool:
        return bool(self._tasks)

    def begin(self, sent: InFlight, attempt: Coroutine[object, object, object]) -> None:
        """Run an attempt; a second one is the hedge."""
        if self._tasks:
            self.second = sent
            attempt = _without_refusal(sent.sending, attempt)
        self._tasks[self._loop.create_task(attempt)] = sent

    async def back(self, seconds: float | None = None) -> InFlight | None:
        """The send that comes back next; None: none within ``seconds``. Raises ``Refused`` if the first was refused."""
        done, _ = await asyncio.wait(self._tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        task = next((task for task in self._tasks if task in done), None)
        if task is None:
            return None
        sent = self._tasks.pop(task)
        task.result()
        return sent

    async def next(self) -> InFlight:
        """As ``back``, without a bound; each send has its own."""
        sent = await self.back()
        assert sent is not None  # noqa: S101 - for the type checker: without a timeout a send has come back
        return sent

    def cut(self) -> list[InFlight]:
        """Cut every send under way and return them. A response that has just come whole leaves its connection
        usable.
        """
        tasks, self._tasks = self._tasks, {}
        for task, sent in tasks.items():
            if task.done() and not task.cancelled() and task.exception() is None:
                sent.sending.let_go()
            else:
                task.add_done_callback(_forget)
                task.cancel()
                sent.sending.abandon()
        return list(tasks.values())

    def close(self) -> bool:
        """End both sends with the exchange. Returns whether that ended a race."""
        self.cut()
        for sent in (self.aside, self.second):
            if sent is not None and sent.sending.connection is not None:
                sent.sending.abandon()
        return self.second is not None and not self.is_over


def hedging_of(
    loop: asyncio.AbstractEventLoop, app: ClientConnection, method: str, prepared: Prepared, sending: Send
) -> Hedging | None:
    """For an exchange that may be hedged: the policy has a hedge, the request is idempotent or keyed, and an app waits
    for it.
    """
    policy = prepared.compiled.policy
    rule = policy.hedge
    if rule is None or policy.attempts == 1 or not sending.may_hedge or app.is_delivery:
        return None
    request = Request(method, keyed=prepared.keyed)
    return Hedging(loop, prepared, rule, request) if can_be_hedged(request) else None


async def _without_refusal(sending: Send, attempt: Coroutine[object, object, object]) -> None:
    """Run a hedge whose address may be forbidden by now, though the first send's was not."""
    try:
        await attempt
    except Refused as refused:
        sending.failed(FailureKind.UNREACHABLE, refused.detail, "destination_ip_prohibited")


def _forget(task: asyncio.Task[object]) -> None:
    """Retrieve the exception of a send that was cut: asyncio would log it."""
    if not task.cancelled():
        task.exception()
