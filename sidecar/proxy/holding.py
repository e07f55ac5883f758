"""The waiting room in front of one upstream: who is held, who is woken, and when to look again.

What may go is decided by ``core.flow.limiter``; here are the futures and the timer that it does not know. An upstream
without trouble is *calm*: then nobody comes here, and the loop pays one test of that attribute.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from sidecar.core.exchange import Headers
from sidecar.core.flow.latency import Latency
from sidecar.core.flow.limiter import Limiter, Load, Result
from sidecar.core.flow.queue import Ticket, TicketState
from sidecar.core.flow.ratelimit_headers import NO_RATELIMIT_HEADERS, read_ratelimit_headers
from sidecar.core.flow.shared_limiter import SharedLimiter
from sidecar.core.policy import Policy
from sidecar.core.words import Reason
from sidecar.observe.metrics import UpstreamMeters
from sidecar.proxy.clock import Clock
from sidecar.wire.heads import RequestMessage, ResponseMessage

__all__ = ["Holding", "Peer", "Rejected", "Ticker"]

LEAST_ATTEMPT_SECONDS: Final = 0.02
"""What an attempt needs at the least: who would be admitted later than this before the deadline is not held."""
TICK_SECONDS: Final = 1.0
FEW_LANES: Final = 32
SHOWN_SECONDS: Final = 0.25
"""Of more gate keys than that the closed ones are counted no more often."""
SALT_BYTES: Final = 16
_KEY_SALT: Final = os.urandom(SALT_BYTES)
"""Gate keys hold values of headers (a tenant's credential, perhaps): only their keyed hash is kept."""


class Rejected(Exception):
    """Not admitted. ``retry_after_seconds``: how long the app had better wait."""

    def __init__(self, reason: Reason, retry_after_seconds: float) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class Peer(Protocol):
    """Who tells other replicas, and asks what they know."""

    def look(self) -> None:
        """Something may have happened. It returns at once."""


class Holding:
    """Of one upstream. ``is_replica``: what it knows can be shared with others, once it has a ``peer``."""

    __slots__ = (
        "_chance",
        "_clock",
        "_loop",
        "_meters",
        "_policy",
        "_shown_at",
        "_timer",
        "_usual",
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
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._chance = chance
        self._policy = policy
        self._meters = meters
        self._timer: asyncio.TimerHandle | None = None
        self._shown_at = 0.0
        self.salt = _KEY_SALT
        self.peer: Peer | None = None
        self.limiter = (SharedLimiter if is_replica else Limiter)(policy.breaker, policy.gate, self._load)
        self._usual = Latency()
        self.tick()

    def _load(self) -> Load:
        return Load(self._usual.seconds or self._meters.usual_seconds())

    def tick(self) -> None:
        """Once a second: so that it is known what was usual before trouble began."""
        self.limiter.tick(self._clock.monotonic())
        self._usual = self._meters.told(self._usual, calm=self.limiter.calm)
        if not self.limiter.calm:
            self._show(self._clock.monotonic())  # a gate opens by itself, also where nobody waits behind it

    def key(self, message: RequestMessage) -> str:
        """Whose quota this request is under: everybody's, or that of the values of the named headers."""
        names = self._policy.gate.key
        if not names:
            return ""
        values = "\0".join(message.headers.get(name, "") for name in names)
        return hashlib.blake2b(values.encode("utf-8", "surrogateescape"), digest_size=12, key=self.salt).hexdigest()

    async def admitted(
        self, message: RequestMessage, number: int, deadline_at: float, *, repeatable: bool, size_bytes: int
    ) -> Ticket:
        """Wait for a turn to send attempt ``number``. Raises ``Rejected``; a cancelled call leaves its place."""
        ticket = Ticket(
            deadline_at - LEAST_ATTEMPT_SECONDS,
            self.key(message),
            number,
            repeatable,
            size_bytes,
            self._policy.max_wait_seconds,
        )
        self.limiter.ask(ticket, self._clock.monotonic())
        self._release()
        if ticket.state is TicketState.WAITING:
            await self._held(ticket)
        if ticket.state is not TicketState.ADMITTED:
            raise Rejected(ticket.reason or Reason.GATE, ticket.retry_after_seconds)
        return ticket

    async def _held(self, ticket: Ticket) -> None:
        held, by = self._meters.held, ticket.by
        waiter = ticket.owner = self._loop.create_future()
        held[by] += 1
        try:
            await waiter
        except asyncio.CancelledError:
            self.limiter.leave(ticket, self._clock.monotonic())
            self._release()
            raise
        finally:
            held[by] -= 1

    def tell(
        self,
        ticket: Ticket | None,
        message: RequestMessage,
        answer: ResponseMessage | None,
        seconds: float,
        opens_at: float | None = None,
        *,
        gated: bool = True,
    ) -> None:
        """What came of an attempt; None: no answer. In calm, answers that are no sign of trouble need not be told.

        ``gated``: whether the policy lets this answer hold others; a 429 that may not is no sign of anything.
        """
        if answer is None or (answer.code >= 500 and not (answer.code == 503 and opens_at is not None)):
            kind: Any = "failed"
        elif answer.code == 429 and gated:
            kind = "refused"
        else:
            kind = "busy" if answer.code >= 500 else "ok"
        figures = NO_RATELIMIT_HEADERS
        if answer is not None and (kind == "refused" or not self.limiter.calm):
            figures = read_ratelimit_headers(Headers(answer.raw_headers), self._clock.wall())
        key = self.key(message) if ticket is None else ticket.key
        result = Result(kind, seconds, opens_at, figures)
        self.limiter.finished(ticket, result, self._clock.monotonic(), self._chance(), key)
        self._release()

    def abandon(self, token: object) -> None:
        """The attempt was given up: the app has left. ``token``: what stands for it in ``limiter.lent``."""
        limiter = self.limiter
        limiter.lent.discard(token)
        if limiter.calm:
            return
        if isinstance(token, Ticket):
            limiter.leave(token, self._clock.monotonic())
        self._release()

    def _release(self) -> None:
        """Wake whoever is admitted or rejected now; look again when the limiter says."""
        now = self._clock.monotonic()
        for ticket in self.limiter.release(now, self._chance()):
            waiter = ticket.owner
            if isinstance(waiter, asyncio.Future) and not waiter.done():
                waiter.set_result(None)
        self._show(now)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.limiter.next_at(now)
        if at is not None:
            self._timer = self._loop.call_later(max(0.001, at - now), self.look_again)
        if self.peer is not None:
            self.peer.look()

    def look_again(self) -> None:
        """The time has come for somebody, or something was heard from other replicas."""
        self._release()

    def holds(self) -> list[dict[str, object]]:
        """What would hold a newcomer now, for those who look: ``by``, ``scope``, ``seconds`` (None: unknown)."""
        now, found = self._clock.monotonic(), []
        breaker = self.limiter.breaker
        if breaker.is_open:
            found.append({"by": "breaker", "scope": "upstream", "seconds": max(0.0, round(breaker.probe_at - now, 3))})
        if self.limiter.gates_closed(now):
            found.append({"by": "gate", "scope": "upstream", "seconds": None})
        return found

    def _show(self, now: float) -> None:
        meters, limiter = self._meters, self.limiter
        meters.breaker_state = 0 if not limiter.breaker.is_open else 2
        if limiter.lanes <= FEW_LANES or not 0 <= now - self._shown_at < SHOWN_SECONDS:
            self._shown_at = now
            meters.gate_closed = limiter.gates_closed(now)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Ticker:
    """Once a second, for every upstream: so that it is known how much it was sent before trouble began.

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
