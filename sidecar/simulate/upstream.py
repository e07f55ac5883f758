"""Model upstreams: what a real one would answer, and after how long, on the virtual clock.

Each is a few lines of queueing or counting; none knows who asks, or why. The counterpart is ``sidecars``: the engine
under the storm. How a model says when to come back (seconds, a date, decimals, a reset, nothing) can be varied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Literal, Protocol

from sidecar.core.decision.attempt import Headers, Request, no_headers
from sidecar.core.enums import FailureKind

__all__ = [
    "Answer",
    "Brownout",
    "Call",
    "Flaky",
    "HintStyle",
    "Outage",
    "Quota",
    "Silent",
    "Timer",
    "Trouble",
    "Upstream",
    "refusal",
]

HintStyle = Literal["seconds", "date", "decimal", "ms", "reset", "none"]
Trouble = Literal["status", "reset", "refused"]
"""How an outage shows: error answers, connections that break, or none that can be opened."""


Fields = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes back: a status, or a failure."""

    status: int | None = None
    fields: Fields = ()
    failure: FailureKind | None = None
    applied: bool = False
    """Whether the request took effect."""

    @property
    def headers(self) -> Headers:
        return Headers(self.fields) if self.fields else no_headers


OK = Answer(200, applied=True)
UNAVAILABLE = Answer(503)


@dataclass(frozen=True, slots=True)
class Call:
    """One send, as an upstream sees it."""

    request: Request
    index: int = 0
    """Of the request among those of the run, from 0: what hangs on chance can hang on this and on ``attempt``."""
    attempt: int = 1


class Timer(Protocol):
    """What a model needs of a clock, virtual (``clock``) or real (``benchmarks.storms``)."""

    @property
    def now(self) -> float:
        """Seconds since the storm began."""

    @property
    def wall(self) -> float: ...

    @property
    def chance(self) -> Callable[[], float]: ...

    def after(self, seconds: float, act: Callable[..., None], *arguments: Any) -> None: ...


class Upstream(Protocol):
    def arrive(self, call: Call, reply: Callable[[Answer], None]) -> None:
        """One request; ``reply`` is called once, later."""


def refusal(status: int, seconds: float, style: HintStyle, wall: float, *fields: tuple[bytes, bytes]) -> Answer:
    """An error that says, in this style, when to come back."""
    hint: list[tuple[bytes, bytes]] = []
    if style == "seconds":
        hint = [(b"Retry-After", b"%d" % max(1, -(-seconds // 1)))]
    elif style == "decimal":
        hint = [(b"Retry-After", b"%.3f" % seconds)]
    elif style == "ms":
        hint = [(b"Retry-After-Ms", b"%d" % -(-seconds * 1000 // 1))]
    elif style == "date":
        hint = [(b"Retry-After", formatdate(-(-(wall + seconds) // 1), usegmt=True).encode("ascii"))]
    elif style == "reset":
        reset = b"%d" % -(-(wall + seconds) // 1)
        hint = [(b"X-RateLimit-Remaining", b"0"), (b"X-RateLimit-Reset", reset)]
    return Answer(status, (*hint, *fields))


class Flaky:
    """Some answers are 503, by chance."""

    def __init__(self, clock: Timer, share: float = 0.2, latency: float = 0.01) -> None:
        self._clock, self._share, self._latency = clock, share, latency

    def arrive(self, call: Call, reply: Callable[[Answer], None]) -> None:
        answer = UNAVAILABLE if self._clock.chance() < self._share else OK
        self._clock.after(self._latency, reply, answer)


class Silent:
    """Applies every request, then some connections die without an answer."""

    def __init__(self, clock: Timer, share: float = 0.2, latency: float = 0.01) -> None:
        self._clock, self._share, self._latency = clock, share, latency

    def arrive(self, call: Call, reply: Callable[[Answer], None]) -> None:
        dies = self._clock.chance() < self._share
        answer = Answer(failure=FailureKind.CLOSED, applied=True) if dies else OK
        self._clock.after(self._latency, reply, answer)


class Outage:
    """Nothing but errors between two moments; ``hint``: seconds that it asks for, None for none."""

    def __init__(
        self,
        clock: Timer,
        begins: float = 5.0,
        ends: float = 8.0,
        latency: float = 0.02,
        hint: float | None = None,
        style: HintStyle = "seconds",
        status: int = 503,
        how: Trouble = "status",
    ) -> None:
        self._clock, self._begins, self._ends, self._latency = clock, begins, ends, latency
        self._hint, self._style, self._status, self._how = hint, style, status, how

    def arrive(self, call: Call, reply: Callable[[Answer], None]) -> None:
        is_down = self._begins <= self._clock.now < self._ends
        self._clock.after(self._latency, reply, self._trouble() if is_down else OK)

    def _trouble(self) -> Answer:
        if self._how != "status":
            return Answer(failure=FailureKind.RESET if self._how == "reset" else FailureKind.REFUSED)
        if self._hint is None:
            return Answer(self._status)
        return refusal(self._status, self._hint, self._style, self._clock.wall)


class Quota:
    """A token bucket; who finds it empty gets 429 and a hint. ``announces``: RateLimit fields on every answer."""

    def __init__(
        self,
        clock: Timer,
        rate: float = 50.0,
        burst: float = 10.0,
        hint: float = 1.0,
        style: HintStyle = "seconds",
        announces: bool = False,
        latency: float = 0.01,
    ) -> None:
        self._clock, self._rate, self._burst, self._latency = clock, rate, burst, latency
        self._hint, self._style, self._announces = hint, style, announces
        self._tokens, self._at = burst, 0.0
        self._asked_until: dict[int, float] = {}
        """By request: until when its own last refusal asked it to wait."""
        self.early = 0
        """Requests sent again before that moment: what a refusal says binds the exchange that got it (section 5)."""

    def arrive(self, call: Call, reply: Callable[[Answer], None]) -> None:
        now = self._clock.now
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if now < self._asked_until.pop(call.index, 0.0):
            self.early += 1
        if self._tokens >= 1 - 1e-9:
            self._tokens -= 1
            answer = Answer(200, self._figures(), applied=True) if self._announces else OK
        else:
            answer = refusal(429, self._hint, self._style, self._clock.wall, *self._figures())
            if self._style != "none":
                is_moment = self._style in ("date", "reset")  # it is not put off by the answer's way
                self._asked_until[call.index] = now + self._hint + (0.0 if is_moment else self._latency)
        self._clock.after(self._latency, reply, answer)

    def _figures(self) -> Fields:
        if not self._announces:
            return ()
        policy = b'"default";q=%d;w=1' % self._rate
        return (b"RateLimit-Policy", policy), (b"RateLimit", b'"default";r=%d;t=1' % self._tokens)


class Brownout:
    """Slots with a queue in front; for a while each request takes longer. A full queue answers 503 at once."""

    def __init__(
        self,
        clock: Timer,
        slots: int = 40,
        service: float = 0.15,
        slow: float = 0.6,
        begins: float = 5.0,
        ends: float = 8.0,
        queue: int = 200,
        hint: float | None = None,
    ) -> None:
        self._clock, self._free, self._service, self._slow = clock, slots, service, slow
        self._begins, self._ends, self._queue, self._hint = begins, ends, queue, hint
        self._waiting: deque[Callable[[Answer], None]] = deque()

    def arrive(self, call: Call, reply: Callable[[Answer], None]) -> None:
        if self._free:
            self._serve(reply)
        elif len(self._waiting) < self._queue:
            self._waiting.append(reply)
        else:
            answer = UNAVAILABLE if self._hint is None else refusal(503, self._hint, "seconds", self._clock.wall)
            self._clock.after(0.001, reply, answer)

    def _serve(self, reply: Callable[[Answer], None]) -> None:
        self._free -= 1
        is_slow = self._begins <= self._clock.now < self._ends
        self._clock.after(self._slow if is_slow else self._service, self._served, reply)

    def _served(self, reply: Callable[[Answer], None]) -> None:
        self._free += 1
        if self._waiting:
            self._serve(self._waiting.popleft())
        reply(OK)
