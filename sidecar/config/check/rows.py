"""Rows compared with each other: rows that can never match, never act, or do harm.

Only rows of the same file can hide one another by mistake; ``extends`` exists to come before an inherited row.
Counterpart: ``schema.row``, the checks of single values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sidecar.config.compile.blocks import compile_conditions
from sidecar.config.compile.policies import Source
from sidecar.config.schema.row import ConditionBlock, RowBlock
from sidecar.config.text.document import Mark
from sidecar.config.text.problems import Code, Problem
from sidecar.core.decision.rows import Condition
from sidecar.core.enums import FailureKind, Verb

__all__ = ["Cover", "review_rows"]

RESPONSE_PLACES = frozenset({"header", "body", "body_text"})
ANSWER_VERBS = frozenset({Verb.LOGIN, Verb.REREAD})
RETRY_KEYS = ("attempts", "backoff", "wait", "max_wait", "over_max", "processed", "cost")


class Cover:
    """What the rows so far match, so that a later row without a match is found."""

    def __init__(self) -> None:
        self._taken: dict[frozenset[Condition], dict[int | FailureKind, int]] = {}
        """Conditions -> each status or failure that an earlier row takes under them -> the line of that row."""

    def left_for(self, row: RowBlock) -> set[int | FailureKind]:
        """The part of the row that no earlier one matches."""
        takers = self._takers(row)
        return {item for item in _matched(row) if not any(item in taker for taker in takers)}

    def lines_before(self, row: RowBlock) -> list[int]:
        """The lines of the rows that match a part of it."""
        takers = self._takers(row)
        return sorted({taker[item] for item in _matched(row) for taker in takers if item in taker})

    def add(self, row: RowBlock, line: int) -> None:
        taken = self._taken.setdefault(_conditions_of(row), {})
        for item in _matched(row):
            taken.setdefault(item, line)

    def _takers(self, row: RowBlock) -> list[dict[int | FailureKind, int]]:
        return [self._taken[key] for key in _implied(_conditions_of(row)) if key in self._taken]


def review_rows(source: Source) -> list[Problem]:
    """What is wrong with, or remarkable about, the rows of one file."""
    problems: list[Problem] = []
    cover = Cover()
    for row in source.block.table:
        mark = row.key_mark("")
        if mark is None:
            continue
        problems += _of_itself(row, mark)
        if row.is_tainted:  # a row without its bad condition would mean something else
            continue
        problems += _against_earlier(row, mark, cover)
        cover.add(row, mark.line + 1)
    return problems


def _against_earlier(row: RowBlock, mark: Mark, cover: Cover) -> Iterator[Problem]:
    left = cover.left_for(row)
    if not left:
        lines = cover.lines_before(row)
        where = f"the row on line {lines[0]} takes" if len(lines) == 1 else f"rows on lines {_listed(lines)} take"
        text = f"this row can never match: {where} all that it names"
        yield mark.problem(Code.DEAD_ROW, text, "the first row that matches decides; move this one up")
    if row.then is Verb.RETRY and not row.when and any(isinstance(s, int) and s < 400 for s in left):
        yield mark.problem(
            Code.RETRIES_SUCCESS,
            "this row repeats requests that succeeded",
            "name error statuses, such as `4xx` and `5xx`, or add a `when`",
        )


def _matched(row: RowBlock) -> Iterable[int | FailureKind]:
    return row.status or row.failure or frozenset()


def _conditions_of(row: RowBlock) -> frozenset[Condition]:
    return frozenset(compile_conditions(row.when))


def _implied(conditions: frozenset[Condition]) -> Iterator[frozenset[Condition]]:
    """Sets of conditions that hold whenever these do: none, all, and each alone."""
    yield frozenset()
    for condition in conditions:
        yield frozenset({condition})
    if len(conditions) > 1:
        yield conditions


def _listed(lines: list[int]) -> str:
    shown = ", ".join(map(str, lines[:5]))
    return f"{shown} …" if len(lines) > 5 else shown


def _of_itself(row: RowBlock, mark: Mark) -> Iterator[Problem]:
    yield from _conditions(row)
    if row.failure is not None and row.processed is False:
        yield (row.key_mark("processed") or mark).problem(
            Code.CONTRADICTION,
            "`processed: false` is something that an answer says; a failure is no answer",
            "failures before the request was sent are always repeated; for the rest see `resend_methods`",
        )
    if row.failure is not None and row.then in ANSWER_VERBS:
        yield (row.key_mark("then") or mark).problem(
            Code.CONTRADICTION,
            f"`then: {row.then}` is about what an answer says; a failure is no answer",
            "name a `status`",
        )
    if row.then is Verb.RETRY and row.attempts == 1:
        yield (row.key_mark("attempts") or mark).problem(
            Code.CONTRADICTION, "`then: retry` with `attempts: 1` never sends again", "write `then: pass`"
        )
    if row.then is Verb.PASS:
        for key in RETRY_KEYS:
            if row.sets(key):
                text = f"`{key}` changes nothing where `then` is `pass`"
                yield (row.key_mark(key) or mark).problem(Code.NO_EFFECT, text, "remove it")


def _conditions(row: RowBlock) -> Iterator[Problem]:
    for condition in _all_conditions(row):
        mark = condition.key_mark(condition.place)
        if row.failure is not None and condition.place in RESPONSE_PLACES and mark is not None:
            yield mark.problem(
                Code.DEAD_ROW,
                f"a failure has no response, so `{condition.place}` finds nothing",
                "look at request_header, method, path or query",
            )


def _all_conditions(row: RowBlock) -> Iterator[ConditionBlock]:
    yield from row.when or ()
    for wait in row.wait or ():
        yield from wait.when or ()
