"""The loop: one request of the app, with all its sends, until its answer.

It acts; ``core.decide`` judges. Send → head or failure → judge → let the losing response go → wait → again;
then hand over. What needs no judgement (``Bound.passes``) goes straight through, and costs nothing that a
plain proxy would not pay. Nothing is ever sent again that the core has not allowed.
"""

from __future__ import annotations

import asyncio
from typing import Final

from sidecar.core.decide import Decision, decide, outcome_of
from sidecar.core.exchange import Attempt, Headers, Now, Pressure, Replay, Request
from sidecar.core.words import Outcome, Reason, Verb
from sidecar.observe.record import AttemptRecord
from sidecar.proxy.answering import Kept, answer_head, give_kept, give_live, give_own
from sidecar.proxy.body import Body
from sidecar.proxy.front import AppConnection
from sidecar.proxy.looking import decoded
from sidecar.proxy.preparation import Prepared, check, own_ids, prepare
from sidecar.proxy.replies import OwnAnswer, sidecar_field, status_for
from sidecar.proxy.routing import Refused, Router
from sidecar.proxy.sending import Sending
from sidecar.proxy.services import Services
from sidecar.proxy.trickle import Trickle
from sidecar.upstream.connection import HELD_BYTES, Connection
from sidecar.wire.framing import CHUNKED
from sidecar.wire.heads import RequestMessage, ResponseMessage

__all__ = ["Exchange"]

KEEP_SECONDS: Final = 0.5
"""How long a losing response may take to arrive whole, to be handed over in case all retries fail."""

_STATUS_TEXT: Final = tuple(str(status) for status in range(1000))
_OK_LINE: Final = sidecar_field(Outcome.OK, 1, 0.0, None)
_PASSED_LINE: Final = sidecar_field(Outcome.PASSED, 1, 0.0, Reason.NOT_RETRYABLE)


class Exchange:
    """One request of the app. After ``run``: ``outcome``, ``reason`` and what the record wants to know."""

    __slots__ = (
        "_history",
        "_kept",
        "_sending",
        "_services",
        "app",
        "attempts",
        "body",
        "host",
        "ids",
        "last_body",
        "last_message",
        "message",
        "outcome",
        "payload",
        "prepared",
        "reason",
        "started",
        "status",
        "upstream_seconds",
        "waited_seconds",
    )

    def __init__(self, services: Services, app: AppConnection, message: RequestMessage) -> None:
        self._services = services
        self.app = app
        self.message = message
        self.started = services.clock.monotonic()
        self.prepared: Prepared | None = None
        self.payload = b""
        """The request body, where it was there at once."""
        self.body: Body | None = None
        """The request body, where it is recorded as it comes."""
        self._sending: Sending | None = None
        self._history: tuple[Attempt, ...] = ()
        self._kept: Kept | None = None
        self.attempts: list[AttemptRecord] = []
        self.outcome = Outcome.CLIENT_GONE
        self.reason: Reason | None = None
        self.status: int | None = None
        """What the app got."""
        self.waited_seconds = 0.0
        self.upstream_seconds = 0.0
        self.ids: tuple[str, str, bytes] = ("", "", b"")
        """Of a request that was refused before it was prepared."""
        self.last_message: ResponseMessage | None = None
        """The upstream's head that the app got, and the body, if it was an error's that came at once."""
        self.last_body = b""

    async def run(self, router: Router) -> None:
        """From the request's head to the end of its answer. The app's leaving arrives as a cancellation."""
        try:
            try:
                check(self.message, self._services.via)
                prepared = self.prepared = prepare(self.message, router, self.app.intake.length)
            except Refused as refused:
                self._reject(refused, router)
                return
            self._take_body(prepared)
            prepared.destination.purse.requests += 1
            self._sending = Sending(self._services, self.app, prepared, self.message.method, self.payload, self.body)
            await self._send_until_answered(prepared, self._sending)
        finally:
            if self._sending is not None and self._sending.connection is not None:
                self._sending.abandon()
            if self.body is not None:
                self.body.close()

    def _take_body(self, prepared: Prepared) -> None:
        """Take over what has come of the body; record the rest as it comes."""
        intake = self.app.intake
        if not intake.length:
            return
        limits = prepared.bound.policy.body
        if not intake.is_receiving and intake.length != CHUNKED:
            pieces = intake.pieces
            payload = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if len(payload) <= max(limits.memory_bytes, limits.disk_bytes):
                self.payload = payload
                return
        self.body = Body(intake.length, limits, self.app.set_reading, self._account)
        intake.record(self.body)
        self.app.watch_body(prepared.bound.policy.timeouts.idle_seconds)

    def _account(self, change_bytes: int) -> None:
        self._services.metrics.buffered_bytes += change_bytes

    # -- sending -----------------------------------------------------------------------------------------

    async def _send_until_answered(self, prepared: Prepared, sending: Sending) -> None:
        monotonic = self._services.clock.monotonic
        deadline_at = self.started + prepared.deadline_seconds
        attempts = prepared.bound.policy.attempts
        passes = prepared.bound.passes
        meters = prepared.destination.meters
        waited, wait_from = 0.0, None
        number = 0
        while True:
            number += 1
            began = monotonic() if number > 1 else self.started
            message = await sending.attempt(number, deadline_at - began, last=number >= attempts)
            ended = monotonic()
            self.upstream_seconds += ended - began
            status = message.code if message is not None else None
            meters.attempted(_STATUS_TEXT[status] if status else str(sending.failure), ended - began)
            if number > 1 or status is None or not passes[status] or self._services.wants_attempts:
                self.attempts.append(
                    AttemptRecord(number, status, sending.failure, waited, wait_from, ended - began, sending.written)
                )
            if message is not None and status is not None and passes[status]:
                await self._pass_on(prepared, sending, message, number)
                return
            decision = await self._judge(prepared, sending, message, number, began, ended, waited, deadline_at)
            if decision.verb is not Verb.RETRY or decision.wait is None:
                await self._hand_over(prepared, sending, decision)
                return
            waited = await self._let_go_and_wait(prepared, sending, decision)
            wait_from = decision.wait.source
            if self.app.woken:
                self.app.woken = False
                await self._hand_over(prepared, sending, Decision(Verb.PASS, Reason.DRAINING))
                return

    async def _judge(
        self,
        prepared: Prepared,
        sending: Sending,
        message: ResponseMessage | None,
        number: int,
        began: float,
        ended: float,
        waited: float,
        deadline_at: float,
    ) -> Decision:
        look: bytes | None = None
        connection = sending.connection
        if message is not None and connection is not None and prepared.bound.looks[message.code]:
            look = await self._look(prepared, connection, message, deadline_at - ended)
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
            self._facts(prepared, deadline_at),
            self._history,
            now,
            services.chance(),
            self._pressure(prepared, sending, now.monotonic),
        )

    async def _look(
        self, prepared: Prepared, connection: Connection, message: ResponseMessage, left_seconds: float
    ) -> bytes | None:
        """The first 64 KiB of the body, decoded; or what has come of it in time."""
        if not connection.complete:
            seconds = min(prepared.bound.policy.timeouts.idle_seconds, max(0.0, left_seconds))
            try:
                async with asyncio.timeout(seconds):
                    await connection.whole(HELD_BYTES)
            except TimeoutError:
                pass
        return decoded(message, b"".join(connection.held))

    def _facts(self, prepared: Prepared, deadline_at: float) -> Request:
        path, _, query = prepared.target.partition("?")
        path = path[len(prepared.destination.base_path) :]
        headers = Headers(self.message.raw_headers)
        return Request(self.message.method, path, query, headers, prepared.keyed, deadline_at)

    def _pressure(self, prepared: Prepared, sending: Sending, now: float) -> Pressure:
        services = self._services
        return Pressure(
            budget_tokens=prepared.destination.purse.tokens(now),
            draining=services.draining,
            switched_off=services.switched_off,
            client_gone=self.app.is_leaving,
            replay=self._replay(sending),
        )

    def _replay(self, sending: Sending) -> Replay:
        connection = sending.connection
        if sending.message is not None and connection is not None and not connection.request_sent:
            # RFC 9112 section 9.3: the answer came before the request was whole; it is the answer.
            return Replay.CONSUMED
        if self.body is not None and not self.body.can_be_sent:
            return Replay.TOO_LARGE
        return Replay.HELD

    async def _let_go_and_wait(self, prepared: Prepared, sending: Sending, decision: Decision) -> float:
        """The losing response is released first, then the wait. Returns the seconds waited."""
        clock = self._services.clock
        meters = prepared.destination.meters
        begun = clock.monotonic()
        attempt = self._history[-1]
        prepared.destination.purse.pay(decision.cost)
        meters.retried(_STATUS_TEXT[attempt.status] if attempt.status is not None else str(attempt.failure))
        await self._keep(sending)
        sending.let_go()
        wait = decision.wait
        left = wait.seconds if wait is not None else 0.0
        app = self.app
        app.waiting = True
        meters.held["wait"] += 1
        try:
            # A timer may ring a little early (uvloop counts in milliseconds); a hint must not be undercut.
            while left > 0:
                await clock.sleep(max(left, 0.001))
                left = begun + wait.seconds - clock.monotonic() if wait is not None else 0.0
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not app.woken or app.transport is None or task is None or task.uncancel() > 0:
                raise
        finally:
            app.waiting = False
            meters.held["wait"] -= 1
            waited = clock.monotonic() - begun
            self.waited_seconds += waited
            if wait is not None:
                meters.waited(wait.source, waited)
        return waited

    async def _keep(self, sending: Sending) -> None:
        """Hold on to a losing response, if it is small and comes quickly: it may be the last one there is."""
        connection = sending.connection
        if connection is None or connection.message is None or connection.failure is not None:
            return
        if not connection.complete:
            try:
                async with asyncio.timeout(KEEP_SECONDS):
                    await connection.whole(HELD_BYTES)
            except TimeoutError:
                return
        if connection.complete:
            self._kept = Kept(connection.message, b"".join(connection.held), connection.length)

    # -- answering ---------------------------------------------------------------------------------------

    async def _pass_on(self, prepared: Prepared, sending: Sending, message: ResponseMessage, number: int) -> None:
        """An answer that the table hands over whatever has happened before."""
        if message.code >= 400:
            outcome, reason = Outcome.PASSED, Reason.NOT_RETRYABLE
            line = _PASSED_LINE
            if sending.connection is not None and not sending.connection.request_sent:
                reason = Reason.BODY_CONSUMED
                line = sidecar_field(outcome, number, self.waited_seconds, reason)
        else:
            outcome, reason = Outcome.OK if number == 1 else Outcome.RECOVERED, None
            line = _OK_LINE
        if number > 1:
            line = sidecar_field(outcome, number, self.waited_seconds, reason)
        self.outcome, self.reason = outcome, reason
        await self._give_live(prepared, sending, message, line)

    async def _hand_over(self, prepared: Prepared, sending: Sending, decision: Decision) -> None:
        """What there is: the live answer, a kept one, or our own."""
        history = self._history
        self.reason = decision.reason
        number = history[-1].number
        live = sending.message
        if live is not None and sending.failure is None and sending.connection is not None:
            self.outcome = outcome_of(history, decision)
            line = sidecar_field(self.outcome, number, self.waited_seconds, self.reason)
            await self._give_live(prepared, sending, live, line)
            return
        sending.let_go()
        kept = self._kept
        if kept is not None:
            self.outcome = Outcome.EXHAUSTED
            line = sidecar_field(self.outcome, number, self.waited_seconds, self.reason)
            self._took(kept.message, kept.body)
            head, chunked = answer_head(self.app, self.message, prepared, kept.message, kept.length, line)
            give_kept(self.app, kept, head, chunked=chunked)
            return
        self.outcome = Outcome.FAILED
        self._give_failure(prepared, sending)

    async def _give_live(self, prepared: Prepared, sending: Sending, message: ResponseMessage, line: bytes) -> None:
        app, connection = self.app, sending.connection
        if connection is None:
            return
        if not connection.request_sent:
            self._stop_sending_body(message)
        self.status = message.code
        self.last_message = message
        if message.code >= 400 and connection.complete:
            self.last_body = b"".join(connection.held)
        head, chunked = answer_head(app, self.message, prepared, message, connection.length, line)
        if connection.complete:
            await give_live(app, connection, head, chunked=chunked, idle_seconds=0.0)
        else:
            await self._relay(prepared, connection, message, head, chunked=chunked)
        sending.let_go()

    def _stop_sending_body(self, message: ResponseMessage) -> None:
        """The answer came before the request was whole. An error means that nobody wants the rest."""
        if self.body is None:
            return
        self.body.let_go()
        if message.code >= 400:
            self.body.detach()

    async def _relay(
        self, prepared: Prepared, connection: Connection, message: ResponseMessage, head: bytes, *, chunked: bool
    ) -> None:
        """An answer that is still coming: bounded by the pause between bytes, and by the deadline if it trickles."""
        app = self.app
        content_type = message.headers.get("Content-Type", "")
        is_stream = content_type.lower().startswith("text/event-stream")
        idle_seconds = 0.0 if is_stream else prepared.bound.policy.timeouts.idle_seconds
        trickle = None if is_stream else Trickle(self._services, connection, self.started + prepared.deadline_seconds)
        try:
            await give_live(app, connection, head, chunked=chunked, idle_seconds=idle_seconds)
        finally:
            if trickle is not None:
                trickle.stop()
        if app.broken is not None:
            # The app must not take half an answer for a whole one (RFC 9112 section 8).
            self.outcome, self.reason = Outcome.FAILED, Reason.RESPONSE_STARTED
            app.cut()

    def _took(self, message: ResponseMessage, body: bytes) -> None:
        self.status = message.code
        self.last_message = message
        self.last_body = body

    def _give_failure(self, prepared: Prepared, sending: Sending) -> None:
        failure = sending.failure
        reason = self.reason
        code = str(failure or reason or "failed")
        self._give_own(
            prepared,
            OwnAnswer(
                status=status_for(failure, reason),
                code=code,
                detail=f"the upstream gave no usable answer: {sending.detail or code}",
                error=sending.error or "proxy_internal_response",
                outcome=self.outcome,
                attempts=self._history[-1].number,
                waited_seconds=self.waited_seconds,
                reason=reason,
                request_id=prepared.request_id,
                correlation_id=prepared.correlation_id,
                service=prepared.destination.name,
            ),
            prepared.id_line + prepared.correlation_line + prepared.key_line,
        )

    def _reject(self, refused: Refused, router: Router) -> None:
        """Nothing was sent, and nothing will be."""
        self.outcome = Outcome.REJECTED
        if refused.kind in self._services.metrics.protocol_errors:
            self._services.metrics.protocol_error(refused.kind)
            self.app.keep_alive = False
        ids = self.ids = own_ids(self.message, router.default)
        answer = OwnAnswer(
            status=refused.status,
            code=refused.kind,
            detail=refused.detail,
            error="proxy_loop_detected" if refused.status == 508 else "http_request_denied",
            outcome=Outcome.REJECTED,
            request_id=ids[0],
            correlation_id=ids[1],
        )
        self._give_own(None, answer, ids[2])

    def _give_own(self, prepared: Prepared | None, answer: OwnAnswer, id_lines: bytes) -> None:
        self.status = answer.status
        give_own(self.app, self.message, prepared, answer, id_lines, self._services.clock.wall())
