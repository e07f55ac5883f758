"""The upstream of a ``Model``: answers each send as its parts say, on a virtual or a real clock.

What hangs on chance hangs on the request's index and its attempt, or on the time, never on what was sent before: two
sides of a comparison meet the same dice. It counts why it answered as it did (``causes``).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from heapq import heappop, heappush
from math import cos as cosine
from math import exp, log, sqrt, tau
from typing import Final

from sidecar.core.enums import FailureKind
from sidecar.simulate.clock import unit
from sidecar.simulate.models import Caller, Failing, Hint, Limit, Model, Outage, Refusal
from sidecar.simulate.upstream import OK, Answer, Call, Fields, Timer, refusal

__all__ = ["Composed"]

REFUSING_SHARE: Final = 0.3
"""A refusal takes this share of the usual time."""
HEAD_SECONDS: Final = 15.0
"""The default policy's patience for a response head: no answer comes later."""
GARBAGE: Final = (b"soon", b"-1", b"NaN", b"1e9", b"", b"1, 2", b"0x10", b"tomorrow 25:61")
LONGEST_LATENCY_SECONDS: Final = 60.0


class Composed:
    """One run's worth of the model."""

    def __init__(self, clock: Timer, model: Model, seed: int, callers: list[Caller] | None = None) -> None:
        self._clock, self._model, self._seed = clock, model, seed
        self._callers = model.traffic.callers(seed) if callers is None else callers
        self._limits = [Counting(clock, limit, seed + number) for number, limit in enumerate(model.limits)]
        self._refused = [0] * len(model.refusals)
        self._free_at = [0.0] * (model.slots.slots if model.slots is not None else 0)
        self._begun: deque[float] = deque()
        """When those that wait in line will begin."""
        self.causes: Counter[str] = Counter()

    def arrive(self, call: Call, reply: Callable[[Answer], None]) -> None:
        now, model = self._clock.now, self._model
        caller = self._callers[call.index]
        if model.outage is not None and model.outage.begins <= now < model.outage.ends:
            self._turn_away("outage", self._down(model.outage, call), reply)
            return
        fields: Fields = ()
        taken: list[Counting] = []
        for counting in self._limits:
            if not counting.limit.who.covers(caller):
                continue
            wait = counting.take(caller, now)
            fields += counting.figures(caller, now)
            if wait is not None:
                for other in taken:
                    other.leave(caller)
                limit = counting.limit
                self._turn_away("limit", self._refusal(limit.status, limit.hint, wait, call, fields), reply)
                return
            taken.append(counting)
        for number, part in enumerate(model.refusals):
            if part.who.covers(caller) and self._refuses(number, part, call, now):
                for other in taken:
                    other.leave(caller)
                wait = self._window_left(part, now)
                self._turn_away("refusal", self._refusal(part.status, part.hint, wait, call, fields), reply)
                return
        self._work(call, caller, reply, fields, [one for one in taken if one.limit.kind == "concurrent"])

    def _turn_away(self, cause: str, answer: Answer, reply: Callable[[Answer], None]) -> None:
        self.causes[cause] += 1
        self._clock.after(REFUSING_SHARE * self._model.latency.seconds, reply, answer)

    def _down(self, outage: Outage, call: Call) -> Answer:
        if outage.status == 0:
            return Answer(failure=FailureKind.REFUSED)
        return self._refusal(outage.status, outage.hint, outage.ends - self._clock.now, call, ())

    def _refuses(self, number: int, part: Refusal, call: Call, now: float) -> bool:
        at = now % part.every if part.every else now
        if not part.begins <= at < part.ends or (part.at_most and self._refused[number] >= part.at_most):
            return False
        if part.share < 1 and unit(self._seed, call.index, call.attempt, 11 + number) >= part.share:
            return False
        self._refused[number] += 1
        return True

    def _window_left(self, part: Refusal, now: float) -> float:
        """Until it is over, if that is soon; else what the hint's own seconds say."""
        left = part.ends - (now % part.every if part.every else now)
        return left if left < 3600 else part.hint.seconds

    def _refusal(self, status: int, hint: Hint, right: float, call: Call, fields: Fields) -> Answer:
        if hint.style == "garbage":
            word = GARBAGE[int(unit(self._seed, call.index, call.attempt, 12) * len(GARBAGE))]
            return Answer(status, ((b"Retry-After", word), *fields))
        seconds = hint.seconds if hint.says == "fixed" else right
        if hint.says == "wrong":
            seconds *= 3 * unit(self._seed, call.index, call.attempt, 13)
        if seconds <= 0 and hint.style == "seconds":
            return Answer(status, ((b"Retry-After", b"0"), *fields))
        return refusal(status, seconds, hint.style, self._clock.wall, *fields)

    # -- what is worked on -------------------------------------------------------------------------------

    def _work(
        self, call: Call, caller: Caller, reply: Callable[[Answer], None], fields: Fields, busy: list[Counting]
    ) -> None:
        now, slots = self._clock.now, self._model.slots
        seconds = self._service_seconds(call, now)
        if slots is not None:
            while self._begun and self._begun[0] <= now:
                self._begun.popleft()
            if self._free_at[0] > now and len(self._begun) >= slots.queue:
                for counting in busy:
                    counting.leave(caller)
                answer = self._refusal(503, slots.hint, self._free_at[0] - now, call, fields)
                self._turn_away("slots", answer, reply)
                return
            begins = max(now, heappop(self._free_at))
            heappush(self._free_at, begins + seconds)
            if begins > now:
                self._begun.append(begins)
            seconds += begins - now
        answer = self._worked(call, now, fields)
        if seconds > HEAD_SECONDS:
            seconds, answer = HEAD_SECONDS, Answer(failure=FailureKind.HEAD_TIMEOUT, applied=True)
            self.causes["timeout"] += 1
        for counting in busy:
            self._clock.after(seconds, counting.leave, caller)
        self._clock.after(seconds, reply, answer)

    def _worked(self, call: Call, now: float, fields: Fields) -> Answer:
        for number, part in enumerate(self._model.failing):
            if self._fails(number, part, call, now):
                self.causes["failing"] += 1
                if part.status == 0:
                    return Answer(failure=FailureKind.RESET, applied=call.index % 2 == 0)
                return Answer(part.status, fields)
        self.causes["ok"] += 1
        return Answer(200, fields, applied=True) if fields else OK

    def _fails(self, number: int, part: Failing, call: Call, now: float) -> bool:
        if part.how == "independent":
            return unit(self._seed, call.index, call.attempt, 21 + number) < part.share
        if part.how == "bursts":
            return unit(self._seed, int(now / part.seconds), 22 + number) < part.share
        instances = max(2, round(1 / part.share))
        return int(unit(self._seed, call.index, call.attempt, 23 + number) * instances) == 0

    def _service_seconds(self, call: Call, now: float) -> float:
        latency, slow = self._model.latency, self._model.slow
        seconds = latency.seconds
        if latency.kind == "lognormal":
            seconds *= exp(latency.spread * self._normal(call))
        elif latency.kind == "pareto":
            # Shape 1.5: the mean exists, the variance does not. 0.63 makes ``seconds`` the median.
            seconds *= 0.63 / (1 - unit(self._seed, call.index, call.attempt, 31)) ** (1 / 1.5)
        elif latency.kind == "bimodal" and unit(self._seed, call.index, call.attempt, 32) < 0.1:
            seconds *= 1 + 10 * latency.spread
        elif latency.kind == "drift":
            seconds *= 2 ** (latency.spread * min(2.0, now / self._model.traffic.seconds))
        if slow is not None and slow.begins <= now < slow.ends:
            seconds *= slow.factor
        return min(seconds, LONGEST_LATENCY_SECONDS)

    def _normal(self, call: Call) -> float:
        """Box and Muller (1958)."""
        first = 1 - unit(self._seed, call.index, call.attempt, 33)
        return sqrt(-2 * log(first)) * cosine(tau * unit(self._seed, call.index, call.attempt, 34))


class Counting:
    """A quota as it stands."""

    def __init__(self, clock: Timer, limit: Limit, seed: int) -> None:
        self.limit = limit
        self._clock, self._seed = clock, seed
        self._states: dict[int, State] = {}

    def take(self, caller: Caller, now: float) -> float | None:
        """None: it may pass. Else refused, and the seconds after which it would not be."""
        state, limit = self._state(caller), self.limit
        if limit.kind == "concurrent":
            if state.busy + self._others(now) >= max(1.0, limit.rate):
                return 1.0
            state.busy += 1
            return None
        if limit.kind == "bucket":
            return self._take_token(state, now)
        most = max(1.0, limit.rate * limit.window)
        if limit.kind == "fixed":
            number = int(now / limit.window)
            if number != state.window:
                state.window, state.count = number, 0
            elapsed = now - number * limit.window
            if state.count + elapsed * limit.rate * self._others_share(now) >= most:
                return limit.window - elapsed
            state.count += 1
            return None
        while state.moments and state.moments[0] <= now - limit.window:
            state.moments.popleft()
        if len(state.moments) + most * self._others_share(now) >= most:
            return max(0.0, state.moments[0] + limit.window - now) if state.moments else 0.5
        state.moments.append(now)
        return None

    def _take_token(self, state: State, now: float) -> float | None:
        limit = self.limit
        full = max(1.0, limit.rate * limit.window)
        if state.at < 0:
            state.tokens = full
        else:
            earned = (now - state.at) * limit.rate * (1 - self._others_share(now))
            state.tokens = min(full, state.tokens + earned)
        state.at = now
        if state.tokens >= 1 - 1e-9:
            state.tokens -= 1
            return None
        return (1 - state.tokens) / limit.rate

    def leave(self, caller: Caller) -> None:
        if self.limit.kind == "concurrent":
            self._state(caller).busy -= 1

    def figures(self, caller: Caller, now: float) -> Fields:
        """What is announced of it."""
        limit = self.limit
        if limit.announced == "no" or limit.kind == "concurrent":
            return ()
        most, left, reset = self._left(self._state(caller), now)
        if limit.announced == "x":
            return (
                (b"X-RateLimit-Limit", b"%d" % most),
                (b"X-RateLimit-Remaining", b"%d" % left),
                (b"X-RateLimit-Reset", b"%d" % -(-reset // 1)),
            )
        window = max(1, round(limit.window))
        return (
            (b"RateLimit-Policy", b'"default";q=%d;w=%d' % (max(1, limit.rate * window), window)),
            (b"RateLimit", b'"default";r=%d;t=%d' % (left, -(-reset // 1))),
        )

    def _left(self, state: State, now: float) -> tuple[float, float, float]:
        """The quota of a window, what is left of it, and the seconds until it is renewed."""
        limit = self.limit
        most = max(1.0, limit.rate * limit.window)
        if limit.kind == "bucket":
            return most, max(0.0, state.tokens), 1.0
        if limit.kind == "fixed":
            return most, max(0.0, most - state.count), limit.window - now % limit.window
        return most, max(0.0, most - len(state.moments)), limit.window

    def _others_share(self, now: float) -> float:
        """From none to twice the average, another each half second."""
        share = self.limit.others
        return min(0.95, 2 * share * unit(self._seed, int(2 * now), 41)) if share else 0.0

    def _others(self, now: float) -> float:
        return self._others_share(now) * self.limit.rate

    def _state(self, caller: Caller) -> State:
        each = self.limit.each
        key = 0
        if each != "all":
            key = caller.endpoint if each == "endpoint" else caller.item if each == "item" else caller.tenant
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = State()
        return state


class State:
    """Of one quota: of everybody, or of one endpoint, item or tenant."""

    __slots__ = ("at", "busy", "count", "moments", "tokens", "window")

    def __init__(self) -> None:
        self.at = -1.0
        self.tokens = 0.0
        self.window = -1
        self.count = 0
        self.busy = 0
        self.moments: deque[float] = deque()
