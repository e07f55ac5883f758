"""Opens the export of spans in an installation that may lack ``opentelemetry``.

Without the extra, or with a variable that is not understood, the sidecar runs all the same and an event says so.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Protocol

from sidecar.observe.log import EventLog
from sidecar.observe.metrics import TraceMeters
from sidecar.observe.record import ExchangeRecord
from sidecar.observe.trace import Sampler
from sidecar.tracing.settings import trace_settings

__all__ = ["Tracing", "open_tracing"]


class Tracing(Protocol):
    """The export of spans, running."""

    sampler: Sampler

    def ended(self, record: ExchangeRecord) -> None:
        """Take the record of an exchange that is over. Never blocks."""

    async def close(self) -> None:
        """Export what waits, within a bound."""


def open_tracing(environ: Mapping[str, str], events: EventLog, meters: TraceMeters) -> Tracing | None:
    """None where no spans are asked for, or none can be made."""
    settings = trace_settings(environ)
    if settings is None:
        return None
    for complaint in settings.complaints:
        events.event("tracing", "warning", message=complaint)
    try:
        room = importlib.import_module("sidecar.tracing.exporter")
        opened: Tracing = room.Exporter(settings, events, meters)
    except ImportError:
        text = "OTEL_* variables ask for spans and the extra is not installed: pip install 'retry-sidecar[otel]'"
        events.event("tracing", "error", message=text)
        return None
    except (ValueError, OSError) as error:
        # A certificate file that is not there, an endpoint that is no URL.
        events.event("tracing", "error", message=f"no spans are exported: {type(error).__name__}")
        return None
    return opened
