"""What is wrong with a configuration, for a person: where, what, and what to do about it.

A ``Problem`` is a value; other modules of ``config`` find it, and ``sidecar check`` prints it. Codes are stable: E0xx
the text, E1xx one value, E2xx values against each other, E3xx files and names against each other; W for what is allowed
but suspicious.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from sidecar.core.secret_names import is_secret_name

__all__ = ["Code", "ConfigError", "Problem", "nearest", "page_of", "sorted_problems"]

_USER_INFO = re.compile(r"//[^/\s@]{1,200}@")
_VALUE = re.compile(r"""(([A-Za-z][\w-]*)["']?\s*:\s+)(?!["']?(?:env:|file:|/|$))("[^"]*"|'[^']*'|[^\s,}"'{\[]+)""")
"""A value that may be a secret written out: a frame shows that there is one, not what it is."""
FRAME_COLUMNS = 110
"""Columns of a frame; longer lines are cut around the caret."""


class Code(Enum):
    """The closed list of problems; the name on the right can be searched for in the docs."""

    UNREADABLE = ("E001", "unreadable")
    NOT_TEXT = ("E002", "not-text")
    NOT_YAML = ("E003", "not-yaml")
    REPEATED_KEY = ("E004", "repeated-key")
    REFUSED_YAML = ("E005", "refused-yaml")
    UNKNOWN_KEY = ("E101", "unknown-key")
    MISSING_KEY = ("E102", "missing-key")
    WRONG_TYPE = ("E103", "wrong-type")
    UNKNOWN_WORD = ("E104", "unknown-word")
    OUT_OF_RANGE = ("E105", "out-of-range")
    NO_UNIT = ("E106", "no-unit")
    BAD_VALUE = ("E107", "bad-value")
    WRONG_SHAPE = ("E108", "wrong-shape")
    DEAD_ROW = ("E201", "dead-row")
    CONTRADICTION = ("E202", "contradiction")
    OPEN_PROXY = ("E203", "open-proxy")
    IMPOSSIBLE_CASE = ("E204", "impossible-case")
    OPEN_ADMIN = ("E205", "open-admin")
    SLOW_PATTERN = ("E206", "slow-pattern")
    REPEATED_NAME = ("E301", "repeated-name")
    UNKNOWN_POLICY = ("E302", "unknown-policy")
    EXTENDS_CYCLE = ("E303", "extends-cycle")
    UNKNOWN_VARIABLE = ("E304", "unknown-variable")
    RESEND_METHODS = ("W201", "resend-methods")
    NO_EFFECT = ("W202", "no-effect")
    RETRIES_SUCCESS = ("W203", "retries-success")
    CLEAR_LOGIN = ("W207", "clear-login")
    OLD_KEY = ("W208", "old-key")


def page_of(code: Code) -> str:
    """Where the documents say what a code means and what to do."""
    return "docs/errors.md#" + "-".join(code.value).lower()


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake (``E…``) or one warning (``W…``), with its place."""

    code: Code
    message: str
    file: str
    line: int = 0
    """From 1; 0 where the file as a whole is meant."""
    column: int = 0
    """From 1, in characters."""
    width: int = 1
    """Characters that the caret underlines."""
    help: str = ""
    lines: tuple[str, ...] = ()
    """The line before and the line itself, as written."""

    @property
    def is_warning(self) -> bool:
        return self.code.value[0].startswith("W")

    @property
    def place(self) -> str:
        """``file:line:column``, as editors and terminals know how to open it."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def __str__(self) -> str:
        code, name = self.code.value
        kind = "warning" if self.is_warning else "error"
        parts = [f"{self.place}: {kind} {code} {name}: {_visible(self.message)}", *self._frame()]
        if self.help:
            parts.append(f"  help: {_visible(self.help)}")
        return "\n".join(parts)

    def _frame(self) -> list[str]:
        if not self.lines:
            return []
        start = max(0, self.column - FRAME_COLUMNS // 2) if self.column > FRAME_COLUMNS - 30 else 0
        gutter = len(str(self.line))
        first = self.line - len(self.lines) + 1
        frame = [
            f"  {first + index:>{gutter}} | {_visible(text[start : start + FRAME_COLUMNS])}".rstrip()
            for index, text in enumerate(self.lines)
        ]
        caret = " " * (self.column - 1 - start) + "^" * max(1, min(self.width, FRAME_COLUMNS - 40))
        return [*frame, f"  {'':>{gutter}} | {caret}"]


class ConfigError(Exception):
    """The configuration cannot be used. ``str()`` is the whole text for a person, frames included."""

    def __init__(self, problems: Iterable[Problem], files: Iterable[Path] = (), digest: str = "") -> None:
        super().__init__()
        self.problems: tuple[Problem, ...] = sorted_problems(problems)
        self.files: tuple[Path, ...] = tuple(files)
        """Every file that was read or looked for, so that a watcher sees the correction."""
        self.digest = digest
        """Digest of their contents, as checked."""

    def __str__(self) -> str:
        errors = sum(not problem.is_warning for problem in self.problems)
        total = f"{errors} error{'' if errors == 1 else 's'} in the configuration."
        return "\n\n".join([*map(str, self.problems), total])


def sorted_problems(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """By place; the same text at the same place once."""
    unique = {(p.file, p.line, p.column, p.code.value[0], p.message): p for p in problems}
    return tuple(unique[key] for key in sorted(unique))


def nearest(word: str, known: Iterable[str]) -> str:
    """``did you mean …?`` for the likeliest of the known words, or the list of them."""
    words = list(known)
    close = difflib.get_close_matches(word[:64], words, n=1, cutoff=0.6) or [
        known_word for known_word in words if known_word.lower() == word.lower()
    ]
    if close:
        return f"did you mean `{close[0]}`?"
    return "known: " + ", ".join(words) if words else ""


def _visible(text: str) -> str:
    """Control characters as escapes: a hostile file must not control the reader's terminal. Passwords as stars."""
    hidden = _USER_INFO.sub(lambda match: "//" + "*" * (len(match[0]) - 3) + "@", text.expandtabs(1))
    hidden = _VALUE.sub(
        lambda match: match[1] + ("*" * len(match[3]) if is_secret_name(match[2]) else match[3]), hidden
    )
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in hidden)
