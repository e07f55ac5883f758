"""YAML text with its lines indented alike: two spaces for each level, lists too. Comments stay beside what they tell.

It moves lines sideways and takes out superfluous blanks; it never writes a value anew, so quotes, flow collections and
the order of keys remain. (A comment between two keys may belong to either, so keys are not sorted.) What comes out is
read again: unless it holds the same values and the same characters, less is done, in the end nothing. Counterpart:
``sidecar fmt``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from sidecar.config.text.document import LOADER, Document, parse, plain

__all__ = ["formatted"]

STEP: Final = 2
"""Columns of one level."""


class _Unusual(Exception):
    """A layout that is not taken apart: a list directly inside of a list, an item below its dash."""


@dataclass
class _Layout:
    """Where lines stand and will stand. Columns and lines are counted from 0."""

    lines: list[str]
    entries: dict[int, int] = field(default_factory=dict)
    """Line that begins an entry of a block collection → its new column."""
    after_dash: dict[int, int] = field(default_factory=dict)
    """Line that begins with a dash → the column of what follows it."""
    inside: set[int] = field(default_factory=set)
    """Lines inside of a text or a flow collection that began on an earlier one: they move with that line."""
    texts: set[int] = field(default_factory=set)
    """Those of them that are text: not a character of them may change but their column."""

    def read(self) -> None:
        """Follow the parser's events. Raises ``_Unusual``."""
        events = yaml.parse("\n".join(self.lines) + "\n", Loader=LOADER)
        for event in events:
            if isinstance(event, yaml.NodeEvent):
                self._value(event, events, 0)

    def _value(self, event: yaml.NodeEvent, events: Iterator[yaml.Event], column: int) -> None:
        """``column``: where the entries of a block collection will stand."""
        if isinstance(event, yaml.ScalarEvent):
            (first, _), (last, column) = _place(event.start_mark), _place(event.end_mark)
            # A block scalar ends at the first column of a later line.
            found = range(first + 1, last + (1 if column else 0))
            self.inside.update(found)
            self.texts.update(found)
        elif isinstance(event, yaml.MappingStartEvent):
            self._entries(event, events, column, yaml.MappingEndEvent, self._pair)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._entries(event, events, column, yaml.SequenceEndEvent, self._item)

    def _entries(
        self,
        event: yaml.CollectionStartEvent,
        events: Iterator[yaml.Event],
        column: int,
        ends: type[yaml.Event],
        entry: Callable[[yaml.NodeEvent, Iterator[yaml.Event], int], None],
    ) -> None:
        for inner in events:
            if isinstance(inner, ends):
                if event.flow_style:
                    self.inside.update(range(_place(event.start_mark)[0] + 1, _place(inner.end_mark)[0] + 1))
                return
            assert isinstance(inner, yaml.NodeEvent)  # noqa: S101 - for the type checker
            if not event.flow_style:
                entry(inner, events, column)
            else:
                self._value(inner, events, column)

    def _pair(self, key: yaml.NodeEvent, events: Iterator[yaml.Event], column: int) -> None:
        line, at = _place(key.start_mark)
        if not self.lines[line][:at].strip():
            self.entries[line] = column
        elif line not in self.after_dash:
            raise _Unusual
        value = next(events)
        assert isinstance(value, yaml.NodeEvent)  # noqa: S101 - for the type checker
        self._value(value, events, column + STEP)

    def _item(self, item: yaml.NodeEvent, events: Iterator[yaml.Event], column: int) -> None:
        line, at = _place(item.start_mark)
        is_list = isinstance(item, yaml.SequenceStartEvent) and not item.flow_style
        if is_list or self.lines[line][:at].strip() != "-":
            raise _Unusual
        self.entries[line] = column
        self.after_dash[line] = at
        self._value(item, events, column + STEP)

    def moved(self) -> Iterator[str]:
        """Every line at its new column."""
        shift = 0
        for number, line in enumerate(self.lines):
            text = line if number in self.texts else line.rstrip()
            if number in self.entries:
                column = self.entries[number]
                shift = column - _indent(line)
                at = self.after_dash.get(number)
                yield " " * column + (text.lstrip() if at is None else f"- {text[at:]}")
            elif number in self.inside:
                yield _shifted(text, shift)
            elif text:
                yield " " * self._comment_column(number) + text.lstrip()
            else:
                yield ""

    def _comment_column(self, number: int) -> int:
        """The column of a comment: that of what stands as far in as it does, the next entry before the last ones."""
        was = _indent(self.lines[number])
        after = next((line for line in range(number + 1, len(self.lines)) if line in self.entries), None)
        if after is not None and _indent(self.lines[after]) == was:
            return self.entries[after]
        if was == 0:
            return 0
        for line in range(number - 1, -1, -1):
            for at, column in self._columns(line):
                if at == was:
                    return column
        return was if after is None else self.entries[after]

    def _columns(self, line: int) -> Iterator[tuple[int, int]]:
        """Old and new columns of what begins on this line."""
        if line in self.entries:
            if line in self.after_dash:
                yield self.after_dash[line], self.entries[line] + STEP
            yield _indent(self.lines[line]), self.entries[line]


def formatted(document: Document) -> str:
    """The text of a document that was read without a problem, laid out."""
    for lay_out in (_indented, _trimmed):
        layout = _Layout(document.lines)
        try:
            layout.read()
        except _Unusual:
            if lay_out is _indented:
                continue
        text = lay_out(layout)
        if _is_same(document, text):
            return text
    return "\n".join(document.lines)


def _indented(layout: _Layout) -> str:
    return _joined(list(layout.moved()), layout.texts)


def _trimmed(layout: _Layout) -> str:
    """For what is not taken apart: only blanks at the ends of lines, and blank lines."""
    texts = layout.texts
    return _joined([line if n in texts else line.rstrip() for n, line in enumerate(layout.lines)], texts)


def _joined(lines: list[str], texts: set[int]) -> str:
    """One blank line in a row at most, none at either end."""
    kept = [
        line
        for number, line in enumerate(lines)
        if line or number in texts or (number and (lines[number - 1] or number - 1 in texts))
    ]
    return "\n".join(kept).strip("\n") + "\n"


def _is_same(document: Document, text: str) -> bool:
    again = parse(document.name, text.encode())
    is_same = not again.problems and plain(again.root) == plain(document.root)
    return is_same and "".join(text.split()) == "".join("".join(document.lines).split())


def _place(mark: Any) -> tuple[int, int]:
    """Line and column."""
    if mark is None:
        raise _Unusual
    return mark.line, mark.column


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _shifted(line: str, columns: int) -> str:
    if not line.strip():
        return line
    return " " * columns + line if columns >= 0 else line[min(-columns, _indent(line)) :]
