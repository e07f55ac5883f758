"""Which form of the request's path this installation runs: compiled (wheel, image) or source (source tree, pure wheel).

A wheel has an extension module beside each module of that path, which Python prefers to the source; one of them
stands for all, since ``deploy/compile.py`` makes all or none. Counterpart: ``deploy/wheel.py``.
"""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import sidecar.wire

__all__ = ["form"]

_NOTE = "shipped/not-compiled.txt"


def form() -> str:
    """``compiled``, or ``source``, with the reason where the wheel could not be compiled."""
    package = Path(sidecar.wire.__file__).parent.parent
    if any(package.glob(f"wire/*{EXTENSION_SUFFIXES[0]}")):
        return "compiled"
    try:
        return f"source: {(package / _NOTE).read_text(encoding='utf-8').strip()}"
    except OSError:
        return "source"
