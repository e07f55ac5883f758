"""One exchange played through, in full: each step of each judgement, each source of a wait, the time line.

It plays the exchange (``replay``) with every wait as short and as long as chance allows, and judges nothing itself.
Counterparts: ``story_text``, which ``sidecar explain`` prints, and ``explain``, which words one decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from sidecar.core.decision.attempt import Attempt, Now, Request
from sidecar.core.decision.decide import ORDER, Decision, hint_sources
from sidecar.core.decision.policy import Policy
from sidecar.core.decision.retry_after import Reading, read_sources
from sidecar.core.dryrun.replay import Step, rehearse
from sidecar.core.dryrun.story_words import backoff_text, condition_text, cut, pass_text, source_text, stop_text
from sidecar.core.enums import Verb

__all__ = ["ExchangeView", "Moment", "Point", "Told", "judged", "story_object", "tell"]

SHORTEST, LONGEST = 0.0, 1.0
"""The two ends of chance."""
MOST_ATTEMPTS: Final = 100
"""Attempts that a policy may allow at most: for the worst case the last response is repeated as often."""


class Point(NamedTuple):
    """One step of a judgement."""

    step: str
    """Its name in ``decide.ORDER``."""
    state: str
    """``passed``, ``stopped`` or ``not_asked``."""
    text: str


@dataclass(frozen=True, slots=True)
class Told:
    """One response: the decision about it, and its reasons."""

    attempt: Attempt
    decision: Decision
    points: tuple[Point, ...]
    readings: tuple[Reading, ...]
    """The result of each source of a wait; empty where no hint is read."""
    backoff: str
    """The wait used where no source is usable, in words."""


class Moment(NamedTuple):
    """One attempt on the time line: seconds since the first send, with the shortest waits and with the longest."""

    attempt: Attempt
    from_seconds: float
    to_seconds: float
    decision: Decision


@dataclass(frozen=True, slots=True)
class ExchangeView:
    """One exchange, played through offline. Responses come at once, unless said otherwise."""

    upstream: str
    policy: Policy
    told: tuple[Told, ...]
    """Each given response, in order; it ends with the first after which nothing is sent again."""
    unheard: int
    """Given responses that no send would have brought."""
    line: tuple[Moment, ...]
    """All attempts, if the last response is repeated."""
    fewest: int
    """Sends in ``line`` with the longest waits: a deadline may end it sooner."""
    waits: tuple[float, float]
    """Seconds from the first send to the end of ``line``: the least and the most."""
    worst_seconds: float
    """As ``waits``, with responses that take the whole of ``attempt.head``."""
    deadline_seconds: float


def tell(upstream: str, policy: Policy, request: Request, answers: Sequence[Attempt], wall: float) -> ExchangeView:
    """Play an exchange. ``responses``: at least one; ``wall``: Unix time at the first send.

    The last response is taken to be repeated for ever, for the time line and the worst case.
    """
    given = tuple(answers)
    endless = (*given, *(given[-1:] * MOST_ATTEMPTS))
    least, most = (rehearse(policy, request, endless, wall, chance) for chance in (SHORTEST, LONGEST))
    head = policy.timeouts.head_seconds
    slow = tuple(replace(answer, ended_at=max(answer.ended_at, head)) for answer in endless)
    slowest = rehearse(policy, request, slow, wall, LONGEST)
    worst = max(slowest[-1].attempt.ended_at, most[-1].attempt.ended_at)
    if slowest[-1].decision.attempts_left == 0:  # the last attempt may use all that is left
        worst = request.deadline_at
    heard = least[: len(given)]
    return ExchangeView(
        upstream,
        policy,
        tuple(judged(policy, request, step.attempt, step.decision, wall) for step in heard),
        len(given) - len(heard),
        tuple(_line(least, most)),
        len(most),
        (least[-1].attempt.ended_at, most[-1].attempt.ended_at),
        min(request.deadline_at, worst),
        request.deadline_at,
    )


def _line(least: Sequence[Step], most: Sequence[Step]) -> Iterator[Moment]:
    late = [step.attempt.started_at for step in most]
    for index, step in enumerate(least):
        started = step.attempt.started_at
        yield Moment(step.attempt, started, late[index] if index < len(late) else started, step.decision)


def judged(policy: Policy, request: Request, attempt: Attempt, decision: Decision, wall: float) -> Told:
    """A decision with its steps and the sources of its wait. ``wall``: Unix time at second 0 of the attempt's clock."""
    now = Now(attempt.ended_at, wall + attempt.ended_at)
    sources = hint_sources(policy, decision.row, attempt)
    row = decision.row
    rule = policy.backoff if row is None or row.backoff is None else row.backoff
    return Told(
        attempt,
        decision,
        tuple(_points(policy, request, attempt, decision)),
        read_sources(sources, request, attempt, now),
        backoff_text(rule, attempt.number),
    )


def _points(policy: Policy, request: Request, attempt: Attempt, decision: Decision) -> Iterator[Point]:
    """Every step in ``decide``'s order. A judgement that stopped for a reason has passed the steps before it."""
    stop = _stop(decision)
    last = _last_asked(decision)
    for index, (step, _) in enumerate(ORDER):
        if index == stop:
            yield Point(step, "stopped", stop_text(policy, request, attempt, decision))
        elif index > last:
            yield Point(step, "not_asked", "")
        else:
            yield Point(step, "passed", pass_text(step, policy, request, attempt, decision))


def _stop(decision: Decision) -> int:
    """The index of the step at which it stopped; one behind the last if it did not."""
    if decision.verb is Verb.PASS and decision.reason is None:
        return 0
    return next((index for index, (_, reasons) in enumerate(ORDER) if decision.reason in reasons), len(ORDER))


def _last_asked(decision: Decision) -> int:
    if decision.verb is Verb.STORE:
        return next(index for index, (step, _) in enumerate(ORDER) if step == "body held")
    return _stop(decision)


def story_object(story: ExchangeView) -> dict[str, object]:
    """The members that ``explain --format json`` adds. Seconds are floats; null for a number too large to count."""
    last = story.told[-1]
    return {
        "steps": [point._asdict() for point in last.points],
        "sources": [_reading_object(reading) for reading in last.readings],
        "time_line": [_moment_object(moment) for moment in story.line],
        "worst_case": {
            "sends": len(story.line),
            "min_seconds": story.waits[0],
            "max_seconds": story.waits[1],
            "slow_seconds": story.worst_seconds,
            "deadline_seconds": story.deadline_seconds,
        },
        "unheard_answers": story.unheard,
    }


def _reading_object(reading: Reading) -> dict[str, object]:
    return {
        "source": source_text(reading.source),
        "state": reading.state.value,
        "seconds": None if reading.hint is None else reading.hint.seconds,
        "found": [cut(text) for text in reading.found],
        "guard": None if reading.failed is None else condition_text(reading.failed),
    }


def _moment_object(moment: Moment) -> dict[str, object]:
    attempt, decision = moment.attempt, moment.decision
    wait = decision.wait
    return {
        "attempt": attempt.number,
        "status": attempt.status,
        "failure": None if attempt.failure is None else attempt.failure.value,
        "min_at_seconds": moment.from_seconds,
        "max_at_seconds": moment.to_seconds,
        "decision": decision.verb.value,
        "reason": None if decision.reason is None else decision.reason.value,
        "wait": None if wait is None else {"min_seconds": wait.min_seconds, "max_seconds": wait.max_seconds},
    }
