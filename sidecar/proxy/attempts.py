"""The loop: send, judge, let the losing response go, wait, send again; until there is something to hand over.

It acts; ``core.decide`` judges. Nothing is ever sent again that the core has not allowed. What to hand over, and
how, is the exchange's (``exchange``).
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from operator import attrgetter
from typing import Final, Protocol

from sidecar.core.decide import Decision, holds_others
from sidecar.core.exchange import Attempt
from sidecar.core.flow.queue import Ticket
from sidecar.core.hedge import COST, may_hedge, settles
from sidecar.core.words import IDEMPOTENT_METHODS, HedgeEnd, Reason, Verb
from sidecar.observe.record import AttemptRecord
from sidecar.proxy.answering import Kept
from sidecar.proxy.body import Body
from sidecar.proxy.codes import count_code
from sidecar.proxy.front import AppConnection
from sidecar.proxy.hedging import Hedging, hedging_of
from sidecar.proxy.holding import Rejected
from sidecar.proxy.judging import Judging
from sidecar.proxy.preparation import Prepared
from sidecar.proxy.sending import Sending, Sent
from sidecar.proxy.services import Services
from sidecar.proxy.storing import HELD_BACK, stores_unsent
from sidecar.proxy.verbs import CARRIED_OUT, Verbs
from sidecar.upstream.connection import HELD_BYTES, Connection
from sidecar.wire.heads import RequestMessage, ResponseMessage

__all__ = ["STATUS_TEXT", "Attempts"]

KEEP_SECONDS: Final = 0.5
"""How long a losing response may take to arrive whole, to be handed over in case all retries fail."""

_number: Final = attrgetter("number")

STATUS_TEXT: Final = tuple(str(status) for status in range(1000))


class Story(Protocol):
    """The exchange, as far as the loop writes it on."""

    app: AppConnection
    message: RequestMessage
    body: Body | None
    payload: bytes
    started: float
    upstream_seconds: float
    waited_seconds: float
    attempts: tuple[AttemptRecord, ...]
    is_hedged: bool

    async def pass_on(self, prepared: Prepared, sending: Sending, number: int) -> None: ...

    def turn_away(self, prepared: Prepared, reason: Reason, retry_after_seconds: float) -> None: ...

    async def hand_over(
        self, prepared: Prepared, sending: Sending, decision: Decision, history: tuple[Attempt, ...], kept: Kept | None
    ) -> None: ...


class Attempts:
    """All sends of one exchange."""

    def __init__(self, services: Services, exchange: Story, prepared: Prepared, sending: Sending) -> None:
        self._services = services
        self._exchange = exchange
        self._prepared = prepared
        self._sending = sending
        """The send that came back last: the loop judges it, and the app gets its answer."""
        self._judging = Judging(services, exchange.app, exchange.message, exchange.body, prepared)
        self._kept: Kept | None = None
        self._verbs: Verbs | None = None
        self._under_way: list[Sent] = []
        """What has begun, and whose end has not been told."""
        self._sends = 0
        self._last = 0
        """The number of the one that came back last."""
        self._accounted_at = 0.0
        """Until when the time of the sends is counted: two beside each other take no more time than one."""
        self._hedging: Hedging | None = None
        if prepared.bound.policy.hedge is not None:
            self._hedging = hedging_of(services.loop, exchange.app, exchange.message.method, prepared, sending)

    async def until_answered(self, *, sent: bool) -> None:
        """``sent``: the first send is made, and its answer or failure is in ``sending``."""
        try:
            await self._go_round(sent=sent)
        finally:
            for each in self._under_way:
                self._prepared.destination.holding.abandon(each.ticket)
            if self._hedging is not None and self._hedging.close():
                self._prepared.destination.meters.hedged(HedgeEnd.ABANDONED)

    async def _go_round(self, *, sent: bool) -> None:
        prepared, exchange = self._prepared, self._exchange
        monotonic = self._services.monotonic
        deadline_at = exchange.started + prepared.deadline_seconds
        limiter = prepared.destination.holding.limiter
        waited, wait_from = 0.0, None
        if exchange.body is not None and prepared.credential is not None:
            # A long body that is refused in mid-upload could not be sent again: have the token first.
            await prepared.credential.ready(deadline_at - monotonic())
        while True:
            number = self._sends + 1
            ticket: Ticket | None = None
            if not sent and not limiter.calm:
                try:
                    ticket = await self._turn(number, deadline_at)
                except Rejected as rejected:
                    await self._turned_away(number, rejected)
                    return
            began = monotonic() if number > 1 or ticket is not None else exchange.started
            back = Sent(number, self._sending, began, ticket, waited, wait_from)
            self._accounted_at = began
            self._begun(back)
            if not sent:
                limiter.sends += 1
                back = await self._send(back, deadline_at)
            sent = False
            decision = await self._came_back(back, deadline_at)
            if self._hedging is not None and self._hedging.second is not None and number == 1:
                decision = await self._race(self._hedging, back, decision, deadline_at)
            if decision is None:
                await exchange.pass_on(prepared, self._sending, self._sends)
                return
            if decision.verb in CARRIED_OUT:
                decision = await self._carry_out(decision, deadline_at)
            if decision.verb is not Verb.RETRY or decision.wait is None:
                if decision.reason in HELD_BACK and self._stores_unsent():
                    decision = Decision(Verb.STORE)
                await exchange.hand_over(prepared, self._sending, decision, self._judging.history, self._kept)
                return
            waited = await self._let_go_and_wait(decision)
            wait_from = decision.wait.source if waited else None
            if exchange.app.woken:
                exchange.app.woken = False
                stop = Decision(Verb.PASS, Reason.DRAINING)
                await exchange.hand_over(prepared, self._sending, stop, self._judging.history, self._kept)
                return

    # -- one send, or two beside each other --------------------------------------------------------------

    def _begun(self, sent: Sent) -> None:
        self._sends = sent.number
        self._under_way.append(sent)

    async def _send(self, first: Sent, deadline_at: float) -> Sent:
        """Make it, and wait for what comes of it; or of a second one, where the policy hedges and it is slow."""
        hedging, attempts = self._hedging, self._prepared.bound.policy.attempts
        number, monotonic = first.number, self._services.monotonic
        attempt = first.sending.attempt(number, deadline_at - first.began, last=number >= attempts)
        after: float | None = None
        if hedging is not None and number == 1 and first.ticket is None:
            after = hedging.after(monotonic(), deadline_at)
        if hedging is None or after is None:
            await attempt
            return first
        hedging.begin(first, attempt)
        back = await hedging.back(after)
        if back is None and self._may_hedge(hedging, first, deadline_at):
            destination = self._prepared.destination
            destination.purse.pay(COST)
            second = Sent(number + 1, first.sending.twin(), monotonic(), is_hedge=True)
            self._begun(second)
            destination.holding.limiter.sends += 1
            self._exchange.is_hedged = True
            left = deadline_at - second.began
            hedging.begin(second, second.sending.attempt(second.number, left, last=second.number >= attempts))
        return back or await hedging.next()

    def _may_hedge(self, hedging: Hedging, first: Sent, deadline_at: float) -> bool:
        if not hedging.has_way(first.sending, self._exchange.body):
            return False
        now = self._services.monotonic()
        pressure = self._judging.pressure(now, first.sending)
        return may_hedge(pressure, deadline_at - now, calm=self._prepared.destination.holding.limiter.calm)

    async def _race(
        self, hedging: Hedging, back: Sent, decision: Decision | None, deadline_at: float
    ) -> Decision | None:
        """Two are under way, and one has come back: wait for the other if need be, and cut it if not."""
        settled = decision is None or settles(decision, self._judging.history[-1])
        if not settled and hedging.is_under_way:
            hedging.aside, back = back, await hedging.next()
            decision = await self._came_back(back, deadline_at)
            settled = decision is None or settles(decision, self._judging.history[-1])
        meters, now = self._prepared.destination.meters, self._services.monotonic()
        for cut in hedging.cut():
            self._under_way.remove(cut)
            self._prepared.destination.holding.abandon(cut.ticket)
            seconds, written = now - cut.began, cut.sending.written
            self._note(
                AttemptRecord(cut.number, duration_seconds=seconds, written=written, hedge=cut.is_hedge, cancelled=True)
            )
            meters.cancelled()
            if not cut.is_hedge:
                hedging.learn(seconds, None, None)
        aside = hedging.aside
        if aside is not None:
            self._keep_whole(aside.sending.connection)
            aside.sending.let_go()
        hedging.is_over = True
        meters.hedged(HedgeEnd.FAILED if not settled else HedgeEnd.WON if back.is_hedge else HedgeEnd.LOST)
        return decision

    async def _came_back(self, sent: Sent, deadline_at: float) -> Decision | None:
        """Write down what came of a send, and judge it; None: its answer goes to the app without a judgement."""
        exchange, sending = self._exchange, sent.sending
        self._sending, self._last = sending, sent.number
        ended = self._services.monotonic()
        message, failure = sending.message, sending.failure
        status = message.code if message is not None else None
        seconds = ended - sent.began
        exchange.upstream_seconds += ended - self._accounted_at
        self._accounted_at = ended
        self._prepared.destination.meters.attempted(STATUS_TEXT[status] if status else str(failure), seconds)
        wait = (sent.waited_seconds, sent.wait_from)
        self._note(AttemptRecord(sent.number, status, failure, *wait, seconds, sending.written, hedge=sent.is_hedge))
        if self._hedging is not None and sent.number == 1:
            self._hedging.learn(seconds, status, failure)
        if message is not None and self._prepared.bound.passes[message.code]:
            self._attempt_over(sent, message, seconds)
            return None
        decision = await self._judging.judge(sent, ended, deadline_at)
        self._attempt_over(sent, message, seconds, decision)
        return decision

    def _note(self, record: AttemptRecord) -> None:
        """In the order in which they were sent, which may not be that in which they came back."""
        attempts = (*self._exchange.attempts, record)
        self._exchange.attempts = tuple(sorted(attempts, key=_number)) if self._exchange.is_hedged else attempts

    def _attempt_over(
        self, sent: Sent, message: ResponseMessage | None, seconds: float, decision: Decision | None = None
    ) -> None:
        """Tell those who watch over the upstream, if there is anything to tell."""
        self._under_way.remove(sent)
        holding = self._prepared.destination.holding
        holding.ended += 1
        if message is None or message.code >= 500 or message.code == 429 or not holding.limiter.calm:
            gate_until = None if decision is None else decision.gate_until
            gated = decision is not None and holds_others(decision.row)
            holding.tell(sent.ticket, self._exchange.message, message, seconds, gate_until, gated=gated)

    async def _turn(self, number: int, deadline_at: float) -> Ticket:
        """Wait until the upstream can take another attempt. Raises ``Rejected``."""
        exchange, app = self._exchange, self._exchange.app
        body = exchange.body
        size_bytes = len(exchange.payload) if body is None else body.memory_bytes
        repeatable = exchange.message.method in IDEMPOTENT_METHODS or self._prepared.keyed
        monotonic = self._services.monotonic
        begun = monotonic()
        app.waiting = True
        try:
            return await self._prepared.destination.holding.admitted(
                exchange.message, number, deadline_at, repeatable=repeatable, size_bytes=size_bytes
            )
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not app.woken or app.transport is None or task is None or task.uncancel() > 0:
                raise
            app.woken = False
            raise Rejected(Reason.DRAINING, 0.0) from None
        finally:
            app.waiting = False
            exchange.waited_seconds += monotonic() - begun

    async def _turned_away(self, number: int, rejected: Rejected) -> None:
        """Not sent (again). Before the first send the answer is ours, after it there is one to hand over."""
        stores = self._stores_unsent()
        if self._judging.history or stores:
            stop = Decision(Verb.STORE) if stores else Decision(Verb.PASS, rejected.reason)
            await self._exchange.hand_over(self._prepared, self._sending, stop, self._judging.history, self._kept)
        else:
            self._exchange.turn_away(self._prepared, rejected.reason, rejected.retry_after_seconds)

    def _stores_unsent(self) -> bool:
        return stores_unsent(self._services, self._exchange.app, self._prepared, self._judging.facts(0.0))

    async def _carry_out(self, decision: Decision, deadline_at: float) -> Decision:
        """Log in, or look at the state. The response is kept and its connection let go meanwhile, if it is small."""
        await self._keep()
        if self._kept is not None and self._kept.message is self._sending.message:
            self._sending.let_go()
        if self._verbs is None:
            self._verbs = Verbs(self._services, self._prepared, self._exchange.message, deadline_at)
        self._exchange.attempts = tuple(
            replace(each, then=decision.verb) if each.number == self._last else each for each in self._exchange.attempts
        )
        decision = await self._verbs.carry_out(decision)
        if self._verbs.answer is not None:
            self._sending.let_go()
            self._kept = self._verbs.answer
        return decision

    async def _let_go_and_wait(self, decision: Decision) -> float:
        """The losing response is released first, then the wait. Returns the seconds waited."""
        clock, destination, exchange = self._services.clock, self._prepared.destination, self._exchange
        meters = destination.meters
        begun = clock.monotonic()
        attempt = self._judging.history[-1]
        destination.purse.pay(decision.cost)
        meters.retried(STATUS_TEXT[attempt.status] if attempt.status is not None else str(attempt.failure))
        dawdled = await self._keep()
        self._sending.let_go()
        wait = decision.wait
        if wait is None or wait.seconds <= 0:
            return 0.0
        # It counts from the judgement on: what the losing answer took to arrive is part of it.
        left = begun + wait.seconds - clock.monotonic() if dawdled else wait.seconds
        app = exchange.app
        app.waiting = True
        meters.held["wait"] += 1
        try:
            # A timer may ring a little early (uvloop counts in milliseconds); a hint must not be undercut.
            while left > 0:
                await clock.sleep(max(left, 0.001))
                left = begun + wait.seconds - clock.monotonic()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not app.woken or app.transport is None or task is None or task.uncancel() > 0:
                raise
        finally:
            app.waiting = False
            meters.held["wait"] -= 1
            waited = clock.monotonic() - begun
            exchange.waited_seconds += waited
            meters.waited(wait.source, waited)
        return waited

    async def _keep(self) -> bool:
        """Hold on to a losing response, if it is small and comes quickly: it may be the last one there is.

        Returns whether it took time.
        """
        connection = self._sending.connection
        if connection is None or connection.message is None or connection.failure is not None:
            return False
        dawdles = not connection.complete
        if dawdles:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KEEP_SECONDS):
                    await connection.whole(HELD_BYTES)
        self._keep_whole(connection)
        return dawdles

    def _keep_whole(self, connection: Connection | None) -> None:
        if connection is not None and connection.message is not None and connection.complete:
            self._kept = Kept(connection.message, b"".join(connection.held), connection.length)
            count_code(self._prepared, connection.message, self._kept.body)
