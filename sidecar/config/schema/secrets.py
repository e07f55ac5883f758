"""Secrets by reference: ``env:NAME`` and ``file:PATH``, and their values when a configuration is loaded.

Files are read through ``Files``, so that a changed secret is a changed configuration. No message holds the value of a
secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from sidecar.config.text.document import Mark
from sidecar.config.text.files import Files
from sidecar.config.text.problems import Code, Problem

__all__ = ["Reader", "split_reference"]

_REFERENCE = re.compile(r"(env):([A-Za-z_][A-Za-z0-9_]*)|(file):(.+)")


def split_reference(text: str) -> tuple[Literal["env", "file"], str] | None:
    """``env:NAME`` → ``("env", "NAME")``, ``file:PATH`` → ``("file", "PATH")``, anything else → None."""
    found = _REFERENCE.fullmatch(text)
    if found is None:
        return None
    return ("env", found[2]) if found[1] else ("file", found[4])


class Reader:
    """Reads what references name; collects the problems."""

    def __init__(self, environ: Mapping[str, str], files: Files, folder: Path) -> None:
        self.environ = environ
        self._files = files
        self._folder = folder
        self.problems: list[Problem] = []

    def read(self, text: str, mark: Mark | None) -> str | None:
        """The value of ``env:NAME`` or ``file:PATH``, or the text itself; None, and a problem, if there is none."""
        reference = split_reference(text)
        if reference is None:
            return text
        kind, name = reference
        found = self.environ.get(name, "").strip() if kind == "env" else self._file(name, mark)
        if found == "":
            what = f"the variable `{name}` is not set" if kind == "env" else f"the file `{name}` is empty"
            self.tell(mark, Code.UNREADABLE, what, "set it, or remove this key")
        return found or None

    def _file(self, name: str, mark: Mark | None) -> str | None:
        data = self._files.read(self._folder / name)
        if isinstance(data, Problem):
            self.tell(mark, Code.UNREADABLE, f"`{name}`: {data.message}", f"looked for {data.file}")
            return None
        return data.decode("utf-8", "replace").strip()

    def tell(self, mark: Mark | None, code: Code, text: str, remedy: str = "") -> None:
        if mark is not None:
            self.problems.append(mark.problem(code, text, remedy))
