"""The facts that ``core.decide`` is given: the request, what came back so far, and the pressure at this moment.

It gathers them and asks ``core.decide``; it acts on nothing. It may wait for the body that a row looks into.
Counterpart: ``retry_loop``, which does what was decided.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from sidecar.core.decision.attempt import Attempt, Headers, Now, Pressure, Replay, Request
from sidecar.core.decision.conditions import Look
from sidecar.core.decision.decide import Decision, decide, needs_body
from sidecar.core.decision.safety import why_safe
from sidecar.core.enums import FailureKind
from sidecar.proxy.client.body import Body
from sidecar.proxy.client.connection import ClientConnection
from sidecar.proxy.exchange.context import Services
from sidecar.proxy.exchange.prepare import Prepared
from sidecar.proxy.exchange.send import InFlight, Send
from sidecar.proxy.message.peek import decoded, is_event_stream
from sidecar.proxy.routing.shadow import Shadow, is_calm
from sidecar.upstream.connection import HELD_BYTES, Connection
from sidecar.wire.heads import RequestMessage, ResponseMessage

__all__ = ["Facts"]

CROSSED_SECONDS: Final = 0.5
"""Seconds after a send within which the end of a pooled connection may have been under way already: a long round trip.
Later, the upstream was working on the request.
"""


class Facts:
    """The facts of one exchange."""

    def __init__(
        self, services: Services, app: ClientConnection, message: RequestMessage, body: Body | None, prepared: Prepared
    ) -> None:
        self._services = services
        self._app = app
        self._message = message
        self._body = body
        self._prepared = prepared
        self.history: tuple[Attempt, ...] = ()
        """The attempts judged so far, in the order in which they came back, numbered so."""
        self.unread = ""
        """The content coding of the last response, where a row looks into its body and the coding cannot be undone."""
        self.shadow: Decision | None = None
        """What the shadow policy would have done about the last attempt, where that differs."""

    async def judge(self, sent: InFlight, ended: float, deadline_at: float) -> Decision:
        """Decide about a send that has come back. ``ended`` and ``deadline_at`` are monotonic seconds."""
        prepared, sending = self._prepared, sent.sending
        message, connection = sending.message, sending.connection
        headers = Headers(message.raw_headers) if message is not None else Headers()
        request = self.facts(deadline_at)
        look: bytes | None = None
        self.unread = ""
        if (
            message is not None
            and connection is not None
            and prepared.compiled.looks[message.code]
            and needs_body(prepared.compiled.policy, request, Attempt(1, message.code, headers))
        ):
            look = await self._look(connection, message, deadline_at - ended)
            if connection.failure is not None:
                sending.failure, sending.detail = connection.failure, connection.detail
                message, headers = None, Headers()
        attempt = Attempt(
            number=len(self.history) + 1,
            status=message.code if message is not None else None,
            headers=headers,
            body=look,
            failure=sending.failure,
            lasting=sending.lasting,
            written=sending.written,
            pooled=sending.pooled,
            crossed=_has_crossed(sending, ended - sent.began),
            started_at=sent.began,
            ended_at=ended,
            waited_seconds=sent.waited_seconds,
        )
        self.history += (attempt,)
        clock, services = self._services.clock, self._services
        now = Now(clock.monotonic(), clock.wall())
        chance, pressure = services.chance(), self.pressure(now.monotonic, sending)
        decision = decide(prepared.compiled.policy, request, self.history, now, chance, pressure)
        shadow = prepared.compiled.shadow
        if shadow is not None:
            self.shadow = self._shadow(shadow, decision, request, attempt, now, chance, pressure, connection, message)
        return decision

    def _shadow(
        self,
        shadow: Shadow,
        actual: Decision | None,
        request: Request,
        attempt: Attempt,
        now: Now,
        chance: float,
        pressure: Pressure,
        connection: Connection | None,
        message: ResponseMessage | None,
    ) -> Decision | None:
        """The shadow policy's decision about the same answer, if it differs. It is counted."""
        prepared = self._prepared
        started = request.deadline_at - prepared.deadline_seconds
        ends_at = shadow.deadline_at(started, prepared.deadline_seconds, prepared.compiled.policy.deadline_seconds)
        second: Decision | None = None
        if message is not None and attempt.status is not None:
            left = ends_at - now.monotonic
            second = shadow.known(attempt.status, request.method, attempt.number, message.headers, left)
        if second is None or not is_calm(pressure, second.cost, now.monotonic):
            if attempt.body is None and message is not None and connection is not None and connection.complete:
                # It has come whole: a look holds nothing back.
                attempt = replace(attempt, body=decoded(message, b"".join(connection.held)))
            second = shadow.judge(replace(request, deadline_at=ends_at), attempt, now, chance, pressure)
        return shadow.tell(prepared.destination.meters, actual, second)

    def shadow_of_passed(
        self, connection: Connection, message: ResponseMessage, number: int, began: float, started: float
    ) -> Decision | None:
        """The shadow policy's decision about a response that ours hands over without a judgement, if it differs.

        ``began`` and ``started``: of this send and of the exchange, in monotonic seconds.
        """
        prepared, services = self._prepared, self._services
        shadow, meters, now = prepared.compiled.shadow, prepared.destination.meters, services.monotonic()
        if shadow is None or not shadow.judges[message.code]:
            return None
        seconds, own_seconds = prepared.deadline_seconds, prepared.compiled.policy.deadline_seconds
        left = shadow.deadline_at(started, seconds, own_seconds) - now
        second = shadow.known(message.code, self._message.method, number, message.headers, left)
        if second is not None:
            return shadow.tell(meters, None, second)
        attempt = Attempt(number, message.code, Headers(message.raw_headers), started_at=began, ended_at=now)
        moment, request = Now(now, services.clock.wall()), self.facts(started + seconds)
        return self._shadow(shadow, None, request, attempt, moment, services.chance(), Pressure(), connection, message)

    async def _look(self, connection: Connection, message: ResponseMessage, left_seconds: float) -> bytes | None:
        """The first 64 KiB of the body, decoded; or what has arrived of it in time.

        Server-sent events are not held back: of them, only what came with the head is read.
        """
        if not connection.complete and not is_event_stream(message):
            seconds = min(self._prepared.compiled.policy.timeouts.idle_seconds, max(0.0, left_seconds))
            try:
                async with asyncio.timeout(seconds):
                    await connection.whole(HELD_BYTES)
            except TimeoutError:
                pass
        held = b"".join(connection.held)
        look = decoded(message, held)
        if look is None and held:
            self.unread = message.headers.get("Content-Encoding", "")
        return look

    def is_harmless(self, attempt: Attempt) -> bool:
        """Whether the app may repeat its request after this attempt, of which it knows nothing, without doing harm. An
        idempotency key that we made does not help: the app may send without it.
        """
        prepared = self._prepared
        request = replace(self.facts(0.0), keyed=prepared.keyed and not prepared.key_line)
        policy = prepared.compiled.policy
        row = policy.table.match(request, attempt, Look(request, attempt))
        return why_safe(policy, row, request, attempt) is not None

    def facts(self, deadline_at: float) -> Request:
        """The app's request, as the core sees it."""
        prepared, message = self._prepared, self._message
        path, _, query = prepared.target.partition("?")
        path = path[len(prepared.destination.base_path) :]
        headers = Headers(message.raw_headers)
        return Request(message.method, path, query, headers, prepared.keyed, deadline_at)

    def pressure(self, now: float, sending: Send) -> Pressure:
        """The pressure on a further send after, or beside, ``sending``."""
        services = self._services
        facts = self._prepared.destination.holding.pressure(self._message, now)
        return Pressure(
            breaker_open=facts.breaker_open,
            gate_closed_until=facts.gate_closed_until,
            rate_ready_at=facts.rate_ready_at,
            full=facts.full,
            budget_tokens=self._prepared.destination.budget.tokens(now),
            draining=services.draining,
            switched_off=services.retry_switch.is_off(self._prepared.destination.name, now),
            client_gone=self._app.is_leaving,
            replay=self._replay(sending),
        )

    def _replay(self, sending: Send) -> Replay:
        connection, body = sending.connection, self._body
        if sending.message is not None and connection is not None and not connection.request_sent:
            # RFC 9112 section 9.3: the answer came before the request was whole; it is the answer.
            return Replay.CONSUMED
        if body is not None and not body.can_be_sent:
            return Replay.SPOOL_FAILED if body.spool_failed else Replay.TOO_LARGE
        return Replay.HELD


def _has_crossed(sending: Send, seconds: float) -> bool:
    """Whether the upstream may have closed a pooled connection before it saw the request, ``seconds`` ago."""
    connection = sending.connection
    if connection is None or not (sending.pooled and sending.written) or seconds > CROSSED_SECONDS:
        return False
    return sending.failure in (FailureKind.CLOSED, FailureKind.RESET) and connection.is_unanswered
