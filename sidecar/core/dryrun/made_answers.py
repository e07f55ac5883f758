"""Answers made up from two policies, so that every status, failure, row and hint of either is judged once.

Statuses that the same rows may decide about are one answer: a table of 500 rows makes some dozens, not 500 times 900.
A condition ``matches`` cannot be met by a made-up text; such a row is counted, and a policy test can tell of it.
Counterpart: ``compare``, which has each answer judged by both policies.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from sidecar.core.decision.attempt import Attempt, Headers, Request
from sidecar.core.decision.conditions import Look, pointer_steps
from sidecar.core.decision.policy import Policy
from sidecar.core.decision.rows import Condition, HintSource, Row
from sidecar.core.decision.table import Table
from sidecar.core.dryrun.replay import NEVER_SENT
from sidecar.core.dryrun.story_words import condition_text
from sidecar.core.enums import FailureKind, Unit

__all__ = ["WALL_SECONDS", "Made", "MadeAnswers"]

STATUSES: Final = range(200, 600)
"""The status codes of final responses that HTTP defines (RFC 9110 section 15)."""
SPECIAL_STATUSES: Final = frozenset({429, 503})
"""Statuses that ``decide`` itself knows: 429 is not processed, and both may hold others."""
FIRST_ERROR: Final = 400
WALL_SECONDS: Final = 1_700_000_000.0
"""Unix seconds at the first send of a made-up exchange."""
HINT_SECONDS: Final = (5.0, 3600.0)
"""What a made-up hint asks for: a wait that fits, and one that is longer than most would wait."""

HINT_TEXTS: Final[dict[Unit, str]] = {
    Unit.S: "{seconds:.0f}",
    Unit.MS: "{milliseconds:.0f}",
    Unit.EPOCH_S: "{epoch:.0f}",
    Unit.EPOCH_MS: "{epoch:.0f}000",
    Unit.DURATION: "{seconds:.0f}s",
    Unit.AUTO: "{seconds:.0f}",
    Unit.RETRY_AFTER: "{seconds:.0f}",
}
"""Unit → how a hint is written in it; units that are missing here are not made up."""


@dataclass(frozen=True, slots=True)
class Made:
    """One request and one answer to it."""

    results: tuple[int | FailureKind, ...]
    """The statuses that it stands for, in order, or one failure."""
    given: str
    """What request and answer hold besides, in words; empty: nothing."""
    request_fields: tuple[tuple[bytes, bytes], ...]
    query: str
    answer: Attempt
    is_hint: bool = False
    """Whether it is a plain answer with a hint."""


@dataclass
class _Draft:
    """A request and an answer, as conditions ask for them."""

    method: str
    path: str
    request: dict[str, str] = field(default_factory=dict)
    response: dict[str, str] = field(default_factory=dict)
    query: str = ""
    document: Any = None
    text: str = ""

    def meet(self, condition: Condition) -> bool:
        """Try to make the condition hold; false where no text can be made up."""
        place, name, test = condition.place, condition.name, condition.test
        if test == "matches":
            # Of the request as it is, the method and the path may match.
            return place in ("method", "path")
        if test == "present" and not condition.present:
            return True
        text = condition.values[0] if condition.values else "x"
        if place == "header":
            self.response[name] = text
        elif place == "request_header":
            self.request[name] = text
        elif place == "query":
            self.query = f"{quote(name)}={quote(text)}" if name else text
        elif place == "body_text":
            self.text = text
        elif place == "body":
            return self._put(pointer_steps(name) or (), text)
        return True

    def _put(self, steps: tuple[str, ...], text: str) -> bool:
        if self.document is None:
            self.document = {}
        at = self.document
        for step in steps[:-1]:
            at = at.setdefault(step, {}) if isinstance(at, dict) else None
        if not steps or not isinstance(at, dict):
            return False
        at[steps[-1]] = text
        return True

    @property
    def body(self) -> bytes | None:
        if self.document is not None:
            return json.dumps(self.document).encode()
        return self.text.encode() or None


class MadeAnswers:
    """The answers to one kind of request that two policies may judge differently."""

    def __init__(self, policies: tuple[Policy, Policy]) -> None:
        self._policies = policies
        self._classes = list(_classes([policy.table for policy in policies]))
        self._rows = _rows_of(policies)
        self.unmade: dict[int, Row] = {}
        """Rows whose conditions no made-up answer meets."""

    def of(self, method: str, path: str) -> Iterator[Made]:
        """Plain answers first; then with hints, and with what the conditions of each row ask for."""
        yield from self._plain()
        for statuses in self._classes:
            if statuses[-1] >= FIRST_ERROR:
                yield from self._hinted(statuses)
        for row in self._rows:
            made = list(self._of_row(row, method, path))
            if made:
                self.unmade.pop(id(row), None)
            elif row.when and not any(condition.place == "method" for condition in row.when):
                self.unmade.setdefault(id(row), row)
            yield from made

    def _plain(self) -> Iterator[Made]:
        for statuses in self._classes:
            yield Made(statuses, "", (), "", Attempt(1, statuses[0]))
        for kind in FailureKind:
            yield Made((kind,), "", (), "", Attempt(1, failure=kind, written=kind not in NEVER_SENT))

    def _hinted(self, statuses: tuple[int, ...]) -> Iterator[Made]:
        seen: set[str] = set()
        for source in _sources(self._policies, self._rows):
            for seconds in HINT_SECONDS:
                draft = _Draft("GET", "/")
                text = _hint_text(source, seconds)
                if text is None or not all(map(draft.meet, source.when)):
                    continue
                draft.response[source.name] = text
                given = ", ".join(f"{name}: {value}" for name, value in draft.response.items())
                if given.lower() not in seen:
                    seen.add(given.lower())
                    answer = Attempt(1, statuses[0], _headers(draft.response), draft.body)
                    yield Made(statuses, given, (), "", answer, is_hint=True)

    def _of_row(self, row: Row, method: str, path: str) -> Iterator[Made]:
        """The row's own statuses with everything that its conditions ask for."""
        draft = _Draft(method, path)
        if not row.when or not row.statuses or not all(map(draft.meet, row.when)):
            return
        fields, headers = _fields(draft.request), _headers(draft.response)
        request = Request(method, path, draft.query, Headers(fields))
        for statuses in self._classes:
            own = tuple(status for status in statuses if status in row.statuses)
            if not own:
                continue
            answer = Attempt(1, own[0], headers, draft.body)
            if Look(request, answer).all_hold(row.when):
                given = ", ".join(map(condition_text, row.when))
                yield Made(own, given, fields, draft.query, answer)


def _classes(tables: list[Table]) -> Iterator[tuple[int, ...]]:
    """The statuses, grouped by the rows that may decide about them in either table."""
    found: dict[object, list[int]] = {}
    for status in STATUSES:
        rows = tuple(frozenset(map(id, table.candidates(status))) for table in tables)
        key = (rows, status if status in SPECIAL_STATUSES else 0, status >= FIRST_ERROR)
        found.setdefault(key, []).append(status)
    for statuses in found.values():
        yield tuple(statuses)


def _rows_of(policies: tuple[Policy, Policy]) -> list[Row]:
    """The rows with conditions of both, each once."""
    return list(dict.fromkeys(row for policy in policies for row in policy.table.rows if row.when))


def _sources(policies: tuple[Policy, Policy], rows: list[Row]) -> Iterator[HintSource]:
    """``Retry-After``, and every header that either policy reads."""
    yield HintSource("header", "Retry-After")
    for policy in policies:
        yield from policy.wait
    for row in rows:
        yield from row.wait or ()


def _hint_text(source: HintSource, seconds: float) -> str | None:
    form = HINT_TEXTS.get(source.unit)
    if source.place != "header" or form is None:
        return None
    return form.format(seconds=seconds, milliseconds=seconds * 1000, epoch=WALL_SECONDS + seconds)


def _fields(texts: dict[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.encode("latin-1", "replace"), text.encode("latin-1", "replace")) for name, text in texts.items())


def _headers(texts: dict[str, str]) -> Headers:
    return Headers(_fields(texts))
