"""YAML text → plain values that remember their places. The only module that imports yaml.

Scalars follow the core schema of YAML 1.2 (section 10.3.2): ``on`` and ``no`` are text, ``010`` is ten. Repeated keys,
tags, merge keys, several documents and anything that multiplies are refused. Nothing here knows what a key means.
Counterpart: ``schema``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

import yaml

from sidecar.config.text.contents import MAX_BYTES
from sidecar.config.text.problems import Code, Problem

__all__ = ["LOADER", "UNKNOWN_KEY", "Document", "Listing", "Mark", "Table", "Value", "parse", "plain", "resolve"]

MAX_DEPTH = 32
MAX_VALUES = 50_000
"""Values in one document, with aliases expanded: nine lines of anchors can otherwise stand for a billion values."""
MAX_DIGITS = 18
_MERGE = "<<"
UNKNOWN_KEY = "?"
"""In ``Table.taken``: an unknown key, which may be meant for any of them."""

Scalar = str | int | float | bool | None
Value = object
"""A ``Scalar``, a ``Table`` or a ``Listing``."""

_LINE_ENDS = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_REFUSED_CHARACTER = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(["", "~", "null", "Null", "NULL"]),
    **dict.fromkeys(["true", "True", "TRUE"], True),
    **dict.fromkeys(["false", "False", "FALSE"], False),
}


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the text: line and column from 0, and its width in characters."""

    document: Document
    line: int
    column: int
    width: int = 1

    def problem(self, code: Code, message: str, help: str = "") -> Problem:  # noqa: A002
        lines = self.document.lines
        shown = tuple(lines[max(0, self.line - 1) : self.line + 1]) if self.line < len(lines) else ()
        return Problem(code, message, self.document.name, self.line + 1, self.column + 1, self.width, help, shown)

    @property
    def place(self) -> str:
        return f"{self.document.name}:{self.line + 1}" if self.document.is_file else self.document.name


class Table(dict[str, Value]):
    """A mapping that knows where it begins, and where each key and value stands."""

    def __init__(self, mark: Mark) -> None:
        super().__init__()
        self.mark = mark
        self.keys_at: dict[str, Mark] = {}
        self.values_at: dict[str, Mark] = {}
        self.taken: set[str] = set()
        """Keys whose values were wrong and were taken out: such a key does not count as missing."""
        self.is_tainted = False
        """True if that has happened in it, or in anything inside of it."""

    def put(self, key: str, key_mark: Mark, value: Value, value_mark: Mark) -> None:
        self[key] = value
        self.keys_at[key] = key_mark
        self.values_at[key] = value_mark


class Listing(list[Value]):
    """A sequence that knows where it begins, and where each item stands."""

    def __init__(self, mark: Mark) -> None:
        super().__init__()
        self.mark = mark
        self.items_at: list[Mark] = []
        self.is_tainted = False
        """True if an item was wrong and has been taken out."""

    def without(self, index: int) -> None:
        del self[index], self.items_at[index]


@dataclass(eq=False)
class Document:
    """One text, its values (None: nothing usable) and what was wrong with it."""

    name: str
    """As the user knows it: the path as given, or the name of a variable or flag."""
    is_file: bool = True
    lines: list[str] = field(default_factory=list)
    root: Value = None
    problems: list[Problem] = field(default_factory=list)

    def mark(self, line: int = 0, column: int = 0, width: int = 1) -> Mark:
        return Mark(self, line, column, width)


_LEFT_OUT: Value = object()
"""Stands for a value that cannot be used: it was reported, and its surroundings are still checked."""


class _Refused(Exception):
    """Reading cannot go on: the problem is the only thing to say about this text."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem


def parse(name: str, data: bytes, *, is_file: bool = True) -> Document:
    """Read one text. Never raises: what is wrong is in ``problems``."""
    document = Document(name, is_file)
    try:
        text = _decode(document, data)
        document.lines = _LINE_ENDS.split(text)
        _refuse_characters(document)
        document.root = _Reader(document).read(text)
    except _Refused as refused:
        document.problems.append(refused.problem)
    return document


def plain(value: Value) -> Value:
    """The same values without places."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def _decode(document: Document, data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise _Refused(
            Problem(
                Code.UNREADABLE,
                f"the file is larger than {MAX_BYTES >> 20} MiB",
                document.name,
                help="this does not look like a configuration; split a policy into several with `extends`",
            )
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"line {line} holds a byte that is not UTF-8 (0x{data[error.start]:02x})"
        raise _Refused(Problem(Code.NOT_TEXT, message, document.name, help="save the file as UTF-8")) from None


def _refuse_characters(document: Document) -> None:
    for number, line in enumerate(document.lines):
        if match := _REFUSED_CHARACTER.search(line):
            name = f"U+{ord(match.group()):04X}"
            mark = document.mark(number, match.start())
            raise _Refused(mark.problem(Code.NOT_TEXT, f"the control character {name} is not allowed in YAML"))


class _Reader:
    """Builds the values from the parser's events, counting as it goes."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.anchors: dict[str, tuple[Value, int]] = {}
        """Name -> its value and how many values that is, once it is complete."""
        self.open_anchors: set[str] = set()
        self.count = 0

    def read(self, text: str) -> Value:
        """The value of the only document; None for an empty text."""
        try:
            return self._document(yaml.parse(text, Loader=LOADER))
        except yaml.MarkedYAMLError as error:
            raise _Refused(self._syntax(error)) from None
        except yaml.YAMLError as error:
            raise _Refused(Problem(Code.NOT_YAML, str(error), self.document.name)) from None

    def _document(self, events: Iterator[yaml.Event]) -> Value:
        root: Value = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._refuse(event, "a second document begins here", "keep one document in a file")
                root = self._value(next(events), events, 0)[0]
        return None if root is _LEFT_OUT else root

    def _value(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> tuple[Value, Mark]:
        mark = self._mark(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event), mark
        has_tag = self._tells_tag(event)
        self._spend(event, 1)
        if depth > MAX_DEPTH:
            self._refuse(event, f"this is nested more than {MAX_DEPTH} deep")
        anchor = getattr(event, "anchor", None)
        before = self.count - 1
        if anchor:
            self.open_anchors.add(anchor)
        value = self._content(event, events, depth, mark)
        if anchor:
            self.open_anchors.discard(anchor)
            self.anchors[anchor] = (value, self.count - before)
        return _LEFT_OUT if has_tag else value, mark

    def _content(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int, mark: Mark) -> Value:
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(events, depth, mark)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(events, depth, mark)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        return None

    def _mapping(self, events: Iterator[yaml.Event], depth: int, mark: Mark) -> Table:
        table = Table(mark)
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self._key(event)
            key_mark = self._mark(event)
            value, value_mark = self._value(next(events), events, depth + 1)
            if key in table:
                first = table.keys_at[key].line + 1
                message = f"`{key}` is given twice; it was set on line {first}"
                self.document.problems.append(
                    key_mark.problem(Code.REPEATED_KEY, message, "keep one of them: neither would win visibly")
                )
                continue
            if _is_tainted(value):
                table.is_tainted = True
            if key == _MERGE:
                text, remedy = "merge keys (`<<`) are not used here", "a policy inherits with `extends: NAME`"
                self.document.problems.append(key_mark.problem(Code.REFUSED_YAML, text, remedy))
            elif value is _LEFT_OUT:
                table.taken.add(key)
            else:
                table.put(key, key_mark, value, value_mark)
        return table

    def _key(self, event: yaml.Event) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            self._refuse(event, "a key must be plain text")
        self._tells_tag(event)
        self._spend(event, 1)
        return str(event.value)

    def _sequence(self, events: Iterator[yaml.Event], depth: int, mark: Mark) -> Listing:
        listing = Listing(mark)
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            value, value_mark = self._value(event, events, depth + 1)
            if _is_tainted(value):
                listing.is_tainted = True
            if value is _LEFT_OUT:
                continue
            listing.append(value)
            listing.items_at.append(value_mark)
        return listing

    def _scalar(self, event: yaml.ScalarEvent) -> Value:
        if not event.implicit[0]:
            return str(event.value)
        try:
            return resolve(event.value)
        except ValueError as error:
            return self._left_out(event, str(error), "put it in quotes if it is meant as text")

    def _alias(self, event: yaml.AliasEvent) -> Value:
        name = event.anchor
        if name in self.open_anchors:
            return self._left_out(event, f"`*{name}` stands inside of what it names")
        if name not in self.anchors:
            return self._left_out(event, f"`*{name}` has no `&{name}` before it")
        value, size = self.anchors[name]
        self._spend(event, size)
        return value

    def _tells_tag(self, event: yaml.Event) -> bool:
        tag = getattr(event, "tag", None)
        if tag is not None:
            self._left_out(event, f"tags (`{tag}`) are refused", "write the value without it; text may be quoted")
        return tag is not None

    def _left_out(self, event: yaml.Event, message: str, help: str = "") -> Value:  # noqa: A002
        self.document.problems.append(self._mark(event).problem(Code.REFUSED_YAML, message, help))
        return _LEFT_OUT

    def _spend(self, event: yaml.Event, count: int) -> None:
        self.count += count
        if self.count > MAX_VALUES:
            self._refuse(event, f"there are more than {MAX_VALUES} values, aliases expanded")

    def _refuse(self, event: yaml.Event, message: str, help: str = "") -> NoReturn:  # noqa: A002
        raise _Refused(self._mark(event).problem(Code.REFUSED_YAML, message, help))

    def _mark(self, event: yaml.Event) -> Mark:
        start, end = event.start_mark, event.end_mark
        if start is None or end is None:
            return self.document.mark()
        width = end.column - start.column if end.line == start.line else 1
        return self.document.mark(start.line, start.column, max(1, width))

    def _syntax(self, error: yaml.MarkedYAMLError) -> Problem:
        at = error.problem_mark or error.context_mark
        line = min(at.line if at else 0, max(0, len(self.document.lines) - 1))
        mark = self.document.mark(line, at.column if at else 0)
        help_text = ""
        if error.context and error.context_mark:
            help_text = f"{error.context}, which began at {_place(error.context_mark)}"
        if "\t" in self.document.lines[line][: mark.column + 1]:
            help_text = "indent with spaces; YAML allows no tab here"
        return mark.problem(Code.NOT_YAML, error.problem or "this is not YAML", help_text)


def _is_tainted(value: Value) -> bool:
    """Whether something of it has been left out."""
    return value is _LEFT_OUT or (isinstance(value, Table | Listing) and value.is_tainted)


def resolve(text: str) -> Scalar:
    """An unquoted scalar by the core schema of YAML 1.2 (section 10.3.2). ValueError for absurd numbers."""
    if text in _WORDS:
        return _WORDS[text]
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"`{text}` is not a usable number")
    if not _FLOAT.fullmatch(text) and not text.startswith(("0x", "0o")):
        return text
    if len(text) > MAX_DIGITS:
        raise ValueError(f"`{text[:MAX_DIGITS]}…` is too long for a number")
    return _number(text)


def _number(text: str) -> Scalar:
    if _INT.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    if _HEXADECIMAL.fullmatch(text):
        return int(text[2:], 16)
    if not _FLOAT.fullmatch(text):
        return text
    number = float(text)
    if abs(number) == float("inf"):
        raise ValueError(f"`{text}` is too large")
    return number


def _place(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml where the installed PyYAML has it: ten times as fast, the same events."""
