"""Line charts as SVG text: an axis, a grid, a few lines, a band where the trouble was. No script, no font, no link.

Draws what it is given; what is worth drawing is decided by ``page``.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from math import floor, log10
from typing import Final

__all__ = ["Chart", "Line", "nice_top", "svg"]

WIDTH: Final = 360
HEIGHT: Final = 150
LEFT: Final = 44
RIGHT: Final = 8
TOP: Final = 8
BOTTOM: Final = 22
GRID: Final = 4


@dataclass(frozen=True, slots=True)
class Line:
    """One value for each slice of time."""

    name: str
    """Also its class in the style sheet."""
    values: list[float]
    filled: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    title: str
    lines: tuple[Line, ...]
    slice_seconds: float
    seconds: float
    """Where the time axis ends."""
    top: float
    """Where the other one ends."""
    band: tuple[float, float] = (0.0, 0.0)


def nice_top(value: float) -> float:
    """The next 1, 2, 4, 6 or 8 times a power of ten at or above the value: quarters of it read well."""
    if value <= 0:
        return 1.0
    power: float = 10.0 ** floor(log10(value))
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= value * 0.999)


def svg(chart: Chart) -> str:
    """The chart, with its title for those who do not see it."""
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.title)}">',
        *_band(chart),
        *_grid(chart),
        *(_path(chart, line) for line in chart.lines),
        "</svg>",
    ]
    return "".join(parts)


def _x(chart: Chart, seconds: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * min(1.0, seconds / chart.seconds)


def _y(chart: Chart, value: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(1.0, max(0.0, value / chart.top))


def _band(chart: Chart) -> list[str]:
    begin, end = chart.band
    if end <= begin:
        return []
    left, right = _x(chart, begin), _x(chart, end)
    return [
        f'<rect class="band" x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" height="{HEIGHT - TOP - BOTTOM}"/>'
    ]


def _grid(chart: Chart) -> list[str]:
    found = []
    for n in range(GRID + 1):
        value = chart.top * n / GRID
        y = _y(chart, value)
        found.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        found.append(f'<text class="tick" x="{LEFT - 5}" y="{y + 3:.1f}" text-anchor="end">{value:g}</text>')
        seconds = chart.seconds * n / GRID
        anchor = "end" if n == GRID else "start" if n == 0 else "middle"
        x = _x(chart, seconds)
        found.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{seconds:g} s</text>')
    return found


def _path(chart: Chart, line: Line) -> str:
    points = []
    for n, value in enumerate(line.values):
        if n * chart.slice_seconds >= chart.seconds:
            break
        y = _y(chart, value)
        points.append(f"{_x(chart, n * chart.slice_seconds):.1f},{y:.1f}")
        points.append(f"{_x(chart, (n + 1) * chart.slice_seconds):.1f},{y:.1f}")
    if not points:
        return ""
    text = "M" + " L".join(points)
    if line.filled:
        floor_y = f"{_y(chart, 0):.1f}"
        closed = f"{text} L{points[-1].split(',')[0]},{floor_y} L{points[0].split(',')[0]},{floor_y} Z"
        return f'<path class="area {line.name}" d="{closed}"/><path class="line {line.name}" d="{text}"/>'
    return f'<path class="line {line.name}" d="{text}"/>'
