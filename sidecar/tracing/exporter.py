"""The bounded queue of records, and the one thread that makes spans of them and exports them by OTLP over HTTP.

The loop appends a record and goes on; a full queue drops it, counted. A collector that hangs or is gone costs the
thread its time and the queue its newest records, never an exchange. The thread is a daemon: a stop waits for it within
``CLOSE_SECONDS``. Counterpart: ``spans``.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from typing import Final

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace.export import SpanExportResult

from sidecar.observe.log import EventLog
from sidecar.observe.metrics import TraceMeters
from sidecar.observe.record import ExchangeRecord
from sidecar.tracing.settings import TraceSettings
from sidecar.tracing.spans import NAME, spans_of

__all__ = ["Exporter"]

CLOSE_SECONDS: Final = 2.0
"""Seconds that a stop waits for the last export."""
LIBRARIES: Final = ("opentelemetry", "urllib3", "requests")
"""They log from the exporting thread, with texts of the collector: a failed export is told by us, once."""


class Exporter:
    """One per process. Raises ``ValueError`` or ``OSError`` for variables that the exporter cannot use."""

    def __init__(self, settings: TraceSettings, events: EventLog, meters: TraceMeters) -> None:
        for name in LIBRARIES:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self.sampler = settings.sampler
        self._settings = settings
        self._events = events
        self._meters = meters
        self._loop = asyncio.get_running_loop()
        # HTTP_PROXY may lead to this very sidecar, whose spans would then make spans.
        session = requests.Session()
        session.trust_env = False
        self._exporter = OTLPSpanExporter(session=session)
        resource = Resource.create()
        if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: NAME}))
        self._resource = resource
        self._records: deque[ExchangeRecord] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._done = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="export spans", daemon=True)
        self._thread.start()

    def ended(self, record: ExchangeRecord) -> None:
        """Queue the record of an exchange that is over, or drop it if the queue is full."""
        if len(self._records) >= self._settings.queue:
            self._meters.queue_full += 1
            return
        self._records.append(record)
        if len(self._records) == self._settings.batch:
            self._wake.set()

    async def close(self) -> None:
        """Export what waits; what a hanging collector does not take in time is lost, and counted."""
        self._stopping = True
        self._wake.set()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._done.wait()
        except TimeoutError:
            self._meters.failed += len(self._records)
            self._records.clear()

    def _run(self) -> None:
        """The thread."""
        try:
            while not self._stopping:
                self._wake.wait(self._settings.delay_seconds)
                self._wake.clear()
                while self._records:
                    self._export()
            while self._records:
                self._export()
            self._exporter.shutdown()  # type: ignore[no-untyped-call]
        finally:
            self._tell(self._done.set)

    def _export(self) -> None:
        """One batch. Whatever goes wrong, the thread goes on."""
        batch: list[ExchangeRecord] = []
        try:
            while len(batch) < self._settings.batch:
                batch.append(self._records.popleft())
        except IndexError:
            pass  # All of them, or a stop has given up.
        try:
            spans = [span for record in batch for span in spans_of(record, self._resource)]
            taken = self._exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception:
            taken = False
        if taken:
            self._meters.exported += len(batch)
            return
        self._meters.failed += len(batch)
        self._tell(self._failed)

    def _failed(self) -> None:
        message = "the collector did not take the spans; see OTEL_EXPORTER_OTLP_ENDPOINT and sidecar_traced_total"
        self._events.limited("tracing", "warning", message=message)

    def _tell(self, what: object) -> None:
        """Call it in the loop, which may be over."""
        try:
            self._loop.call_soon_threadsafe(what)  # type: ignore[arg-type]
        except RuntimeError:
            return
