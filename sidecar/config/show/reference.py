"""The reference tables of ``docs/configuration.md``, made from the models: keys, types, defaults, meanings.

``python -m sidecar.config.show.reference docs/configuration.md`` writes them between their markers; a test holds them
equal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sidecar.config.environment import settings, variable_of
from sidecar.config.schema.fields import Block
from sidecar.config.schema.policy import PolicyBlock
from sidecar.config.schema.site import SiteBlock
from sidecar.config.schema.tests import TestsBlock
from sidecar.config.schema.validate import block_in, fields_by_key
from sidecar.config.show.json_schema import json_schema
from sidecar.config.text.problems import Code

__all__ = ["reference", "rewritten"]

BEGIN = "<!-- reference: begin (made by python -m sidecar.config.show.reference) -->"
END = "<!-- reference: end -->"


def reference() -> str:
    """All tables, as Markdown."""
    parts = [
        *_tables("sidecar", SiteBlock, "`sidecar.yaml`"),
        *_tables("policy", PolicyBlock, "`policies/NAME.yaml`"),
        *_tables("tests", TestsBlock, "`policies/tests/NAME.yaml`"),
    ]
    return "\n\n".join([*parts, _variables(), _codes()])


def rewritten(text: str) -> str:
    """The page with fresh tables."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{reference()}\n\n{END}{after}"


def _tables(kind: str, model: type[Block], title: str) -> Iterator[str]:
    schema = json_schema(kind)
    nodes = {model.__name__: schema, **schema["$defs"]}
    for path, block in _blocks(model, ""):
        heading = f"### {title}" if not path else f"#### `{path}`"
        words = {name: node["enum"] for name, node in nodes.items() if "enum" in node}
        rows = [_row(key, node, block, words) for key, node in nodes[block.__name__]["properties"].items()]
        yield "\n".join([heading, "", "| key | value | default | meaning |", "|---|---|---|---|", *rows])


def _blocks(
    model: type[Block], path: str, seen: frozenset[type[Block]] = frozenset()
) -> Iterator[tuple[str, type[Block]]]:
    """Each block once, with the keys that lead to it."""
    found = {path: model}
    for key, field in fields_by_key(model).items():
        inner = block_in(field.annotation)
        if inner is not None and inner not in found.values() and inner not in seen:
            many = "[]" if getattr(field.annotation, "__origin__", None) is list else ""
            deeper = dict(_blocks(inner, f"{path}.{key}{many}".lstrip("."), seen | set(found.values())))
            found |= {place: block for place, block in deeper.items() if block not in found.values()}
    yield from found.items()


def _row(key: str, node: dict[str, Any], block: type[Block], words: dict[str, list[str]]) -> str:
    field = fields_by_key(block)[key]
    default = "**required**" if field.is_required() else _default(node)
    return f"| `{key}` | {_kind(node, words)} | {default} | {field.description} |"


def _default(node: dict[str, Any]) -> str:
    default = node.get("default")
    if default is None:
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`".replace("'", "")


def _kind(node: dict[str, Any], words: dict[str, list[str]]) -> str:
    name = node.get("$ref", "").rsplit("/", 1)[-1]
    if name and name not in words:
        return "block"
    if "enum" in node or name or "const" in node:
        found = words.get(name) or node.get("enum") or [node["const"]]
        return ", ".join(f"`{str(word).lower()}`" for word in found)
    if node.get("title"):
        return str(node["title"])
    if node.get("type") == "array":
        return f"list of {_kind(node.get('items', {}), words)}"
    if "anyOf" in node:
        kinds = [_kind(kind, words) for kind in node["anyOf"]]
        return " or ".join(dict.fromkeys(kinds))
    return {"integer": "whole number", "boolean": "`true`, `false`", "string": "text", "null": "`null`"}.get(
        str(node.get("type")), str(node.get("type", "any"))
    )


OTHER_VARIABLES: Final = {
    "SIDECAR_CONFIG": "no setting: the `sidecar.yaml` of every verb",
    "SIDECAR_ADMIN_TOKEN": "no setting: the token that allows a change on the admin port",
    "SIDECAR_ADMIN_TOKEN_FILE": "no setting: a file that holds it",
    "NO_COLOR": "no setting: no colour at a terminal",
    "TMPDIR": "no setting: where large request bodies are held",
    "OTEL_…": "no setting: [spans](metrics.md#opentelemetry)",
}
"""Variables that stand for no key of ``sidecar.yaml``."""


def _variables() -> str:
    lines = [f"| `{variable_of(keys)}` | `{'.'.join(keys)}` |" for keys, _ in settings()]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in OTHER_VARIABLES.items()]
    return "\n".join(["### Variables", "", "| variable | setting |", "|---|---|", *lines])


def _codes() -> str:
    lines = [f"| `{number}` | {name} |" for number, name in (code.value for code in Code)]
    return "\n".join(["### Codes of errors and warnings", "", "| code | name |", "|---|---|", *lines])


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(rewritten(page.read_text(encoding="utf-8")), encoding="utf-8")
