"""Delivers what is in the outbox: in order, one at a time for each upstream, until each is delivered or dead.

A delivery is an exchange without an app: the same engine judges it by the policy that is in force now, waits and
sends again. What the engine gives up for lack of time, attempts or budget stays and is tried again after a pause that
never undercuts a hint; what it hands over as an error is a dead letter with the reason. A request that could do harm
twice is marked on disk before each send: if nobody learns how that ended, it is a dead letter too. One that keeps
failing is set aside, so that it does not hold up the others. A shutdown cuts waits short and never a change of the
file. The counterparts are ``storing``, which fills the outbox, and ``outbox.worker``, which holds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from sidecar.core.decision.backoff import backoff_seconds
from sidecar.core.decision.decide import Decision
from sidecar.core.decision.policy import Idempotency, Policy
from sidecar.core.enums import FINAL_REASONS, IDEMPOTENT_METHODS, Outcome, Reason, Verb
from sidecar.observe.log import EventLog
from sidecar.observe.metrics import UpstreamMeters
from sidecar.outbox.items import HELD_UP_SECONDS, Count, Item
from sidecar.outbox.worker import OutboxWorker
from sidecar.proxy.delivery.null_client import NullClient
from sidecar.proxy.exchange.context import Services
from sidecar.proxy.exchange.exchange import Exchange
from sidecar.proxy.routing.router import Refused, Router
from sidecar.wire.heads import RequestMessage

__all__ = ["DeliveryWorker"]

LOOK_SECONDS: Final = 2.0
"""How often the file is looked at: ``sidecar outbox retry`` changes it from another process."""
LONGEST_PAUSE_SECONDS: Final = 300.0
"""Between two rounds, where no hint asks for more."""
CLOSE_SECONDS: Final = 5.0
"""How long the end of the process waits for what is to be written down."""
TRIES_BEFORE_ASIDE: Final = 8
"""Rounds in which the upstream got it: a minute of an outage with the default backoff, which order survives."""
ABOUT_ONE: Final = frozenset({Reason.ATTEMPTS, Reason.DEADLINE, Reason.WAIT_TOO_LONG, Reason.NOT_RETRYABLE})
"""Those that may concern this request alone; the others would end a round of any request to that upstream."""


class Cut(Enum):
    """Where a delivery stood when a shutdown ended it."""

    NOT = 0
    WAITING = 1
    """Between two sends: the next one had been judged to be safe."""
    SENDING = 2
    """At a send: on the wire, or still connecting."""


@dataclass(slots=True)
class _Lane:
    """The deliveries to one upstream."""

    upstream: str
    task: asyncio.Task[None] | None = None
    app: NullClient | None = None
    exchange: Exchange | None = None
    cut: Cut = Cut.NOT
    """Whether that exchange was ended by us."""
    sleeper: asyncio.Task[None] | None = None
    """What it waits for, between two rounds."""
    is_quiet: bool = False
    """Whether it waits for the upstream's sake: then nothing that is added ends the wait."""
    again: bool = False
    """Whether something was added since the last look."""
    failures: int = 0
    """Rounds that failed in a row, whichever requests they were of."""
    quiet_until: float = 0.0
    """Monotonic seconds."""
    after_aside: bool = False
    """Whether the last round was of a request that was set aside."""

    def cut_short(self, where: Cut) -> None:
        """End its exchange; the lane's own task ends by itself, after what it has to write down."""
        if self.exchange is not None and self.cut is Cut.NOT:
            self.cut = where
            self.exchange.cancel()


@dataclass(slots=True)
class _Round:
    """What came of one round of delivery."""

    verdict: str
    """``delivered``, ``later``, ``dead``, or ``stopped``: nothing was sent."""
    reason: str = ""
    status: int | None = None
    note: str = ""
    hint_seconds: float = 0.0
    is_its_own: bool = False
    """Whether the upstream got it, and what failed may lie in this request."""


class DeliveryWorker:
    """One per sidecar. ``router`` gives the map that is in force; ``told`` hears of every round's exchange."""

    def __init__(
        self,
        services: Services,
        worker: OutboxWorker,
        router: Callable[[], Router],
        events: EventLog,
        told: Callable[[Exchange], None],
    ) -> None:
        self._services = services
        self._worker = worker
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
        self._worker.on_added = self.wake
        self._looking = self._services.loop.create_task(self._look(), name="outbox")

    def wake(self, upstream: str) -> None:
        """There is something to deliver."""
        if self._stopping or upstream not in self._router().destinations:
            return
        lane = self._lanes.get(upstream)
        if lane is not None:
            lane.again = True
            if lane.sleeper is not None and not lane.is_quiet:
                lane.sleeper.cancel()
            return
        lane = self._lanes[upstream] = _Lane(upstream)
        lane.task = self._services.loop.create_task(self._serve(lane), name=f"outbox {upstream}")
        # A task that is cancelled before its first step runs no `finally`.
        lane.task.add_done_callback(lambda _: self._over(lane))

    def _over(self, lane: _Lane) -> None:
        """Nothing is delivered by it any more; another may have begun since."""
        if self._lanes.get(lane.upstream) is lane:
            del self._lanes[lane.upstream]

    def drain(self) -> None:
        """Begin no other send; what is on the wire may end, and every change of the file that is under way does."""
        self._stopping = True
        if self._looking is not None:
            self._looking.cancel()
        for lane in list(self._lanes.values()):
            if lane.sleeper is not None:
                lane.sleeper.cancel()
            elif lane.exchange is not None and lane.exchange.is_waiting:
                lane.cut_short(Cut.WAITING)

    async def drained(self, seconds: float) -> None:
        """Wait for what is on the wire, for so long."""
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    async def close(self) -> None:
        """End everything now; what is known of each delivery is written down, if the disk answers."""
        self.drain()
        for lane in list(self._lanes.values()):
            lane.cut_short(Cut.SENDING)
        await self.drained(CLOSE_SECONDS)
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
                for upstream, item_id in await self._worker.mark_expired_dead(now):
                    self._bury_told(upstream, item_id, "expired", None)
                self._count(await self._worker.counts(), now)
            except sqlite3.Error as error:
                self._events.limited("outbox_trouble", "error", message=str(error))
            except Exception as error:
                self._services.crashed(error)
            if self._worker.trouble:
                self._events.limited("outbox_trouble", "error", message=self._worker.trouble)
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
        if self._worker.trouble:
            parts.append(f"the last change failed: {self._worker.trouble}")
        return ", ".join(parts)

    # -- delivering --------------------------------------------------------------------------------------

    async def _serve(self, lane: _Lane) -> None:
        """Deliver until nothing waits, or the upstream is configured no more."""
        clock = self._services.clock
        try:
            while not self._stopping and lane.upstream in self._router().destinations:
                left = lane.quiet_until - clock.monotonic()
                if left > 0:
                    await self._sleep(lane, left, quiet=True)
                    continue
                lane.again = False
                now = self._services.steady_wall()
                item, due_at = await self._worker.next(lane.upstream, now, after_aside=lane.after_aside)
                if item is not None:
                    lane.after_aside = item.aside
                    await self._deliver(lane, item)
                elif due_at is not None:
                    await self._sleep(lane, due_at - now)
                elif not lane.again:
                    return
        except sqlite3.Error as error:
            # Whatever was delivered is remembered; the next look begins anew.
            self._events.limited("outbox_trouble", "error", message=str(error))
        except Exception as error:
            self._services.crashed(error)
        finally:
            self._over(lane)

    async def _sleep(self, lane: _Lane, seconds: float, *, quiet: bool = False) -> None:
        """At most so long; ``drain`` ends it, and ``wake`` unless it is ``quiet``."""
        if self._stopping or (lane.again and not quiet):
            return
        # Never in one piece for longer than an item may live: clocks are set, and one hint may be absurd.
        bounded = min(max(seconds, 0.001), self._worker.rule.max_age_seconds)
        lane.is_quiet = quiet
        lane.sleeper = self._services.loop.create_task(self._services.clock.sleep(bounded))
        try:
            await asyncio.wait([lane.sleeper])
        finally:
            lane.sleeper.cancel()
            lane.sleeper = None

    async def _deliver(self, lane: _Lane, item: Item) -> None:
        if item.id in self._delivered:
            await self._remove(item)
            return
        round_ = await self._round(lane, item)
        if round_.verdict == "later":
            await self._put_off(lane, item, round_)
            return
        lane.failures = 0
        if round_.verdict == "delivered":
            self._delivered.add(item.id)
            self._services.metrics.find(item.upstream).outbox.delivered += 1
            await self._remove(item)
        elif round_.verdict == "dead":
            now = self._services.clock.wall()
            if await self._worker.mark_dead(item.id, round_.reason, round_.status, round_.note, now):
                self._bury_told(item.upstream, item.id, round_.reason, round_.status)

    async def _put_off(self, lane: _Lane, item: Item, round_: _Round) -> None:
        """It waits, at least for its hint; the lane for the policy's backoff, growing with each failure in a row."""
        clock = self._services.clock
        lane.failures += 1
        lane.quiet_until = clock.monotonic() + self._pause_seconds(item, lane.failures)
        tries = item.tries + round_.is_its_own
        pause = round_.hint_seconds + self._pause_seconds(item, tries + 1)
        aside = item.aside or (round_.is_its_own and (tries >= TRIES_BEFORE_ASIDE or pause > HELD_UP_SECONDS))
        lane.after_aside = aside
        due_at = self._services.steady_wall() + pause
        await self._worker.put_off(item.id, round_.note, tries=tries, due_at=due_at, aside=aside)
        if aside and not item.aside:
            self._events.event("outbox_aside", "warning", upstream=item.upstream, stored=item.id, cause=round_.note)

    def _pause_seconds(self, item: Item, number: int) -> float:
        """Before round ``number`` (from 2): the policy's backoff, at least its base."""
        router = self._router()
        destination = router.destinations.get(item.upstream)
        compiled = destination.policy_for(item.method, item.path) if destination is not None else router.default
        rule = compiled.policy.backoff
        backoff = min(backoff_seconds(rule, number, self._services.chance()), LONGEST_PAUSE_SECONDS)
        return max(rule.base_seconds, backoff)

    async def _remove(self, item: Item) -> None:
        await self._worker.remove(item.id)
        self._delivered.discard(item.id)

    def _bury_told(self, upstream: str, item_id: str, reason: str, status: int | None) -> None:
        self._services.metrics.find(upstream).outbox.died += 1
        self._events.event("outbox_dead", "warning", upstream=upstream, stored=item_id, reason=reason, status=status)

    async def _round(self, lane: _Lane, item: Item) -> _Round:
        if self._stopping:
            return _Round("stopped")
        router = self._router()
        target = _address(router, item)
        if target is None:
            return _Round("later", note="its upstream is not configured")
        policy = router.destinations[item.upstream].policy_for(item.method, item.path).policy
        app = NullClient(self._services.loop, _request(item, target, policy.idempotency))
        # Kept at once: a process that is killed in the wait must not forget it.
        app.on_hint = lambda seconds: self._worker.hinted(item.id, self._services.steady_wall() + seconds)
        message = app.request
        if message is None:
            return _Round("dead", "malformed")
        if _is_repeatable(policy, message):
            return await self._sent(lane, app, message, router, is_repeatable=True)
        if item.begun:
            return _Round("dead", str(Reason.NOT_SAFE), note="a send was begun, and nobody knows how it ended")
        await self._worker.begin(item.id)
        if self._stopping:
            await self._worker.unbegin(item.id)
            return _Round("stopped")
        return await self._sent(lane, app, message, router, is_repeatable=False)

    async def _sent(
        self, lane: _Lane, app: NullClient, message: RequestMessage, router: Router, *, is_repeatable: bool
    ) -> _Round:
        """One round on the wire, and what it means."""
        exchange = await self._send(lane, app, message, router)
        try:
            self._told(exchange)
        except Exception as exc:
            self._services.crashed(exc)
        # Whichever of its sends was asked to wait, and wherever a shutdown cut that short.
        hint = max(0.0, exchange.not_before - self._services.clock.monotonic())
        return _judged(exchange, lane.cut, hint, is_repeatable=is_repeatable)

    async def _send(self, lane: _Lane, app: NullClient, message: RequestMessage, router: Router) -> Exchange:
        """One exchange, from its start to its end."""
        over: asyncio.Future[None] = self._services.loop.create_future()

        def ended(exchange: Exchange, cut: bool) -> None:
            if not over.done():
                over.set_result(None)

        exchange = Exchange(self._services, app, message, ended)
        lane.app, lane.exchange, lane.cut = app, exchange, Cut.NOT
        try:
            exchange.start(router)
            await over
        except asyncio.CancelledError:
            exchange.cancel()
            raise
        except Exception as exc:
            self._services.crashed(exc)
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
    keyed = rule is not None and message.method in rule.methods and bool(message.headers.get(rule.header))
    return keyed or message.method in IDEMPOTENT_METHODS or message.method in policy.resend_methods


def _judged(exchange: Exchange, cut: Cut, hint_seconds: float, *, is_repeatable: bool) -> _Round:
    """What an exchange that is over means for its item. ``is_repeatable``: also if nobody knows how it ended."""
    outcome, reason, status, decision = exchange.outcome, exchange.reason, exchange.status, exchange.decision
    attempts = exchange.all_attempts
    failure = attempts[-1].failure if attempts else None
    told = str(failure or status or reason or "")
    answered = attempts[-1].status if attempts else None
    if outcome in (Outcome.OK, Outcome.RECOVERED) or (answered is not None and answered < 400):
        return _Round("delivered")
    if outcome is Outcome.CLIENT_GONE:
        # Cut short by a shutdown; or broken off, anywhere, by a fault of ours.
        was_unsent = cut is Cut.WAITING or (cut is Cut.SENDING and exchange.ended_unsent)
        if is_repeatable or was_unsent:
            return _Round("later", note=told, hint_seconds=hint_seconds, is_its_own=cut is Cut.NOT)
        return _Round("dead", str(Reason.NOT_SAFE), note="a send broke off here, and nobody knows how it ended")
    if _is_for_later(reason, decision):
        was_written = any(attempt.written for attempt in attempts)
        its_own = was_written and (reason in ABOUT_ONE or reason is None)
        return _Round("later", note=told, hint_seconds=hint_seconds, is_its_own=its_own)
    code = status if failure is None and outcome is not Outcome.REJECTED else None
    return _Round("dead", str(reason or outcome), code, told)


def _is_for_later(reason: Reason | None, decision: Decision | None) -> bool:
    if decision is not None and decision.verb is Verb.STORE:
        return True
    if decision is not None and decision.row is not None and decision.row.verb is Verb.LOGIN:
        return (
            reason is not Reason.ATTEMPTS and reason is not None and reason not in FINAL_REASONS
        )  # refused again after a login: it will stay so
    return reason is not None and reason not in FINAL_REASONS
