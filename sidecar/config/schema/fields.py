"""The kinds of value that a key may have: durations, sizes, header names, pointers, patterns, addresses.

Each kind reads text, refuses with a reason and a remedy, writes itself back for ``show``, and describes itself for the
JSON Schema. ``site``, ``policy`` and ``row`` say which key has which kind.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    PlainSerializer,
    PrivateAttr,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from sidecar.config.schema import units as quantities
from sidecar.config.text.document import Mark
from sidecar.config.text.document import Table as LocatedTable
from sidecar.config.text.problems import Code
from sidecar.core.decision.expression import Expression, NotRegular

__all__ = [
    "HEADER_NAME",
    "Block",
    "Duration",
    "HeaderName",
    "LongDuration",
    "Method",
    "Pattern",
    "PerSecond",
    "Pointer",
    "PolicyName",
    "ScalarText",
    "Share",
    "Size",
    "UpstreamName",
    "quantity",
    "refuse",
    "refuse_all",
]

MAX_SECONDS = 24 * 3600.0
MAX_LONG_SECONDS = 365 * 24 * 3600.0
MAX_SIZE_BYTES = 1 << 40
MAX_RATE = 1e6

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
"""RFC 9110 section 5.6.2."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_POINTER = re.compile(r"(/([^~/]|~[01])*)*")
"""RFC 6901 section 3."""


def refuse(code: Code, text: str, remedy: str = "", needs: tuple[str, ...] = ()) -> PydanticCustomError:
    """What a validator raises: the sentence that the user will read, and what to do.

    ``needs``: missing keys of the block, one of which would mend it. If one of them was wrong and was taken out, or is
    an unknown key, this error only follows from that, and is not reported.
    """
    return PydanticCustomError("refused", "{text}", {"code": code, "text": text, "help": remedy, "needs": needs})


def refuse_all(found: list[PydanticCustomError]) -> None:
    """Raises everything that was found in one block, so that no mistake hides another; nothing if there is none."""
    if found:
        first = found[0].context or {}
        raise PydanticCustomError("refused", "{text}", {**first, "all": [error.context for error in found]})


class Block(BaseModel):
    """A mapping of the YAML: strict, unknown keys refused, with its place in the file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    noun: ClassVar[str] = "the configuration"
    """Its name in an error."""
    nullable: ClassVar[frozenset[str]] = frozenset()
    """Keys for which `null` has a meaning."""
    old_keys: ClassVar[Mapping[str, str]] = {}
    """What a key was called before -> its name. Still read; `check` names the new one (W208)."""
    whole: ClassVar[bool] = False
    """A policy that writes this block takes none of its keys from the policy that it extends."""
    _source: LocatedTable | None = PrivateAttr(None)

    @model_validator(mode="wrap")
    @classmethod
    def _keep_source(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        block = handler(data)
        if isinstance(data, LocatedTable):
            block._source = data
        return block

    def sets(self, key: str) -> bool:
        """True if the key is written, in place of being left to its default."""
        return key in self.model_fields_set

    @property
    def is_tainted(self) -> bool:
        """True if a part of it, however deep inside, was wrong and was left out, so that its absence is no mistake."""
        return self._source is not None and self._source.is_tainted

    def lost(self, *keys: str) -> bool:
        """True if the value of one of these keys was wrong and was left out."""
        return self._source is not None and not self._source.taken.isdisjoint(keys)

    def key_mark(self, key: str) -> Mark | None:
        """Where the key is written; where the block begins if it is not; None for the built-in defaults."""
        if self._source is None:
            return None
        return self._source.keys_at.get(key, self._source.mark)

    def value_mark(self, key: str) -> Mark | None:
        if self._source is None:
            return None
        return self._source.values_at.get(key, self._source.mark)


def kind_of(value: object) -> str:
    """The kind of a value, in the author's words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text `{clip(value)}`"
    return "a list" if isinstance(value, list) else "a block of keys"


def clip(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"


def _text(value: object, wanted: str) -> str:
    if not isinstance(value, str):
        raise refuse(Code.WRONG_TYPE, f"must be {wanted}, not {kind_of(value)}")
    return value


def quantity(what: str, like: str, parse: Callable[[str], float | None], most: float, most_text: str) -> Any:
    """A validator of numbers with a unit: more than nothing, and at most ``most``."""

    def read(value: object) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise refuse(Code.NO_UNIT, f"the number {value} has no unit", f"write {what} as {like}")
        text = _text(value, what)
        if text.startswith("-"):
            raise refuse(Code.OUT_OF_RANGE, f"`{clip(text)}` is negative", f"write {what} as {like}")
        number = parse(text.strip())
        if number is None:
            raise refuse(Code.BAD_VALUE, f"`{clip(text)}` is not {what}", f"write it as {like}")
        if number > most:
            raise refuse(Code.OUT_OF_RANGE, f"`{clip(text)}` is too much", f"at most {most_text}")
        return number

    return read


def _above_zero(value: float) -> float:
    if value <= 0:
        raise refuse(Code.OUT_OF_RANGE, "zero would mean never", "write a value above zero")
    return value


_read_duration = quantity("a duration", "`250ms`, `2s`, `5m` or `1h`", quantities.parse_duration, MAX_SECONDS, "24h")
_read_long_duration = quantity(
    "a duration", "`30m`, `12h` or `72h`", quantities.parse_duration, MAX_LONG_SECONDS, "8760h"
)
_read_size = quantity("a size", "`64KiB`, `1MiB` or `10KB`", quantities.parse_size, MAX_SIZE_BYTES, "1024GiB")
_read_rate = quantity("a rate", "`10/s` or `600/m`", quantities.parse_rate, MAX_RATE, "1000000/s")

Duration = Annotated[
    float,
    BeforeValidator(lambda value: _above_zero(_read_duration(value))),
    PlainSerializer(quantities.write_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": quantities.DURATION_PATTERN, "title": "duration"}),
]
LongDuration = Annotated[
    float,
    BeforeValidator(lambda value: _above_zero(_read_long_duration(value))),
    PlainSerializer(quantities.write_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": quantities.DURATION_PATTERN, "title": "duration"}),
]
Size = Annotated[
    int,
    BeforeValidator(_read_size),
    PlainSerializer(quantities.write_size, return_type=str),
    WithJsonSchema({"type": "string", "pattern": quantities.SIZE_PATTERN, "title": "size"}),
]


def _read_per_second(value: object) -> float:
    """A number, as the key says of what; or a rate in words, as this key once was written."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 <= value <= MAX_RATE:
            raise refuse(Code.OUT_OF_RANGE, f"{value} is not between 0 and {MAX_RATE:g}", "retries in one second")
        return float(value)
    rate: float = _read_rate(value)
    return rate


PerSecond = Annotated[
    float,
    BeforeValidator(_read_per_second),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": MAX_RATE, "title": "per second"}),
]


def _read_share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse(Code.WRONG_TYPE, f"must be a number from 0 to 1, not {kind_of(value)}")
    if not 0 <= value <= 1:
        raise refuse(Code.OUT_OF_RANGE, f"{value} is not between 0 and 1", "a half is 0.5")
    return float(value)


Share = Annotated[
    float,
    BeforeValidator(_read_share),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1, "title": "share"}),
]


def _read_header(value: object) -> str:
    name = _text(value, "a header name")
    if not HEADER_NAME.fullmatch(name):
        raise refuse(
            Code.BAD_VALUE,
            f"`{clip(name)}` is not a header name",
            "letters, digits and hyphens; the colon and the value do not belong to it",
        )
    return name


HeaderName = Annotated[
    str,
    BeforeValidator(_read_header),
    WithJsonSchema({"type": "string", "pattern": f"^{HEADER_NAME.pattern}$", "title": "header name"}),
]


def _read_method(value: object) -> str:
    name = _text(value, "a method")
    if not HEADER_NAME.fullmatch(name):
        raise refuse(Code.BAD_VALUE, f"`{clip(name)}` is not a method", "write it as `POST`")
    if name != name.upper():
        raise refuse(
            Code.BAD_VALUE,
            f"methods are case-sensitive: `{clip(name)}` would never match",
            f"write `{clip(name.upper())}`",
        )
    return name


Method = Annotated[
    str,
    BeforeValidator(_read_method),
    WithJsonSchema({"type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Z-]+$", "title": "method"}),
]


def _read_pointer(value: object) -> str:
    pointer = _text(value, "a JSON pointer")
    if not _POINTER.fullmatch(pointer):
        suggestion = "/" + pointer.removeprefix("$.").replace("~", "~0").replace(".", "/").lstrip("/")
        raise refuse(
            Code.BAD_VALUE, f"`{clip(pointer)}` is not a JSON pointer (RFC 6901)", f"write `{clip(suggestion)}`"
        )
    return pointer


Pointer = Annotated[
    str,
    BeforeValidator(_read_pointer),
    WithJsonSchema({"type": "string", "pattern": "^(/([^~/]|~[01])*)*$", "title": "JSON pointer"}),
]


def _read_name(what: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        name = _text(value, what)
        if not _NAME.fullmatch(name):
            raise refuse(
                Code.BAD_VALUE,
                f"`{clip(name)}` cannot be {what}",
                "lower-case letters, digits, `.`, `-` and `_`, at most 63; it becomes a label and a file name",
            )
        return name

    return read


_NAME_SCHEMA = {"type": "string", "pattern": f"^{_NAME.pattern}$"}
UpstreamName = Annotated[str, BeforeValidator(_read_name("the name of an upstream")), WithJsonSchema(_NAME_SCHEMA)]
PolicyName = Annotated[str, BeforeValidator(_read_name("the name of a policy")), WithJsonSchema(_NAME_SCHEMA)]


def _read_pattern(value: object) -> str:
    pattern = _text(value, "a regular expression")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Warnings about a future syntax do not concern the user.
            Expression(pattern)
    except NotRegular as error:
        raise refuse(
            Code.SLOW_PATTERN,
            f"`{clip(pattern)}` could take very long on a hostile text: {error}",
            "write it without that; what must not be there is a row of its own, above this one",
        ) from None
    except (re.error, OverflowError, RecursionError) as error:
        raise refuse(
            Code.BAD_VALUE, f"`{clip(pattern)}` is not a regular expression: {error}", "Python's syntax is used"
        ) from None
    return pattern


Pattern = Annotated[str, BeforeValidator(_read_pattern), WithJsonSchema({"type": "string", "format": "regex"})]


def _read_scalar(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list | dict):
        raise refuse(Code.WRONG_TYPE, f"must be one value, not {kind_of(value)}", "for several, use `in: [...]`")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value)


ScalarText = Annotated[
    str,
    BeforeValidator(_read_scalar),
    WithJsonSchema({"type": ["string", "number", "boolean", "null"], "title": "scalar"}),
]
"""Compared with a header's text or a JSON scalar: anything but text is kept as its JSON text."""
