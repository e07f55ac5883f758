"""The keys of a file of policy tests: the only source of their types, defaults and descriptions.

A case is checked by itself here; whether it fits the policy that it tests is checked in ``policy_tests``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from sidecar.config.schema import units as quantities
from sidecar.config.schema.addresses import judge_path
from sidecar.config.schema.fields import (
    HEADER_NAME,
    MAX_SECONDS,
    Block,
    Duration,
    Method,
    PolicyName,
    UpstreamName,
    clip,
    kind_of,
    quantity,
    refuse,
)
from sidecar.config.schema.row import VerbWord, word_of
from sidecar.config.text.document import plain
from sidecar.config.text.problems import Code
from sidecar.core.decision.times import http_date, iso8601
from sidecar.core.dryrun.replay import NEVER_SENT
from sidecar.core.enums import FailureKind, Reason, Safe, Verb, WaitFrom

__all__ = ["AnswerBlock", "CaseBlock", "ExpectBlock", "RequestBlock", "RowExpectBlock", "TestsBlock", "WaitExpectBlock"]

FIRST_SEND = 1_767_225_600.0
"""2026-01-01T00:00:00Z. Any fixed moment would do: a test must have the same result tomorrow."""

HEADERS_FORM = 'as in {Retry-After: "20", X-Warning: [one, two]}'
_REFUSED_IN_VALUE = re.compile("[\0\r\n]")
"""RFC 9110 section 5.5."""


def _read_status(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise refuse(Code.WRONG_TYPE, f"must be one status, not {kind_of(value)}", "an answer has one, such as 503")
    if not 200 <= value <= 999:
        raise refuse(Code.OUT_OF_RANGE, f"{value} is not the status of a final answer", "a code from 200 to 999")
    return value


def _read_headers(value: object) -> tuple[tuple[str, str], ...]:
    if isinstance(value, tuple):
        return value
    if not isinstance(value, dict):
        raise refuse(Code.WRONG_TYPE, f"must be header names with their values, not {kind_of(value)}", HEADERS_FORM)
    return tuple(_fields(value))


def _fields(headers: dict[str, object]) -> Iterator[tuple[str, str]]:
    for name, given in headers.items():
        if not HEADER_NAME.fullmatch(name):
            raise refuse(Code.BAD_VALUE, f"`{clip(name)}` is not a header name", HEADERS_FORM)
        for item in given if isinstance(given, list) else [given]:
            yield name, _header_value(name, item)


def _header_value(name: str, item: object) -> str:
    if item is None or isinstance(item, list | dict):
        raise refuse(Code.WRONG_TYPE, f"the header `{clip(name)}` must be a text, not {kind_of(item)}", HEADERS_FORM)
    text = item if isinstance(item, str) else json.dumps(item)
    if _REFUSED_IN_VALUE.search(text) or text != text.strip(" \t"):
        raise refuse(
            Code.BAD_VALUE,
            f"no header comes with a value like that of `{clip(name)}`",
            "without line breaks, and without spaces at its ends",
        )
    return text


def _read_body(value: object) -> bytes:
    """Text as it is; a block or a list as the JSON that it looks like."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict | list):
        return json.dumps(plain(value), ensure_ascii=False).encode("utf-8", "replace")
    if not isinstance(value, str):
        raise refuse(
            Code.WRONG_TYPE,
            f"must be a text, or a block or list that is sent as JSON, not {kind_of(value)}",
            "as in body: {error: {code: busy}}",
        )
    return value.encode("utf-8", "replace")


def _read_path(value: object) -> str:
    if not isinstance(value, str):
        raise refuse(Code.WRONG_TYPE, f"must be a path, not {kind_of(value)}")
    if "?" in value:
        path, _, query = value.partition("?")
        raise refuse(Code.BAD_VALUE, "a path holds no query", f"write path: {clip(path)}, query: {clip(query)}")
    if not value.startswith("/"):
        raise refuse(Code.BAD_VALUE, "a path begins with a slash", f"write `/{clip(value)}`")
    judge_path(value, "the path of a request")
    return value


def _read_moment(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 <= value < 1e11:
            raise refuse(Code.OUT_OF_RANGE, f"{value} is not a moment in Unix seconds", "as in now: 1767225600")
        return float(value)
    moment = None
    if isinstance(value, str):
        moment = iso8601(value) if http_date(value, FIRST_SEND) is None else http_date(value, FIRST_SEND)
    if moment is None:
        raise refuse(
            Code.BAD_VALUE,
            f"{kind_of(value)} is not a moment",
            "as in now: 2026-01-01T00:00:00Z, or Unix seconds, or an HTTP-date",
        )
    return moment


_SCALAR = {"type": ["string", "number", "boolean"]}
_HEADER_VALUE = {"anyOf": [_SCALAR, {"type": "array", "minItems": 1, "items": _SCALAR}]}
StatusCode = Annotated[
    int,
    BeforeValidator(_read_status),
    WithJsonSchema({"type": "integer", "minimum": 200, "maximum": 999, "title": "status"}),
]
HeaderFields = Annotated[
    Any,
    BeforeValidator(_read_headers),
    WithJsonSchema({"type": "object", "additionalProperties": _HEADER_VALUE, "title": "header fields"}),
]
Body = Annotated[
    Any, BeforeValidator(_read_body), WithJsonSchema({"type": ["string", "object", "array"], "title": "text or JSON"})
]
RequestPath = Annotated[
    str, BeforeValidator(_read_path), WithJsonSchema({"type": "string", "pattern": "^/[^?]*$", "title": "path"})
]
Moment = Annotated[
    float, BeforeValidator(_read_moment), WithJsonSchema({"type": ["string", "number"], "title": "moment"})
]
Seconds = Annotated[
    float,
    BeforeValidator(
        quantity("a duration", "`0s`, `250ms`, `2s` or `5m`", quantities.parse_duration, MAX_SECONDS, "24h")
    ),
    WithJsonSchema({"type": "string", "pattern": quantities.DURATION_PATTERN, "title": "duration"}),
]
"""A duration that may be zero."""
FailureWord = Annotated[FailureKind, word_of(FailureKind)]
ReasonWord = Annotated[Reason, word_of(Reason)]
SafeWord = Annotated[Safe, word_of(Safe)]
FromWord = Annotated[WaitFrom, word_of(WaitFrom)]


class RequestBlock(Block):
    """The app's request."""

    noun: ClassVar[str] = "the block `request`"

    method: Method = Field(description="Its method.")
    path: RequestPath = Field("/", description="Its path as the upstream sees it: after the mount, without the query.")
    query: str = Field(default_factory=str, description="Its query, without the question mark.")
    headers: HeaderFields = Field(
        default_factory=tuple,
        description="Its header fields; a list where one is repeated. `Sidecar-Timeout` shortens the deadline.",
    )


class WaitExpectBlock(Block):
    """The wait before the next send: the whole range that chance can choose from."""

    noun: ClassVar[str] = "an expected wait"

    from_: FromWord | None = Field(None, alias="from", description="Where its length comes from.")
    at_least: Seconds | None = Field(None, description="It is never shorter.")
    at_most: Seconds | None = Field(None, description="It is never longer.")
    min: Seconds | None = Field(None, description="The shortest that it can be is exactly this.")
    max: Seconds | None = Field(None, description="The longest that it can be is exactly this.")

    @model_validator(mode="after")
    def _says_something(self) -> WaitExpectBlock:
        if not self.model_fields_set:
            raise refuse(
                Code.WRONG_SHAPE,
                "this expects nothing of the wait",
                "name from, at_least, at_most, min or max",
                ("from", "at_least", "at_most", "min", "max"),
            )
        for shorter, longer in (("at_least", "at_most"), ("min", "max"), ("at_least", "max"), ("min", "at_most")):
            least, most = getattr(self, shorter), getattr(self, longer)
            if least is not None and most is not None and least > most:
                raise refuse(Code.CONTRADICTION, f"no wait has `{shorter}` above `{longer}`", "exchange them")
        return self


class RowExpectBlock(Block):
    """The row of the table that decides."""

    noun: ClassVar[str] = "an expected row"

    file: str | None = Field(None, description="The name of its file (`default.yaml`), or more of its path.")
    line: int | None = Field(None, ge=1, description="Its line there.")

    @model_validator(mode="after")
    def _says_something(self) -> RowExpectBlock:
        if not self.model_fields_set:
            raise refuse(
                Code.WRONG_SHAPE, "this expects nothing of the row", "name its file, its line or both", ("file", "line")
            )
        return self


class ExpectBlock(Block):
    """What must come of an answer, in the words of `sidecar explain --format json`."""

    noun: ClassVar[str] = "the block `expect`"
    nullable: ClassVar[frozenset[str]] = frozenset({"reason", "wait", "safe_because", "row"})

    decision: VerbWord | None = Field(None, description="What is done.")
    reason: ReasonWord | None = Field(None, description="Why it is not sent again; `null`: there is none.")
    wait: WaitExpectBlock | None = Field(None, description="The wait before the next send; `null`: there is none.")
    safe_because: SafeWord | None = Field(None, description="What allows the next send; `null`: there is none.")
    attempts_left: int | None = Field(None, ge=0, le=100, description="How many more sends there could be.")
    gate: bool | None = Field(None, description="Whether every exchange of the upstream is held until then.")
    row: RowExpectBlock | None = Field(None, description="The row that decides; `null`: none matches.")
    policy: PolicyName | None = Field(None, description="The policy that decides, for tests of an upstream's routes.")

    @model_validator(mode="after")
    def _fits_itself(self) -> ExpectBlock:
        if not self.model_fields_set:
            keys = tuple(type(self).model_fields)
            raise refuse(Code.WRONG_SHAPE, "this expects nothing", "name at least a `decision`", keys)
        sent_again = [key for key in ("wait", "safe_because") if getattr(self, key) is not None]
        if self.decision is Verb.PASS and sent_again:
            text = f"what is handed over has no `{sent_again[0]}`"
            raise refuse(Code.CONTRADICTION, text, f"write `{sent_again[0]}: null`, or another decision")
        if self.reason is not None and (sent_again or self.decision not in (None, Verb.PASS)):
            other = sent_again[0] if self.decision in (None, Verb.PASS) else f"decision: {self.decision}"
            text = f"a reason says why nothing is sent again; `{other}` says that it is"
            raise refuse(Code.CONTRADICTION, text, "keep one of them")
        return self


class AnswerBlock(Block):
    """What came of one send: an answer, or a failure."""

    noun: ClassVar[str] = "an answer"

    status: StatusCode | None = Field(None, description="The status of the answer.")
    failure: FailureWord | None = Field(None, description="Or how the attempt failed without one.")
    headers: HeaderFields = Field(default_factory=tuple, description="Its header fields; a list where one is repeated.")
    body: Body = Field(None, description="Its body: text as it is, or a block or list that is sent as JSON.")
    written: bool | None = Field(
        None,
        description="With a failure: whether a byte of the request was sent. Left out: not for those that come before "
        "(resolve, refused, unreachable, tls, connect_timeout).",
    )
    took: Duration | None = Field(None, description="How long the attempt took; left out: no time.")
    expect: ExpectBlock | None = Field(
        None, description="What must come of it; for the last answer, the case itself says so."
    )

    @model_validator(mode="after")
    def _answer_or_failure(self) -> AnswerBlock:
        if (self.status is None) == (self.failure is None):
            found = "this has both" if self.status is not None else "this has neither"
            needs = () if self.status is not None else ("status", "failure")
            text = f"what came back is a `status` or a `failure`; {found}"
            raise refuse(Code.WRONG_SHAPE, text, "keep one of them", needs)
        if self.failure is None and self.written is not None:
            raise refuse(Code.CONTRADICTION, "what was answered was sent", "remove `written`")
        if self.failure is not None and (self.headers or self.body is not None):
            raise refuse(Code.CONTRADICTION, "a failure has no headers and no body", "remove them, or give a `status`")
        if self.failure in NEVER_SENT and self.written:
            text = f"`failure: {self.failure}` comes before a byte of the request is sent"
            raise refuse(Code.CONTRADICTION, text, "remove `written`")
        return self


class CaseBlock(Block):
    """One test: a request, what comes back of its sends, and what must follow."""

    noun: ClassVar[str] = "a case"

    name: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        description="What it holds, as a sentence; it names the case where it fails."
    )
    request: RequestBlock = Field(description="The app's request.")
    answers: Annotated[list[AnswerBlock], Field(min_length=1)] = Field(
        description="What comes back, one send after another; each but the last must lead to another send."
    )
    expect: ExpectBlock = Field(description="What must come of the last answer.")

    @model_validator(mode="after")
    def _last_is_judged_once(self) -> CaseBlock:
        if self.answers[-1].expect is not None:
            raise refuse(
                Code.WRONG_SHAPE,
                "what must come of the last answer is said twice: beside it, and by the `expect` of the case",
                "keep that of the case",
            )
        return self


class TestsBlock(Block):
    """Policy tests, run by `sidecar test`."""

    __test__: ClassVar[bool] = False
    """Not for pytest."""
    noun: ClassVar[str] = "a file of policy tests"

    policy: PolicyName | None = Field(None, description="The policy that is tested.")
    upstream: UpstreamName | None = Field(
        None, description="Or the upstream of `sidecar.yaml`: its routes say which policy decides."
    )
    now: Moment = Field(
        default_factory=lambda: FIRST_SEND,
        description="When the first send goes out, for answers that name a date: an ISO 8601 time, an HTTP-date or "
        "Unix seconds. Left out: 2026-01-01T00:00:00Z.",
    )
    cases: Annotated[list[CaseBlock], Field(min_length=1)] = Field(description="The tests.")

    @model_validator(mode="after")
    def _one_subject(self) -> TestsBlock:
        if (self.policy is None) == (self.upstream is None):
            found = "this has both" if self.policy is not None else "this has neither"
            raise refuse(
                Code.WRONG_SHAPE,
                f"a file tests a `policy` or an `upstream`; {found}",
                "policy: NAME, or upstream: NAME where routes are to count",
                () if self.policy is not None else ("policy", "upstream"),
            )
        return self
