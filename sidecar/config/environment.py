"""``SIDECAR_*`` variables and command-line flags, laid over the file: flag > environment > file > default.

The names come from ``schema.site``: ``log.format`` is ``SIDECAR_LOG_FORMAT``. An unknown variable is an error, because
a misspelt one would be ignored silently. Values are checked with those of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import WithJsonSchema
from pydantic.fields import FieldInfo

from sidecar.config.schema.fields import Block, clip
from sidecar.config.schema.site import SiteBlock
from sidecar.config.schema.validate import block_in, fields_by_key
from sidecar.config.text.document import Document, Listing, Table, Value, parse, resolve
from sidecar.config.text.problems import Code, Problem, nearest

__all__ = ["PREFIX", "lay_over", "settings", "variable_of"]

PREFIX = "SIDECAR_"
OTHER_VARIABLES = ("SIDECAR_CONFIG", "SIDECAR_ADMIN_TOKEN", "SIDECAR_ADMIN_TOKEN_FILE")
"""Variables that other modules read."""

_SERVICE_LINK = re.compile(r"SIDECAR_(.*_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")
"""Variables that Kubernetes and Docker set in every container beside a service called ``sidecar``."""


def settings(model: type[Block] = SiteBlock, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every setting of the site, with the keys that lead to it. A list counts as one."""
    for key, found in fields_by_key(model).items():
        inner = block_in(found.annotation)
        if inner is not None and not _is_list(found):
            yield from settings(inner, (*path, key))
        else:
            yield (*path, key), found


def variable_of(keys: tuple[str, ...]) -> str:
    """``("log", "format")`` -> ``SIDECAR_LOG_FORMAT``."""
    return PREFIX + "_".join(keys).upper()


def lay_over(site: Document, environ: Mapping[str, str], overrides: Mapping[str, str]) -> list[Problem]:
    """Put variables and flags (``{"log.format": "json"}``) into the document of ``sidecar.yaml``."""
    if site.root is None:
        site.root = Table(site.mark())
    problems = _unknown_variables(environ)
    if not isinstance(site.root, Table):
        return problems
    for keys, found in settings():
        name, flag = variable_of(keys), ".".join(keys)
        for source, text in ((name, environ.get(name)), (f"--{flag.replace('.', '-')}", overrides.get(flag))):
            if text is not None:
                document = _read(source, text, found)
                problems += document.problems
                _put(site.root, keys, document)
    return problems


def _unknown_variables(environ: Mapping[str, str]) -> list[Problem]:
    known = [*(variable_of(keys) for keys, _ in settings()), *OTHER_VARIABLES]
    return [
        Problem(
            Code.UNKNOWN_VARIABLE,
            f"`{clip(name)}` is not a setting",
            "environment",
            help=nearest(name, known),
        )
        for name in sorted(environ)
        if name.startswith(PREFIX) and name not in known and not _SERVICE_LINK.fullmatch(name)
    ]


def _read(source: str, text: str, found: FieldInfo) -> Document:
    """The value of a variable or flag: text as it is, a number as YAML has it, a list as YAML."""
    data = text.encode("utf-8", "replace")
    if _is_list(found):
        return parse(source, data, is_file=False)
    document = Document(source, is_file=False, lines=text.splitlines() or [""])
    document.root = text
    if _takes_numbers(found):
        try:
            document.root = resolve(text)
        except ValueError as error:
            document.problems.append(document.mark(width=len(text)).problem(Code.BAD_VALUE, str(error)))
    return document


def _put(root: Table, keys: tuple[str, ...], document: Document) -> None:
    width = len(document.lines[0]) if document.lines else 1
    mark = document.mark(width=max(1, width))
    table = root
    for key in keys[:-1]:
        inner = table.get(key)
        if inner is None:
            inner = Table(mark)
            table.put(key, mark, inner, mark)
        if not isinstance(inner, Table):
            return  # the file has a value of the wrong kind, which is reported by itself
        table = inner
    value: Value = document.root
    at = value.mark if isinstance(value, Table | Listing) else mark
    if value is not None or not document.problems:
        table.put(keys[-1], mark, value, at)


def _is_list(found: FieldInfo) -> bool:
    return getattr(found.annotation, "__origin__", None) is list


def _takes_numbers(found: FieldInfo) -> bool:
    schema: dict[str, Any] = next(
        (dict(item.json_schema or {}) for item in found.metadata if isinstance(item, WithJsonSchema)), {}
    )
    return schema.get("type") == "number" or (not schema and found.annotation in (int, float))
