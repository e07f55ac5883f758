"""The log: one line per logged exchange, and one per event in the sidecar's own life.

Pretty for a person at a terminal, else JSON lines (one object each; fields in docs/metrics.md). Retried, failed and
slow exchanges are always logged, the others by a sample. Never in a line: bodies, query strings, credentials, cookies,
a traceback. It never blocks and never raises, whatever the output does. Counterpart: ``log_writer``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import IO, Literal, Protocol

import orjson

from sidecar.core.enums import Outcome
from sidecar.core.settings.deployment import Logging
from sidecar.observe.fields import fields_of, timestamp
from sidecar.observe.log_writer import LineWriter
from sidecar.observe.pretty import Paint, coloured, plain, pretty_line
from sidecar.observe.record import ExchangeRecord
from sidecar.observe.sanitize import clean

__all__ = ["Clock", "EventLog", "ExchangeLog", "Level"]

Level = Literal["info", "warning", "error"]

_ALWAYS = frozenset(
    {Outcome.RECOVERED, Outcome.EXHAUSTED, Outcome.FAILED, Outcome.REJECTED, Outcome.STORED, Outcome.CLIENT_GONE}
)
_COLOURS: dict[str, str] = {"info": "dim", "warning": "yellow", "error": "red"}
_VALUE_LIMIT = 2048
_TEXT_LIMIT = 16 << 10  # an event's own message may be a whole configuration error with its frames

LIMITED_LINES = 5
LIMITED_SECONDS = 10.0


class Clock(Protocol):
    def monotonic(self) -> float: ...
    def wall(self) -> float: ...


class ExchangeLog:
    """The lines of exchanges. ``stream``: an output, or a writer that is shared with an ``EventLog``."""

    def __init__(self, settings: Logging, stream: IO[str] | LineWriter | None, clock: Clock) -> None:
        self._writer = _writer(stream)
        self._clock = clock
        self.sample = settings.sample
        self.slow_seconds = settings.slow_seconds
        self._pretty = _is_pretty(settings, self._writer)
        self._paint = _paint(self._writer)

    @property
    def dropped(self) -> int:
        """Lines lost because the output was blocked, full or closed."""
        return self._writer.dropped

    def wants(self, outcome: Outcome, attempts: int, duration_seconds: float, chance: float, status: int = 0) -> bool:
        """Whether to log an exchange: cheap, so that no record is made for one that is not logged.

        Always: more than one attempt, slow (a long tunnel is not), any outcome but ``ok``, ``passed`` and
        ``tunnelled``, a ``status`` of 500 and above. Of the rest a share: ``chance`` (0 … 1) below ``log.sample``.
        """
        return (
            attempts > 1
            or status >= 500
            or (duration_seconds >= self.slow_seconds and outcome is not Outcome.TUNNELLED)
            or outcome in _ALWAYS
            or chance < self.sample
        )

    def write(self, record: ExchangeRecord) -> None:
        """One line. Never blocks, never raises."""
        if self._pretty:
            ended = timestamp(record.started_at + record.duration_seconds)[11:19] + "Z"
            text = f"{self._paint(ended, 'dim')} {pretty_line(record, self._paint)}"
            line = text.encode("utf-8", "backslashreplace")
        else:
            line = _json(fields_of(record))
        self._writer.write(line)

    def close(self, timeout_seconds: float = 1.0) -> None:
        self._writer.close(timeout_seconds)


@dataclass(slots=True)
class _Window:
    """Lines of one name since ``opened_at`` (monotonic seconds): written, and suppressed."""

    opened_at: float
    written: int = 0
    suppressed: int = 0


class EventLog:
    """The lines of the sidecar's own life: started, reloaded, draining, refused a malformed request."""

    def __init__(self, settings: Logging, stream: IO[str] | LineWriter | None, clock: Clock) -> None:
        self._writer = _writer(stream)
        self._clock = clock
        self._pretty = _is_pretty(settings, self._writer)
        self._paint = _paint(self._writer)
        self._windows: dict[str, _Window] = {}

    @property
    def dropped(self) -> int:
        """Lines lost because the output was blocked, full or closed."""
        return self._writer.dropped

    def event(self, name: str, level: Level = "info", **fields: object) -> None:
        """One line. ``name`` is from our code; the fields may be foreign text: they are escaped and cut."""
        shown = {key: _shown(key, value) for key, value in fields.items() if value is not None}
        now = timestamp(self._clock.wall())
        if self._pretty:
            line = _pretty_event(now, name, level, shown, self._paint).encode("utf-8", "backslashreplace")
        else:
            line = _json({"time": now, "level": level, "event": name, **shown})
        self._writer.write(line)

    def limited(self, name: str, level: Level = "warning", **fields: object) -> None:
        """``event`` for what a client can provoke: at most 5 lines per name in 10 s.

        The next line of that name says in ``suppressed`` how many were left out; ``close`` logs the remainder.
        """
        now = self._clock.monotonic()
        window = self._windows.setdefault(name, _Window(now))
        if now - window.opened_at >= LIMITED_SECONDS:
            window.opened_at, window.written = now, 0
        if window.written >= LIMITED_LINES:
            window.suppressed += 1
            return
        window.written += 1
        suppressed, window.suppressed = window.suppressed or None, 0
        self.event(name, level, **fields, suppressed=suppressed)

    def close(self, timeout_seconds: float = 1.0) -> None:
        """Log what was suppressed, and write out what is queued."""
        for name, window in self._windows.items():
            if window.suppressed:
                self.event(name, "warning", suppressed=window.suppressed)
                window.suppressed = 0
        self._writer.close(timeout_seconds)


def _writer(stream: IO[str] | LineWriter | None) -> LineWriter:
    return stream if isinstance(stream, LineWriter) else LineWriter(stream)


def _is_pretty(settings: Logging, writer: LineWriter) -> bool:
    return settings.format == "pretty" or (settings.format == "auto" and writer.is_terminal)


def _paint(writer: LineWriter) -> Paint:
    """Colour only at a terminal that supports it, and not with NO_COLOR (https://no-color.org)."""
    wanted = writer.is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return coloured if wanted else plain


def _json(fields: dict[str, object]) -> bytes:
    return orjson.dumps(fields)


def _shown(name: str, value: object) -> object:
    if isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 63 else str(value)[:_VALUE_LIMIT]
    if isinstance(value, list | tuple):
        return [_shown(name, item) for item in value]
    return _message(str(value)) if name == "message" else clean(str(value), _VALUE_LIMIT)


def _message(text: str) -> str:
    """Our own texts keep their lines: a configuration error shows a frame with a caret."""
    return "\n".join(clean(line, _VALUE_LIMIT) for line in text[:_TEXT_LIMIT].split("\n"))


def _pretty_event(now: str, name: str, level: str, fields: dict[str, object], paint: Paint) -> str:
    parts = [paint(now[11:19], "dim"), paint(name, _COLOURS[level])]
    if "message" in fields:
        # Indented, so that no line of a message can pass for a line of the log.
        parts.append(str(fields["message"]).replace("\n", "\n    "))
    parts += [f"{key}={_word(value)}" for key, value in fields.items() if key != "message"]
    return "  ".join(parts)


def _word(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if text and " " not in text else f'"{text}"'
