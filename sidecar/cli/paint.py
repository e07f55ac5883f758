"""Colour for a person at a terminal: never in a pipe or a file.

``NO_COLOR`` (https://no-color.org) and ``TERM=dumb`` turn it off. Counterpart: ``sidecar.observe.pretty``, which knows
the colours.
"""

from __future__ import annotations

import os
import sys
from typing import IO

from sidecar.observe.pretty import Paint, coloured, plain

__all__ = ["painter"]


def painter(stream: IO[str] | None = None) -> Paint:
    """The painter of this stream (default: standard output): with colour, or without."""
    stream = sys.stdout if stream is None else stream
    wanted = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return coloured if wanted else plain
