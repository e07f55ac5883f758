"""The policy table, compiled: which row decides about a finished attempt.

Rows stand top-down and the first that matches decides. Each status and each kind of failure has its own list of
candidates, cut after the first row without a condition, so that a decision costs the same with 5 rows and with 500. It
never decides what a row's verb leads to. Counterpart: ``decide``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Final, NamedTuple, Protocol

from sidecar.core.decision.attempt import Attempt, Request
from sidecar.core.decision.conditions import Look
from sidecar.core.decision.rows import Condition, HintSource, Row
from sidecar.core.enums import FailureKind, Verb

__all__ = ["BODY_PLACES", "Table", "policy_looks_into_body", "policy_passes", "source_looks_into_body"]

STATUSES: Final = range(100, 1000)
"""The status codes that an HTTP/1.1 status line can carry (three digits, RFC 9112 section 4)."""
INDEX_FROM: Final = 4
"""Consecutive rows with the same question from which on they become one look-up."""

BODY_PLACES: Final = ("body", "body_text")


class Lookup(NamedTuple):
    """Consecutive rows whose first condition compares the same place: found by its value, not one by one."""

    place: str
    name: str
    by_value: dict[str, tuple[tuple[int, Row], ...]]
    """Value -> the rows that ask for it, each with its position."""


Step = Row | Lookup


class Table:
    """Rows, top-down. Immutable after it is made; equal to another of the same rows."""

    __slots__ = ("_by_failure", "_by_status", "_judged", "_looking", "rows")

    def __init__(self, rows: tuple[Row, ...] = ()) -> None:
        self.rows = rows
        by_status = {status: _candidates(found) for status, found in _rows_by_status(rows).items()}
        by_failure = {kind: _candidates([row for row in rows if kind in row.failures]) for kind in FailureKind}
        compiled: dict[tuple[int, ...], tuple[Step, ...]] = {}
        self._by_status = {status: _compile_once(found, compiled) for status, found in by_status.items()}
        self._by_failure = {kind: _compile_once(found, compiled) for kind, found in by_failure.items()}
        self._judged = frozenset(status for status, found in by_status.items() if not _is_plain_pass(found[0]))
        self._looking = frozenset(status for status, found in by_status.items() if any(map(_looks, found)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Table) and self.rows == other.rows

    def __hash__(self) -> int:
        return hash(self.rows)

    def __repr__(self) -> str:
        return f"Table({len(self.rows)} rows)"

    def match(self, request: Request, attempt: Attempt, look: Look | None = None) -> Row | None:
        """The first row that matches the attempt; None: none does, so the response is handed over.

        A failure is matched as a failure, even if a status line was read before it (``body_cut``). ``look`` shares one
        parsed body between the table and the hints.
        """
        if attempt.failure is not None:
            steps = self._by_failure[attempt.failure]
        else:
            steps = self._by_status.get(attempt.status or 0, ())
        for step in steps:
            if isinstance(step, Row) and not step.when:
                return step
            look = look or Look(request, attempt)
            for row in (step,) if isinstance(step, Row) else _found(step, look):
                if look.all_hold(row.when):
                    return row
        return None

    def match_by_head(self, attempt: Attempt, look: Look) -> tuple[Row | None, bool]:
        """What ``match`` can say of a response whose body has not been read: the row, and whether that is still open.

        Open: the first row that may match depends on the body, and everything else that it asks for holds.
        """
        for step in self._by_status.get(attempt.status or 0, ()):
            if isinstance(step, Row):
                rows: list[Row] = [step]
            elif step.place in BODY_PLACES:
                rows = _all_rows(step)
            else:
                rows = _found(step, look)
            for row in rows:
                if look.all_hold(tuple(each for each in row.when if each.place not in BODY_PLACES)):
                    return row, _conditions_look(row.when)
        return None, False

    def passes(self, status: int) -> bool:
        """Whether a response of this status is handed over, whatever else it says."""
        return status not in self._judged

    def looks_into_body(self, status: int) -> bool:
        """Whether a row that may decide about this status needs the body, for a condition or for its own hints."""
        return status in self._looking

    def candidates(self, status: int) -> Iterator[Row]:
        """The rows that may decide about this status, each once, in no promised order."""
        for step in self._by_status.get(status, ()):
            if isinstance(step, Row):
                yield step
            else:
                yield from _all_rows(step)


class Judge(Protocol):
    """The parts of ``policy.Policy`` that say what must be read; a protocol, because ``policy`` imports this module."""

    @property
    def table(self) -> Table: ...
    @property
    def verdict(self) -> object: ...
    @property
    def wait(self) -> tuple[HintSource, ...]: ...


def policy_passes(policy: Judge, status: int) -> bool:
    """Whether a response of this status is handed over without a decision: the fast path of the loop.

    Then ``decide`` says ``pass``: for an error with the reason ``not_retryable``, else with none.
    """
    return policy.table.passes(status) and policy.verdict is None


def policy_looks_into_body(policy: Judge, status: int) -> bool:
    """Whether deciding about a response of this status needs (at most 64 KiB of) its body, decoded.

    True if the table looks into it, or if the policy's own hint sources do and a row may use them.
    """
    if policy.table.looks_into_body(status):
        return True
    if policy_passes(policy, status) or not sources_look_into_body(policy.wait):
        return False
    return policy.verdict is not None or any(_uses_policy_wait(row) for row in policy.table.candidates(status))


def source_looks_into_body(source: HintSource) -> bool:
    """Whether this hint source stands in the body, or depends on it."""
    return source.place == "body" or _conditions_look(source.when)


def sources_look_into_body(sources: tuple[HintSource, ...]) -> bool:
    """Whether any of these hint sources stands in the body, or depends on it."""
    return any(map(source_looks_into_body, sources))


def _uses_policy_wait(row: Row) -> bool:
    return row.wait is None and row.verb is not Verb.PASS


def _looks(row: Row) -> bool:
    return _conditions_look(row.when) or (row.wait is not None and sources_look_into_body(row.wait))


def _conditions_look(conditions: tuple[Condition, ...]) -> bool:
    return any(condition.place in BODY_PLACES for condition in conditions)


def _is_plain_pass(row: Row) -> bool:
    """Handed over without a decision, and without a hint to read for the gate."""
    return row.verb is Verb.PASS and not row.when and not row.gate


def _rows_by_status(rows: tuple[Row, ...]) -> dict[int, list[Row]]:
    """Rows per status, top-down; nothing behind a row that matches unconditionally."""
    by_status: dict[int, list[Row]] = {}
    closed: set[int] = set()
    for row in rows:
        open_statuses = [status for status in row.statuses if status in STATUSES and status not in closed]
        for status in open_statuses:
            by_status.setdefault(status, []).append(row)
        if not row.when:
            closed.update(open_statuses)
    return by_status


def _candidates(rows: list[Row]) -> list[Row]:
    """The rows up to the first unconditional one."""
    for position, row in enumerate(rows):
        if not row.when:
            return rows[: position + 1]
    return rows


def _compile_once(rows: list[Row], compiled: dict[tuple[int, ...], tuple[Step, ...]]) -> tuple[Step, ...]:
    """Statuses with the same candidates share one list."""
    key = tuple(map(id, rows))
    if key not in compiled:
        compiled[key] = tuple(_steps(rows))
    return compiled[key]


def _steps(rows: list[Row]) -> Iterator[Step]:
    for question, group in groupby(rows, key=_question):
        run = list(group)
        if question is None or len(run) < INDEX_FROM:
            yield from run
        else:
            yield _lookup(question, run)


def _question(row: Row) -> tuple[str, str] | None:
    """The place that the row's first condition compares with fixed values, if it does."""
    if not row.when or row.when[0].test not in ("equals", "in"):
        return None
    return row.when[0].place, row.when[0].name


def _lookup(question: tuple[str, str], rows: list[Row]) -> Lookup:
    by_value: dict[str, list[tuple[int, Row]]] = {}
    for position, row in enumerate(rows):
        for value in dict.fromkeys(row.when[0].values):
            by_value.setdefault(value, []).append((position, row))
    return Lookup(*question, {value: tuple(found) for value, found in by_value.items()})


def _all_rows(step: Lookup) -> list[Row]:
    """The rows of a look-up, each once, in the order of the table."""
    found = {position: row for rows in step.by_value.values() for position, row in rows}
    return [found[position] for position in sorted(found)]


def _found(step: Lookup, look: Look) -> list[Row]:
    """The rows whose first condition holds, in the order of the table."""
    texts = look.texts(step.place, step.name)
    found = {position: row for text in texts for position, row in step.by_value.get(text, ())}
    return [found[position] for position in sorted(found)]
