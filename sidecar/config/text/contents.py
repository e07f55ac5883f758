"""The bytes of files: read once, bounded, and compared by a digest. Nothing here knows YAML.

The watcher compares contents and not inodes: Kubernetes swaps symlinks, editors replace files.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = ["MAX_BYTES", "digest", "digest_of", "read"]

MAX_BYTES = 1 << 20
"""Bytes of one file; a policy of 500 rows is about 60 KiB."""


def read(path: Path) -> bytes:
    """Its bytes, at most one more than is allowed. Raises OSError or ValueError."""
    # Opened without blocking and checked before reading: a FIFO or a device would never end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise OSError("it is a directory" if stat.S_ISDIR(mode) else "it is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        return file.read(MAX_BYTES + 1)


def digest(contents: Mapping[Path, bytes]) -> str:
    """Digest of the names and contents: equal digests, equal configuration."""
    found = hashlib.sha256()
    for path, data in sorted(contents.items()):
        found.update(f"{path}\0{len(data)}\0".encode(errors="surrogateescape") + data)
    return found.hexdigest()


def digest_of(paths: Iterable[Path]) -> str:
    """The digest that reading these files now would give; one that cannot be read counts as gone."""
    contents: dict[Path, bytes] = {}
    for path in paths:
        try:
            contents[path] = read(path)
        except (OSError, ValueError):
            continue
    return digest(contents)
