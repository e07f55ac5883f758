"""The JSON Schema (draft 2020-12) of ``sidecar.yaml``, of policies and of policy tests, made from the models.

For editors. It knows each value by itself; what only ``sidecar check`` sees is how values fit each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from sidecar.config.schema.addresses import HostPort
from sidecar.config.schema.fields import Block
from sidecar.config.schema.policy import PolicyBlock
from sidecar.config.schema.site import SiteBlock
from sidecar.config.schema.tests import TestsBlock
from sidecar.config.schema.units import write_duration, write_size
from sidecar.config.schema.validate import block_in
from sidecar.core.settings.deployment import Address

__all__ = ["SCHEMAS", "json_schema"]

SCHEMAS: dict[str, type[Block]] = {"sidecar": SiteBlock, "policy": PolicyBlock, "tests": TestsBlock}
TITLES = {
    "sidecar": "sidecar.yaml",
    "policy": "A policy of the retry sidecar",
    "tests": "Policy tests of the retry sidecar",
}
DIALECT = "https://json-schema.org/draft/2020-12/schema"

_WRITERS: dict[str, Any] = {"duration": write_duration, "size": write_size}


class _Schema(GenerateJsonSchema):
    """Pydantic's, with defaults written as their author would write them, and titles only where we gave one."""

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, Block):
            return None
        if isinstance(dft, Address):
            return str(HostPort(dft.host, dft.port))
        if isinstance(dft, list) and dft and isinstance(dft[0], Block):
            return [item.model_dump(mode="json", by_alias=True, exclude_unset=True) for item in dft]
        return super().encode_default(dft)

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema(kind: str) -> dict[str, Any]:
    """The schema of ``sidecar``, ``policy`` or ``tests``."""
    model = SCHEMAS[kind]
    schema = model.model_json_schema(by_alias=True, schema_generator=_Schema, mode="validation")
    blocks = {block.__name__: block for block in _blocks(model)}
    for name, node in [(model.__name__, schema), *schema.get("$defs", {}).items()]:
        node.pop("title", None)
        if name in blocks:
            for key, value in node["properties"].items():
                node["properties"][key] = _tidy(value, may_be_null=key in blocks[name].nullable)
    return {"$schema": DIALECT, "title": TITLES[kind], **schema}


def _blocks(model: type[Block]) -> Iterator[type[Block]]:
    yield model
    for found in model.model_fields.values():
        inner = block_in(found.annotation)
        if inner is not None:
            yield from _blocks(inner)


def _tidy(node: dict[str, Any], *, may_be_null: bool) -> dict[str, Any]:
    """Durations as text in the defaults; ``null`` only where a key may be emptied."""
    kinds = node.get("anyOf", [])
    if not may_be_null and {"type": "null"} in kinds:
        kinds = [kind for kind in kinds if kind != {"type": "null"}]
        rest = {key: value for key, value in node.items() if key != "anyOf"}
        node = {**kinds[0], **rest} if len(kinds) == 1 else {**rest, "anyOf": kinds}
    writer = _WRITERS.get(str(node.get("title")))
    if writer is not None and isinstance(node.get("default"), int | float):
        node["default"] = writer(node["default"])
    if node.get("default", 0) is None:
        del node["default"]
    return node
