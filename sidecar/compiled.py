"""Which form of the request's path runs: compiled to machine code, or its source, interpreted.

Both come from the same files; ``deploy/compile.py`` makes the compiled form and notes what it was made from. It is used
only if every one of those files still reads as it did then: whoever changes a line runs that line. It is all or
nothing, since compiled modules call each other directly.

``SIDECAR_INTERPRETED=1`` asks for the source: for a profiler that cannot see compiled frames, or to compare.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

__all__ = ["COMPILED", "MADE_FROM", "digest", "fit", "form", "is_turned_off", "prefer", "running"]

PACKAGE = Path(__file__).parent
COMPILED = PACKAGE / "_compiled"
"""Where compiled modules lie: ``PACKAGE.MODULE`` and the suffix of this interpreter's extensions."""
MADE_FROM = "sources.txt"
"""In ``COMPILED``: that suffix, then ``DIGEST PATH`` for each source and file made, ``PATH`` within the package."""

_TURNED_OFF = "SIDECAR_INTERPRETED"
_running = "interpreted"


class _Compiled:
    """Finds compiled modules before the usual way finds their source (``sys.meta_path``)."""

    def __init__(self, files: Iterable[Path], suffix: str) -> None:
        self._files = {file.name.removesuffix(suffix): str(file) for file in files}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = self._files.get(name)
        return spec_from_file_location(name, file, loader=ExtensionFileLoader(name, file)) if file else None


def digest(source: Path) -> str:
    """Of one source, as ``MADE_FROM`` has it. Raises OSError."""
    return hashlib.sha256(source.read_bytes()).hexdigest()


def running() -> str:
    """The form that this process runs: what ``form`` said when it started."""
    return _running


def prefer() -> None:
    """From now on imports take the compiled form, if it is there and fits. Call it before anything else is imported."""
    global _running  # noqa: PLW0603 - of this process, and settled once
    _running = form()
    if _running == "compiled":
        suffix = EXTENSION_SUFFIXES[0]
        sys.meta_path.insert(0, _Compiled(COMPILED.glob(f"*{suffix}"), suffix))


def form() -> str:
    """``compiled``, or ``interpreted: …`` with the reason."""
    return f"interpreted: {_TURNED_OFF} is set" if is_turned_off() else fit()


def is_turned_off() -> bool:
    """Whether the source is asked for."""
    return os.environ.get(_TURNED_OFF, "0") not in ("", "0", "false")


def fit() -> str:
    """As ``form``, whatever is asked for."""
    try:
        suffix, *lines = (COMPILED / MADE_FROM).read_text().splitlines()
    except (OSError, ValueError):
        return "interpreted: it has not been compiled"
    if suffix != EXTENSION_SUFFIXES[0]:
        return f"interpreted: it was compiled for another Python ({suffix})"
    if not lines:
        return "interpreted: nothing says what was compiled"
    for line in lines:
        known, _, name = line.partition(" ")
        try:
            same = digest(PACKAGE / name) == known
        except OSError:
            same = False
        if not same:
            return f"interpreted: {name} has changed since it was compiled"
    return "compiled"
