"""What must hold in every run, read off what the apps and the upstream saw: each breach a sentence.

The rules are those of the design: section 3 (when an attempt may be repeated), 4 (hints, deadlines, the last word), and
RFC 9112 (order and framing of answers).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Protocol

from tests.fuzz.loop import STARTS_AT, VirtualLoop
from tests.fuzz.peers import App, Arrival, Fetched, answer_to, body_of
from tests.fuzz.plans import Plan, Request, Run

__all__ = ["Judge"]

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"})
KEYED = frozenset({"POST", "PUT", "PATCH", "DELETE"})
SLACK_SECONDS = 0.75
"""Past its deadline an answer may still come: a losing one that is being kept takes half a second."""
YOUNG_SECONDS = 0.95
"""A body that comes whole within this after its head is no trickle."""
STORE_SECONDS = 1.0
"""What storing may take where the deadline is over: it is the last thing to be tried."""
KEPT_BYTES = 64 << 10
"""A losing answer that is larger is not kept; then the one before it is the last that there is."""
TIE_SECONDS = 0.005
DEFAULT_DEADLINE = 60.0
"""Of the policy for hosts that no upstream names, in seconds."""


class Seen(Protocol):
    """The world, when it is over."""

    run: Run
    loop: VirtualLoop
    requests: dict[str, Request]
    arrivals: dict[str, list[Arrival]]
    asked: dict[str, Fetched]
    apps: list[App]
    troubles: list[tuple[float, float]]


class Judge:
    """Reads what the apps and the upstream saw, and says what must not have been."""

    def __init__(self, world: Seen) -> None:
        self._world = world
        self._site = world.run.site

    def faults(self) -> Iterator[str]:
        for asked in self._world.asked.values():
            arrivals = self._world.arrivals.get(asked.request.token, [])
            yield from self.sends(asked, arrivals)
            yield from self._same(asked, arrivals)
            yield from self._answer(asked, arrivals)
            yield from self._last_word(asked, arrivals)
            yield from self._stored(asked)
        for app in self._world.apps:
            yield from self._conversation(app)

    def _deadline(self, request: Request) -> float:
        # While a reload has taken the upstream away, its host is one that nobody names.
        is_unnamed = request.way in ("host", "tunnel") and any(act.how == "without" for act in self._world.run.acts)
        own = DEFAULT_DEADLINE if request.way == "unknown" or is_unnamed else self._site.deadline
        return own if request.timeout is None else min(own, request.timeout)

    def is_stored(self, asked: Fetched) -> bool:
        """Whether it is in the outbox, as far as the app can know."""
        if asked.answer is None or b"nobody knows yet" in asked.answer.body:
            may_be = self._site.table == "store" and asked.request.method in KEYED
            return asked.request.way == "store" or may_be
        return "outcome=stored" in asked.sidecar

    def _may_repeat(self, request: Request) -> bool:
        """Whether an attempt whose end nobody knows may be followed by another."""
        if request.method in IDEMPOTENT:
            return True
        return self._site.keys and request.way != "unknown" and (request.keyed or request.method in KEYED)

    def _says_undone(self, arrival: Arrival, request: Request) -> bool:
        """Whether the upstream has stated that it did nothing."""
        statuses = {429, 425}
        if self._site.table in ("hinted", "store") and request.way != "unknown":
            statuses.add(503)
        return arrival.has_answered and arrival.plan.status in statuses

    def sends(self, asked: Fetched, arrivals: list[Arrival]) -> Iterator[str]:
        request = asked.request
        for before, _after in itertools.pairwise(arrivals):
            if not self._may_repeat(request) and not self._says_undone(before, request):
                ended = f"{before.plan.does} {before.plan.status}"
                yield f"{request.token} ({request.method}) was sent again after {before} ({ended})"
        for arrival in arrivals:
            yield from self._hints(arrival, arrivals)
        if not self.is_stored(asked) and not asked.talk.stalls:
            last = self._begun_at(asked) + self._deadline(request)
            for arrival in arrivals:
                if arrival.at > last + 0.01:
                    yield f"{arrival} was {arrival.at - last:.3f} s after its deadline"
            if asked.ended_at is not None:
                for arrival in arrivals:
                    if arrival.at > asked.ended_at + 0.01:
                        yield f"{arrival} was sent after the app had its answer, {asked.status}"

    def _begun_at(self, asked: Fetched) -> float:
        """When the sidecar could begin with it: its head was there, and the answer before it was out."""
        begun = asked.sent_at
        for other in asked.talk.requests:
            if other.token == asked.request.token:
                break
            earlier = self._world.asked.get(other.token)
            if earlier is not None:
                # An app that has left does not know when the answer before was out.
                begun = max(begun, earlier.ended_at or math.inf)
        return begun

    def _hints(self, later: Arrival, arrivals: list[Arrival]) -> Iterator[str]:
        for each in arrivals:
            hint = each.plan.hint
            if hint is None or each.answered_at is None or each.plan.does not in ("answer", "cut"):
                continue
            if each.gone_at is not None and each.gone_at <= each.answered_at:
                continue
            if abs(each.answered_at - each.at - self._site.head) < TIE_SECONDS:
                continue  # it came in the very moment in which the sidecar gave up
            asked_for = each.answered_at + hint - self._unseen_seconds(each.answered_at, later.at)
            if each.answered_at < later.at - 0.001 and later.at < asked_for - 0.002:
                yield f"{later} came {asked_for - later.at:.3f} s before the hint of {each} ({hint} s) allows"

    def _unseen_seconds(self, begun: float, end: float) -> float:
        """How far the wall's clock was set forward between the start of the process that met the hint and its end in
        this time: a process counts from the clock that it started with, the file of the outbox holds moments of that,
        and the next process knows no other than today's.
        """
        acts = self._world.run.acts
        ends = [act.at for act in acts if act.what in ("restart", "kill")]
        last = max((at for at in ends if begun <= STARTS_AT + at <= end), default=0.0)
        first = max((at for at in ends if STARTS_AT + at < begun), default=0.0)
        return sum(max(0.0, act.seconds) for act in acts if act.what == "clock" and first <= act.at <= last)

    def _same(self, asked: Fetched, arrivals: list[Arrival]) -> Iterator[str]:
        request = asked.request
        keys = set()
        for arrival in arrivals:
            method, target = arrival.message.start
            path = f"/{'s' if request.way == 'store' else 'x'}/{request.token}"
            if (method, target) != (request.method, path):
                yield f"{arrival} came as {method} {target}, in place of {request.method} {path}"
            if arrival.whole_at is not None and bytes(arrival.message.body) != body_of(request):
                yield f"{arrival} had another body: {len(arrival.message.body)} bytes of {request.size_bytes}"
            keys.add(arrival.message.get("idempotency-key"))
        if len(keys) > 1:
            yield f"{request.token} was sent with several keys: {keys}"

    def _answer(self, asked: Fetched, arrivals: list[Arrival]) -> Iterator[str]:
        answer, source = asked.answer, asked.source
        if answer is None or not source:
            return
        arrival = next((each for each in arrivals if each.number == source), None)
        if arrival is None or not arrival.has_answered:
            yield f"{asked.request.token} got an answer that was not given: {answer.start} {answer.fields}"
            return
        expected = answer_to(arrival)[1]
        if asked.status != arrival.plan.status:
            yield f"{asked.request.token} got {asked.status}, and the upstream said {arrival.plan.status}"
        if answer.is_whole and bytes(answer.body) != expected:
            yield f"{asked.request.token} got {len(answer.body)} bytes as a whole body of {len(expected)}"
        if not expected.startswith(bytes(answer.body)):
            yield f"{asked.request.token} got other bytes than {arrival} was answered with"
        young = arrival.plan.does == "answer" and 0 <= arrival.plan.gap * arrival.plan.pieces <= YOUNG_SECONDS
        if asked.was_cut and young and self._is_calm(asked) and arrival.plan.gap < self._site.idle:
            yield f"{asked.request.token}: a healthy body was cut after {len(answer.body)} of {len(expected)} bytes"

    def _is_calm(self, asked: Fetched) -> bool:
        """Whether the app sent, waited and read, and the sidecar stayed."""
        if asked.talk.stalls or asked.talk.ends != "waits" or asked.request.pause >= self._site.idle:
            return False
        end = asked.ended_at or self._world.loop.time()
        return not any(begun <= end and asked.sent_at <= over + 1 for begun, over in self._world.troubles)

    def _last_word(self, asked: Fetched, arrivals: list[Arrival]) -> Iterator[str]:
        source = asked.source
        if not source or asked.answered_at is None:
            return
        token = asked.request.token
        for later in arrivals[source:]:
            if later.at >= asked.answered_at:
                continue
            if not self._may_repeat(asked.request):
                if not self._says_undone(later, asked.request):
                    yield f"{token} got the {asked.status} of arrival {source}, though {later} may have been applied"
            elif self._site.hedge is None and self._was_answered(later, asked.answered_at):
                yield f"{token} got the answer of arrival {source}, though {later} was answered, too"

    def _stored(self, asked: Fetched) -> Iterator[str]:
        """A table that stores what cannot be sent stores what a shutdown holds back, too."""
        request = asked.request
        writes = request.method in KEYED and request.way in ("mount", "host", "tunnel")
        if any(act.how == "without" for act in self._world.run.acts):
            return  # its policy may be that of hosts that nobody names
        if self._site.table == "store" and writes and "reason=draining" in asked.sidecar and asked.status >= 500:
            yield f"{request.token} was held back by a shutdown, and not stored: {asked.status} {asked.sidecar}"

    def _was_answered(self, arrival: Arrival, before: float) -> bool:
        """Whether the sidecar had the whole answer of this one well before that moment."""
        finished_at = arrival.finished_at
        if finished_at is None or arrival.plan.does != "answer" or arrival.plan.size_bytes > KEPT_BYTES:
            return False
        return finished_at < before - 0.001 and (arrival.gone_at is None or arrival.gone_at > finished_at)

    def _conversation(self, app: App) -> Iterator[str]:
        talk = app.talk
        asked = [self._world.asked[each.token] for each in talk.requests if each.token in self._world.asked]
        if not asked:
            return
        if not app.is_over:
            waits = [each.request.token for each in asked if each.ended_at is None]
            yield f"the conversation {app.name} has not come to an end; without an answer: {waits}"
            return
        if talk.stalls or not all(self._is_undisturbed(each, app) for each in asked):
            return
        if talk.ends == "half":
            if all(each.whole_at is not None and _is_plain(each.request) for each in asked) and self._is_quiet():
                for each in asked:
                    if each.answer is None:
                        yield f"{each.request.token} was there whole before the app's FIN, and was not answered"
            return
        if talk.ends != "waits":
            return
        for before, each in zip([None, *asked], asked, strict=False):
            if each.answer is None:
                excused = before is not None and (
                    before.was_cut or before.answer is None or (before.answer.get("connection") or "") == "close"
                )
                if not excused:
                    yield f"{each.request.token} was dropped without an answer"
                return
            started = self._begun_at(each)
            late = (each.answered_at or 0) - started - self._deadline(each.request) - each.request.pause
            if late > SLACK_SECONDS + (STORE_SECONDS if self._site.table == "store" else 0.0):
                yield f"{each.request.token} was answered {late:.3f} s after its deadline"

    def _is_undisturbed(self, asked: Fetched, app: App) -> bool:
        end = app.closed_at or self._world.loop.time()
        return not any(begun <= end and asked.sent_at <= over + 1 for begun, over in self._world.troubles)

    def _is_quiet(self) -> bool:
        """Whether nothing of this run asks for holding anybody back."""
        return not self._world.run.acts and all(_is_plain(each) for each in self._world.requests.values())


def _is_plain(request: Request) -> bool:
    first = request.plans[0]
    return first == Plan(size_bytes=first.size_bytes) and not request.pause and request.way != "store"
