"""What libraries log through the standard library's ``logging``, as events of our own log.

Their tracebacks carry raw bytes of requests, and a hostile client can provoke one per request (CWE-400, CWE-532). So
each record becomes one rate-limited event that names the library and the kind of fault, with the fixed part of the
message only. Counterpart: ``log.EventLog``.
"""

from __future__ import annotations

import logging

from sidecar.observe.log import EventLog, Level
from sidecar.observe.sanitize import clean_message

__all__ = ["LibraryHandler", "listen_to_libraries"]

_MESSAGE_LIMIT = 200


class LibraryHandler(logging.Handler):
    """Hands records of ``logging`` to the event log, without arguments, traceback or anything from a request."""

    def __init__(self, events: EventLog) -> None:
        super().__init__(logging.WARNING)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        """Only the first line of the template: its arguments, and what follows, may be foreign."""
        error = record.exc_info[0] if record.exc_info else None
        level: Level = "error" if record.levelno >= logging.ERROR else "warning"
        self._events.limited(
            "library",
            level,
            library=record.name,
            message=clean_message(str(record.msg).partition("\n")[0], _MESSAGE_LIMIT),
            error=error.__name__ if error is not None else None,
        )


def listen_to_libraries(events: EventLog) -> LibraryHandler:
    """Make ``events`` the only receiver of the libraries' warnings; returns the handler, to be removed."""
    handler = LibraryHandler(events)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    return handler
