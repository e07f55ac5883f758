"""Values with places → blocks; pydantic's findings in words for a person, each at its place.

A wrong part is taken out and the rest is checked again, so that one run reports every mistake. Whether values fit *each
other* across blocks is checked in ``check``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from sidecar.config.schema.fields import Block, clip, kind_of
from sidecar.config.text.document import UNKNOWN_KEY, Document, Listing, Mark, Table, Value
from sidecar.config.text.problems import Code, Problem, nearest

__all__ = ["block_in", "fields_by_key", "read_block"]

MAX_PASSES = 32
"""Twice the deepest nesting of blocks and lists; each takes something out, or is the last."""

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
"""The word of another tool → the word to write here."""

STAND_INS = {"name": "stand-in-{}", "origin": "https://stand-in-{}.invalid"}

AnyBlock = TypeVar("AnyBlock", bound=Block)


@dataclass(slots=True)
class _Spot:
    """The place of an error in the tree."""

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
    """The container of the part to take out."""
    index: str | int | None
    """Its key or index in the container; None for the root itself."""
    around: tuple[Table, ...] = ()
    """Every mapping on the way, the outermost first."""
    is_unknown: bool = False
    """True if the key is none of its block."""


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
    problems = _respell(model, root) + _refuse_empty(model, root)
    for _ in range(MAX_PASSES):
        try:
            return model.model_validate(root), problems
        except ValidationError as error:
            found, is_smaller = _judge(model, root, error)
            problems += found
            if not is_smaller:
                break
    return None, problems


def _judge(model: type[Block], root: Table, error: ValidationError) -> tuple[list[Problem], bool]:
    """The problems of one pass, and whether anything could be taken out of the tree for the next.

    Taken out is as little as can be: a key or an item that is wrong; the block around it only for what is wrong with
    the block. So what stands beside it is judged as well, by itself and against the rest.
    """
    details = error.errors(include_url=False)
    spots = [_locate(model, root, detail["loc"]) for detail in details]
    problems = [problem for spot, detail in zip(spots, details, strict=True) for problem in _problems(spot, detail)]
    wrong = []
    is_smaller = False
    for spot, detail in zip(spots, details, strict=True):
        if _stood_in(root, detail["loc"]):
            is_smaller = True
        elif detail["type"] == "missing":
            wrong.append(_locate(model, root, detail["loc"][:-1]))
        else:
            wrong.append(replace(spot, is_unknown=detail["type"] == "extra_forbidden"))
    return problems, _take_out(wrong) or is_smaller


def _stood_in(root: Table, loc: tuple[int | str, ...]) -> bool:
    """True if a required key of an upstream was given a value, so that its other keys are still checked."""
    if len(loc) != 3 or loc[0] != "upstreams" or loc[2] not in STAND_INS:
        return False
    upstream = _locate(Block, root, loc[:2]).value
    if not isinstance(upstream, Table):
        return False
    key = str(loc[2])
    upstream.put(key, upstream.mark, STAND_INS[key].format(loc[1]), upstream.mark)
    upstream.taken.add(key)
    upstream.is_tainted = root.is_tainted = True
    return True


def _problems(spot: _Spot, detail: ErrorDetails) -> list[Problem]:
    """The problems to report, without those that only follow from what was taken out before."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "missing":
        return [] if spot.key in spot.table.taken else [_problem(spot, detail)]
    if kind == "too_short":
        return [] if isinstance(spot.value, Listing) and spot.value.is_tainted else [_problem(spot, detail)]
    if kind != "refused":
        return [_problem(spot, detail)]
    taken = spot.value.taken if isinstance(spot.value, Table) else set()
    return [
        _refused(spot, each)
        for each in context.get("all", [context])
        if not each["needs"] or taken.isdisjoint((*each["needs"], UNKNOWN_KEY))
    ]


def _locate(model: type[Block], root: Table, loc: tuple[int | str, ...]) -> _Spot:
    spot = _Spot(model, root, "", root, root.mark, root.mark, root, None)
    block: type[Block] | None = model
    for step in loc:
        here = spot.value
        if isinstance(here, Table) and isinstance(step, str):
            spot.block, spot.table, spot.key = block or spot.block, here, step
            spot.around = (*spot.around, here)
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


def _take_out(spots: list[_Spot]) -> bool:
    """Remove each part once; the last items of a list first, so that the others keep their index. False: nothing."""
    done = False
    for spot in spots:
        if not spot.is_unknown:  # that an unknown key is gone changes nothing
            for table in spot.around:
                table.is_tainted = True
        if isinstance(spot.holder, Table) and isinstance(spot.index, str):
            done = True
            spot.holder.pop(spot.index, None)
            spot.holder.taken.add(UNKNOWN_KEY if spot.is_unknown else spot.index)
    items = {(id(s.holder), s.index): s for s in spots if isinstance(s.holder, Listing)}
    for spot in sorted(items.values(), key=lambda s: str(s.index).zfill(9), reverse=True):
        if isinstance(spot.holder, Listing) and isinstance(spot.index, int):
            done = spot.holder.is_tainted = True
            spot.holder.without(spot.index)
    return done


def _respell(model: type[Block], table: Table) -> list[Problem]:
    """Keys by their present names, each with a warning; one that stands under both names is an error."""
    problems = []
    for old, new in model.old_keys.items():
        if old not in table:
            continue
        mark = table.keys_at[old]
        if new in table:
            text = f"`{old}` is the old name of `{new}`, which stands here too"
            problems.append(mark.problem(Code.REPEATED_KEY, text, "keep the one that you mean"))
        else:
            table.put(new, mark, table[old], table.values_at[old])
            text = f"`{old}` is called `{new}` now"
            problems.append(mark.problem(Code.OLD_KEY, text, "rename it; it means the same"))
        del table[old]
    for key, field in fields_by_key(model).items():
        inner, value = block_in(field.annotation), table.get(key)
        if inner is not None:
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, Table):
                    problems += _respell(inner, item)
    return problems


def _refuse_empty(model: type[Block], table: Table) -> list[Problem]:
    """Keys without a value (``deadline:``), except where nothing says something; they are taken out."""
    problems = []
    for key, field in fields_by_key(model).items():
        value, inner = table.get(key), block_in(field.annotation)
        if key in table and value is None and key not in model.nullable:
            text = f"`{key}` has no value"
            problems.append(table.keys_at[key].problem(Code.WRONG_TYPE, text, "give it one, or remove the line"))
            table.is_tainted = True
            table.taken.add(key)
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
    """Code, text (after the key's name) and remedy of pydantic's own findings."""
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
