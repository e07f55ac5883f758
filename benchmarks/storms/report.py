"""Rows become tables: what each peer made of each storm, and what was asked of the sidecar.

Plain Markdown, the same on the terminal and in the file. It judges by ``goals`` and measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.report import table
from benchmarks.storms.goals import Figures, told
from benchmarks.storms.standing import Row

__all__ = ["SIDECAR", "Report"]

SIDECAR = "sidecar"
HEADER = [
    "storm",
    "proxy",
    "ok",
    "calls/request",
    "p50",
    "p99",
    "total",
    "early sends",
    "applied twice",
    "calls in trouble",
    "settled after",
    "p50 then",
    "what else the apps saw",
]


@dataclass(frozen=True)
class Report:
    rows: Sequence[Row]
    """In the order in which they are to be read."""
    missing: Sequence[str] = ()
    """What could not be run, in words."""

    def markdown(self) -> str:
        parts = [table(HEADER, [line(row) for row in self.rows]), self._goals(), *self.missing]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _goals(self) -> str:
        verdicts = [list(cells) for cells in self.verdicts()]
        return table(["storm", "asked of the sidecar", "came", "goal"], verdicts) if verdicts else ""

    def verdicts(self) -> Iterator[tuple[str, str, str, str]]:
        """Storm, what was asked, what came, and ``met``, ``MISSED`` or ``open``."""
        for row in self.rows:
            if row.peer != SIDECAR:
                continue
            others = self._others(row.name)
            for goal in row.goals:
                met = goal.is_met(row.figures, others)
                came = told(goal.figure, row.figures[goal.figure])
                if goal.peer in others:
                    came += f" (its: {told(goal.figure, others[goal.peer][goal.figure])})"
                yield row.name, goal.asked, came, "open" if met is None else "met" if met else "MISSED"

    def misses(self) -> list[str]:
        return [f"{storm}: {asked}; it was {came}" for storm, asked, came, word in self.verdicts() if word == "MISSED"]

    def _others(self, name: str) -> dict[str, Figures]:
        return {row.peer: row.figures for row in self.rows if row.name == name}


def line(row: Row) -> list[str]:
    figures = row.figures
    in_trouble = row.stood is not None and row.stood.storm.trouble[1] > 0
    early = f"{figures['early']:.0f}"
    if figures["early_again"]:
        early += f" ({figures['early_again']:.0f} of one request)"
    return [
        row.name,
        row.peer,
        f"{figures['ok_share'] * 100:.4g} %",
        f"{figures['calls_per_request']:.3f}",
        told("p50_seconds", figures["p50_seconds"]),
        told("p99_seconds", figures["p99_seconds"]),
        f"{figures['ended_seconds']:.1f} s",
        early,
        f"{figures['applied_twice']:.0f}",
        f"{figures['amplification_in_trouble']:.3f}" if in_trouble else "",
        f"{figures['settled_seconds']:.2f} s" if in_trouble else "",
        told("p50_seconds", figures["p50_after_seconds"]) if in_trouble else "",
        row.complaints,
    ]
