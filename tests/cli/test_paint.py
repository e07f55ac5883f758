"""Colour: only at a terminal that can, and only if nobody objects."""

from __future__ import annotations

import io

import pytest

from sidecar.cli.paint import painter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("no_color", "term", "painted"),
    [("", "xterm", "\x1b[32mfine\x1b[0m"), ("1", "xterm", "fine"), ("", "dumb", "fine")],
)
def test_a_terminal_is_painted_unless_somebody_objects(
    monkeypatch: pytest.MonkeyPatch, no_color: str, term: str, painted: str
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", term)
    assert painter(Terminal())("fine", "green") == painted


def test_a_pipe_is_never_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert painter(io.StringIO())("fine", "green") == "fine"
