"""A request into the outbox: gathered whole, made durable, and only then answered with a receipt.

Either at once (``store: always``), or after an attempt where a row says ``then: store``. What is stored is what would
be sent: hop-by-hop fields are dropped, ids and idempotency key are fixed, a credential that our own login puts on is
not stored. It delivers nothing. Counterpart: ``proxy.delivery``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from sidecar.core.decision.attempt import Attempt, Request
from sidecar.core.enums import UNSTORED_METHODS, FailureKind, Outcome, Reason, Verb
from sidecar.outbox.items import HELD_UP_SECONDS, Item, Refusal
from sidecar.outbox.worker import OutboxWorker
from sidecar.proxy.client.body import Body
from sidecar.proxy.client.connection import ClientConnection
from sidecar.proxy.exchange.context import Services
from sidecar.proxy.exchange.prepare import Prepared, asked_host
from sidecar.proxy.exchange.respond import give_own
from sidecar.proxy.exchange.send import CONTINUE
from sidecar.proxy.message.headers import careful_fields, named_by_connection
from sidecar.proxy.message.ids import new_id
from sidecar.proxy.message.own_response import OwnAnswer
from sidecar.proxy.message.receipt import Receipt
from sidecar.wire.chunked import ChunkedDecoder
from sidecar.wire.framing import CHUNKED
from sidecar.wire.heads import RequestMessage

__all__ = ["HELD_BACK", "can_store", "store", "stores_unsent"]

HELD_BACK: Final = frozenset({Reason.GATE, Reason.RATE, Reason.CONCURRENCY, Reason.BREAKER, Reason.DRAINING})
"""Reasons not to send now that do not forbid a later send; each is checked after safety."""
UNREACHABLE: Final = Attempt(1, failure=FailureKind.UNREACHABLE, written=False)
TOO_MANY: Final = Attempt(1, status=429)


class ExchangeView(Protocol):
    """The exchange, as storing sees it."""

    app: ClientConnection
    message: RequestMessage
    payload: bytes
    body: Body | None
    started: float
    waited_seconds: float
    own_code: str | None
    not_before: float
    outcome: Outcome
    reason: Reason | None
    status: int | None


def can_store(services: Services, app: ClientConnection, method: str, prepared: Prepared) -> bool:
    """Whether there is an outbox, this is not a delivery from it, and the upstream has a name to deliver to.

    A safe method is never stored: its sender wants the response, not a receipt.
    """
    if services.outbox is None or method in UNSTORED_METHODS or app.is_delivery:
        return False
    return not prepared.destination.host


def stores_unsent(services: Services, app: ClientConnection, prepared: Prepared, request: Request) -> bool:
    """Whether a request that may not be sent now (breaker, gate, draining) goes into the outbox.

    It does where the table stores requests that could not be sent, or were refused for their rate.
    """
    if not can_store(services, app, request.method, prepared):
        return False
    match = prepared.compiled.policy.table.match
    rows = match(request, UNREACHABLE), match(request, TOO_MANY)
    return any(row is not None and row.verb is Verb.STORE for row in rows)


async def store(exchange: ExchangeView, services: Services, prepared: Prepared, attempts: int) -> None:
    """Store the request and answer the app: 202, or a refusal in the upstream's shape."""
    worker = services.outbox
    if worker is None:
        return
    try:
        until = services.loop.time() + _left_seconds(exchange, services, prepared)
        async with asyncio.timeout_at(until):
            body = await _whole_body(exchange, services, prepared, worker)
        # A hint binds every send of the request, so what is left of it goes into the outbox.
        left = max(0.0, exchange.not_before - services.clock.monotonic())
        due_at = services.steady_wall() + left if left else 0.0
        item = _item(exchange.message, prepared, body, services.clock.wall(), due_at, aside=left > HELD_UP_SECONDS)
        await worker.add(item, until - services.loop.time())
    except TimeoutError:
        _refuse(exchange, services, prepared, attempts, Refusal("deadline", "its body did not come in time"))
    except Refusal as refusal:
        _refuse(exchange, services, prepared, attempts, refusal)
    else:
        exchange.outcome, exchange.reason = Outcome.STORED, None
        names = prepared.request_id, prepared.correlation_id, prepared.destination.name
        _give(exchange, services, prepared, Receipt(item.id, attempts, exchange.waited_seconds, *names))


def _left_seconds(exchange: ExchangeView, services: Services, prepared: Prepared) -> float:
    """Seconds of the deadline that are left; never zero, since storing is the last thing tried."""
    return max(1.0, exchange.started + prepared.deadline_seconds - services.clock.monotonic())


def _refuse(exchange: ExchangeView, services: Services, prepared: Prepared, attempts: int, refusal: Refusal) -> None:
    exchange.outcome, exchange.reason = Outcome.FAILED if attempts else Outcome.REJECTED, None
    answer = OwnAnswer(
        status=413 if refusal.code == "body_too_large" else 503,
        code=refusal.code,
        detail=f"the request was not accepted: {refusal.detail}",
        error="proxy_internal_error",
        outcome=exchange.outcome,
        attempts=attempts,
        waited_seconds=exchange.waited_seconds,
        request_id=prepared.request_id,
        correlation_id=prepared.correlation_id,
        service=prepared.destination.name,
    )
    _give(exchange, services, prepared, answer)


def _give(exchange: ExchangeView, services: Services, prepared: Prepared, answer: OwnAnswer | Receipt) -> None:
    exchange.status = answer.status
    if isinstance(answer, OwnAnswer):
        exchange.own_code = answer.code
    lines = prepared.id_lines + prepared.key_line
    give_own(exchange.app, exchange.message, prepared, answer, lines, services.clock.wall())


# -- what is kept ----------------------------------------------------------------------------------------


def _item(message: RequestMessage, prepared: Prepared, body: bytes, wall: float, due_at: float, *, aside: bool) -> Item:
    return Item(
        id=new_id(),
        upstream=prepared.destination.name,
        method=message.method,
        target=prepared.target[len(prepared.destination.base_path) :],
        fields=_fields(message, prepared),
        body=body,
        stored_at=wall,
        due_at=due_at,
        aside=aside,
    )


def _fields(message: RequestMessage, prepared: Prepared) -> bytes:
    """The header lines to store: the app's that travel, then ours."""
    compiled = prepared.compiled
    host = asked_host(message, prepared.destination.origin)
    ours = [b"Host: " + host.encode("latin-1") + b"\r\n", prepared.id_lines, prepared.key_line]
    if prepared.trace is not None:
        ours.append(b"traceparent: " + prepared.trace.encode("ascii") + b"\r\n")
    written = {line.partition(b":")[0].lower() for line in b"".join(ours).split(b"\r\n") if line}
    written |= {b"content-length", *(name.lower() for name, _ in message.raw_headers if _is_ours(name))}
    if prepared.credential is not None:
        # The login's credential is put on anew at each delivery; stored, it would be a secret at rest.
        written.add(prepared.credential.rule.header.lower().encode("ascii"))
    dropped = named_by_connection(message) | frozenset(written)
    return b"".join((*careful_fields(message, compiled.request_rules, dropped), *ours))


def _is_ours(name: bytes) -> bool:
    return name.lower().startswith(b"sidecar-")


# -- the body --------------------------------------------------------------------------------------------


class _Gathering:
    """Takes a body as a connection would: in pieces, from the first byte."""

    def __init__(self, body: Body, limit_bytes: int) -> None:
        self.writing_paused = False
        self.request_sent = False
        self.on_writable: Callable[[], None] | None = None
        self.pieces: list[bytes] = []
        self._decoder = ChunkedDecoder() if body.length == CHUNKED else None
        self._left_bytes = limit_bytes
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def write(self, data: bytes) -> None:
        pieces = [data] if self._decoder is None else self._decoder.feed(data)
        self._left_bytes -= sum(map(len, pieces))
        if self._left_bytes >= 0:
            self.pieces += pieces
        elif not self.done.done():
            self.pieces = []
            self.done.set_exception(_too_large())

    def finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def _whole_body(exchange: ExchangeView, services: Services, prepared: Prepared, worker: OutboxWorker) -> bytes:
    """The whole request body, waited for. Raises ``Refusal`` if it is larger than may be held."""
    body = exchange.body
    if body is None:
        return exchange.payload
    limits = prepared.compiled.policy.body
    limit = min(worker.rule.max_bytes, max(limits.memory_bytes, limits.disk_bytes))
    if body.length > limit or not body.can_be_sent:
        raise _too_large()
    reader = exchange.app.reader
    if reader.expects_continue:
        reader.expects_continue = False
        exchange.app.interim(CONTINUE)
    gathering = _Gathering(body, limit)
    body.attach(gathering, gathering.finish)
    try:
        await gathering.done
    finally:
        body.detach()
    return b"".join(gathering.pieces)


def _too_large() -> Refusal:
    return Refusal("body_too_large", "its body is larger than the policy (`body`) or the outbox allows to hold")
