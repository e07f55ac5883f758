"""Values with places -> blocks; what pydantic finds is said to a person, at its place.

A wrong part is taken out and the rest is judged again, so that one run tells of every mistake. Whether values fit
*each other* across blocks is judged in ``review``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from sidecar.config.document import Document, Listing, Mark, Table, Value
from sidecar.config.fields import Block, clip, kind_of
from sidecar.config.problems import Code, Problem, nearest

__all__ = ["block_in", "fields_by_key", "read_block"]

MAX_PASSES = 8

FOREIGN_WORDS = {
    "retries": "`attempts` counts sends in all: the retries and the first one",
    "max_retries": "`attempts` counts sends in all: the retries and the first one",
    "max_attempts": "write `attempts`",
    "timeout": "`deadline` is over everything; `attempt: {connect, head, idle}` is for one attempt",
    "timeouts": "write `attempt: {connect, head, idle}`",
    "retry_after": "write `wait: [retry-after]`",
    "rows": "write `table`",
    "rules": "write `table`",
    "code": "write `status`",
    "statuses": "write `status`; it takes a list",
    "action": "write `then`",
    "url": "write `origin`",
    "base_url": "write `origin`",
    "port": "write `listen: 127.0.0.1:PORT`",
    "verify": "verification cannot be turned off; name the certificates to trust in `ca_file`",
    "insecure": "verification cannot be turned off; name the certificates to trust in `ca_file`",
    "log_format": "write `log: {format: …}`",
    "responses": "write `answers`",
    "response": "write `answers`, a list",
    "answer": "write `answers`, a list",
    "expected": "write `expect`",
    "min_seconds": "write `min`, a duration such as `2s`",
    "max_seconds": "write `max`, a duration such as `2s`",
    "policies": "each policy is a file of its own: policies/NAME.yaml beside this file",
}
"""What other tools call it -> what to write here."""

STAND_INS = {"name": "stand-in-{}", "origin": "https://stand-in-{}.invalid"}

AnyBlock = TypeVar("AnyBlock", bound=Block)


@dataclass(slots=True)
class _Spot:
    """Where an error stands in the tree."""

    block: type[Block]
    """The innermost model around it."""
    table: Table
    """The innermost mapping around it."""
    key: str
    """The last key on the way."""
    value: Value
    key_mark: Mark
    value_mark: Mark
    holder: Table | Listing
    """What would have to be emptied of it …"""
    index: str | int | None
    """… at this key; None for the root itself."""


def read_block(model: type[AnyBlock], document: Document) -> tuple[AnyBlock | None, list[Problem]]:
    """The block that the document holds, as far as it is sound, and what is wrong with the rest.

    An empty document is a block of defaults. None only if there is nothing to build on.
    """
    root = document.root
    if root is None:
        root = Table(document.mark())
    if not isinstance(root, Table):
        text = f"{model.noun} is a block of keys, not {kind_of(root)}"
        return None, [document.mark().problem(Code.WRONG_TYPE, text, "begin with `key: value` lines")]
    problems = _refuse_empty(model, root)
    for _ in range(MAX_PASSES):
        try:
            return model.model_validate(root), problems
        except ValidationError as error:
            problems += _judge(model, root, error)
    return None, problems


def _judge(model: type[Block], root: Table, error: ValidationError) -> list[Problem]:
    """The problems of one pass; their values are taken out of the tree."""
    details = error.errors(include_url=False)
    spots = [_locate(model, root, detail["loc"]) for detail in details]
    problems = [
        _problem(spot, detail)
        for spot, detail in zip(spots, details, strict=True)
        if not _follows_from_taking_out(spot, detail)
    ]
    _take_out([_unit(model, root, detail["loc"]) for detail in details if not _stood_in(root, detail["loc"])])
    return problems


def _stood_in(root: Table, loc: tuple[int | str, ...]) -> bool:
    """True if a key that an upstream cannot be without was given a value, so that its other keys are still judged."""
    if len(loc) < 3 or loc[0] != "upstreams" or loc[2] not in STAND_INS:
        return False
    upstream = _locate(Block, root, loc[:2]).value
    if not isinstance(upstream, Table):
        return False
    key = str(loc[2])
    upstream.put(key, upstream.mark, STAND_INS[key].format(loc[1]), upstream.mark)
    upstream.is_tainted = True
    return True


def _follows_from_taking_out(spot: _Spot, detail: ErrorDetails) -> bool:
    table = spot.value if isinstance(spot.value, Table) and detail["type"] != "missing" else spot.table
    return table.is_tainted


def _locate(model: type[Block], root: Table, loc: tuple[int | str, ...]) -> _Spot:
    spot = _Spot(model, root, "", root, root.mark, root.mark, root, None)
    block: type[Block] | None = model
    for step in loc:
        here = spot.value
        if isinstance(here, Table) and isinstance(step, str):
            spot.block, spot.table, spot.key = block or spot.block, here, step
            if step not in here:
                break
            spot.holder, spot.index, spot.value = here, step, here[step]
            spot.key_mark, spot.value_mark = here.keys_at[step], here.values_at[step]
            field = fields_by_key(spot.block).get(step)
            block = block_in(field.annotation) if field else None
        elif isinstance(here, Listing) and isinstance(step, int) and step < len(here):
            spot.holder, spot.index, spot.value = here, step, here[step]
            spot.key_mark = spot.value_mark = here.items_at[step]
    return spot


def _unit(model: type[Block], root: Table, loc: tuple[int | str, ...]) -> _Spot:
    """The part that is wrong as a whole: a row, a route or a test case, one key of an upstream, else a setting.

    A row without its bad condition would mean something else; so would half a backoff.
    """
    depth = 3 if loc[:1] == ("upstreams",) and len(loc) > 2 else 2 if loc[:1] in (("table",), ("cases",)) else 1
    if "routes" in loc[:3]:
        depth = 4
    spot = _locate(model, root, loc[:depth])
    if spot.key not in spot.table:  # a missing key: what lacks it goes
        spot = _locate(model, root, loc[: depth - 1])
    return spot


def _take_out(spots: list[_Spot]) -> None:
    """Remove each part once; the last items of a list first, so that the others keep their index."""
    for spot in spots:
        spot.table.is_tainted = True
        if isinstance(spot.holder, Table) and isinstance(spot.index, str):
            spot.holder.pop(spot.index, None)
    items = {(id(s.holder), s.index): s for s in spots if isinstance(s.holder, Listing)}
    for spot in sorted(items.values(), key=lambda s: str(s.index).zfill(9), reverse=True):
        if isinstance(spot.holder, Listing) and isinstance(spot.index, int):
            spot.holder.without(spot.index)


def _refuse_empty(model: type[Block], table: Table) -> list[Problem]:
    """Keys without a value (``deadline:``), except where nothing says something; they are taken out."""
    problems = []
    for key, field in fields_by_key(model).items():
        value, inner = table.get(key), block_in(field.annotation)
        if key in table and value is None and key not in model.nullable:
            text = f"`{key}` has no value"
            problems.append(table.keys_at[key].problem(Code.WRONG_TYPE, text, "give it one, or remove the line"))
            table.is_tainted = True
            del table[key]
        elif inner is not None:
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, Table):
                    problems += _refuse_empty(inner, item)
    return problems


def _problem(spot: _Spot, detail: ErrorDetails) -> Problem:
    kind, context, given = detail["type"], detail.get("ctx", {}), detail["input"]
    if kind == "extra_forbidden":
        return spot.key_mark.problem(Code.UNKNOWN_KEY, *_unknown_key(spot))
    if kind == "missing":
        mark = spot.table.mark
        description = fields_by_key(spot.block)[spot.key].description or ""
        return mark.problem(Code.MISSING_KEY, f"{spot.block.noun} needs `{spot.key}`", description)
    if kind == "refused":
        return _refused(spot, context)
    code, text, remedy = _builtin(kind, context, given)
    return spot.value_mark.problem(code, f"`{spot.key}` {text}", remedy)


def _unknown_key(spot: _Spot) -> tuple[str, str]:
    known = list(fields_by_key(spot.block))
    remedy = nearest(spot.key, known)
    if not remedy.startswith("did"):
        remedy = FOREIGN_WORDS.get(spot.key, remedy)
    return f"`{clip(spot.key)}` is not a key of {spot.block.noun}", remedy


def _refused(spot: _Spot, context: dict[str, Any]) -> Problem:
    text, remedy = context["text"], context["help"]
    if isinstance(spot.value, Table) and context["code"] is not Code.WRONG_TYPE:
        return spot.value.mark.problem(context["code"], text, remedy)
    joined = f"`{spot.key}` {text}" if text.startswith("must be") else f"`{spot.key}`: {text}"
    return spot.value_mark.problem(context["code"], joined, remedy)


def _builtin(kind: str, context: dict[str, Any], given: Any) -> tuple[Code, str, str]:
    """Code, what is wrong (after the key's name), remedy: for pydantic's own findings."""
    if kind in _EXPECTED:
        expected, remedy = _EXPECTED[kind]
        if isinstance(given, str) and kind in {"int_type", "float_type"}:
            remedy = "write it without quotes"
        return Code.WRONG_TYPE, f"must be {expected}, not {kind_of(given)}", remedy
    if kind == "literal_error":
        words = str(context["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
        if not isinstance(given, str):
            return Code.WRONG_TYPE, f"must be one of {', '.join(words)}, not {kind_of(given)}", ""
        return Code.UNKNOWN_WORD, f"cannot be `{clip(given)}`", nearest(given, words)
    if kind == "greater_than_equal":
        return Code.OUT_OF_RANGE, f"must be at least {context['ge']:g}, not {_short(given)}", ""
    if kind == "less_than_equal":
        return Code.OUT_OF_RANGE, f"must be at most {context['le']:g}, not {_short(given)}", ""
    if kind == "too_short":
        return Code.BAD_VALUE, "is an empty list", "name at least one, or leave the key out"
    return Code.BAD_VALUE, f"cannot be {kind_of(given)}", ""


def _short(given: Any) -> str:
    return clip(str(given))


_EXPECTED = {
    "model_type": ("a block of keys", "write it as `{key: value}` or as indented lines"),
    "list_type": ("a list", "write it in brackets, `[…]`, or with `- ` lines"),
    "string_type": ("text", "put it in quotes"),
    "int_type": ("a whole number", ""),
    "int_from_float": ("a whole number", ""),
    "float_type": ("a number", ""),
    "bool_type": ("true or false", "in YAML 1.2, yes, no, on and off are plain text"),
}


def fields_by_key(model: type[Block]) -> dict[str, FieldInfo]:
    """The fields of a block under the names that the YAML has for them."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def block_in(annotation: object) -> type[Block] | None:
    """The block that a key holds, one or a list of it, whatever is wrapped around it."""
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, Block) else None
    return next((found for part in get_args(annotation) if (found := block_in(part))), None)
