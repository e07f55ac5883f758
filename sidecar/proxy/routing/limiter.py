"""The loop's side of one upstream's limiter: the futures of held exchanges, and the timer that wakes them.

``core.flow.limiter`` decides what may be sent. An upstream without trouble is *calm*: then this module is not called,
and the loop pays one test of that attribute.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from sidecar.core.decision.attempt import Headers
from sidecar.core.decision.decide import LEAST_ATTEMPT_SECONDS
from sidecar.core.decision.policy import Policy
from sidecar.core.decision.wait import expected_backoff_seconds
from sidecar.core.enums import Reason
from sidecar.core.flow.breaker import State
from sidecar.core.flow.keys import CREDENTIALS, endpoint_of, kind_of, scopes_of
from sidecar.core.flow.latency import Latency
from sidecar.core.flow.limiter import TICK_SECONDS, Forecast, Hold, Limiter, Load, Result
from sidecar.core.flow.queue import Ticket, TicketState
from sidecar.core.flow.ratelimit_headers import NO_RATELIMIT_HEADERS, read_ratelimit_headers
from sidecar.core.flow.scopes import scope_text
from sidecar.core.flow.shared_limiter import SharedLimiter
from sidecar.observe.log import EventLog
from sidecar.observe.metrics import UpstreamMeters
from sidecar.proxy.routing.clock import Clock
from sidecar.wire.heads import RequestMessage, ResponseMessage

__all__ = ["Holding", "Peer", "Rejected", "Ticker"]

CALM_TICKS: Final = 30
"""While calm, attempts under way are compared with living exchanges once in this many ticks: they hold nobody then."""
MOST_HOLDS: Final = 100
"""Closed scopes that are listed for an operator."""
SALT_BYTES: Final = 16
_KEY_SALT: Final = os.urandom(SALT_BYTES)
"""Salt of the keyed hash under which gate keys are kept: they hold values of headers, perhaps credentials."""


class Rejected(Exception):
    """Not admitted. ``retry_after_seconds``: the wait that the app is told."""

    def __init__(self, reason: Reason, retry_after_seconds: float) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class Stood(Protocol):
    """Called when an exchange was held: by what, for how many seconds, and in which scope."""

    def __call__(self, by: str, seconds: float, scope: str) -> None: ...


class Borrower(Protocol):
    """What put a token into ``Limiter.lent``: an exchange, or one of its sends."""

    def has_under_way(self, token: object) -> bool:
        """Whether ``token`` stands for an attempt of its own that has begun and not ended."""


class Peer(Protocol):
    """Tells other replicas what was learnt, and asks what they know."""

    def look(self) -> None:
        """Something may have happened; returns at once."""


class Holding:
    """The held exchanges of one upstream. ``is_replica``: what it knows can be shared, once it has a ``peer``."""

    __slots__ = (
        "_chance",
        "_clock",
        "_events",
        "_loop",
        "_meters",
        "_policy",
        "_ticks",
        "_timer",
        "_told",
        "_usual",
        "_waiters",
        "limiter",
        "peer",
        "salt",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        chance: Callable[[], float],
        policy: Policy,
        meters: UpstreamMeters,
        *,
        is_replica: bool = False,
        events: EventLog | None = None,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._chance = chance
        self._policy = policy
        self._meters = meters
        self._timer: asyncio.TimerHandle | None = None
        self._events = events
        self.salt = _KEY_SALT
        self.peer: Peer | None = None
        self.limiter = (SharedLimiter if is_replica else Limiter)(policy.breaker, policy.gate, self._load)
        self._told = (self.limiter.closings.copy(), self.limiter.openings.copy())
        """How often each scope had closed and opened when that was last reported."""
        self._usual = Latency()
        self._waiters: dict[Ticket, asyncio.Future[None]] = {}
        """Tickets that wait, or were settled and have not been heard of by their exchange yet."""
        self._ticks = 0
        self.tick()

    def _load(self) -> Load:
        return Load(self._usual.seconds or self._meters.usual_seconds())

    def tick(self) -> None:
        """Called once a second: measures what was usual before trouble began."""
        self.limiter.tick(self._clock.monotonic())
        self._usual = self._meters.told(self._usual, calm=self.limiter.calm)
        self._ticks += 1
        if not self.limiter.calm or self._ticks % CALM_TICKS == 0:
            self._give_back_lost()

    def _give_back_lost(self) -> None:
        """Give back what no living exchange has under way: such a token would fill the concurrency limit, or stand for
        the breaker's probe, until a restart. Each is a fault of ours.
        """
        lost = [token for token in self.limiter.lent if not self._is_under_way(token)]
        if not lost:
            return
        for token in lost:
            self.abandon(token)
        self._meters.attempts_lost += len(lost)
        if self._events is not None:
            self._events.limited(
                "attempts_lost",
                "error",
                upstream=self._meters.name,
                count=len(lost),
                message="attempts that no exchange has any more still counted as under way, and do not any more:"
                " a fault of the sidecar; please report it",
            )

    def _is_under_way(self, token: object) -> bool:
        if isinstance(token, Ticket) and token in self._waiters:
            return True
        borrower = token.owner if isinstance(token, Ticket) else token
        has_under_way = getattr(borrower, "has_under_way", None)
        return has_under_way is not None and bool(has_under_way(token))

    def scopes(self, message: RequestMessage) -> tuple[str, ...]:
        """The scopes of a request, narrow first: endpoint, tenant or credential, upstream."""
        named = self._policy.gate.key
        values = "\0".join(message.headers.get(name, "") for name in named or CREDENTIALS)
        key = ""
        if named or len(values) >= len(CREDENTIALS):
            secret = values.encode("utf-8", "surrogateescape")
            key = hashlib.blake2b(secret, digest_size=12, key=self.salt).hexdigest()
        return scopes_of(endpoint_of(message.method, _path_of(message.path)), key, is_keyed=bool(named))

    def pressure(self, message: RequestMessage, now: float) -> Forecast:
        """The pressure that one more send of this exchange would meet now."""
        return Forecast() if self.limiter.calm else self.limiter.forecast(self.scopes(message), now)

    def configure(self, policy: Policy) -> None:
        """Apply another policy; what was learnt stays."""
        self._policy = policy
        self.limiter.configure(policy.breaker, policy.gate)

    async def admitted(
        self,
        message: RequestMessage,
        number: int,
        began_at: float,
        deadline_at: float,
        policy: Policy,
        *,
        repeatable: bool,
        size_bytes: int,
        stood: Stood,
        borrower: Borrower,
    ) -> Ticket:
        """Wait until attempt ``number`` is admitted; ``policy``: of the route.

        Raises ``Rejected``; a cancelled call leaves the queue.

        ``stood`` is told the time that it took, on every path. ``borrower`` has the ticket under way from then on.
        """
        ticket = Ticket(
            deadline_at - LEAST_ATTEMPT_SECONDS,
            self.scopes(message),
            number=number,
            began_at=began_at,
            retries=policy.attempts - 1,
            backoff_seconds=expected_backoff_seconds(policy),
            repeatable=repeatable,
            size_bytes=size_bytes,
            max_wait_seconds=policy.max_wait_seconds,
            owner=borrower,
        )
        self.limiter.ask(ticket, self._clock.monotonic())
        self._release()
        if ticket.state is TicketState.WAITING:
            await self._held(ticket, stood)
        if ticket.state is not TicketState.ADMITTED:
            raise Rejected(ticket.reason or Reason.GATE, ticket.retry_after_seconds)
        return ticket

    async def _held(self, ticket: Ticket, stood: Stood) -> None:
        held, by, begun = self._meters.held, ticket.by, self._clock.monotonic()
        waiter = self._waiters[ticket] = self._loop.create_future()
        held[by] += 1
        try:
            await waiter
        except asyncio.CancelledError:
            self.limiter.leave(ticket, self._clock.monotonic())
            self._release()
            raise
        finally:
            del self._waiters[ticket]
            held[by] -= 1
            stood(ticket.by, self._clock.monotonic() - begun, scope_text(ticket.scope))

    def tell(
        self,
        ticket: Ticket | None,
        message: RequestMessage,
        answer: ResponseMessage | None,
        seconds: float,
        opens_at: float | None = None,
        *,
        gated: bool = True,
        number: int = 1,
    ) -> None:
        """Report how an attempt ended; a status of None: no response. In calm, responses that are no sign of trouble
        need not be reported.

        ``gated``: whether the policy lets this response hold other requests; a 429 that may not is no sign of anything.
        """
        kind = kind_of(None if answer is None else answer.code, holds=gated, hinted=opens_at is not None)
        figures = NO_RATELIMIT_HEADERS
        if answer is not None and (kind == "refused" or not self.limiter.calm):
            figures = read_ratelimit_headers(Headers(answer.raw_headers), self._clock.wall())
        scopes = self.scopes(message) if ticket is None else ticket.scopes
        result = Result(kind, seconds, opens_at, figures, number)
        self.limiter.finished(ticket, result, self._clock.monotonic(), self._chance(), scopes)
        self._release()

    def abandon(self, token: object) -> None:
        """The attempt was abandoned: the app has left. ``token`` identifies it in ``limiter.lent``."""
        self.limiter.lent.discard(token)
        if self.limiter.calm:
            return
        if isinstance(token, Ticket):
            self.limiter.leave(token, self._clock.monotonic())
        self._release()

    def _release(self) -> None:
        """Wake every exchange that is admitted or rejected now; look again when the limiter says."""
        now = self._clock.monotonic()
        for ticket in self.limiter.release(now, self._chance()):
            waiter = self._waiters.get(ticket)
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        if self._told != (self.limiter.closings, self.limiter.openings):
            self._tell()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.limiter.next_at(now)
        if at is not None:
            self._timer = self._loop.call_later(max(0.001, at - now), self.look_again)
        if self.peer is not None:
            self.peer.look()

    def look_again(self) -> None:
        """Called when a timer fires, or other replicas have told something."""
        self._release()

    def open(self) -> int:
        """Forget what was learnt and release the queue; returns how many exchanges that released."""
        waiting = self.limiter.waiting
        self.limiter.open(self._clock.monotonic())
        self._release()
        return waiting

    def holds(self) -> list[Hold]:
        """What would hold a new request of some scope now."""
        if not self.limiter.calm:
            self._release()  # what is over ends here: no exchange may have come since
        return [] if self.limiter.calm else self.limiter.holds(self._clock.monotonic(), MOST_HOLDS)

    @property
    def is_probing(self) -> bool:
        """Whether a probe is under way."""
        return self.limiter.breaker.state is State.PROBING

    def _tell(self) -> None:
        """Count and log what closed or opened since the last time."""
        limiter, known = self.limiter, self._told
        self._told = (limiter.closings.copy(), limiter.openings.copy())
        for to, counts, before in zip(("hold", "release"), self._told, known, strict=True):
            for by, count in counts.items():
                if count != before[by]:
                    self._meters.flow_changed(by, to, count - before[by])
                    self._say(to, by)

    def _say(self, to: str, by: str) -> None:
        if self._events is None:
            return
        holds = self.limiter.holds(self._clock.monotonic(), MOST_HOLDS) if to == "hold" else []
        hold = next((hold for hold in holds if hold.by == by), None)
        self._events.limited(
            to,
            "warning" if to == "hold" else "info",
            upstream=self._meters.name,
            by=by,
            scope=None if hold is None else scope_text(hold.scope),
            seconds=None if hold is None or hold.seconds is None else round(hold.seconds, 3),
            waiting=self.limiter.waiting,
        )

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _path_of(target: str) -> str:
    """The path of a target in origin-form or absolute-form (RFC 9112 section 3.2)."""
    path = target.partition("?")[0]
    return path if path.startswith("/") else "/" + "".join(path.split("/", 3)[3:])


class Ticker:
    """Calls every upstream once a second, so that its traffic before trouble is known.

    ``then`` is called after each round.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        all_of: Callable[[], Iterable[Holding]],
        then: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._all_of = all_of
        self._then = then
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        for holding in self._all_of():
            holding.tick()
        self._then()
        self.start()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
