"""The story of an exchange: it tells what the engine does, step by step, and never something else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.decision.attempt import Attempt, Headers, Now, Pressure, Replay, Request
from sidecar.core.decision.decide import ORDER, decide
from sidecar.core.decision.policy import Verdict
from sidecar.core.decision.retry_after import SourceState, read_hint, read_sources
from sidecar.core.decision.rows import Condition, HintSource
from sidecar.core.dryrun.replay import request_of
from sidecar.core.dryrun.story import ExchangeView, tell
from sidecar.core.dryrun.story_text import story_text
from sidecar.core.enums import Reason, Unit, Verb
from tests.core.making import NOW, answered, attempts, get, policy, post, requests, row, some_sources, steady

GUARDED = HintSource(
    "header",
    "x-reset",
    unit=Unit.S,
    when=(Condition("header", "x-left", "equals", ("0",)),),
)
SOURCES = (
    GUARDED,
    HintSource("header", "retry-after-ms", unit=Unit.MS),
    HintSource("header", "retry-after"),
    HintSource("body", "/wait", unit=Unit.S),
    HintSource("constant", constant_seconds=7.0),
)


def story(*answers: Attempt, request: Request | None = None, **more: object) -> ExchangeView:
    made = policy(**more)
    request = request or request_of(made, "GET", "/", "", Headers())
    return tell("api", made, request, answers, NOW.wall)


@steady
@given(st.lists(some_sources, max_size=3), requests, attempts)
def test_the_source_that_is_used_is_the_one_that_the_engine_uses(
    sources: list[tuple[HintSource, ...]], request: Request, attempt: Attempt
) -> None:
    flat = tuple(source for some in sources for source in some)
    told = read_sources(flat, request, attempt, NOW)
    used = [reading for reading in told if reading.state is SourceState.USED]
    assert [reading.hint for reading in used] == [read_hint(flat, request, attempt, NOW)] * len(used)
    assert bool(used) is (read_hint(flat, request, attempt, NOW) is not None)
    assert [reading.source for reading in told] == list(flat)


def test_of_each_source_it_is_told_why_it_was_not_the_one() -> None:
    attempt = answered(503, ("X-Left", "3"), ("Retry-After-Ms", "soon"), body=b'{"wait": 4}')
    told = read_sources(SOURCES, get(), attempt, NOW)
    assert [reading.state for reading in told] == [
        SourceState.GUARD_FAILED,
        SourceState.UNREADABLE,
        SourceState.ABSENT,
        SourceState.USED,
        SourceState.NOT_ASKED,
    ]
    assert told[0].failed == GUARDED.when[0]
    assert told[1].found == ("soon",)
    assert told[3].hint is not None
    assert told[3].hint.seconds == 4


@pytest.mark.parametrize("body", [b"[]", b"not json", None])
def test_a_body_that_has_no_such_value_is_absent(body: bytes | None) -> None:
    (told,) = read_sources((HintSource("body", "/wait", unit=Unit.S),), get(), answered(503, body=body), NOW)
    assert told.state is SourceState.ABSENT


def test_a_body_value_that_is_no_text_and_no_number_is_unreadable() -> None:
    (told,) = read_sources((HintSource("body", "/wait", unit=Unit.S),), get(), answered(503, body=b'{"wait": {}}'), NOW)
    assert told.state is SourceState.UNREADABLE


def test_the_order_is_that_of_the_judgement() -> None:
    """Everything objects at once; each objection is taken away in turn, and the next one is the reason."""
    made = policy(
        row(Verb.RETRY, 503, max_wait_seconds=5.0),
        verdict=Verdict("x-retry", "true", "false"),
        attempts=2,
        deadline_seconds=10.0,
    )
    full = Pressure(
        budget_tokens=0.0,
        breaker_open=True,
        gate_closed_until=1e6,
        draining=True,
        switched_off=True,
        replay=Replay.CONSUMED,
        response_started=True,
    )
    request = post(deadline_at=1.0)
    attempt = answered(404, ("X-Retry", "false"), ("Retry-After", "6"), number=2)
    found: list[Reason | None] = []

    def reason() -> None:
        found.append(decide(made, request, (attempt,), Now(0.99, 0.0), 0.5, full).reason)

    reason()
    attempt = replace(attempt, status=503)
    reason()
    attempt = answered(503, ("Retry-After", "6"), number=2)
    reason()
    full = replace(full, response_started=False)
    reason()
    full = replace(full, replay=Replay.TOO_LARGE)
    reason()
    request = get(deadline_at=1.0)
    reason()
    full = replace(full, replay=Replay.HELD)
    reason()
    attempt = replace(attempt, number=1)
    reason()
    attempt = answered(503, ("Retry-After", "4"), number=1)
    reason()
    request = get(deadline_at=100.0)
    for change in (
        {"budget_tokens": 9.0},
        {"breaker_open": False},
        {"gate_closed_until": 0.0},
        {"draining": False},
        {"switched_off": False},
    ):
        reason()
        full = replace(full, **change)
    reason()
    steps = [next(step for step, reasons in ORDER if reason in reasons) for reason in found[:-1]]
    assert steps == [step for step, _ in ORDER]
    assert found[-1] is None


@steady
@given(attempts)
def test_a_story_agrees_with_the_engine(attempt: Attempt) -> None:
    told = story(replace(attempt, number=1, ended_at=0.0, started_at=0.0))
    first = told.told[0]
    assert [point.step for point in first.points] == [step for step, _ in ORDER]
    stopped = [point.step for point in first.points if point.state == "stopped"]
    assert len(stopped) <= 1
    assert (first.decision.verb in (Verb.RETRY, Verb.STORE, Verb.LOGIN, Verb.REREAD)) is not bool(stopped)
    assert first.decision == told.line[0].decision
    assert told.waits[0] <= told.waits[1] <= told.worst_seconds + 1e-6 <= told.deadline_seconds + 2e-6
    assert story_text(told, get(), lambda row: [])


def test_the_worst_case_counts_sends_and_seconds() -> None:
    told = story(answered(503), attempts=5)
    assert (len(told.line), told.waits, told.worst_seconds) == (5, (0.0, 3.75), 60.0)
    assert [moment.to_seconds for moment in told.line] == [0.0, 0.25, 0.75, 1.75, 3.75]
