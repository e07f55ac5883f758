"""Hedging: a second send beside a first one that is slow; the first usable answer counts, the other send is cut.

Only where the policy has a ``hedge``. Here the two are run beside each other, and cut. When the second may go, and
which answer ends the race, is ``core.hedge``'s to say; judging, telling and handing over are the loop's (``attempts``).
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
    """Of one exchange: its first send, and at most one beside it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, prepared: Prepared, rule: HedgeRule, request: Request) -> None:
        self._loop = loop
        self._prepared = prepared
        self._request = request
        self._rule = rule
        self._durations: Durations = prepared.destination.durations_of(prepared.compiled.policy.name)
        self._tasks: dict[asyncio.Task[object], InFlight] = {}
        """The sends that are under way, in order."""
        self.second: InFlight | None = None
        """The hedge, once it went."""
        self.aside: InFlight | None = None
        """Who came back first, without an answer that could be taken; its connection is still there."""
        self.is_over = False
        """Whether it is known which of the two the app got."""

    def after(self, now: float, deadline_at: float) -> float | None:
        """Seconds after which the second may go; None: not this time."""
        return hedge_after(self._rule, self._durations, replace(self._request, deadline_at=deadline_at), now)

    def learn(self, seconds: float, status: int | None, failure: FailureKind | None) -> None:
        """How long a first send took. What failed at once, or was refused, says nothing about that; what was cut, or
        timed out, took at least so long, and must count: else only the quick ones would."""
        if self._rule.after_seconds is not None:
            return
        answered = status is not None and status < 500 and status != 429
        if answered or (status is None and failure in (None, FailureKind.HEAD_TIMEOUT)):
            self._durations.add(seconds)

    def has_way(self, first: Send, body: Body | None) -> bool:
        """Whether the request could go out a second time now: whole, and at once on a connection of its own."""
        if not self._prepared.destination.pool.has_room:
            return False
        if body is None:
            return True
        connection = first.connection
        # What is still arriving, or going out, is slow for reasons of its own.
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
        """Who comes back next; None: nobody within ``seconds``. Raises ``Refused`` if the first was."""
        done, _ = await asyncio.wait(self._tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        task = next((task for task in self._tasks if task in done), None)
        if task is None:
            return None
        sent = self._tasks.pop(task)
        task.result()
        return sent

    async def next(self) -> InFlight:
        """As ``back``, however long it takes."""
        sent = await self.back()
        assert sent is not None  # noqa: S101 - for the type checker: without a timeout somebody has come
        return sent

    def cut(self) -> list[InFlight]:
        """End whatever is under way, and answer who it was. What has just come whole leaves its connection usable."""
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
        """The exchange is over: nothing of the two is left behind. Returns whether that ended a race."""
        self.cut()
        for sent in (self.aside, self.second):
            if sent is not None and sent.sending.connection is not None:
                sent.sending.abandon()
        return self.second is not None and not self.is_over


def hedging_of(
    loop: asyncio.AbstractEventLoop, app: ClientConnection, method: str, prepared: Prepared, sending: Send
) -> Hedging | None:
    """For an exchange that may be hedged: the policy says so, it is idempotent or keyed, and somebody waits for it."""
    policy = prepared.compiled.policy
    rule = policy.hedge
    if rule is None or policy.attempts == 1 or not sending.may_hedge or app.is_delivery:
        return None
    request = Request(method, keyed=prepared.keyed)
    return Hedging(loop, prepared, rule, request) if can_be_hedged(request) else None


async def _without_refusal(sending: Send, attempt: Coroutine[object, object, object]) -> None:
    """The host's address may be forbidden by now; the first send has one that was not."""
    try:
        await attempt
    except Refused as refused:
        sending.failed(FailureKind.UNREACHABLE, refused.detail, "destination_ip_prohibited")


def _forget(task: asyncio.Task[object]) -> None:
    """Whatever came of one that was cut, nobody asks."""
    if not task.cancelled():
        task.exception()
