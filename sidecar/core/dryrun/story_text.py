"""The story of an exchange as lines for a terminal. It decides nothing. Counterpart: ``story``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from sidecar.core.decision.attempt import Request
from sidecar.core.decision.conditions import Look
from sidecar.core.decision.retry_after import SourceState
from sidecar.core.decision.rows import Row
from sidecar.core.decision.wait import Wait
from sidecar.core.dryrun.explain import VERBS, WAITS
from sidecar.core.dryrun.replay import SENDS_AGAIN
from sidecar.core.dryrun.story import ExchangeView, Moment, Told
from sidecar.core.dryrun.story_words import (
    OFFLINE,
    count_text,
    range_text,
    reading_text,
    result_text,
    row_text,
    seconds_text,
    source_text,
)
from sidecar.core.enums import Verb, WaitFrom

__all__ = ["Paint", "story_text"]

Paint = Callable[[str, str], str]
"""(text, colour name) -> text."""
LINES_SHOWN: Final = 10
"""Attempts shown of the time line."""

MARKS: Final[dict[str, tuple[str, str]]] = {
    "passed": ("✓", "green"),
    "stopped": ("✗", "red"),
    "not_asked": ("·", "dim"),
}
SOURCE_MARKS: Final[dict[SourceState, tuple[str, str]]] = {
    SourceState.USED: ("✓", "green"),
    SourceState.GUARD_FAILED: ("✗", "yellow"),
    SourceState.ABSENT: ("✗", "yellow"),
    SourceState.UNREADABLE: ("✗", "red"),
    SourceState.NOT_ASKED: ("·", "dim"),
}


def plain(text: str, _colour: str) -> str:
    """No colour."""
    return text


def story_text(
    story: ExchangeView, request: Request, row_lines: Callable[[Row], Sequence[str]], paint: Paint = plain
) -> str:
    """The story for a person, without an end of line after the last.

    ``row_lines``: the lines of its file that a row stands on, as written.
    """
    parts = [_told_text(story, told, request, row_lines, paint) for told in story.told]
    if story.unheard:
        text = f"{count_text(story.unheard, 'further answer')} would never come: nothing is sent again."
        parts.append(paint(text, "yellow"))
    if len(story.line) > 1:
        parts.append(_line_text(story, paint))
    return "\n\n".join(parts)


def _told_text(
    story: ExchangeView, told: Told, request: Request, row_lines: Callable[[Row], Sequence[str]], paint: Paint
) -> str:
    decision, row = told.decision, told.decision.row
    colour = "green" if decision.verb in SENDS_AGAIN else "cyan" if decision.verb is Verb.STORE else "yellow"
    which = f"attempt {told.attempt.number}, {result_text(told.attempt)}: " if len(story.told) > 1 else ""
    head = paint(f"{which}{decision.verb}: {VERBS[decision.verb]}", colour)
    lines = [head]
    if told is story.told[0]:
        lines += [f"  {'upstream':<13}  {story.upstream}", f"  {'policy':<13}  {story.policy.name}"]
    lines.append(f"  {'row':<13}  {row_text(row)}")
    lines += [f"  {'':<13}  {paint(text, 'dim')}" for text in (row_lines(row) if row is not None else ())]
    for point in told.points:
        if point.state == "stopped" or (point.state == "passed" and point.step not in OFFLINE):
            mark, shade = MARKS["passed" if decision.verb is Verb.PASS and decision.reason is None else point.state]
            lines.append(f"  {paint(mark, shade)} {point.step:<11}  {point.text}")
    granted = "; ".join(point.text for point in told.points if point.state == "passed" and point.step in OFFLINE)
    if granted and told is story.told[0]:
        lines.append(paint(f"    {'granted':<11}  {granted}", "dim"))
    lines += _wait_lines(told, request, paint)
    if decision.gate_until is not None:
        lines.append(f"  {'gate':<13}  this answer may hold other exchanges as well, if more like it come")
    return "\n".join(lines)


def _wait_lines(told: Told, request: Request, paint: Paint) -> Iterator[str]:
    wait = told.decision.wait
    if not told.readings and (wait is None or wait.max_seconds <= 0):
        return
    if told.decision.verb not in SENDS_AGAIN and told.decision.hint_seconds is None:
        return
    yield f"  {'wait':<13}  {_wait_text(wait)}"
    look = Look(request, told.attempt)
    for reading in told.readings:
        mark, shade = SOURCE_MARKS[reading.state]
        yield f"    {paint(mark, shade)} {source_text(reading.source)}: {reading_text(reading, look)}"
    mark, shade = ("✓", "green") if wait is not None and wait.source is WaitFrom.BACKOFF else ("·", "dim")
    yield f"    {paint(mark, shade)} {told.backoff}"


def _wait_text(wait: Wait | None) -> str:
    if wait is None:
        return "none: nothing is sent again"
    return f"{range_text(wait.min_seconds, wait.max_seconds)}, {WAITS[wait.source]}"


def _line_text(story: ExchangeView, paint: Paint) -> str:
    last, sends = story.line[-1].attempt, len(story.line)
    lines = [f"If {result_text(last)} keeps coming:" if sends > len(story.told) else "The time line:"]
    shown = story.line if sends <= LINES_SHOWN else (*story.line[: LINES_SHOWN - 2], *story.line[-1:])
    before = 0
    for moment in shown:
        if moment.attempt.number != before + 1:
            lines.append("    …")
        before = moment.attempt.number
        lines.append(_moment_text(moment, paint))
    most = str(sends) if story.fewest == sends else f"{story.fewest} … {sends}"
    lines.append(
        f"  {most} sends, over after {range_text(*story.waits)} if answers come at once; "
        f"{seconds_text(story.worst_seconds)} at worst (deadline {seconds_text(story.deadline_seconds)})"
    )
    lines.append(f"  {_amplification(story)}")
    return "\n".join(lines)


def _moment_text(moment: Moment, paint: Paint) -> str:
    decision = moment.decision
    at = range_text(moment.from_seconds, moment.to_seconds)
    then = decision.verb.value if decision.reason is None else f"{decision.verb} ({decision.reason})"
    if decision.wait is not None:
        then = f"wait {range_text(decision.wait.min_seconds, decision.wait.max_seconds)}"
    colour = "green" if (moment.attempt.status or 999) < 400 else "red"
    return f"  {moment.attempt.number:>3}  at {at:<18} {paint(result_text(moment.attempt), colour)}  {then}"


def _amplification(story: ExchangeView) -> str:
    """The amplification of one request by the table, and of all by the budget, of which a retry takes its row's
    cost.
    """
    rule = story.policy.budget
    costs = [moment.decision.cost for moment in story.line if moment.decision.verb in SENDS_AGAIN]
    text = f"amplification: {len(story.line)} × for one request"
    least = min(costs, default=0.0)
    if least <= 0:
        return f"{text}; its retries cost the budget nothing"
    share = min(1 + rule.ratio / least, len(story.line))
    floor = rule.floor_per_second / least
    return f"{text}; the budget allows all requests together {share:.3g} ×, and {floor:g} retries a second"
