"""Delivers what is in the outbox: in order, one at a time for each upstream, until each is delivered or dead.

A delivery is an exchange without an app: the same engine judges it by the policy that is in force now, waits and
sends again. What the engine gives up for lack of time, attempts or budget stays and is tried again after a pause that
never undercuts a hint; what it hands over as an error is a dead letter with the reason. A request that could do harm
twice is marked on disk before each send: if nobody learns how that ended, it is a dead letter too. The counterparts
are ``storing``, which fills the outbox, and ``outbox.keeper``, which holds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sidecar.core.backoff import backoff_seconds
from sidecar.core.decide import Decision
from sidecar.core.policy import Idempotency, Policy
from sidecar.core.words import IDEMPOTENT_METHODS, Outcome, Reason, Verb
from sidecar.observe.log import EventLog
from sidecar.observe.metrics import UpstreamMeters
from sidecar.outbox.items import Count, Item
from sidecar.outbox.keeper import Keeper
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.nobody import Nobody
from sidecar.proxy.routing import Refused, Router
from sidecar.proxy.services import Services
from sidecar.wire.heads import RequestMessage

__all__ = ["Courier"]

LOOK_SECONDS: Final = 2.0
"""How often the file is looked at: ``sidecar outbox retry`` changes it from another process."""
LONGEST_PAUSE_SECONDS: Final = 300.0
"""Between two rounds of one item, where no hint asks for more."""
LATER: Final = frozenset(
    {
        Reason.ATTEMPTS,
        Reason.DEADLINE,
        Reason.WAIT_TOO_LONG,
        Reason.BUDGET,
        Reason.BREAKER,
        Reason.GATE,
        Reason.LOGIN_FAILED,
        Reason.DRAINING,
        Reason.SWITCHED_OFF,
    }
)
"""Why a round ended that may be repeated: each is judged after safety, so that it is safe to send again."""


@dataclass(slots=True)
class _Lane:
    """The deliveries to one upstream."""

    upstream: str
    task: asyncio.Task[None] | None = None
    app: Nobody | None = None
    exchange: Exchange | None = None
    again: bool = False
    """Whether something was added since the last look."""


@dataclass(slots=True)
class _Round:
    """What came of one round of delivery."""

    verdict: str
    """``delivered``, ``later`` or ``dead``."""
    reason: str = ""
    status: int | None = None
    note: str = ""
    hint_seconds: float = 0.0


class Courier:
    """One per sidecar. ``router`` gives the map that is in force; ``told`` hears of every round's exchange."""

    def __init__(
        self,
        services: Services,
        keeper: Keeper,
        router: Callable[[], Router],
        events: EventLog,
        told: Callable[[Exchange], None],
    ) -> None:
        self._services = services
        self._keeper = keeper
        self._router = router
        self._events = events
        self._told = told
        self._lanes: dict[str, _Lane] = {}
        self._delivered: set[str] = set()
        """Delivered, but not yet removed from the file: the disk refused that."""
        self._stopping = False
        self._looking: asyncio.Task[None] | None = None
        self.counts: list[Count] = []
        """As of the last look."""

    def start(self) -> None:
        self._keeper.on_added = self.wake
        self._looking = self._services.loop.create_task(self._look(), name="outbox")

    def wake(self, upstream: str) -> None:
        """There is something to deliver."""
        if self._stopping or upstream not in self._router().destinations:
            return
        lane = self._lanes.get(upstream)
        if lane is not None:
            lane.again = True
            return
        lane = self._lanes[upstream] = _Lane(upstream)
        lane.task = self._services.loop.create_task(self._serve(lane), name=f"outbox {upstream}")

    def drain(self) -> None:
        """Begin no other send; what is on the wire may end."""
        self._stopping = True
        if self._looking is not None:
            self._looking.cancel()
        for lane in list(self._lanes.values()):
            if lane.app is None and lane.task is not None:
                lane.task.cancel()
            elif lane.app is not None and lane.app.waiting and lane.exchange is not None:
                lane.exchange.cancel()

    async def drained(self, seconds: float) -> None:
        """Wait for what is on the wire, for so long."""
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    async def close(self) -> None:
        """End everything now."""
        self.drain()
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        tasks += [self._looking] if self._looking is not None else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- looking -----------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Every now and then: what is there, what has expired, whom to wake."""
        while True:
            try:
                now = self._services.clock.wall()
                for upstream, item_id in await self._keeper.bury_expired(now):
                    self._bury_told(upstream, item_id, "expired", None)
                self._count(await self._keeper.counts(), now)
            except sqlite3.Error as error:
                self._events.limited("outbox_trouble", "error", message=str(error))
            if self._keeper.trouble:
                self._events.limited("outbox_trouble", "error", message=self._keeper.trouble)
            for count in self.counts:
                if count.waiting:
                    self.wake(count.upstream)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._services.loop.create_future()

    def _count(self, counts: list[Count], now: float) -> None:
        self.counts = counts
        metrics = self._services.metrics
        totals: dict[UpstreamMeters, list[float]] = {meters: [0, 0, 0.0] for meters in metrics.upstreams()}
        for count in counts:
            total = totals[metrics.find(count.upstream)]
            total[0] += count.waiting
            total[1] += count.dead
            if count.oldest_at is not None:
                total[2] = max(total[2], now - count.oldest_at)
        for meters, (waiting, dead, age) in totals.items():
            meters.outbox.waiting, meters.outbox.dead, meters.outbox.oldest_age_seconds = int(waiting), int(dead), age

    def state(self) -> str:
        """For a person, at /readyz?verbose."""
        waiting, dead = sum(count.waiting for count in self.counts), sum(count.dead for count in self.counts)
        oldest = [count.oldest_at for count in self.counts if count.oldest_at is not None]
        parts = [f"{waiting} waiting", f"{dead} dead"]
        if oldest:
            parts.append(f"the oldest for {max(0, round(self._services.clock.wall() - min(oldest)))} s")
        if self._keeper.trouble:
            parts.append(f"the last change failed: {self._keeper.trouble}")
        return ", ".join(parts)

    # -- delivering --------------------------------------------------------------------------------------

    async def _serve(self, lane: _Lane) -> None:
        """Deliver until nothing waits."""
        try:
            while not self._stopping:
                lane.again = False
                item = await self._keeper.first(lane.upstream)
                if item is not None:
                    await self._deliver(lane, item)
                elif not lane.again:
                    return
        except sqlite3.Error as error:
            # Whatever was delivered is remembered; the next look begins anew.
            self._events.limited("outbox_trouble", "error", message=str(error))
        finally:
            self._lanes.pop(lane.upstream, None)

    async def _deliver(self, lane: _Lane, item: Item) -> None:
        if item.id in self._delivered:
            await self._remove(item)
            return
        round_ = await self._round(lane, item)
        if round_.verdict == "delivered":
            self._delivered.add(item.id)
            self._services.metrics.find(item.upstream).outbox.delivered += 1
            await self._remove(item)
        elif round_.verdict == "dead":
            now = self._services.clock.wall()
            if await self._keeper.bury(item.id, round_.reason, round_.status, round_.note, now):
                self._bury_told(item.upstream, item.id, round_.reason, round_.status)
        else:
            await self._keeper.put_off(item.id, round_.note)
            if not self._stopping:
                await self._pause(lane, item, round_)

    async def _remove(self, item: Item) -> None:
        await self._keeper.remove(item.id)
        self._delivered.discard(item.id)

    def _bury_told(self, upstream: str, item_id: str, reason: str, status: int | None) -> None:
        self._services.metrics.find(upstream).outbox.died += 1
        self._events.event("outbox_dead", "warning", upstream=upstream, stored=item_id, reason=reason, status=status)

    async def _pause(self, lane: _Lane, item: Item, round_: _Round) -> None:
        """Before the next round: the policy's backoff, further on with each round; a hint is a minimum."""
        clock, destination = self._services.clock, self._router().destinations.get(lane.upstream)
        if destination is None:
            return
        rule = destination.policy_for(item.method, item.target.partition("?")[0]).policy.backoff
        number = item.tries + 1
        backoff = min(backoff_seconds(rule, number, self._services.chance()), LONGEST_PAUSE_SECONDS)
        seconds = round_.hint_seconds + max(rule.base_seconds, backoff)
        until = clock.monotonic() + seconds
        while (left := until - clock.monotonic()) > 0:
            await clock.sleep(max(left, 0.001))

    async def _round(self, lane: _Lane, item: Item) -> _Round:
        router = self._router()
        target = _address(router, item)
        if target is None:
            return _Round("later", note="its upstream is not configured")
        policy = router.destinations[item.upstream].policy_for(item.method, item.target.partition("?")[0]).policy
        app = Nobody(self._services.loop, _request(item, target, policy.idempotency))
        message = app.request
        if message is None:
            return _Round("dead", "malformed")
        if not _is_repeatable(policy, message):
            if item.begun:
                return _Round("dead", str(Reason.NOT_SAFE), note="a send was begun, and nobody knows how it ended")
            await self._keeper.begin(item.id)
        exchange = await self._send(lane, app, message, router)
        self._told(exchange)
        return _judged(exchange)

    async def _send(self, lane: _Lane, app: Nobody, message: RequestMessage, router: Router) -> Exchange:
        """One exchange, from its start to its end."""
        over: asyncio.Future[None] = self._services.loop.create_future()

        def ended(exchange: Exchange, cut: bool) -> None:
            if not over.done():
                over.set_result(None)

        exchange = Exchange(self._services, app, message, ended)
        lane.app, lane.exchange = app, exchange
        try:
            exchange.start(router)
            await over
        except asyncio.CancelledError:
            if not over.done():
                exchange.cancel()
            raise
        finally:
            lane.app = lane.exchange = None
        return exchange


def _address(router: Router, item: Item) -> str | None:
    """A target by which the item's upstream is found in this map; None if it is not there any more."""
    for upstream in router.deployment.upstreams:
        if upstream.name == item.upstream:
            mounts = [] if upstream.mount is None else [upstream.mount.rstrip("/") + item.target]
            for target in (*mounts, *(f"http://{host}{item.target}" for host in upstream.hosts)):
                with contextlib.suppress(Refused):
                    if router.find(target)[0].name == item.upstream:
                        return target
    return None


def _request(item: Item, target: str, rule: Idempotency | None) -> bytes:
    """The stored request, whole. One that was stored before its upstream honoured keys gets one, always the same."""
    head = f"{item.method} {target} HTTP/1.1\r\n".encode("utf-8", "surrogateescape") + item.fields
    if rule is not None and item.method in rule.methods and not _has_field(item.fields, rule.header):
        key = str(uuid.UUID(hex=item.id))
        value = f'"{key}"' if rule.format == "quoted" else key
        head += f"{rule.header}: {value}\r\n".encode("ascii")
    return head + b"Content-Length: %d\r\n\r\n" % len(item.body) + item.body


def _has_field(fields: bytes, name: str) -> bool:
    return (b"\r\n" + fields.lower()).find(b"\r\n" + name.lower().encode("ascii") + b":") >= 0


def _is_repeatable(policy: Policy, message: RequestMessage) -> bool:
    """Whether a send whose end nobody knows may be repeated: permissions 2, 3 and 5 of the core."""
    rule = policy.idempotency
    keyed = rule is not None and bool(message.headers.get(rule.header))
    return keyed or message.method in IDEMPOTENT_METHODS or message.method in policy.resend_methods


def _judged(exchange: Exchange) -> _Round:
    """What an exchange that is over means for its item."""
    outcome, reason, status, decision = exchange.outcome, exchange.reason, exchange.status, exchange.decision
    attempts = exchange.all_attempts
    failure = attempts[-1].failure if attempts else None
    told = str(failure or status or reason or "")
    answered = attempts[-1].status if attempts else None
    if outcome in (Outcome.OK, Outcome.RECOVERED) or (answered is not None and answered < 400):
        return _Round("delivered")
    hint = decision.hint_seconds if decision is not None and decision.hint_seconds is not None else 0.0
    if _is_for_later(outcome, reason, decision):
        return _Round("later", note=told, hint_seconds=max(0.0, hint))
    code = status if failure is None and outcome is not Outcome.REJECTED else None
    return _Round("dead", str(reason or outcome), code, told)


def _is_for_later(outcome: Outcome, reason: Reason | None, decision: Decision | None) -> bool:
    if outcome is Outcome.CLIENT_GONE:
        return True  # cut short by ourselves
    if decision is not None and decision.verb is Verb.STORE:
        return True
    if decision is not None and decision.row is not None and decision.row.verb is Verb.LOGIN:
        return reason in LATER and reason is not Reason.ATTEMPTS  # refused again after a login: it will stay so
    return reason in LATER
