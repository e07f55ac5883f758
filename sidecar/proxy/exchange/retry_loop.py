"""The loop: send, judge, release the losing response, wait, send again, until there is something to hand over.

It acts; ``core.decide`` judges. Nothing is sent again that the core has not allowed. Counterpart: ``exchange``, which
hands over the result.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from operator import attrgetter
from typing import Any, Final, Protocol

from sidecar.core.decision.attempt import Attempt
from sidecar.core.decision.decide import LEAST_ATTEMPT_SECONDS, Decision, concerns_others
from sidecar.core.decision.hedge import COST, may_hedge, outlast, settles
from sidecar.core.enums import IDEMPOTENT_METHODS, HedgeEnd, Reason, Verb
from sidecar.core.flow.queue import Ticket
from sidecar.observe.record import AttemptRecord, HeldRecord
from sidecar.proxy.client.body import Body
from sidecar.proxy.client.connection import ClientConnection
from sidecar.proxy.exchange.actions import CARRIED_OUT, Actions
from sidecar.proxy.exchange.context import Services
from sidecar.proxy.exchange.facts import Facts
from sidecar.proxy.exchange.hedge import Hedging, hedging_of
from sidecar.proxy.exchange.prepare import Prepared
from sidecar.proxy.exchange.respond import BufferedResponse, count_error_code
from sidecar.proxy.exchange.send import InFlight, Send
from sidecar.proxy.exchange.state import Pause
from sidecar.proxy.exchange.store import HELD_BACK, stores_unsent
from sidecar.proxy.routing.limiter import Rejected
from sidecar.upstream.connection import HELD_BYTES, Connection
from sidecar.wire.heads import RequestMessage, ResponseMessage

__all__ = ["STATUS_TEXT", "RetryLoop"]

KEEP_SECONDS: Final = 0.5
"""Seconds for a losing response to arrive whole; it is kept to be handed over if all retries fail."""
LEAST_LEFT_SECONDS: Final = LEAST_ATTEMPT_SECONDS / 2
"""Seconds of the deadline that a retry needs at the moment of its send. It is half of what the decision before the wait
asked for, because timers fire late by milliseconds.
"""

LEAST_STOOD_SECONDS: Final = 0.0005
"""Seconds below which a login or a reread was answered from memory and is not recorded as a wait."""

_number: Final = attrgetter("number")

STATUS_TEXT: Final = tuple(str(status) for status in range(1000))


class ExchangeView(Protocol):
    """The exchange, as the loop sees it."""

    app: ClientConnection
    state: int
    message: RequestMessage
    body: Body | None
    payload: bytes
    started: float
    upstream_seconds: float
    waited_seconds: float
    held: tuple[HeldRecord, ...]
    attempts: tuple[AttemptRecord, ...]
    is_hedged: bool
    shadowed: Decision | None
    not_before: float

    def stood(self, by: str, seconds: float, scope: str = "") -> None: ...

    def has_under_way(self, token: object) -> bool: ...

    async def pass_on(self, prepared: Prepared, sending: Send, number: int) -> None: ...

    def turn_away(self, prepared: Prepared, reason: Reason, retry_after_seconds: float) -> None: ...

    async def hand_over(
        self,
        prepared: Prepared,
        sending: Send,
        decision: Decision,
        history: tuple[Attempt, ...],
        buffered: BufferedResponse | None,
    ) -> None: ...


class RetryLoop:
    """All sends of one exchange. Its creator calls ``close``, however ``run`` ended: its task may have been cancelled
    before its first step.
    """

    def __init__(
        self, services: Services, exchange: ExchangeView, prepared: Prepared, sending: Send, *, is_sent: bool
    ) -> None:
        """``is_sent``: the exchange has made the first send, and its response or failure is in ``sending``."""
        self._services = services
        self._exchange = exchange
        self._prepared = prepared
        self._sending = sending
        """The send that came back last: it is judged, and the app gets its response."""
        self._deadline_at = exchange.started + prepared.deadline_seconds
        self._facts = Facts(services, exchange.app, exchange.message, exchange.body, prepared)
        self._buffered: BufferedResponse | None = None
        self._kept_at = 0
        """How many sends had come back when the buffered one did."""
        self._actions: Actions | None = None
        self._adopted: InFlight | None = None
        """The first send, where the exchange itself made it."""
        self._under_way: list[InFlight] = []
        """Sends that have begun and whose end has not been recorded."""
        self._sends = 0
        self._last = 0
        """The number of the send that came back last."""
        self._uncounted = 0
        """Sends that do not count toward the policy's limit."""
        self._paid = 0.0
        """Tokens paid for a send that has not been made yet."""
        self._spent = 0.0
        """Budget tokens paid for all sends after the first."""
        self._cause = ""
        """Why that send is made: a status code or a failure."""
        self._accounted_at = 0.0
        """Monotonic seconds up to which the time of the sends is counted: two beside each other take no more time than
        one.
        """
        self._hedging: Hedging | None = None
        if prepared.compiled.policy.hedge is not None:
            self._hedging = hedging_of(services.loop, exchange.app, exchange.message.method, prepared, sending)
        if is_sent:
            self._adopted = InFlight(1, sending, exchange.started, maker=exchange)
            self._begun(self._adopted)

    @property
    def is_unsent(self) -> bool:
        """Whether nothing is on the wire: no send has begun, or the one under way is still connecting."""
        if self._under_way:
            return not any(sent.sending.written for sent in self._under_way)
        return self._sends == 0

    def has_under_way(self, token: object) -> bool:
        """Whether ``token`` stands for a send of this exchange that has begun and not ended (``Limiter.lent``)."""
        return any(sent.token is token for sent in self._under_way)

    def close(self) -> None:
        """The exchange is over: end every send under way, and give back what was paid for a send that was not made."""
        destination = self._prepared.destination
        under_way, self._under_way = self._under_way, []
        for sent in under_way:
            destination.holding.abandon(sent.token)
            self._queued(sent.sending)
        if self._hedging is not None and self._hedging.close():
            destination.meters.hedged(HedgeEnd.ABANDONED)
        if self._paid:
            destination.budget.give_back(self._paid)
            self._paid = 0.0

    async def run(self) -> None:
        """Send and judge until there is something to hand over, then hand it over."""
        prepared, exchange = self._prepared, self._exchange
        if exchange.body is not None and prepared.credential is not None:
            # A long body that is refused in mid-upload could not be sent again: have the token first.
            begun = self._services.monotonic()
            try:
                await prepared.credential.ready(self._left_seconds())
            finally:
                self._stood_since(begun, Verb.LOGIN)
        back = self._adopted
        decision: Decision | None = None
        while True:
            if back is None:
                try:
                    back = await self._send_after(decision)
                except Rejected as rejected:
                    await self._turned_away(rejected)
                    return
            decision = await self._came_back(back)
            if self._hedging is not None and self._hedging.second is not None and back.number <= 2:
                decision = await self._race(self._hedging, back, decision)
            if decision is None:
                await exchange.pass_on(prepared, self._sending, self._sends)
                return
            if decision.verb in CARRIED_OUT:
                decision = await self._carry_out(decision)
            if decision.verb is not Verb.RETRY or decision.wait is None:
                if decision.reason in HELD_BACK and self._stores_unsent():
                    decision = Decision(Verb.STORE)
                await self._hand_over(decision)
                return
            back = None

    def _left_seconds(self) -> float:
        return self._deadline_at - self._services.monotonic()

    def _stood_since(self, begun: float, by: str) -> None:
        seconds = self._services.monotonic() - begun
        if seconds >= LEAST_STOOD_SECONDS:
            self._exchange.stood(by, seconds)

    def _queued(self, sending: Send) -> None:
        """Count the wait for a pooled connection apart: it is no time of the upstream's."""
        seconds, sending.queued_seconds = sending.queued_seconds, 0.0
        if seconds:
            self._exchange.stood("connection", seconds)
            self._exchange.upstream_seconds -= min(seconds, self._exchange.upstream_seconds)

    async def _hand_over(self, decision: Decision) -> None:
        await self._exchange.hand_over(
            self._prepared, self._sending, decision, self._facts.history, self._last_response()
        )

    def _last_response(self) -> BufferedResponse | None:
        """What is handed over where the last send got no response. No earlier response if a later send may have been
        applied: the app would take it as final, and act on it.
        """
        later = self._facts.history[self._kept_at :]
        return self._buffered if all(self._facts.is_harmless(attempt) for attempt in later) else None

    # -- one send, or two beside each other --------------------------------------------------------------

    async def _send_after(self, decision: Decision | None) -> InFlight:
        """The next send, after the wait that was decided on. Raises ``Rejected`` if it may not be sent."""
        waited = 0.0 if decision is None else await self._let_go_and_wait(decision)
        wait_from = decision.wait.source if decision is not None and decision.wait is not None and waited else None
        number, destination = self._sends + 1, self._prepared.destination
        ticket = None if destination.holding.limiter.calm else await self._admit(number)
        objection = self._objection(number, destination.name, has_waited=waited > 0)
        if objection is not None:
            if ticket is not None:
                destination.holding.abandon(ticket)
            raise Rejected(objection, 0.0)
        began = self._exchange.started if number == 1 and ticket is None else self._services.monotonic()
        sent = InFlight(number, self._sending, began, ticket, waited, wait_from, borrower=self._exchange)
        if wait_from is not None:  # it is recorded with the attempt that it led to
            exchange = self._exchange
            exchange.held = tuple(hold for hold in exchange.held if hold.before != number or hold.by != wait_from)
        self._begun(sent)
        return await self._send(sent)

    def _objection(self, number: int, upstream: str, *, has_waited: bool) -> Reason | None:
        """Check again right before a send, whatever was waited for, and however late its timer fired."""
        if self._left_seconds() < (LEAST_LEFT_SECONDS if number > 1 else 0.0):
            return Reason.DEADLINE
        if has_waited and self._services.retry_switch.is_off(upstream, self._services.monotonic()):
            return Reason.SWITCHED_OFF
        return None

    def _begun(self, sent: InFlight) -> None:
        """Register a send as under way until it comes back or is abandoned (``close``)."""
        limiter, first = self._prepared.destination.holding.limiter, not self._under_way
        self._sends = sent.number
        self._under_way.append(sent)
        limiter.lent.add(sent.token)
        if sent.maker is None:
            limiter.sends += 1
        if first:
            self._accounted_at = sent.began
        self._paid = 0.0
        if self._cause:
            self._prepared.destination.meters.retried(self._cause)
            self._cause = ""

    async def _send(self, first: InFlight) -> InFlight:
        """Make a send and wait for its result; where the policy hedges and it is slow, for that of a second one,
        too.
        """
        hedging, attempts = self._hedging, self._prepared.compiled.policy.attempts + self._uncounted
        number, monotonic = first.number, self._services.monotonic
        attempt = first.sending.attempt(number, self._deadline_at - first.began, last=number >= attempts)
        after: float | None = None
        if hedging is not None and number == 1 and first.ticket is None:
            after = hedging.after(monotonic(), self._deadline_at)
        if hedging is None or after is None:
            await attempt
            return first
        hedging.begin(first, attempt)
        back = await hedging.back(after)
        if back is None and self._may_hedge(hedging, first):
            destination = self._prepared.destination
            destination.budget.pay(COST)
            twin = first.sending.twin()
            second = InFlight(number + 1, twin, monotonic(), is_hedge=True, borrower=self._exchange)
            self._begun(second)
            self._exchange.is_hedged = True
            left = self._deadline_at - second.began
            hedging.begin(second, second.sending.attempt(second.number, left, last=second.number >= attempts))
        return back or await hedging.next()

    def _may_hedge(self, hedging: Hedging, first: InFlight) -> bool:
        if not hedging.has_way(first.sending, self._exchange.body):
            return False
        now = self._services.monotonic()
        pressure = self._facts.pressure(now, first.sending)
        return may_hedge(pressure, self._deadline_at - now, calm=self._prepared.destination.holding.limiter.calm)

    async def _race(self, hedging: Hedging, back: InFlight, decision: Decision | None) -> Decision | None:
        """Two sends are under way and one has come back: wait for the other if need be, else cut it."""
        settled = decision is None or settles(decision, self._facts.history[-1])
        if not settled and hedging.is_under_way:
            earlier, judged_at, came_at = decision, self._services.monotonic(), len(self._facts.history)
            hedging.aside, back = back, await hedging.next()
            decision = await self._came_back(back)
            settled = decision is None or settles(decision, self._facts.history[-1])
            self._keep_whole(hedging.aside.sending.connection, came_at)
            hedging.aside.sending.let_go()
            if decision is not None and earlier is not None and not settled:
                elapsed = self._services.monotonic() - judged_at
                decision = outlast(decision, earlier, elapsed, self._left_seconds() - LEAST_ATTEMPT_SECONDS)
                if decision is earlier and self._kept_at == came_at:
                    # The earlier response is what forbids another send: hand over that one.
                    back.sending.let_go()
        meters, now = self._prepared.destination.meters, self._services.monotonic()
        for cut in hedging.cut():
            self._under_way.remove(cut)
            self._prepared.destination.holding.abandon(cut.token)
            seconds, written = now - cut.began, cut.sending.written
            self._note(
                AttemptRecord(
                    cut.number,
                    duration_seconds=seconds,
                    written=written,
                    hedge=cut.is_hedge,
                    began_seconds=cut.began - self._exchange.started,
                    cancelled=True,
                )
            )
            meters.cancelled()
            if not cut.is_hedge:
                hedging.learn(seconds, None, None)
        hedging.is_over = True
        meters.hedged(HedgeEnd.FAILED if not settled else HedgeEnd.WON if back.is_hedge else HedgeEnd.LOST)
        return decision

    async def _came_back(self, sent: InFlight) -> Decision | None:
        """Record the result of a send, and judge it; None: its response goes to the app without a judgement."""
        exchange, sending = self._exchange, sent.sending
        sending.settle()  # since the head came, its body may have broken off: nothing of it has reached the app yet
        self._sending, self._last = sending, sent.number
        ended = self._services.monotonic()
        message, failure = sending.message, sending.failure
        status = message.code if message is not None else None
        seconds = ended - sent.began
        exchange.upstream_seconds += ended - self._accounted_at
        self._accounted_at = ended
        self._queued(sending)
        self._prepared.destination.meters.attempted(STATUS_TEXT[status] if status else str(failure), seconds)
        wait = (sent.waited_seconds, sent.wait_from)
        began = sent.began - exchange.started
        self._note(
            AttemptRecord(
                sent.number,
                status,
                failure,
                *wait,
                seconds,
                sending.written,
                hedge=sent.is_hedge,
                began_seconds=began,
            )
        )
        if self._hedging is not None and sent.number == 1:
            self._hedging.learn(seconds, status, failure)
        compiled = self._prepared.compiled
        if message is not None and compiled.hands_over[message.code]:
            if not compiled.passes[message.code] and sending.connection is not None:
                shadow = self._facts.shadow_of_passed(
                    sending.connection, message, sent.number, sent.began, exchange.started
                )
                self._note_shadow(sent.number, shadow)
            if self._spent and message.code < 400:
                self._prepared.destination.budget.give_back(self._spent)  # the retries were not in vain
                self._spent = 0.0
            self._attempt_over(sent, message, seconds)
            return None
        decision = await self._facts.judge(sent, ended, self._deadline_at)
        if decision.hint_seconds:
            # A hint binds every later send of this request, also one from the outbox.
            exchange.not_before = max(exchange.not_before, ended + decision.hint_seconds)
            exchange.app.hinted(exchange.not_before - ended)
        self._uncounted += decision.uncounted
        self._retell(sent.number, decision=decision, body_unread=self._facts.unread)
        if compiled.shadow is not None:
            self._note_shadow(sent.number, self._facts.shadow)
        self._attempt_over(sent, message, seconds, decision)
        return decision

    def _note(self, record: AttemptRecord) -> None:
        """Insert by the order of sending, which may differ from that of coming back."""
        attempts = (*self._exchange.attempts, record)
        self._exchange.attempts = tuple(sorted(attempts, key=_number)) if self._exchange.is_hedged else attempts

    def _retell(self, number: int, **facts: Any) -> None:
        """Add to the record of attempt ``number`` what was learnt after it came back."""
        self._exchange.attempts = tuple(
            replace(each, **facts) if each.number == number else each for each in self._exchange.attempts
        )

    def _note_shadow(self, number: int, shadow: Decision | None) -> None:
        """Record that the shadow policy would have done something else."""
        if shadow is not None:
            self._exchange.shadowed = shadow
            self._retell(number, shadow=shadow)

    def _attempt_over(
        self, sent: InFlight, message: ResponseMessage | None, seconds: float, decision: Decision | None = None
    ) -> None:
        """Tell the limiter and the metrics how an attempt ended."""
        self._under_way.remove(sent)
        holding = self._prepared.destination.holding
        if decision is not None and decision.uncounted:
            holding.abandon(sent.token)
            return
        holding.limiter.lent.discard(sent.token)
        if message is None or message.code >= 500 or message.code == 429 or not holding.limiter.calm:
            gate_until = None if decision is None else decision.gate_until
            gated = decision is not None and concerns_others(decision)
            holding.tell(
                sent.ticket, self._exchange.message, message, seconds, gate_until, gated=gated, number=sent.number
            )

    async def _admit(self, number: int) -> Ticket:
        """Wait until the limiter admits attempt ``number``. Raises ``Rejected``."""
        exchange = self._exchange
        body = exchange.body
        size_bytes = len(exchange.payload) if body is None else body.memory_bytes
        repeatable = exchange.message.method in IDEMPOTENT_METHODS or self._prepared.keyed
        with Pause(exchange):
            return await self._prepared.destination.holding.admitted(
                exchange.message,
                number,
                exchange.started,
                self._deadline_at,
                self._prepared.compiled.policy,
                repeatable=repeatable,
                size_bytes=size_bytes,
                stood=exchange.stood,
                borrower=exchange,
            )

    async def _turned_away(self, rejected: Rejected) -> None:
        """Not sent (again). Before the first send the response is our own; after it the last one is handed over."""
        stores = self._stores_unsent()
        if self._facts.history or stores:
            await self._hand_over(Decision(Verb.STORE) if stores else Decision(Verb.PASS, rejected.reason))
        else:
            self._exchange.turn_away(self._prepared, rejected.reason, rejected.retry_after_seconds)

    def _stores_unsent(self) -> bool:
        return stores_unsent(self._services, self._exchange.app, self._prepared, self._facts.facts(0.0))

    async def _carry_out(self, decision: Decision) -> Decision:
        """Carry out a login or a reread. A small response is buffered and its connection released meanwhile."""
        await self._keep()
        if self._buffered is not None and self._buffered.message is self._sending.message:
            self._sending.let_go()
        if self._actions is None:
            self._actions = Actions(self._services, self._prepared, self._exchange.message, self._deadline_at)
        self._retell(self._last, then=decision.verb)
        verb, begun = decision.verb, self._services.monotonic()
        try:
            decision = await self._actions.carry_out(decision)
        finally:
            self._stood_since(begun, verb)
        if self._actions.answer is not None:
            self._sending.let_go()
            self._buffered, self._kept_at = self._actions.answer, len(self._facts.history)
        return decision

    async def _let_go_and_wait(self, decision: Decision) -> float:
        """Release the losing response, then wait. Returns the seconds waited."""
        clock, destination, exchange = self._services.clock, self._prepared.destination, self._exchange
        meters = destination.meters
        begun = clock.monotonic()
        attempt = self._facts.history[-1]
        destination.budget.pay(decision.cost)
        self._paid = decision.cost
        self._spent += decision.cost
        self._cause = STATUS_TEXT[attempt.status] if attempt.status is not None else str(attempt.failure)
        took_time = await self._keep()
        self._sending.let_go()
        wait = decision.wait
        if wait is None or wait.seconds <= 0:
            return 0.0
        exchange.not_before = max(exchange.not_before, begun + wait.seconds)
        # The wait counts from the judgement on, so the time in which the losing response arrived is part of it.
        left = begun + wait.seconds - clock.monotonic() if took_time else wait.seconds
        waited = 0.0
        meters.held["wait"] += 1
        try:
            with Pause(exchange):
                # A timer may fire a little early (uvloop counts in milliseconds), and a hint must not be undercut.
                while left > 0:
                    await clock.sleep(max(left, 0.001))
                    left = begun + wait.seconds - clock.monotonic()
        finally:
            meters.held["wait"] -= 1
            waited = clock.monotonic() - begun
            exchange.stood(wait.source, waited)
        return waited

    async def _keep(self) -> bool:
        """Buffer a losing response if it is small and arrives within ``KEEP_SECONDS``: it may be the last one.

        Returns whether that took time.
        """
        connection = self._sending.connection
        if connection is None or connection.message is None or connection.failure is not None:
            return False
        dawdles = not connection.complete
        if dawdles:
            # Half of the time that is left belongs to the next attempt.
            seconds = min(KEEP_SECONDS, max(0.0, self._left_seconds() / 2))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await connection.whole(HELD_BYTES)
        self._keep_whole(connection, len(self._facts.history))
        return dawdles

    def _keep_whole(self, connection: Connection | None, came_at: int) -> None:
        """Buffer a whole response. ``came_at``: how many sends had come back when this one did."""
        if connection is not None and connection.message is not None and connection.complete:
            self._buffered, self._kept_at = (
                BufferedResponse(connection.message, b"".join(connection.held), connection.length),
                came_at,
            )
            count_error_code(self._prepared, connection.message, self._buffered.body)
