"""Reading the files of a configuration: each once, bounded, and remembered for the watcher.

Says in a sentence why a file cannot be read. Their contents are checked elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from sidecar.config.text.contents import digest, read
from sidecar.config.text.document import Document, parse
from sidecar.config.text.problems import Code, Problem

__all__ = ["Files", "default_site", "name_of", "shipped_policies"]


class Files:
    """The files of one run."""

    def __init__(self) -> None:
        self._contents: dict[Path, bytes] = {}
        self._looked_for: dict[Path, None] = {}

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that was read or looked for, in that order."""
        return tuple(self._looked_for)

    @property
    def digest(self) -> str:
        """Digest of the names and contents of everything read: equal digests, equal configuration."""
        return digest(self._contents)

    def read(self, path: Path) -> bytes | Problem:
        """Its bytes (at most one more than is allowed), or why not."""
        self._looked_for[path] = None
        if path not in self._contents:
            try:
                self._contents[path] = read(path)
            except OSError as error:
                return Problem(Code.UNREADABLE, _why(error), name_of(path))
            except ValueError:
                return Problem(Code.UNREADABLE, "a path holds no NUL character", name_of(path))
        return self._contents[path]

    def judged(self, path: Path) -> bytes:
        """The bytes of a file that was read before without a problem."""
        return self._contents[path]

    def parse(self, path: Path) -> Document:
        """The document in a file; a file that cannot be read is a document with that problem."""
        data = self.read(path)
        if isinstance(data, Problem):
            return Document(name_of(path), problems=[data])
        return parse(name_of(path), data)


def name_of(path: Path) -> str:
    """The path as its user would write it: relative where it was given so, or lies under the directory we are in."""
    if not path.is_absolute():
        return str(path)
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def default_site(environ: Mapping[str, str]) -> Path | None:
    """The ``sidecar.yaml`` of every verb that is given none: ``SIDECAR_CONFIG``, else the one here, else None."""
    if environ.get("SIDECAR_CONFIG"):
        return Path(environ["SIDECAR_CONFIG"])
    here = Path("sidecar.yaml")
    return here if here.is_file() else None


def shipped_policies() -> Path:
    """The policies that come with the sidecar: inside of an installed package, or ``config/`` of a source tree."""
    package = Path(__file__).parent.parent.parent
    installed = package / "shipped" / "policies"
    return installed if installed.is_dir() else package.parent / "config" / "policies"


def _why(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, PermissionError):
        return "it may not be read by this user"
    return f"it cannot be read: {error.strerror}" if error.strerror else str(error)
