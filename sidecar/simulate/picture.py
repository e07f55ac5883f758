"""The same pictures as a PNG, drawn with nothing but the standard library: for where a page cannot go.

One row for each storm, one column for each side; in each the sends (orange), successes (green), what was offered (grey)
and those who wait (blue), to the scale of the storm. It has no letters; the page has.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from sidecar.simulate.charts import nice_top
from sidecar.simulate.run import Stood

__all__ = ["png_picture"]

WIDTH: Final = 420
HEIGHT: Final = 200
GAP: Final = 14
MOST_POINTS: Final = 100
Colour = tuple[int, int, int]
PAPER: Final[Colour] = (255, 255, 255)
FRAME: Final[Colour] = (216, 221, 230)
BAND: Final[Colour] = (250, 232, 231)
COLOURS: Final[dict[str, Colour]] = {
    "held": (37, 99, 201),
    "offered": (152, 162, 179),
    "sent": (217, 115, 13),
    "succeeded": (18, 128, 92),
}


class Canvas:
    """Pixels, and lines of them."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._rows = [bytearray(bytes(PAPER) * width) for _ in range(height)]

    def dot(self, x: int, y: int, colour: Colour) -> None:
        if 0 <= x < self.width and 0 <= y < self.height:
            self._rows[y][3 * x : 3 * x + 3] = bytes(colour)

    def box(self, left: int, top: int, right: int, bottom: int, colour: Colour) -> None:
        """Filled, the right and bottom edge excluded."""
        for y in range(max(0, top), min(bottom, self.height)):
            self._rows[y][3 * left : 3 * right] = bytes(colour) * (right - left)

    def line(self, start: tuple[int, int], end: tuple[int, int], colour: Colour) -> None:
        """Two pixels thick."""
        (x1, y1), (x2, y2) = start, end
        steps = max(abs(x2 - x1), abs(y2 - y1), 1)
        for n in range(steps + 1):
            x, y = round(x1 + (x2 - x1) * n / steps), round(y1 + (y2 - y1) * n / steps)
            self.dot(x, y, colour)
            self.dot(x, y + 1, colour)

    def png(self) -> bytes:
        """RFC 2083: eight bits, red green blue, no filter."""
        data = zlib.compress(b"".join(b"\0" + bytes(row) for row in self._rows), 9)
        head = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def png_picture(storms: Sequence[Sequence[Stood]]) -> bytes:
    """The file."""
    columns = max(len(sides) for sides in storms)
    canvas = Canvas(GAP + columns * (WIDTH + GAP), GAP + len(storms) * (HEIGHT + GAP))
    for row, sides in enumerate(storms):
        for column in range(len(sides)):
            _draw(canvas, sides, column, GAP + column * (WIDTH + GAP), GAP + row * (HEIGHT + GAP))
    return canvas.png()


def _draw(canvas: Canvas, sides: Sequence[Stood], index: int, left: int, top: int) -> None:
    seconds = nice_top(max(side.stats.ended_at for side in sides))
    begin, end = (min(1.0, moment / seconds) for moment in sides[0].storm.trouble)
    canvas.box(left, top, left + WIDTH, top + HEIGHT, FRAME)
    canvas.box(left + 1, top + 1, left + WIDTH - 1, top + HEIGHT - 1, PAPER)
    canvas.box(left + round(begin * WIDTH), top + 1, left + round(end * WIDTH), top + HEIGHT - 1, BAND)
    own = sides[index].stats.slice_seconds
    group = max(1, round(seconds / own / MOST_POINTS))
    highest = {name: max(max(_values(side, group)[name], default=0.0) for side in sides) for name in COLOURS}
    flow = nice_top(max(highest[name] for name in ("offered", "sent", "succeeded")))
    tops = dict.fromkeys(COLOURS, flow) | {"held": nice_top(highest["held"])}
    for name, values in _values(sides[index], group).items():
        points = [
            (
                left + round(WIDTH * n * group * own / seconds),
                top + HEIGHT - 3 - round((HEIGHT - 8) * value / tops[name]),
            )
            for n, value in enumerate(values)
        ]
        for start, stop in pairwise(points):
            canvas.line(start, stop, COLOURS[name])


def _values(side: Stood, group: int) -> dict[str, list[float]]:
    stats = side.stats
    series = {"offered": stats.offered.values, "sent": stats.sent.values, "succeeded": stats.succeeded.values}
    flows = {
        name: [sum(values[n : n + group]) / (group * stats.slice_seconds) for n in range(0, len(values), group)]
        for name, values in series.items()
    }
    return {"held": [float(value) for value in stats.held[::group]], **flows}


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
