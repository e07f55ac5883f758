"""The loop: send, judge, let the losing response go, wait, send again; until there is something to hand over.

It acts; ``core.decide`` judges. Nothing is ever sent again that the core has not allowed. What to hand over, and
how, is the exchange's (``exchange``).
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Final, Protocol

from sidecar.core.decide import Decision, decide, holds_others
from sidecar.core.exchange import Attempt, Headers, Now, Pressure, Replay, Request
from sidecar.core.hold import Ticket
from sidecar.core.words import IDEMPOTENT_METHODS, Reason, Verb
from sidecar.observe.record import AttemptRecord
from sidecar.proxy.answering import Kept
from sidecar.proxy.body import Body
from sidecar.proxy.codes import count_code
from sidecar.proxy.front import AppConnection
from sidecar.proxy.holding import Rejected
from sidecar.proxy.looking import decoded
from sidecar.proxy.preparation import Prepared
from sidecar.proxy.sending import Sending
from sidecar.proxy.services import Services
from sidecar.proxy.storing import HELD_BACK, stores_unsent
from sidecar.proxy.verbs import CARRIED_OUT, Verbs
from sidecar.upstream.connection import HELD_BYTES, Connection
from sidecar.wire.heads import RequestMessage, ResponseMessage

__all__ = ["STATUS_TEXT", "Attempts"]

KEEP_SECONDS: Final = 0.5
"""How long a losing response may take to arrive whole, to be handed over in case all retries fail."""

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

    async def pass_on(self, prepared: Prepared, sending: Sending, message: ResponseMessage, number: int) -> None: ...

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
        self._history: tuple[Attempt, ...] = ()
        self._kept: Kept | None = None
        self._verbs: Verbs | None = None
        self._under_way = False
        """Whether an attempt has begun whose end has not been told."""
        self._ticket: Ticket | None = None

    async def until_answered(self, *, sent: bool) -> None:
        """``sent``: the first send is made, and its answer or failure is in ``sending``."""
        self._under_way = sent
        try:
            await self._go_round(sent=sent)
        finally:
            if self._under_way:
                self._prepared.destination.holding.abandon(self._ticket)

    async def _go_round(self, *, sent: bool) -> None:
        prepared, sending, exchange = self._prepared, self._sending, self._exchange
        monotonic = self._services.monotonic
        deadline_at = exchange.started + prepared.deadline_seconds
        attempts = prepared.bound.policy.attempts
        shield = prepared.destination.holding.shield
        waited, wait_from = 0.0, None
        number = 0
        if exchange.body is not None and prepared.credential is not None:
            # A long body that is refused in mid-upload could not be sent again: have the token first.
            await prepared.credential.ready(deadline_at - monotonic())
        while True:
            number += 1
            ticket: Ticket | None = None
            if not sent and not shield.calm:
                try:
                    ticket = await self._turn(number, deadline_at)
                except Rejected as rejected:
                    await self._turned_away(number, rejected)
                    return
            began = monotonic() if number > 1 or ticket is not None else exchange.started
            if not sent:
                await self._send(ticket, number, deadline_at - began, last=number >= attempts)
            sent = False
            ended = monotonic()
            message = sending.message
            status = message.code if message is not None else None
            seconds = ended - began
            exchange.upstream_seconds += seconds
            prepared.destination.meters.attempted(STATUS_TEXT[status] if status else str(sending.failure), seconds)
            exchange.attempts += (
                AttemptRecord(number, status, sending.failure, waited, wait_from, seconds, sending.written),
            )
            if message is not None and prepared.bound.passes[message.code]:
                self._attempt_over(ticket, message, seconds)
                await exchange.pass_on(prepared, sending, message, number)
                return
            decision = await self._judge(message, number, began, ended, waited, deadline_at)
            self._attempt_over(ticket, message, seconds, decision)
            if decision.verb in CARRIED_OUT:
                decision = await self._carry_out(decision, deadline_at)
            if decision.verb is not Verb.RETRY or decision.wait is None:
                if decision.reason in HELD_BACK and self._stores_unsent():
                    decision = Decision(Verb.STORE)
                await exchange.hand_over(prepared, sending, decision, self._history, self._kept)
                return
            waited = await self._let_go_and_wait(decision)
            wait_from = decision.wait.source if waited else None
            if exchange.app.woken:
                exchange.app.woken = False
                stop = Decision(Verb.PASS, Reason.DRAINING)
                await exchange.hand_over(prepared, sending, stop, self._history, self._kept)
                return

    async def _send(self, ticket: Ticket | None, number: int, left_seconds: float, *, last: bool) -> None:
        self._prepared.destination.holding.shield.sends += 1
        self._under_way, self._ticket = True, ticket
        await self._sending.attempt(number, left_seconds, last=last)

    def _attempt_over(
        self, ticket: Ticket | None, message: ResponseMessage | None, seconds: float, decision: Decision | None = None
    ) -> None:
        """Tell those who watch over the upstream, if there is anything to tell."""
        self._under_way = False
        holding = self._prepared.destination.holding
        holding.ended += 1
        if message is None or message.code >= 500 or message.code == 429 or not holding.shield.calm:
            gate_until = None if decision is None else decision.gate_until
            gated = decision is not None and holds_others(decision.row)
            holding.tell(ticket, self._exchange.message, message, seconds, gate_until, gated=gated)

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
        if self._history or stores:
            stop = Decision(Verb.STORE) if stores else Decision(Verb.PASS, rejected.reason)
            await self._exchange.hand_over(self._prepared, self._sending, stop, self._history, self._kept)
        else:
            self._exchange.turn_away(self._prepared, rejected.reason, rejected.retry_after_seconds)

    def _stores_unsent(self) -> bool:
        return stores_unsent(self._services, self._exchange.app, self._prepared, self._facts(0.0))

    async def _carry_out(self, decision: Decision, deadline_at: float) -> Decision:
        """Log in, or look at the state. The response is kept and its connection let go meanwhile, if it is small."""
        await self._keep()
        if self._kept is not None and self._kept.message is self._sending.message:
            self._sending.let_go()
        if self._verbs is None:
            self._verbs = Verbs(self._services, self._prepared, self._exchange.message, deadline_at)
        *earlier, last = self._exchange.attempts
        self._exchange.attempts = (*earlier, replace(last, then=decision.verb))
        decision = await self._verbs.carry_out(decision)
        if self._verbs.answer is not None:
            self._sending.let_go()
            self._kept = self._verbs.answer
        return decision

    async def _judge(
        self,
        message: ResponseMessage | None,
        number: int,
        began: float,
        ended: float,
        waited: float,
        deadline_at: float,
    ) -> Decision:
        prepared, sending = self._prepared, self._sending
        look: bytes | None = None
        connection = sending.connection
        if message is not None and connection is not None and prepared.bound.looks[message.code]:
            look = await self._look(connection, message, deadline_at - ended)
            if connection.failure is not None:
                sending.failure, sending.detail = connection.failure, connection.detail
                message = None
        attempt = Attempt(
            number=number,
            status=message.code if message is not None else None,
            headers=Headers(message.raw_headers) if message is not None else Headers(),
            body=look,
            failure=sending.failure,
            written=sending.written,
            pooled=sending.pooled,
            started_at=began,
            ended_at=ended,
            waited_seconds=waited,
        )
        self._history += (attempt,)
        clock, services = self._services.clock, self._services
        now = Now(clock.monotonic(), clock.wall())
        return decide(
            prepared.bound.policy,
            self._facts(deadline_at),
            self._history,
            now,
            services.chance(),
            self._pressure(now.monotonic),
        )

    async def _look(self, connection: Connection, message: ResponseMessage, left_seconds: float) -> bytes | None:
        """The first 64 KiB of the body, decoded; or what has come of it in time."""
        if not connection.complete:
            seconds = min(self._prepared.bound.policy.timeouts.idle_seconds, max(0.0, left_seconds))
            try:
                async with asyncio.timeout(seconds):
                    await connection.whole(HELD_BYTES)
            except TimeoutError:
                pass
        return decoded(message, b"".join(connection.held))

    def _facts(self, deadline_at: float) -> Request:
        prepared, message = self._prepared, self._exchange.message
        path, _, query = prepared.target.partition("?")
        path = path[len(prepared.destination.base_path) :]
        headers = Headers(message.raw_headers)
        return Request(message.method, path, query, headers, prepared.keyed, deadline_at)

    def _pressure(self, now: float) -> Pressure:
        services = self._services
        return Pressure(
            budget_tokens=self._prepared.destination.purse.tokens(now),
            draining=services.draining,
            switched_off=services.switched_off,
            client_gone=self._exchange.app.is_leaving,
            replay=self._replay(),
        )

    def _replay(self) -> Replay:
        connection, body = self._sending.connection, self._exchange.body
        if self._sending.message is not None and connection is not None and not connection.request_sent:
            # RFC 9112 section 9.3: the answer came before the request was whole; it is the answer.
            return Replay.CONSUMED
        if body is not None and not body.can_be_sent:
            return Replay.TOO_LARGE
        return Replay.HELD

    async def _let_go_and_wait(self, decision: Decision) -> float:
        """The losing response is released first, then the wait. Returns the seconds waited."""
        clock, destination, exchange = self._services.clock, self._prepared.destination, self._exchange
        meters = destination.meters
        begun = clock.monotonic()
        attempt = self._history[-1]
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
        if connection.complete:
            self._kept = Kept(connection.message, b"".join(connection.held), connection.length)
            count_code(self._prepared, connection.message, self._kept.body)
        return dawdles
