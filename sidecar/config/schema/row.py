"""The keys of one row of a policy's table, and of its parts: conditions, wait sources, backoff.

With ``policy`` the only source of keys, types, defaults and descriptions; the JSON Schema and the reference tables are
made from here. Contradictions *between* rows are found by ``check.rows``.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, WrapValidator, model_validator

from sidecar.config.schema.fields import (
    Block,
    Duration,
    HeaderName,
    Pattern,
    Pointer,
    ScalarText,
    Share,
    clip,
    kind_of,
    refuse,
    refuse_all,
)
from sidecar.config.schema.statuses import FailureSet, StatusSet
from sidecar.config.text.problems import Code, nearest
from sidecar.core.decision.rows import Place
from sidecar.core.enums import Jitter, OverMax, Unit, Verb

__all__ = [
    "BackoffBlock",
    "ConditionBlock",
    "RereadBlock",
    "RowBlock",
    "VerbWord",
    "WaitBlock",
    "WaitEntries",
    "word_of",
]

PLACES: tuple[Place, ...] = ("header", "body", "body_text", "request_header", "method", "path", "query")
TESTS = ("equals", "in", "matches", "present")
SOURCES = ("header", "body", "constant")

REREAD_WORDS = ("same", "parent")
_REREAD_PATH = re.compile(r"(/([A-Za-z0-9._~!&'()*+,;=:@%-]|\$[1-9][0-9]?(?![0-9]))*)+")
"""RFC 3986 section 3.3, with the segments of the request's own path as ``$1``, ``$2`` …."""


def word_of(enum: type[StrEnum]) -> Any:
    """A validator that turns a word of a closed list into its member."""

    def read(value: object) -> object:
        if isinstance(value, enum):
            return value
        known = [member.value for member in enum]
        if not isinstance(value, str):
            raise refuse(Code.WRONG_TYPE, f"must be one of {', '.join(known)}, not {kind_of(value)}")
        if value not in known:
            raise refuse(Code.UNKNOWN_WORD, f"`{clip(value)}` is not one of its words", nearest(value, known))
        return enum(value)

    return BeforeValidator(read)


VerbWord = Annotated[Verb, word_of(Verb)]
JitterWord = Annotated[Jitter, word_of(Jitter)]
OverMaxWord = Annotated[OverMax, word_of(OverMax)]
UnitWord = Annotated[Unit, word_of(Unit)]


def one_or_list(value: object) -> object:
    """``when: {…}`` is ``when: [{…}]``."""
    return [value] if isinstance(value, dict) else value


_TextOrList = Annotated[
    tuple[str, ...] | None,
    WrapValidator(lambda value, _handler: _read_shorthand(value)),
    PlainSerializer(lambda texts: None if texts is None else _write_shorthand(texts)),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "minItems": 1, "items": {"type": "string"}},
                {"const": True},
            ]
        }
    ),
]


def _read_shorthand(value: object) -> tuple[str, ...]:
    """``method: POST`` and ``method: [GET, HEAD]``; ``true`` where a test stands beside it."""
    if value is True:
        return ()
    items = value if isinstance(value, list) else [value]
    if not items or not all(isinstance(item, str) for item in items):
        raise refuse(
            Code.WRONG_TYPE,
            f"must be a text, a list of texts, or `true` with a test beside it, not {kind_of(value)}",
        )
    return tuple(items)


def _write_shorthand(texts: tuple[str, ...]) -> object:
    if not texts:
        return True
    return texts[0] if len(texts) == 1 else list(texts)


class ConditionBlock(Block):
    """One thing that must hold: a place and a test."""

    noun: ClassVar[str] = "a condition"

    header: HeaderName | None = Field(None, description="A response header.")
    body: Pointer | None = Field(None, description="A JSON pointer into the response body; a step `*` is any.")
    body_text: _TextOrList = Field(None, description="The response body as text: contains this text (or one of these).")
    request_header: HeaderName | None = Field(None, description="A header of the app's request.")
    method: _TextOrList = Field(None, description="The method: this one, or one of these.")
    path: _TextOrList = Field(None, description="The path after the mount: `*` is one segment, `**` any number.")
    query: str | None = Field(None, description="A parameter of the query.")
    nullable: ClassVar[frozenset[str]] = frozenset({"equals"})

    equals: ScalarText | None = Field(None, description="Is exactly this.")
    in_: Annotated[list[ScalarText], Field(min_length=1)] | None = Field(
        None, alias="in", description="Is one of these."
    )
    matches: Pattern | None = Field(
        None, description="A regular expression is found in it (not anchored: add `^` and `$`)."
    )
    present: bool | None = Field(None, description="Is there (true, the default), or is not (false).")

    @model_validator(mode="after")
    def _one_place_one_test(self) -> ConditionBlock:
        places = [key for key in PLACES if self.sets(key)]
        refused = []
        if len(places) != 1:
            found = f"it has {' and '.join(places)}" if places else "it has none"
            text, remedy = f"a condition looks at one place; {found}", f"one of {', '.join(PLACES)}"
            refused.append(refuse(Code.WRONG_SHAPE, text, remedy, () if places else PLACES))
        if len(self.tests) > 1:
            text = f"a condition has one test; this has {' and '.join(self.tests)}"
            refused.append(refuse(Code.WRONG_SHAPE, text, "write two conditions: when: [{…}, {…}]"))
        refuse_all(refused)
        self._shorthand_or_test(places[0])
        return self

    def _shorthand_or_test(self, place: str) -> None:
        value = getattr(self, place)
        if not isinstance(value, tuple):
            return
        if value and self.tests:
            raise refuse(Code.WRONG_SHAPE, f"`{place}` and `{self.tests[0]}` both say what to find", "keep one of them")
        if not value and (not self.tests or self.tests == ["present"]):
            raise refuse(Code.WRONG_SHAPE, f"`{place}: true` needs a test", "add equals, in or matches", TESTS)

    @property
    def place(self) -> Place:
        return next(key for key in PLACES if self.sets(key))

    @property
    def tests(self) -> list[str]:
        return [key for key in TESTS if self.sets("in_" if key == "in" else key)]


Conditions = Annotated[
    list[ConditionBlock],
    BeforeValidator(one_or_list, json_schema_input_type=ConditionBlock | list[ConditionBlock]),
    Field(min_length=1),
]


class WaitBlock(Block):
    """Where an upstream says how long to wait, in the long form."""

    noun: ClassVar[str] = "a wait source"

    header: HeaderName | None = Field(None, description="A response header.")
    field: str | None = Field(
        None, description="The parameter inside of the header: `t` of `RateLimit`, `reset` of `a=1, reset=5`."
    )
    body: Pointer | None = Field(None, description="A JSON pointer into the response body; a step `*` is any.")
    constant: Duration | None = Field(None, description="Always this long.")
    unit: UnitWord | None = Field(
        None, description="What the value counts. Names never imply it, except that of `Retry-After`."
    )
    plus: Duration | None = Field(None, description="Added to what the upstream says.")
    at_least: Duration | None = Field(None, description="Never wait less than this.")
    clock: Literal["local", "server"] = Field(
        "local", description="What dates are measured against: our clock, or the response's own `Date`."
    )
    when: Conditions | None = Field(None, description="The source counts only if all of this holds.")

    @model_validator(mode="after")
    def _one_source(self) -> WaitBlock:
        sources = [key for key in SOURCES if getattr(self, key) is not None]
        refused = []
        if len(sources) != 1:
            found = f"it has {' and '.join(sources)}" if sources else "it has none"
            text = f"a wait source looks at one place; {found}"
            refused.append(refuse(Code.WRONG_SHAPE, text, "header, body or constant", () if sources else SOURCES))
        if self.field is not None and self.header is None:
            text = "`field` is a parameter inside of a header"
            refused.append(refuse(Code.WRONG_SHAPE, text, "name the `header`", ("header",)))
        if self.constant is not None and self.unit is not None:
            refused.append(refuse(Code.WRONG_SHAPE, "a constant carries its own unit", "remove `unit`"))
        place = self.header or self.body
        if place is not None and self.constant is None and self._lacks_unit():
            text = f"`{clip(place)}` needs a `unit`: a name does not say what its number counts"
            remedy = f"one of {', '.join(unit.value for unit in Unit)}"
            refused.append(refuse(Code.MISSING_KEY, text, remedy, ("unit", "header")))
        refuse_all(refused)
        return self

    def _lacks_unit(self) -> bool:
        is_retry_after = self.header is not None and self.header.lower() == "retry-after" and not self.field
        return self.unit is None and not is_retry_after


def _read_wait(value: object) -> object:
    if value == "retry-after":
        return {"header": "Retry-After"}
    if isinstance(value, str):
        raise refuse(
            Code.UNKNOWN_WORD,
            f"`{clip(value)}` is not a wait source",
            "the only short form is `retry-after`; else write {header: NAME, unit: s}",
        )
    return value


WaitEntry = Annotated[WaitBlock, BeforeValidator(_read_wait, json_schema_input_type=Literal["retry-after"] | WaitBlock)]


def _read_waits(value: object) -> object:
    if isinstance(value, str | dict):
        raise refuse(
            Code.WRONG_TYPE, f"must be a list of wait sources, not {kind_of(value)}", "write `wait: [retry-after]`"
        )
    return value


WaitEntries = Annotated[list[WaitEntry], BeforeValidator(_read_waits)]


class BackoffBlock(Block):
    """The pause where the upstream names none: `base · factor^(n-1)`, capped, then jitter."""

    noun: ClassVar[str] = "a backoff"

    base: Duration = Field(0.25, description="The pause before the first retry, before jitter.")
    factor: float = Field(2.0, ge=1, le=100, description="Each further pause is this many times as long.")
    cap: Duration = Field(30.0, description="No pause is longer than this.")
    jitter: JitterWord = Field(
        Jitter.FULL,
        description="How chance spreads a pause v: full 0…v, equal v/2…v, additive v…2v, proportional ±r·v.",
    )
    ratio: Share = Field(0.25, description="r of the jitter `proportional`.")


def _read_reread_path(value: object) -> str:
    if not isinstance(value, str):
        raise refuse(Code.WRONG_TYPE, f"must be `same`, `parent` or a path, not {kind_of(value)}")
    if value not in REREAD_WORDS and not _REREAD_PATH.fullmatch(value):
        raise refuse(
            Code.BAD_VALUE,
            f"`{clip(value)}` is no path to read again",
            "`same`, `parent`, or a path such as `/v1/missions/$3`",
        )
    return value


RereadPath = Annotated[
    str,
    BeforeValidator(_read_reread_path),
    WithJsonSchema({"type": "string", "pattern": "^(same|parent|/.*)$", "title": "path"}),
]


class RereadBlock(Block):
    """Looking at the state before deciding, for `then: reread`."""

    noun: ClassVar[str] = "a reread"

    path: RereadPath = Field(
        "same",
        description="What to GET: `same`, `parent` (without the last segment), or a path in which `$1` is the first "
        "segment of the request's own, `$2` the second …",
    )
    resend_when: Conditions | None = Field(None, description="Send again if all of this holds of what was read.")
    answer_when: Conditions | None = Field(
        None, description="Answer with what was read, in place of the refusal, if all of this holds of it."
    )
    times: int = Field(1, ge=1, le=10, description="At most so often in one exchange.")

    @model_validator(mode="after")
    def _leads_somewhere(self) -> RereadBlock:
        if self.resend_when is None and self.answer_when is None:
            raise refuse(
                Code.WRONG_SHAPE,
                "a reread without `resend_when` and `answer_when` changes nothing",
                "say in which state to send again: resend_when: {body: /status, in: [pending]}",
                ("resend_when", "answer_when"),
            )
        return self


class RowBlock(Block):
    """One line of the table: what it matches, and what follows."""

    noun: ClassVar[str] = "a row of the table"

    status: StatusSet | None = Field(None, description="A code, a list, `5xx`, `500-504` or `any`.")
    failure: FailureSet | None = Field(
        None, description="An attempt without a response: in which phase and how. One, a list, or `any`."
    )
    when: Conditions | None = Field(None, description="Every condition must hold; one, or a list.")
    then: VerbWord = Field(description="What follows: " + ", ".join(f"`{verb}`" for verb in Verb) + ".")
    attempts: int | None = Field(None, ge=1, le=100, description="Sends in all, for this row.")
    backoff: BackoffBlock | None = Field(None, description="For this row; keys left out are the policy's.")
    wait: WaitEntries | None = Field(None, description="Hint sources for this row, in order.")
    max_wait: Duration | None = Field(None, description="The longest wait, for this row.")
    over_max: OverMaxWord | None = Field(None, description="What to do with a longer one, for this row.")
    processed: bool | None = Field(
        None,
        description="`false`: with this answer the upstream states that it did not act, so that any method may "
        "be repeated. Left out: false for 429, true for the rest.",
    )
    gate: bool | None = Field(
        None,
        description="Whether a hint here holds every exchange of this upstream. Left out: for 429, and for 503 "
        "with a hint.",
    )
    cost: float = Field(
        1.0,
        ge=0,
        le=1000,
        description="Budget tokens that a retry by this row takes; left out with `then: login`: 0.",
    )
    reread: RereadBlock | None = Field(None, description="For `then: reread`.")

    @model_validator(mode="after")
    def _status_or_failure(self) -> RowBlock:
        refused = []
        if self.status is not None and self.failure is not None:
            text = "a row matches a `status` or a `failure`; this has both"
            refused.append(refuse(Code.WRONG_SHAPE, text, "write two rows"))
        if self.status is None and self.failure is None:
            text, remedy = (
                "a row matches a `status` or a `failure`; this has neither",
                "add `status: any` or `failure: any`",
            )
            refused.append(refuse(Code.WRONG_SHAPE, text, remedy, ("status", "failure")))
        if (self.then is Verb.REREAD) != (self.reread is not None):
            text = "`then: reread` and the block `reread` go together"
            remedy = "reread: {path: same, resend_when: {…}}"
            refused.append(refuse(Code.WRONG_SHAPE, text, remedy, ("then", "reread")))
        refuse_all(refused)
        return self
