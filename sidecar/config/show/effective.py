"""The configuration in force, as YAML that loads again, each value with its origin. For ``sidecar show``.

A configuration holds no secrets (credentials are named by reference), so everything may be shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from sidecar.config.check.rows import Cover
from sidecar.config.compile.policies import Chain
from sidecar.config.schema.fields import Block
from sidecar.config.schema.site import SiteBlock
from sidecar.config.text.document import Mark, resolve

__all__ = ["Setting", "policy_settings", "render", "site_settings"]

COMMENT_COLUMN = 44
_PLAIN = re.compile(r"[A-Za-z0-9_./~$(][A-Za-z0-9_./~$():+@%=?* -]*")

MarkOf = Callable[[tuple[str, ...]], Mark | None]


@dataclass(frozen=True, slots=True)
class Setting:
    """One value, or the head of a block or list (``text`` is empty)."""

    keys: tuple[str | int, ...]
    text: str
    origin: str
    """``file:line``, the name of a variable or flag, or ``default``; empty for a head."""
    is_buried: bool = False
    """Whether the row can never match, because earlier rows match everything that it names."""

    @property
    def path(self) -> str:
        return ".".join(map(str, self.keys))


def site_settings(site: SiteBlock) -> Iterator[Setting]:
    """Every value of ``sidecar.yaml``."""
    for key in SiteBlock.model_fields:
        if key == "upstreams":
            yield from _upstreams(site)
        else:
            yield from _value(site, key, (), lambda keys: _own_mark(site, keys))


def policy_settings(chain: Chain) -> Iterator[Setting]:
    """Every value of a policy, inherited ones included; its rows in the order in which they are tried."""
    for key in type(chain.settings).model_fields:
        if key not in {"extends", "table"}:
            yield from _value(chain.settings, key, (), lambda keys: chain.mark(*keys))
    rows = chain.rows
    yield Setting(("table",), "" if rows else "[]", "" if rows else "default")
    cover = Cover()
    for index, (_, row) in enumerate(rows):
        mark = row.key_mark("")
        origin = mark.place if mark else "default"
        yield Setting(("table", index), _flow(_dump(row)), origin, is_buried=not cover.left_for(row))
        cover.add(row, index)


def _upstreams(site: SiteBlock) -> Iterator[Setting]:
    yield Setting(("upstreams",), "" if site.upstreams else "[]", "" if site.upstreams else "default")
    for index, upstream in enumerate(site.upstreams):
        for key in type(upstream).model_fields:
            for setting in _value(upstream, key, (), lambda keys, block=upstream: _own_mark(block, keys)):  # type: ignore[misc]
                yield Setting(("upstreams", index, *setting.keys), setting.text, setting.origin)


def _value(block: Block, key: str, above: tuple[str, ...], mark_of: MarkOf) -> Iterator[Setting]:
    keys = (*above, key)
    value = getattr(block, key)
    if isinstance(value, Block):
        yield Setting(keys, "", "")
        for inner in type(value).model_fields:
            yield from _value(value, inner, keys, mark_of)
        return
    mark = mark_of(keys)
    if value is None and mark is None:
        return  # left out, and nothing stands for it
    yield Setting((*above, _written(block, key)), _flow(_dump_key(block, key)), mark.place if mark else "default")


def _own_mark(block: Block, keys: tuple[str, ...]) -> Mark | None:
    for key in keys[:-1]:
        block = getattr(block, key)
    return block.value_mark(_written(block, keys[-1])) if block.sets(keys[-1]) else None


def _written(block: Block, key: str) -> str:
    """The key as the YAML has it."""
    return type(block).model_fields[key].alias or key


def _dump_key(block: Block, key: str) -> object:
    value = getattr(block, key)
    if isinstance(value, list) and value and isinstance(value[0], Block):
        return [_dump(item) for item in value]
    return block.model_dump(mode="json", include={key})[key]


def _dump(block: Block) -> object:
    return block.model_dump(mode="json", by_alias=True, exclude_unset=True)


def render(settings: Iterable[Setting]) -> str:
    """The settings as YAML, with their origins in a column of comments."""
    lines = []
    dashed: tuple[str | int, ...] = ()
    for setting in settings:
        *above, last = setting.keys
        indent = "  " * len(above)
        item = next((setting.keys[: i + 1] for i, key in enumerate(setting.keys) if isinstance(key, int)), ())
        if setting.is_buried:
            text = f"{indent}# never reached: {setting.text}"
        elif isinstance(last, int):
            text = f"{indent}- {setting.text}"
        elif item and item != dashed:
            text, dashed = f"{indent[:-2]}- {last}: {setting.text}", item
        else:
            text = f"{indent}{last}: {setting.text}"
        lines.append(f"{text.rstrip():<{COMMENT_COLUMN}} # {setting.origin}" if setting.origin else text.rstrip())
    return "\n".join(lines) + "\n"


def _flow(value: object) -> str:
    """A value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value) if isinstance(value, str) else json.dumps(value)


def _scalar(text: str) -> str:
    """Without quotes where YAML reads it as the same text."""
    try:
        plain = _PLAIN.fullmatch(text) and resolve(text) == text and ": " not in text and not text.endswith((":", " "))
    except ValueError:
        plain = False
    return text if plain else json.dumps(text)
