"""One attempt: a connection, the request on it, and its head or its failure.

It counts nothing and decides nothing. Every foreign exception becomes a ``FailureKind`` here. Counterpart:
``retry_loop``.
"""

# Compiled in the wheel.

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from sidecar.core.enums import FailureKind, WaitFrom
from sidecar.core.flow.queue import Ticket
from sidecar.proxy.client.body import Body
from sidecar.proxy.client.connection import ClientConnection
from sidecar.proxy.exchange.context import Services
from sidecar.proxy.exchange.prepare import Prepared
from sidecar.proxy.exchange.respond import give_interim
from sidecar.proxy.message.errors import Refused
from sidecar.proxy.message.own_response import PROXY_STATUS
from sidecar.proxy.routing.limiter import Borrower
from sidecar.upstream.address_guard import Forbidden
from sidecar.upstream.connection import Connection
from sidecar.upstream.errors import NotConnected
from sidecar.wire.heads import ResponseMessage

__all__ = ["InFlight", "Send"]

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
CONTINUE_SECONDS: Final = 1.0
"""Seconds without a response to ``Expect: 100-continue`` before we let the app send its body (RFC 9110 section 10.1.1).
"""


class Send:
    """The request of one exchange, sent as often as asked.

    After ``attempt``: ``message`` and the live ``connection``, or ``failure`` with ``detail`` and ``error``
    (RFC 9209); ``written`` and ``pooled`` as the core wants to know them.
    """

    may_hedge: ClassVar[bool] = True
    """Whether a second send may go beside it; not where a relay comes of it."""
    connection: Connection | None = None
    failure: FailureKind | None = None
    detail = ""
    error = ""
    lasting = False
    """Whether the failure cannot go away by itself."""
    written = False
    pooled = False
    queued_seconds = 0.0
    """Seconds spent waiting for a pooled connection because the pool was full."""

    def __init__(
        self,
        services: Services,
        app: ClientConnection,
        prepared: Prepared,
        method: str,
        payload: bytes,
        body: Body | None,
    ) -> None:
        self._services = services
        self._app = app
        self._prepared = prepared
        self._method = method
        self._payload = payload
        self._body = body
        self._timers: list[asyncio.TimerHandle] = []
        self.message: ResponseMessage | None = None

    def twin(self) -> Send:
        """The same request, for a second send beside this one."""
        return Send(self._services, self._app, self._prepared, self._method, self._payload, self._body)

    def adopt(self, connection: Connection) -> None:
        """Take over a first send that ``exchange`` made; its head or failure is there."""
        self.connection = connection
        self.written = True
        self.settle()

    def settle(self) -> ResponseMessage | None:
        """Read the result of the send: ``message``, or ``failure``."""
        connection = self.connection
        if connection is None:
            return None
        self._prepared.compiled.head_timers.stop(connection)
        failure, message = connection.failure, connection.message
        if failure is None or (message is not None and not self._prepared.compiled.passes[message.code]):
            # A response that is judged is one, with its hint, though its body has broken off.
            self.message = message
        else:
            self.message = None
            self.failed(failure, connection.detail, PROXY_STATUS[failure])
            self.pooled = connection.reused
        return self.message

    async def attempt(self, number: int, left_seconds: float, *, last: bool) -> ResponseMessage | None:
        """Send once. ``left_seconds`` is what remains of the deadline; the ``last`` attempt may use all of it."""
        self.connection = self.message = self.failure = None
        self.written = self.pooled = False
        connection = self._send_on_idle(number, left_seconds)
        if connection is None:
            began = self._services.loop.time()
            connection = await self._send_on_new(number, left_seconds)
            if connection is None:
                return None
            left_seconds -= self._services.loop.time() - began
        self.connection = connection
        self.written = True
        try:
            self._start_timers(connection, left_seconds, last=last)
            await connection.head()
        finally:
            self.stop_timers()
        return self.settle()

    def _start_timers(self, connection: Connection, left_seconds: float, *, last: bool) -> None:
        compiled = self._prepared.compiled
        if self._body is None and left_seconds >= compiled.head_timers.seconds and not last:
            compiled.head_timers.start(connection)
            return
        loop = self._services.loop
        head_seconds = max(0.0, left_seconds if last else min(compiled.policy.timeouts.head_seconds, left_seconds))
        if self._body is None:
            self._timers.append(loop.call_later(head_seconds, connection.timed_out))
            return
        self._timers.append(loop.call_later(max(0.0, left_seconds), connection.timed_out))
        self._body.attach(connection, lambda: self._timers.append(loop.call_later(head_seconds, connection.timed_out)))

    def _send_on_idle(self, number: int, left_seconds: float) -> Connection | None:
        """Send over a pooled connection that is alive, if there is one. A dead one costs nothing: not a byte was
        written.
        """
        pool = self._prepared.destination.pool
        # Check the connection whatever the method: this may be the only attempt, and a task costs far more than the
        # check.
        while (connection := pool.take_idle(careful=True)) is not None:
            if self._write(connection, number, left_seconds):
                return connection
        return None

    async def _send_on_new(self, number: int, left_seconds: float) -> Connection | None:
        pool = self._prepared.destination.pool
        seconds = self._prepared.compiled.policy.timeouts.connect_seconds
        meters = self._prepared.destination.meters
        begun, waits = self._services.monotonic(), pool.size >= pool.limit
        if waits:
            meters.held["connection"] += 1
        try:
            async with asyncio.timeout(max(0.0, left_seconds)):
                connection = await pool.connect(seconds)
        except TimeoutError:
            self.failed(FailureKind.CONNECT_TIMEOUT, "no connection in time", "connection_timeout")
            return None
        except Forbidden as exc:
            if number == 1:
                raise Refused(403, "address", exc.detail) from None
            # The name now resolves to a forbidden address. What was sent before stays recorded.
            self.failed(exc.kind, exc.detail, "destination_ip_prohibited", lasting=True)
            return None
        except NotConnected as exc:
            error = "tls_certificate_error" if exc.certificate else PROXY_STATUS[exc.kind]
            self.failed(exc.kind, exc.detail, error, lasting=exc.lasting)
            return None
        finally:
            if waits:
                meters.held["connection"] -= 1
                self.queued_seconds += self._services.monotonic() - begun
        if self._write(connection, number, left_seconds):
            return connection
        self.failed(FailureKind.CLOSED, "the upstream closed at once", "connection_terminated")
        return None

    def _write(self, connection: Connection, number: int, left_seconds: float) -> bool:
        body = self._body
        expects = body is not None and self._app.reader.expects_continue
        head = self._prepared.head(number, left_seconds, expects_continue=expects)
        if body is None:
            request = head + self._payload if self._payload else head
            if not connection.send(request, self._method, whole=True):
                return False
        elif not connection.send(head, self._method, whole=False):
            return False
        connection.on_interim = self._interim
        if expects:
            self._timers.append(self._services.loop.call_later(CONTINUE_SECONDS, self._continue))
        return True

    def _interim(self, message: ResponseMessage) -> None:
        if message.code == 100:
            self._continue()
        else:
            give_interim(self._app, self._prepared.compiled, message)

    def _continue(self) -> None:
        """Tell the app, once, to send its body."""
        if self._app.reader.expects_continue:
            self._app.reader.expects_continue = False
            self._app.active_at = self._services.loop.time()
            self._app.interim(CONTINUE)

    def stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def failed(self, kind: FailureKind, detail: str, error: str, *, lasting: bool = False) -> None:
        """Note how the attempt failed; ``error`` is the proxy error type of RFC 9209."""
        self.failure = kind
        self.lasting = lasting
        self.detail = detail
        self.error = error

    def let_go(self) -> None:
        """End the attempt: the connection goes back to the pool if it can be used again, else it is cut."""
        connection, self.connection = self.connection, None
        # An upload beside an early response may have started a timer since; the connection may serve another exchange
        # now.
        self.stop_timers()
        if connection is None:
            return
        if self._body is not None:
            self._body.detach(connection)
        connection.release()

    def abandon(self) -> None:
        """Abort the attempt: its response is not wanted any more."""
        self.stop_timers()
        connection, self.connection = self.connection, None
        if connection is None:
            return
        self._prepared.compiled.head_timers.stop(connection)
        connection.asker = None
        if self._body is not None:
            self._body.detach(connection)
        connection.abort()


@dataclass(slots=True, eq=False)
class InFlight:
    """One send, as the loop remembers it; its result is in ``sending``."""

    number: int
    sending: Send
    began: float
    """Monotonic seconds."""
    ticket: Ticket | None = None
    waited_seconds: float = 0.0
    wait_from: WaitFrom | None = None
    is_hedge: bool = False
    """Whether it was sent beside the first."""
    maker: Any = None
    """The object that made the send, where that was not the loop."""
    borrower: Borrower | None = None
    """The exchange."""

    @property
    def token(self) -> object:
        """The token that identifies the send in ``Limiter.lent``."""
        return self.maker or self.ticket or self

    def has_under_way(self, token: object) -> bool:
        """Whether its exchange has it under way."""
        return self.borrower is not None and self.borrower.has_under_way(token)
