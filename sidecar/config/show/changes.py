"""Which settings of two configurations differ, as they are written: for ``sidecar diff`` and for reloads.

Upstreams are told apart by name and rows by their text, so that one that is inserted moves none of the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Final

from sidecar.config.compile.policies import Chain
from sidecar.config.schema.site import SiteBlock
from sidecar.config.show.effective import Setting, policy_settings, site_settings
from sidecar.core.dryrun.compare import SettingChange
from sidecar.core.settings.deployment import RESTART_SETTINGS

__all__ = ["Settings", "changed_settings", "settings_of"]

Settings = dict[str, tuple[str, ...]]
"""Path → its value as written; of a table: its rows, in order."""

MOST_ROWS: Final = 2_000
"""Rows of two tables that are compared one by one; the comparison is quadratic at worst."""


def settings_of(site: SiteBlock | None, chains: tuple[Chain, ...]) -> Settings:
    """Every value in force."""
    found: dict[str, tuple[str, ...]] = {}
    if site is not None:
        names = [upstream.name for upstream in site.upstreams]
        for setting in site_settings(site):
            _add(found, "", _by_name(setting, names), setting)
    for chain in chains:
        for setting in policy_settings(chain):
            _add(found, f"policies.{chain.name}.", setting.path, setting)
    return found


def changed_settings(old: Settings, new: Settings) -> tuple[SettingChange, ...]:
    """In the order of ``new``, then what is gone."""
    paths = dict.fromkeys((*new, *old))
    return tuple(change for path in paths for change in _changes(path, old.get(path), new.get(path)))


def _changes(path: str, old: tuple[str, ...] | None, new: tuple[str, ...] | None) -> Iterator[SettingChange]:
    if old == new:
        return
    if path.endswith(".table"):
        yield from _row_changes(path, old or (), new or ())
        return
    restart = path.partition(".")[0] in RESTART_SETTINGS
    yield SettingChange(path, None if old is None else old[0], None if new is None else new[0], restart)


def _row_changes(path: str, old: tuple[str, ...], new: tuple[str, ...]) -> Iterator[SettingChange]:
    if len(old) + len(new) > MOST_ROWS:
        yield SettingChange(path, f"{len(old)} rows", f"{len(new)} rows, too many to tell one by one")
        return
    for _, from_old, to_old, from_new, to_new in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if old[from_old:to_old] != new[from_new:to_new]:
            yield from (SettingChange(path, row, None) for row in old[from_old:to_old])
            yield from (SettingChange(path, None, row) for row in new[from_new:to_new])


def _by_name(setting: Setting, names: list[str]) -> str:
    """``upstreams.0.origin`` → ``upstreams.api.origin``."""
    keys = setting.keys
    if len(keys) > 1 and keys[0] == "upstreams" and isinstance(keys[1], int):
        keys = (keys[0], names[keys[1]], *keys[2:])
    return ".".join(map(str, keys))


def _add(found: dict[str, tuple[str, ...]], above: str, path: str, setting: Setting) -> None:
    if not setting.text:
        return  # the head of a block
    if isinstance(setting.keys[-1], int) and setting.keys[0] == "table":
        path = "table"
        found[above + path] = (*found.get(above + path, ()), setting.text)
    else:
        found[above + path] = (setting.text,)
