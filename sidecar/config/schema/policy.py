"""The keys of a policy file: the only source of their types, defaults and descriptions.

The rows of its table are in ``row``; the keys of ``sidecar.yaml`` in ``site``. Defaults of a policy are those of its
keys here, unless ``extends`` names another policy to inherit from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from sidecar.config.schema.fields import (
    Block,
    Duration,
    HeaderName,
    Method,
    PerSecond,
    Pointer,
    PolicyName,
    ScalarText,
    Share,
    Size,
    refuse,
)
from sidecar.config.schema.row import BackoffBlock, OverMaxWord, RowBlock, WaitBlock, WaitEntries
from sidecar.config.text.document import plain
from sidecar.config.text.problems import Code, nearest
from sidecar.core.enums import OverMax

__all__ = [
    "AttemptBlock",
    "BodyBlock",
    "BreakerBlock",
    "BudgetBlock",
    "ErrorsBlock",
    "GateBlock",
    "HedgeBlock",
    "IdBlock",
    "IdempotencyBlock",
    "IdsBlock",
    "PolicyBlock",
    "ReportBlock",
    "VerdictBlock",
]

SHAPE_WORDS = (
    "code",
    "message",
    "status",
    "reason",
    "request_id",
    "correlation_id",
    "timestamp",
    "service",
    "attempts",
)
STORED_WORDS = ("stored", "request_id", "correlation_id", "timestamp", "service")
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")

FRAMING_HEADERS = frozenset(
    [
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
    ]
)
"""They frame or route the message itself: writing one would break it (RFC 9110 section 7.6.1, RFC 9112 section 6)."""


def _writable(name: str) -> str:
    if name.lower() in FRAMING_HEADERS or name.lower().startswith("sidecar"):
        raise refuse(Code.BAD_VALUE, f"`{name}` belongs to the message itself and cannot be set", "name another header")
    return name


WritableHeader = Annotated[HeaderName, AfterValidator(_writable)]
Pointers = list[Pointer]


class AttemptBlock(Block):
    """The timeouts of one attempt."""

    noun: ClassVar[str] = "the block `attempt`"

    connect: Duration = Field(5.0, description="To a connection, TLS included.")
    head: Duration = Field(15.0, description="From the last byte of the request to the response head.")
    idle: Duration = Field(60.0, description="Between two bytes of a body, either way; not for server-sent events.")


class VerdictBlock(Block):
    """A response header in which the upstream itself says whether to retry."""

    noun: ClassVar[str] = "the block `verdict`"

    header: HeaderName = Field(description="The name of the response header.")
    yes: ScalarText = Field("true", description="Its value for: retry.")
    no: ScalarText = Field("false", description="Its value for: do not.")

    @model_validator(mode="after")
    def _two_answers(self) -> VerdictBlock:
        if self.yes == self.no:
            raise refuse(
                Code.CONTRADICTION,
                f"`yes` and `no` are the same text, `{self.yes}`",
                "give each its own",
                tuple(key for key in ("yes", "no") if not self.sets(key)),
            )
        return self


class IdempotencyBlock(Block):
    """The header in which this upstream honours an idempotency key. Only for upstreams that say that they do."""

    noun: ClassVar[str] = "the block `idempotency`"

    header: WritableHeader = Field(description="The name of the request header.")
    methods: Annotated[list[Method], Field(min_length=1)] = Field(
        ["POST", "PUT", "PATCH", "DELETE"],
        description="For which the upstream honours it: the app's own key counts, and a request without one gets one.",
    )
    format: Literal["uuid", "quoted"] = Field(
        "uuid", description="`uuid` bare; `quoted` as a structured string, for the IETF draft."
    )


class IdBlock(Block):
    """How one id is named, sent on and read back."""

    noun: ClassVar[str] = "an id"

    header: WritableHeader = Field("X-Request-Id", description="The name of the header, on requests and answers.")
    from_response: list[HeaderName] = Field(
        [], description="Response headers in which the upstream says an id of its own; for the record."
    )
    from_body: Pointers = Field([], description="JSON pointers to such an id in an error body.")


class CorrelationBlock(IdBlock):
    """The correlation id."""

    header: WritableHeader = Field("X-Correlation-Id", description="The name of the header, on requests and answers.")


class IdsBlock(Block):
    """The names of the ids."""

    noun: ClassVar[str] = "the block `ids`"

    request: IdBlock = Field(IdBlock.model_construct(), description="The request id.")
    correlation: CorrelationBlock = Field(CorrelationBlock.model_construct(), description="The correlation id.")


def _shape_reader(known: tuple[str, ...]) -> Callable[[object], object]:
    """A validator of JSON templates over these words."""

    def read(value: object) -> object:
        shape = plain(value)
        for text in _texts(shape):
            for word in _PLACEHOLDER.findall(text):
                if word not in known:
                    raise refuse(Code.UNKNOWN_WORD, f"`{{{word}}}` is not known to a shape", nearest(word, known))
        return shape

    return read


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


class ErrorsBlock(Block):
    """Where this upstream's errors say what they are, and the shape of our own."""

    noun: ClassVar[str] = "the block `errors`"

    code: Pointers = Field([], description="JSON pointers to the error code, first one found; for the record.")
    message: Pointers = Field([], description="JSON pointers to the message, first one found; for the record.")
    known: list[str] = Field(
        [], description="Codes that may become a metric label, beside those that rows name; the rest count as `other`."
    )
    shape: Annotated[Any, BeforeValidator(_shape_reader(SHAPE_WORDS))] = Field(
        None,
        description="Our own answers, as the upstream would write them: any JSON, with "
        + " ".join(f"{{{word}}}" for word in SHAPE_WORDS)
        + ". Left out: problem+json (RFC 9457).",
    )


class BodyBlock(Block):
    """How much of a request body is held, so that it can be sent again."""

    noun: ClassVar[str] = "the block `body`"

    memory: Size = Field(1 << 20, description="Held in memory up to this; `0B`: none.")
    disk: Size = Field(
        64 << 20, description="Beyond that on disk up to this; `0B`: never. Larger bodies stream, unrepeated."
    )


class BudgetBlock(Block):
    """How many retries an upstream's traffic earns."""

    noun: ClassVar[str] = "the block `budget`"
    old_keys: ClassVar[Mapping[str, str]] = {"floor": "min_per_second"}

    ratio: float = Field(0.25, ge=0, le=100, description="Retries per request.")
    min_per_second: PerSecond = Field(10.0, description="Retries a second that are always allowed.")


class BreakerBlock(Block):
    """When an upstream counts as down."""

    noun: ClassVar[str] = "the block `breaker`"
    old_keys: ClassVar[Mapping[str, str]] = {
        "failures": "failure_ratio",
        "of_at_least": "min_requests",
        "within": "window",
    }

    failure_ratio: Share = Field(0.5, description="It opens when this share of recent attempts has failed.")
    min_requests: int = Field(20, ge=1, le=1_000_000, description="With fewer attempts in the window it stays closed.")
    window: Duration = Field(10.0, description="How long an attempt counts as recent.")
    when_open: Literal["hold", "fail"] = Field(
        "hold", description="`hold` exchanges until it is back, within their deadlines; `fail` them at once."
    )


class GateBlock(Block):
    """What waits when an upstream asks for quiet."""

    noun: ClassVar[str] = "the block `gate`"

    key: list[HeaderName] = Field(
        [],
        description="Request headers whose values split the gate, so that one tenant's quota does not stop another's.",
    )
    queue: int = Field(1000, ge=0, le=1_000_000, description="At most this many exchanges wait behind it.")


class HedgeBlock(Block):
    """A second send beside a first one that is slow. Only for what is idempotent or keyed, and paid from the budget."""

    noun: ClassVar[str] = "the block `hedge`"
    whole: ClassVar[bool] = True

    quantile: Annotated[float, Field(ge=0.5, le=0.999)] | None = Field(
        None,
        description="It goes when the first has taken longer than this share of first sends, as learnt: 0.95, say.",
    )
    after: Duration | None = Field(None, description="Or when it has taken this long.")

    @model_validator(mode="after")
    def _one_time(self) -> HedgeBlock:
        if self.after is not None and self.quantile is not None:
            text = "`hedge` has a fixed time and a learnt one, `after` and `quantile`"
            raise refuse(Code.CONTRADICTION, text, "keep one of them")
        if self.after is None and self.quantile is None:
            text = "`hedge` does not say when the second send goes"
            remedy = "write `quantile: 0.95`, or a time: `after: 200ms`"
            raise refuse(Code.MISSING_KEY, text, remedy, ("after", "quantile"))
        return self


class ReportBlock(Block):
    """What is kept of failed exchanges, in memory, for `sidecar report`."""

    noun: ClassVar[str] = "the block `report`"

    bodies: bool = Field(False, description="Also the bodies of request and response, redacted before they are kept.")
    redact: Pointers = Field(
        [], description="JSON pointers to values in bodies that are never kept; a step `*` is any key or item."
    )
    keep: int = Field(50, ge=1, le=10_000, description="How many of the last failed exchanges of this policy are kept.")


class PolicyBlock(Block):
    """What is allowed toward an upstream, or toward one of its routes."""

    noun: ClassVar[str] = "a policy"

    extends: PolicyName | None = Field(
        None, description="The policy to inherit from: rows here come before its rows; settings here override."
    )
    deadline: Duration = Field(60.0, description="One per exchange, over everything.")
    attempts: int = Field(5, ge=1, le=100, description="Sends in all: the first and its retries.")
    attempt: AttemptBlock = Field(AttemptBlock(), description="The timeouts of one attempt.")
    backoff: BackoffBlock = Field(BackoffBlock(), description="The pause where the upstream names none.")
    wait: WaitEntries = Field(
        [WaitBlock(header="Retry-After")], description="Where the upstream names a pause; the first usable counts."
    )
    max_wait: Duration = Field(120.0, description="The longest pause.")
    over_max: OverMaxWord = Field(
        OverMax.PASS,
        description="A longer one: `pass` the response on, `clamp` to max_wait, or `backoff` as if nothing was said.",
    )
    verdict: VerdictBlock | None = Field(
        None, description="The upstream's own word on retrying; overrules rows, never safety. `null`: none."
    )
    resend_methods: list[Method] = Field(
        [], description="Methods repeated although they may have been applied. At your own risk."
    )
    idempotency: IdempotencyBlock | None = Field(
        None, description="The idempotency key that this upstream honours. `null`: none."
    )
    ids: IdsBlock = Field(IdsBlock(), description="The names of the ids.")
    trace: Literal["keep", "create"] = Field(
        "keep", description="`traceparent`: keep the app's, or create one where it is missing."
    )
    errors: ErrorsBlock = Field(ErrorsBlock(), description="Where errors say what they are; the shape of our own.")
    body: BodyBlock = Field(BodyBlock(), description="How much of a request body is held.")
    budget: BudgetBlock = Field(BudgetBlock(), description="Retries that traffic earns.")
    breaker: BreakerBlock = Field(BreakerBlock(), description="When the upstream counts as down.")
    gate: GateBlock = Field(GateBlock(), description="What waits when it asks for quiet.")
    attempt_header: WritableHeader | None = Field(
        None, description="A request header that tells the upstream the number of the send. `null`: none."
    )
    deadline_header: WritableHeader | None = Field(
        None, description="A request header that tells it the whole milliseconds left. `null`: none."
    )
    stored_shape: Annotated[Any, BeforeValidator(_shape_reader(STORED_WORDS))] = Field(
        None,
        description="The answer to a request that went into the outbox, as the upstream would write it: any JSON, with "
        + " ".join(f"{{{word}}}" for word in STORED_WORDS)
        + ". Left out: the receipt alone.",
    )
    report: ReportBlock | None = Field(
        None, description="What is kept of failed exchanges, for `sidecar report`. `null`: only what the log has."
    )
    hedge: HedgeBlock | None = Field(
        None, description="A second send beside a first one that is slow; the first answer counts. `null`: never."
    )
    table: list[RowBlock] = Field([], description="Top-down; the first row that matches decides; none: pass.")

    nullable: ClassVar[frozenset[str]] = frozenset(
        {"verdict", "idempotency", "attempt_header", "deadline_header", "stored_shape", "report", "hedge"}
    )
