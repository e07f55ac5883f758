"""Spans over real sockets: an app, an upstream, and a collector that decodes OTLP over HTTP."""

from __future__ import annotations

import asyncio
import gzip
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.enums import WaitFrom
from sidecar.observe.record import AttemptRecord, HeldRecord, TraceRecord
from sidecar.observe.trace import Sampler, SpanIds, child, parse
from sidecar.tracing.settings import trace_settings
from tests.behaviour.conftest import Make, clock, make, processes, pytest_asyncio_loop_factories, upstream
from tests.core.making import steady
from tests.observe.samples import RECOVERED
from tests.support.plain import listening
from tests.support.process import Processes
from tests.support.sidecar import QUICK, Running, write_files, yaml_for
from tests.support.upstream import Upstream, close, refused_port, say

__all__ = ["clock", "make", "processes", "pytest_asyncio_loop_factories", "upstream"]

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource

from sidecar.tracing.exporter import CLOSE_SECONDS
from sidecar.tracing.spans import spans_of

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SERVER, CLIENT, INTERNAL = 2, 3, 1
"""``SpanKind`` of OTLP."""


class Collector:
    """What came, decoded."""

    def __init__(self) -> None:
        self.port = 0
        self.raw = b""
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            except asyncio.IncompleteReadError:
                return
            assert head.startswith("post /v1/traces ")
            fields = dict(line.split(": ", 1) for line in head.splitlines()[1:] if line)
            body = await reader.readexactly(int(fields["content-length"]))
            if fields.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            self.asked += 1
            await self.answers.wait()
            self.raw += body
            request = ExportTraceServiceRequest.FromString(body)
            for each in request.resource_spans:
                self.resources.append({item.key: item.value.string_value for item in each.resource.attributes})
                self.spans += [span for scope in each.scope_spans for span in scope.spans]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()

    def of(self, kind: int) -> list[Any]:
        return sorted((span for span in self.spans if span.kind == kind), key=lambda span: span.start_time_unix_nano)


def attributes(span: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    made = Collector()
    async with listening(made.talk) as port:
        made.port = port
        yield made
        made.answers.set()


@pytest.fixture
def environ(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    return asks(monkeypatch, collector.port)


def asks(monkeypatch: pytest.MonkeyPatch, port: int, **more: str) -> dict[str, str]:
    """The variables, also in this process's environment: the exporter reads its own there."""
    found = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_BSP_SCHEDULE_DELAY": "10", **more}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


async def finished(sidecar: Running) -> None:
    """What waits has been exported."""
    tracing = sidecar.sidecar._tracing
    assert tracing is not None
    await tracing.close()


def sent(upstream: Upstream) -> list[list[str]]:
    """``traceparent`` of each request that came, in its parts."""
    return [str(request.headers.get("traceparent")).split("-") for request in upstream.requests]


async def test_a_recovered_exchange_is_told_by_its_spans(
    make: Make, upstream: Upstream, collector: Collector, environ: dict[str, str]
) -> None:
    sidecar = await make(upstream, environ=environ)
    upstream.script(say(503), close(), say(200, b"fine"))
    given = ("traceparent", f"00-{TRACE}-{PARENT}-01")
    assert (await sidecar.ask("GET", "/api/v1/x?secret=1", [given])).status == 200
    await finished(sidecar)
    (server,) = collector.of(SERVER)
    assert (server.trace_id.hex(), server.parent_span_id.hex(), server.name) == (TRACE, PARENT, "GET api")
    told = attributes(server)
    assert told["http.request.method"] == "GET"
    assert told["url.path"] == "/api/v1/x"
    assert (told["http.response.status_code"], told["http.response.body.size"]) == (200, 4)
    assert (told["sidecar.outcome"], told["sidecar.upstream"]) == ("recovered", "api")
    attempts = collector.of(CLIENT)
    assert [attributes(span).get("http.request.resend_count") for span in attempts] == [None, 1, 2]
    assert [attributes(span).get("error.type") for span in attempts] == ["503", "closed", None]
    assert [span.status.code for span in attempts] == [2, 2, 0]
    assert attributes(attempts[0])["url.full"] == f"http://127.0.0.1:{upstream.port}/v1/x"
    assert attributes(attempts[0])["server.port"] == upstream.port
    waits = collector.of(INTERNAL)
    assert [(span.name, attributes(span)["sidecar.wait.before_attempt"]) for span in waits] == [
        ("wait backoff", 2),
        ("wait backoff", 3),
    ]
    assert {span.parent_span_id for span in (*attempts, *waits)} == {server.span_id}
    assert len({span.span_id for span in collector.spans}) == 6
    for earlier, wait, later in zip(attempts, waits, attempts[1:], strict=False):
        assert earlier.end_time_unix_nano <= wait.start_time_unix_nano + 1e6
        assert wait.end_time_unix_nano <= later.start_time_unix_nano + 1e6
    assert sent(upstream) == [["00", TRACE, span.span_id.hex(), "01"] for span in attempts]
    assert collector.resources[0]["service.name"] == "retry-sidecar"


async def test_an_exchange_without_a_trace_begins_one_and_no_proxy_is_asked(
    make: Make, upstream: Upstream, collector: Collector, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{refused_port()}")
    sidecar = await make(upstream, environ=environ)
    for _ in range(2):
        assert (await sidecar.ask("GET", "/api/x")).status == 200
    await finished(sidecar)
    server, other = collector.of(SERVER)
    assert (server.parent_span_id, server.trace_id == other.trace_id) == (b"", False)
    attempt = collector.of(CLIENT)[0]
    assert sent(upstream)[0] == ["00", server.trace_id.hex(), attempt.span_id.hex(), "03"]
    assert (await sidecar.admin("/metrics")).body.decode().count('sidecar_traced_total{state="exported"} 2.0') == 1


async def test_no_secret_is_in_a_span(
    make: Make, upstream: Upstream, collector: Collector, environ: dict[str, str]
) -> None:
    sidecar = await make(upstream, environ=environ)
    fields = [("Authorization", "Bearer CANARY"), ("Cookie", "CANARY"), ("tracestate", "CANARY=1")]
    upstream.script(say(500, b'{"message": "CANARY"}', headers=[("X-Y", "CANARY")]))
    await sidecar.ask("POST", "/api/x?key=CANARY", [*fields], b"CANARY")
    await sidecar.ask("GET", "http://user:CANARY@api.example/x?CANARY", fields)
    await finished(sidecar)
    assert len(collector.spans) >= 3
    assert b"CANARY" not in collector.raw
    assert upstream.requests[-1].headers.get("tracestate") == "CANARY=1"


async def test_a_trace_that_the_parent_did_not_sample_is_passed_on_and_not_exported(
    make: Make, upstream: Upstream, collector: Collector, environ: dict[str, str]
) -> None:
    sidecar = await make(upstream, environ=environ)
    await sidecar.ask("GET", "/api/x", [("traceparent", f"00-{TRACE}-{PARENT}-00")])
    await finished(sidecar)
    assert collector.spans == []
    ((_, trace, span, flags),) = sent(upstream)
    assert (trace, flags) == (TRACE, "00")
    assert span != PARENT


async def test_an_invalid_trace_begins_anew(
    make: Make, upstream: Upstream, collector: Collector, environ: dict[str, str]
) -> None:
    sidecar = await make(upstream, environ=environ)
    await sidecar.ask("GET", "/api/x", [("traceparent", "00-nonsense-01")])
    await finished(sidecar)
    assert len(collector.of(SERVER)) == 1
    assert sent(upstream)[0][1] == collector.of(SERVER)[0].trace_id.hex()


async def test_without_the_variables_nothing_is_made(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    await sidecar.ask("GET", "/api/x")
    assert upstream.requests[0].headers.get("traceparent") is None
    assert "sidecar_traced_total{" not in (await sidecar.admin("/metrics")).body.decode()


def test_without_the_variables_nothing_is_imported() -> None:
    code = (
        "import sidecar.cli.serving.run, sidecar.tracing.open, sys; print([m for m in sys.modules if 'opentel' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


async def test_a_collector_that_hangs_holds_nobody(
    make: Make, upstream: Upstream, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"OTEL_BSP_MAX_QUEUE_SIZE": "5", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"}
    sidecar = await make(upstream, environ=asks(monkeypatch, collector.port, **more))
    collector.answers.clear()
    await sidecar.ask("GET", "/api/x")
    async with asyncio.timeout(30):
        while not collector.asked:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    begun = time.monotonic()
    for _ in range(20):
        assert (await sidecar.ask("GET", "/api/x")).status == 200
    assert time.monotonic() - begun < CLOSE_SECONDS * 2
    meters = sidecar.sidecar.metrics.traces
    assert meters is not None
    assert (meters.exported, meters.queue_full) == (0, 15)
    begun = time.monotonic()
    await finished(sidecar)
    assert CLOSE_SECONDS * 0.9 < time.monotonic() - begun < CLOSE_SECONDS * 3
    assert meters.failed >= 5


async def test_a_collector_that_is_gone_is_told_once(
    make: Make, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"OTEL_EXPORTER_OTLP_TIMEOUT": "0.2", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"}
    sidecar = await make(upstream, environ=asks(monkeypatch, refused_port(), **more))
    for _ in range(3):
        assert (await sidecar.ask("GET", "/api/x")).status == 200
    meters = sidecar.sidecar.metrics.traces
    assert meters is not None
    async with asyncio.timeout(60):
        while meters.failed < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await asyncio.sleep(0)
    assert "the collector did not take the spans" in sidecar.log.getvalue()


async def test_a_missing_extra_is_told_and_nothing_else_happens(
    make: Make, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    monkeypatch.setitem(sys.modules, "sidecar.tracing.exporter", None)
    sidecar = await make(upstream, environ=environ)
    assert (await sidecar.ask("GET", "/api/x")).status == 200
    assert "retry-sidecar[otel]" in sidecar.log.getvalue()
    assert upstream.requests[0].headers.get("traceparent") is None


async def test_a_process_exports_what_waits_before_it_ends(
    processes: Processes, upstream: Upstream, collector: Collector, tmp_path: Path
) -> None:
    path = write_files(tmp_path, yaml_for(upstream), {"test": f"extends: default\n{QUICK}"})
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_BSP_SCHEDULE_DELAY": "3600000",
        "OTEL_SERVICE_NAME": "orders",
        "OTEL_TRACES_SAMPLER": "nonsense",
    }
    process = await processes.serve(path, environ=environ)
    assert (await process.ask("GET", "/api/x")).status == 200
    process.signal(signal.SIGTERM)
    ended = await process.exit()
    assert ended.code == 0
    assert "OTEL_TRACES_SAMPLER is `nonsense`" in ended.said
    assert [len(collector.of(kind)) for kind in (SERVER, CLIENT)] == [1, 1]
    assert collector.resources[0]["service.name"] == "orders"


def test_what_held_an_exchange_is_a_span_with_its_cause_and_scope() -> None:
    spans = SpanIds(TRACE, "", 5, is_sampled=True, random_flag=0)
    record = replace(
        RECOVERED,
        trace=TraceRecord(spans, "https://h.example:8443/base", "h.example", 8443),
        judged_path="/v1/x",
        duration_seconds=9.0,
        attempts=(
            AttemptRecord(1, status=429, duration_seconds=1.0, began_seconds=1.0),
            AttemptRecord(
                2, status=200, waited_seconds=2.0, wait_from=WaitFrom.HINT, duration_seconds=1.0, began_seconds=7.0
            ),
        ),
        held=(HeldRecord("gate", 1.0, 1, "upstream"), HeldRecord("rate", 3.0, 2), HeldRecord("backoff", 0.5, 3)),
    )
    made = spans_of(record, Resource({}))
    waits = [span for span in made if span.name.startswith("wait")]
    start = record.started_at

    def of(span: Any) -> tuple[str, float, float]:
        return span.name, round(span.start_time / 1e9 - start, 3), round(span.end_time / 1e9 - start, 3)

    assert [of(span) for span in waits] == [
        ("wait gate", 0.0, 1.0),
        ("wait hint", 2.0, 4.0),
        ("wait rate", 4.0, 7.0),
        ("wait backoff", 8.0, 8.5),
    ]
    assert waits[0].attributes == {
        "sidecar.wait.by": "gate",
        "sidecar.wait.before_attempt": 1,
        "sidecar.wait.scope": "upstream",
    }
    assert made[2].attributes is not None
    assert made[2].attributes["url.full"] == "https://h.example:8443/base/v1/x"
    assert spans_of(replace(record, trace=None), Resource({})) == []


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/x"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
    ],
)
def test_which_variables_ask_for_spans(given: dict[str, str], wanted: bool) -> None:
    assert (trace_settings(given) is not None) is wanted


@pytest.mark.parametrize(
    "wrong",
    [
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        {"OTEL_TRACES_SAMPLER": "jaeger_remote"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "0"},
        {"OTEL_BSP_SCHEDULE_DELAY": "nan"},
        {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "many"},
    ],
)
def test_what_is_not_understood_is_told_and_the_default_holds(wrong: dict[str, str]) -> None:
    settings = trace_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", **wrong})
    assert settings is not None
    (complaint,) = settings.complaints
    assert next(iter(wrong)) in complaint or "protocol" in complaint or "SAMPLER_ARG" in complaint
    assert (settings.queue, settings.batch, settings.delay_seconds) == (2048, 512, 5.0)


@steady
@given(st.integers(0, 2**192 - 1), st.integers(-200, 200), st.sampled_from([0.0, 0.25, 1.0]), st.booleans())
def test_ids_are_valid_and_services_agree_about_a_trace(bits: int, number: int, share: float, follows: bool) -> None:
    ids = Sampler(share, follows_parent=follows).begin(None, bits)
    header = ids.header(number)
    found = parse(header)
    assert found is not None
    assert (found.trace_id, found.parent_id) == (ids.trace_id, ids.span_id(number))
    assert bool(found.flags & 1) is ids.is_sampled
    assert ids.is_sampled is (share == 1.0) or share == 0.25
    second = Sampler(share, follows_parent=follows).begin(header, bits // 3)
    assert (second.trace_id, second.parent_id, second.is_sampled) == (ids.trace_id, found.parent_id, ids.is_sampled)
    assert child(second.header(1), 1) is not None
