"""One request of the app, from its head to the end of its response.

A response that the table passes on without a judgement (``CompiledPolicy.passes``) goes straight through, within the
two calls that bring the request and the response. Everything else goes through ``retry_loop``, which says in the end
what to hand over: the live response, a buffered one, or one of our own. Its states: ``state``.
"""

# Compiled in the wheel.

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import ClassVar, Final, Protocol

from sidecar.core.decision.attempt import Attempt
from sidecar.core.decision.decide import Decision, outcome_of
from sidecar.core.enums import IDEMPOTENT_METHODS, Outcome, Reason, Verb
from sidecar.observe.record import AttemptRecord, HeldRecord
from sidecar.observe.redact import BODY_BYTES
from sidecar.proxy.client.body import Body
from sidecar.proxy.client.connection import ClientConnection
from sidecar.proxy.exchange.context import Services
from sidecar.proxy.exchange.facts import Facts
from sidecar.proxy.exchange.prepare import Prepared, own_ids, prepare
from sidecar.proxy.exchange.respond import (
    BufferedResponse,
    answer_head,
    answer_whole,
    count_error_code,
    give_buffered,
    give_interim,
    give_own,
    give_whole,
    keeps_copies,
    tee_of,
)
from sidecar.proxy.exchange.retry_loop import STATUS_TEXT, RetryLoop
from sidecar.proxy.exchange.send import Send
from sidecar.proxy.exchange.state import FAST, LOOP, NEW, OVER, RELAY, WAITING, WOKEN
from sidecar.proxy.exchange.store import can_store, store
from sidecar.proxy.exchange.stream import stream
from sidecar.proxy.message.own_response import TURNED_AWAY, OwnAnswer, sidecar_field, status_for
from sidecar.proxy.routing.access import admit
from sidecar.proxy.routing.destination import CompiledPolicy
from sidecar.proxy.routing.router import Refused, Router
from sidecar.upstream.connection import Connection
from sidecar.wire.framing import CHUNKED
from sidecar.wire.heads import RequestMessage, ResponseMessage

__all__ = ["Exchange"]

_OK: Final = Outcome.OK
_GONE: Final = Outcome.CLIENT_GONE
_OK_LINE: Final = sidecar_field(Outcome.OK, 1, 0.0, None)
_PASSED_LINE: Final = sidecar_field(Outcome.PASSED, 1, 0.0, Reason.NOT_RETRYABLE)

_ERRORS: Final = {"loop": "proxy_loop_detected", "address": "destination_ip_prohibited"}
"""Kind of a refusal → the proxy error type of RFC 9209 section 2.3."""


class Over(Protocol):
    """Called when an exchange is over; ``cut``: the app has left, or must not take what it has for a whole response."""

    def __call__(self, exchange: Exchange, cut: bool) -> None: ...


class Exchange:
    """One request of the app. When it is over: ``outcome``, ``reason`` and what the record wants to know.

    The first send goes out within the call that brought the request, if a pooled connection is there and the body
    came whole; its answer goes back within the call that brings it, if it is whole and needs no judgement. Only
    what is more than that gets a task.
    """

    # Defaults stand on the class: an untroubled exchange sets few of them.
    prepared: Prepared | None = None
    payload = b""
    """The request body, where it came whole with the head."""
    body: Body | None = None
    """The request body, where it is recorded as it arrives."""
    outcome: Outcome = _GONE
    reason: Reason | None = None
    status: int | None = None
    """The status that the app got; None: none."""
    waited_seconds = 0.0
    held: tuple[HeldRecord, ...] = ()
    """Every time that it was held, except waits before attempts that were made."""
    own_code: str | None = None
    """The error code of our own response."""
    upstream_seconds = 0.0
    ids: tuple[str, str, bytes] = ("", "", b"")
    """Request id, correlation id and their header lines, for a request that was refused before it was prepared."""
    last_body = b""
    """The body of the upstream's error response that the app got, where it came whole at once."""
    attempts: tuple[AttemptRecord, ...] = ()
    """Empty also for a single untroubled attempt: see ``all_attempts``."""
    is_hedged = False
    """Whether a second send went beside the first."""
    not_before = 0.0
    """Monotonic seconds before which nothing is sent: the end of the upstream's hint and of the wait before a retry,
    also where that wait was cut short.
    """
    decision: Decision | None = None
    """The last decision; None: the table was not asked."""
    shadowed: Decision | None = None
    """The last decision of the shadow policy that differs from ours."""
    ended_unsent = False
    """Whether it ended before the next send had written a byte, with nothing else on the wire."""
    state = NEW
    """Where it stands: see ``state``, which lists every change."""
    _fast_connection: Connection | None = None
    """The pooled connection of a first send that has no task."""
    _sender: ClassVar[type[Send]] = Send
    _sending: Send | None = None
    _attempts: RetryLoop | None = None
    _task: asyncio.Task[None] | None = None

    def __init__(self, services: Services, app: ClientConnection, message: RequestMessage, over: Over) -> None:
        self._services = services
        self._over = over
        self.app = app
        self.message = message
        self.last_message: ResponseMessage | None = None
        """The upstream's response head that the app got."""
        self.started = services.monotonic()

    def start(self, router: Router) -> None:
        """Begin; ``over`` is called at the end, perhaps before this returns."""
        message = self.message
        reader = self.app.reader
        try:
            if router.credential is not None and not self.app.is_inside:
                admit(message, router.credential)
            prepared = self.prepared = prepare(message, router, reader.length)
        except Refused as refused:
            self._reject(refused, router.default)
            self.finish(cut=False)
            return
        if reader.length:
            self._take_body(prepared)
        destination, compiled = prepared.destination, prepared.compiled
        destination.budget.requests += 1
        timers, limiter = compiled.head_timers, destination.holding.limiter
        if (
            self.body is None
            and compiled.allows_fast_path
            and limiter.calm
            and prepared.deadline_seconds >= timers.seconds
        ):
            method = message.method
            connection = destination.pool.take_idle(careful=False)
            if connection is not None:
                request = prepared.head(1, prepared.deadline_seconds, expects_continue=False) + self.payload
                careful = connection.has_rested or method not in IDEMPOTENT_METHODS
                if connection.send_in_batch(request, method, self._services.write_batch, careful=careful):
                    limiter.sends += 1
                    limiter.lent.add(self)
                    self._fast_connection = connection
                    self.state = FAST
                    connection.asker = self
                    timers.start(connection)
                    return
        self._go_on(prepared)

    def interim_arrived(self, message: ResponseMessage) -> None:
        """The first send has a 1xx response before its final one."""
        if self.prepared is not None:
            give_interim(self.app, self.prepared.compiled, message)

    def head_arrived(self) -> None:
        """The first send has a response head, or a failure."""
        connection, prepared = self._fast_connection, self.prepared
        if connection is None or prepared is None:
            return
        compiled = prepared.compiled
        compiled.head_timers.stop(connection)
        message = connection.message
        try:
            if connection.unwritten:
                # The connection was closed before a byte was written: there was no send.
                self._fast_connection = None
                prepared.destination.holding.abandon(self)
            if message is None or not connection.complete or not compiled.passes[message.code]:
                if message is None or not connection.complete or not compiled.hands_over[message.code]:
                    self._go_on(prepared)
                    return
                self._judge_by_shadow(prepared, connection, message)
            code = message.code
            seconds = self.upstream_seconds = self._services.monotonic() - self.started
            prepared.destination.meters.attempted(STATUS_TEXT[code], seconds)
            if code < 400:
                self.status, self.outcome, self.last_message = code, _OK, message
                answer_whole(self.app, self.message, prepared, message, connection, _OK_LINE)
            else:
                head, chunked = self._passed_head(prepared, connection, message, 1)
                give_whole(self.app, connection, head, chunked=chunked)
            self._fast_connection = None
            connection.release()
            holding = prepared.destination.holding
            holding.limiter.lent.discard(self)
            if code >= 500 or not holding.limiter.calm:
                holding.tell(None, self.message, message, seconds)
        except Exception as exc:
            self._services.crashed(exc)
            self._clean_up()
            self.finish(cut=True)
        else:
            self.finish(cut=False)

    def _judge_by_shadow(self, prepared: Prepared, connection: Connection, message: ResponseMessage) -> None:
        """The shadow policy judges a whole first response that the policy in force hands over."""
        if prepared.compiled.shadow is not None:
            facts = Facts(self._services, self.app, self.message, self.body, prepared)
            self.shadowed = facts.shadow_of_passed(connection, message, 1, self.started, self.started)

    def _go_on(self, prepared: Prepared) -> None:
        """Continue with a task: from the first send, or from its result."""
        sending = self._sender(self._services, self.app, prepared, self.message.method, self.payload, self.body)
        self._sending = sending
        lane, self._fast_connection = self._fast_connection, None
        if lane is not None:
            sending.adopt(lane)
        if prepared.compiled.store_first and can_store(self._services, self.app, self.message.method, prepared):
            loop = store(self, self._services, prepared, 0)
        else:
            self._attempts = RetryLoop(self._services, self, prepared, sending, is_sent=lane is not None)
            loop = self._attempts.run()
        self.state = LOOP
        self._task = self._services.loop.create_task(loop)
        self._task.add_done_callback(self._ended)

    @property
    def is_waiting(self) -> bool:
        """Whether it is waiting before a send."""
        return self.state == WAITING

    def cut_wait_short(self) -> None:
        """End the wait before a send now, without the send (shutdown)."""
        if self.state == WAITING:
            self.state = WOKEN
            self.cancel()

    def cancel(self) -> None:
        """End the exchange from outside: the app has left, or may wait no longer. Harmless when it is over.

        Once relaying, only the two connections themselves end it.
        """
        if self.state == RELAY:
            return
        if self._task is not None:
            self._task.cancel()
        elif self.state != OVER:
            self._clean_up()
            self.finish(cut=True)

    def finish(self, *, cut: bool) -> None:
        """End the exchange. ``cut``: the app has left, or must not take what it has for a whole response."""
        self.state = OVER
        if cut:
            self.outcome, self.reason = _GONE, None
        self._over(self, cut)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._clean_up()
        fault = None if task.cancelled() else task.exception()
        if isinstance(fault, Refused) and self.prepared is not None:
            # The address guard refused: nothing was sent, and waiting would change nothing.
            self._reject(fault, self.prepared.compiled)
            fault = None
        if isinstance(fault, Exception):
            self._services.crashed(fault)
        # Task and loop point back here: break the reference cycle, so that nothing waits for the garbage collector.
        self._task = self._attempts = self._sending = None
        self.finish(cut=task.cancelled() or fault is not None)

    def _clean_up(self) -> None:
        lane, self._fast_connection = self._fast_connection, None
        if lane is not None and self.prepared is not None:
            self.prepared.compiled.head_timers.stop(lane)
            lane.asker = None
            self.ended_unsent = bool(lane.unwritten)
            lane.abort()
            self.prepared.destination.holding.abandon(self)
        if self._attempts is not None:
            self.ended_unsent = self._attempts.is_unsent
            self._attempts.close()
        if self._sending is not None and self._sending.connection is not None:
            self._sending.abandon()
        if self.body is not None:
            if self.prepared is not None and keeps_copies(self.prepared.compiled.policy, self.status):
                self.payload = self.body.copy(BODY_BYTES)
            self.body.close()

    def stood(self, by: str, seconds: float, scope: str = "") -> None:
        """Note ``seconds`` of waiting, by ``by``, before the next attempt."""
        self.waited_seconds += seconds
        self.held += (HeldRecord(by, seconds, len(self.attempts) + 1, scope),)
        if self.prepared is not None:
            self.prepared.destination.meters.waited(by, seconds)

    def has_under_way(self, token: object) -> bool:
        """Whether ``token`` stands for an attempt of this exchange that has begun and not ended (``Limiter.lent``)."""
        if self._attempts is not None:
            return self._attempts.has_under_way(token)
        return token is self and self._fast_connection is not None

    @property
    def attempts_made(self) -> int:
        return len(self.attempts) or int(self.upstream_seconds > 0)

    @property
    def all_attempts(self) -> tuple[AttemptRecord, ...]:
        """Every attempt, the untroubled one too."""
        if self.attempts or not self.upstream_seconds:
            return self.attempts
        return (AttemptRecord(1, self.status, duration_seconds=self.upstream_seconds, shadow=self.shadowed),)

    @property
    def _is_first_answer(self) -> bool:
        """Whether no other response came back; an attempt that was cut for this response counts as none."""
        return sum(not attempt.cancelled for attempt in self.attempts) == 1

    def _take_body(self, prepared: Prepared) -> None:
        """Take over what has come of the body; record the rest as it comes."""
        reader = self.app.reader
        limits = prepared.compiled.policy.body
        if not reader.is_receiving and reader.length != CHUNKED:
            pieces = reader.pieces
            payload = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if len(payload) <= limits.memory_bytes or len(payload) <= limits.disk_bytes:
                self.payload = payload
                return
        self.body = Body(reader.length, limits, self._services.spool, self.app.set_reading, self._account)
        reader.record(self.body)
        self.app.watch_body(prepared.compiled.policy.timeouts.idle_seconds)

    def _account(self, change_bytes: int) -> None:
        self._services.metrics.buffered_bytes += change_bytes

    # -- responding --------------------------------------------------------------------------------------

    def _passed_head(
        self, prepared: Prepared, connection: Connection, message: ResponseMessage, number: int
    ) -> tuple[bytes, bool]:
        """The head of a response that the table always passes on, and whether to chunk it."""
        code = message.code
        self.status = code
        if code < 400:
            self.outcome = Outcome.OK if number == 1 or self._is_first_answer else Outcome.RECOVERED
            plain = number == 1 and not self.waited_seconds
            line = _OK_LINE if plain else sidecar_field(self.outcome, number, self.waited_seconds, None)
        else:
            early = not connection.request_sent
            self.outcome = Outcome.PASSED
            self.reason = Reason.BODY_CONSUMED if early else Reason.NOT_RETRYABLE
            plain = number == 1 and not early and not self.waited_seconds
            line = _PASSED_LINE if plain else sidecar_field(self.outcome, number, self.waited_seconds, self.reason)
            if connection.complete:
                self.last_body = b"".join(connection.held)
            count_error_code(prepared, message, self.last_body)
        self.last_message = message
        return answer_head(self.app, self.message, prepared, message, connection.length, line)

    async def pass_on(self, prepared: Prepared, sending: Send, number: int) -> None:
        """Hand over the live response, after ``number`` sends."""
        connection, message = sending.connection, sending.message
        if connection is None or message is None:
            return
        if not connection.request_sent:
            self._stop_sending_body(message)
        head, chunked = self._passed_head(prepared, connection, message, number)
        await self._give(prepared, sending, connection, message, head, chunked=chunked)

    async def hand_over(
        self,
        prepared: Prepared,
        sending: Send,
        decision: Decision,
        history: tuple[Attempt, ...],
        buffered: BufferedResponse | None,
    ) -> None:
        """Hand over the live response, a buffered one, or our own."""
        self.decision = decision
        number = len(self.attempts)
        if decision.verb is Verb.STORE:
            if can_store(self._services, self.app, self.message.method, prepared):
                sending.let_go()
                await store(self, self._services, prepared, number)
                return
            decision = replace(decision, verb=Verb.PASS, reason=Reason.NOT_RETRYABLE)
        self.reason = decision.reason
        live = sending.message
        if live is not None and sending.failure is None and sending.connection is not None:
            self.outcome = outcome_of(history, decision)
            line = sidecar_field(self.outcome, number, self.waited_seconds, self.reason)
            await self._give_live(prepared, sending, live, line)
            return
        sending.let_go()
        if buffered is not None:
            # With a status, this is the last response itself, released for a login, a reread or a wait.
            self.outcome = outcome_of(history, decision) if history[-1].status else Outcome.EXHAUSTED
            if buffered.message.code < 400:
                self.outcome = Outcome.RECOVERED
            line = sidecar_field(self.outcome, number, self.waited_seconds, self.reason)
            self._took(buffered.message, buffered.body)
            head, chunked = answer_head(self.app, self.message, prepared, buffered.message, buffered.length, line)
            give_buffered(self.app, buffered, head, chunked=chunked)
            return
        self.outcome = Outcome.FAILED
        self._give_failure(prepared, sending, number)

    async def _give_live(self, prepared: Prepared, sending: Send, message: ResponseMessage, line: bytes) -> None:
        app, connection = self.app, sending.connection
        if connection is None:
            return
        if not connection.request_sent:
            self._stop_sending_body(message)
        self._took(message, b"".join(connection.held) if message.code >= 400 and connection.complete else b"")
        count_error_code(prepared, message, self.last_body)
        head, chunked = answer_head(app, self.message, prepared, message, connection.length, line)
        await self._give(prepared, sending, connection, message, head, chunked=chunked)

    async def _give(
        self,
        prepared: Prepared,
        sending: Send,
        connection: Connection,
        message: ResponseMessage,
        head: bytes,
        *,
        chunked: bool,
    ) -> None:
        if connection.complete:
            give_whole(self.app, connection, head, chunked=chunked)
        else:
            await self._relay(prepared, connection, message, head, chunked=chunked)
        sending.let_go()

    def _stop_sending_body(self, message: ResponseMessage) -> None:
        """The response came before the request was whole. If it is an error, the upstream does not want the rest (RFC
        9112 section 9.5).
        """
        if self.body is None:
            return
        self.body.let_go()
        if message.code >= 400:
            self.body.detach()

    async def _relay(
        self, prepared: Prepared, connection: Connection, message: ResponseMessage, head: bytes, *, chunked: bool
    ) -> None:
        """Relay a response that is still coming: bounded by the pause between bytes, and past the deadline by a minimum
        rate.
        """
        app, ends_at = self.app, self.started + prepared.deadline_seconds
        copy = tee_of(app, prepared.compiled.policy, message)
        try:
            await stream(app, self._services, prepared, connection, message, head, ends_at, copy, chunked=chunked)
        finally:
            if copy is not None:
                self.last_body = copy.body
        if app.broken is not None:
            # The app must not take half a response for a whole one (RFC 9112 section 8).
            self.outcome, self.reason = Outcome.FAILED, Reason.RESPONSE_STARTED
            app.cut()

    def _took(self, message: ResponseMessage, body: bytes) -> None:
        self.status = message.code
        self.last_message = message
        self.last_body = body

    def _give_failure(self, prepared: Prepared, sending: Send, number: int) -> None:
        failure, code = sending.failure, str(sending.failure or self.reason or "failed")
        detail = f"the upstream gave no usable answer: {sending.detail or code}"
        status, error = status_for(failure, self.reason), sending.error or "proxy_internal_response"
        self._give_own_after(prepared, status, code, detail, error, number)

    @property
    def request_bytes(self) -> int:
        """Bytes of the request body received so far."""
        return self.body.received_bytes if self.body is not None else len(self.payload)

    def turn_away(self, prepared: Prepared, reason: Reason, retry_after_seconds: float) -> None:
        """Answer without a send: a gate, the breaker or the concurrency limit is closed, or the sidecar is shutting
        down.
        """
        self.outcome, self.reason = Outcome.REJECTED, reason
        detail = TURNED_AWAY.get(reason, "the request could not be sent in time")
        error = "http_request_denied" if reason in (Reason.GATE, Reason.RATE) else "destination_unavailable"
        seconds = math.ceil(retry_after_seconds) if retry_after_seconds > 0 else None
        self._give_own_after(prepared, status_for(None, reason), str(reason), detail, error, 0, seconds)

    def _give_own_after(
        self, prepared: Prepared, status: int, code: str, detail: str, error: str, number: int, again: int | None = None
    ) -> None:
        """Send our own response after ``number`` sends; ``again``: the seconds of its Retry-After."""
        answer = OwnAnswer(
            status=status,
            code=code,
            detail=detail,
            error=error,
            outcome=self.outcome,
            attempts=number,
            waited_seconds=self.waited_seconds,
            reason=self.reason,
            request_id=prepared.request_id,
            correlation_id=prepared.correlation_id,
            service=prepared.destination.name,
            retry_after_seconds=again,
        )
        self._give_own(prepared, answer, prepared.id_lines + prepared.key_line)

    def _reject(self, refused: Refused, compiled: CompiledPolicy) -> None:
        """Answer with a refusal: nothing was sent, and nothing will be."""
        self.outcome = outcome = Outcome.REJECTED if refused.status >= 400 else Outcome.OK
        if refused.kind in self._services.metrics.protocol_errors:
            self._services.metrics.protocol_error(refused.kind)
            self.app.keep_alive = False
        prepared = self.prepared
        ids = self.ids = own_ids(self.message, compiled)
        if prepared is not None:
            ids = (prepared.request_id, prepared.correlation_id, prepared.id_lines)
        answer = OwnAnswer(
            status=refused.status,
            code=refused.kind,
            detail=refused.detail,
            error=_ERRORS.get(refused.kind, "http_request_denied"),
            outcome=outcome,
            request_id=ids[0],
            correlation_id=ids[1],
        )
        self._give_own(prepared, answer, ids[2] + refused.lines)

    def _give_own(self, prepared: Prepared | None, answer: OwnAnswer, id_lines: bytes) -> None:
        self.status, self.own_code = answer.status, answer.code
        give_own(self.app, self.message, prepared, answer, id_lines, self._services.clock.wall())
