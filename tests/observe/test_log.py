"""Which exchanges are told, how a line looks for people and for machines, and what is never in it."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
from collections.abc import Iterator
from dataclasses import fields, replace

import pytest

from sidecar.core.decision.decide import Decision
from sidecar.core.decision.rows import Row
from sidecar.core.enums import Outcome, Verb
from sidecar.core.settings.deployment import Logging
from sidecar.observe.fields import ATTEMPT_FIELDS, FIELDS, HELD_FIELDS, timestamp
from sidecar.observe.log import EventLog, ExchangeLog
from sidecar.observe.log_writer import LineWriter
from sidecar.observe.pretty import pretty_line
from sidecar.observe.record import AttemptRecord, ExchangeRecord, HeldRecord
from sidecar.observe.stdlib_logging import LibraryHandler, listen_to_libraries
from tests.observe.samples import FAILED, OK, RECOVERED

JSON = Logging(format="json", sample=0.01, slow_seconds=5.0)
PRETTY = Logging(format="pretty")


class HandClock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_700_000_000.0 + self.now


def told(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    "outcome", [Outcome.RECOVERED, Outcome.EXHAUSTED, Outcome.FAILED, Outcome.REJECTED, Outcome.CLIENT_GONE]
)
def test_eventful_outcomes_are_always_told(outcome: Outcome) -> None:
    assert ExchangeLog(JSON, None, HandClock()).wants(outcome, 1, 0.1, 0.999)


def test_retried_slow_and_server_errors_are_always_told() -> None:
    log = ExchangeLog(JSON, None, HandClock())
    assert log.wants(Outcome.OK, 2, 0.1, 0.999)
    assert log.wants(Outcome.OK, 1, 5.0, 0.999)
    assert log.wants(Outcome.PASSED, 1, 0.1, 0.999, status=501)
    assert not log.wants(Outcome.PASSED, 1, 0.1, 0.999, status=404)


def test_of_the_rest_a_share_is_told() -> None:
    log = ExchangeLog(JSON, None, HandClock())
    chances = [number / 1000 for number in range(1000)]
    assert sum(log.wants(Outcome.OK, 1, 0.1, chance) for chance in chances) == 10
    assert not ExchangeLog(replace(JSON, sample=0.0), None, HandClock()).wants(Outcome.OK, 1, 0.1, 0.0)
    assert ExchangeLog(replace(JSON, sample=1.0), None, HandClock()).wants(Outcome.OK, 1, 0.1, 0.999999)


def test_a_json_line_holds_the_whole_story() -> None:
    stream = io.StringIO()
    ExchangeLog(JSON, stream, HandClock()).write(RECOVERED)
    assert told(stream) == [
        {
            "time": "2023-11-14T22:13:20.500Z",
            "level": "info",
            "event": "exchange",
            "outcome": "recovered",
            "status": 200,
            "method": "GET",
            "upstream": "meshqu",
            "policy": "default",
            "path": "/v1/x",
            "attempts": [
                {"n": 1, "status": 503, "seconds": 0.01},
                {"n": 2, "status": 503, "seconds": 0.02, "waited": 0.26, "from": "backoff"},
                {"n": 3, "status": 200, "seconds": 0.03, "waited": 0.61, "from": "hint"},
            ],
            "duration_seconds": 1.1,
            "waited_seconds": 0.87,
            "request_id": "req-1",
            "correlation_id": "corr-1",
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
            "request_bytes": 0,
            "response_bytes": 12,
        }
    ]


def test_every_field_of_a_line_is_documented_and_every_field_of_a_record_is_told() -> None:
    full = replace(
        FAILED,
        host="h.example",
        error_code="E1",
        error_message="broken",
        upstream_request_id="u1",
        upstream_correlation_id="u2",
        request_bytes=1,
        body_cut=True,
        waited_seconds=1.0,
        held=(HeldRecord("gate", 1.0, 1, "endpoint GET /v1/x"),),
        own_code="gate",
        shadow="second",
        attempts=(
            *FAILED.attempts,
            replace(
                RECOVERED.attempts[1], written=False, then=Verb.LOGIN, hedge=True, body_unread="br", cancelled=True
            ),
            replace(
                FAILED.attempts[0],
                decision=Decision(Verb.PASS, row=Row(Verb.PASS, file="p.yaml", line=3), uncounted=True),
                shadow=Decision(Verb.RETRY),
            ),
        ),
    )
    stream = io.StringIO()
    ExchangeLog(JSON, stream, HandClock()).write(full)
    [line] = told(stream)
    assert list(line) == list(FIELDS)
    attempts = line["attempts"]
    assert isinstance(attempts, list)
    assert {name for attempt in attempts for name in attempt} == set(ATTEMPT_FIELDS)
    assert line["held"] == [{"by": "gate", "scope": "endpoint GET /v1/x", "seconds": 1.0, "before": 1}]
    assert list(line["held"][0]) == list(HELD_FIELDS)
    assert {field.name for field in fields(ExchangeRecord)} - set(FIELDS) == {
        "started_at",  # told as time
        "judged_path",  # for policy tests
        "trace",  # for spans
        "own_code",  # told as code
    }


def test_a_bad_ending_is_a_warning() -> None:
    stream = io.StringIO()
    log = ExchangeLog(JSON, stream, HandClock())
    for record in (FAILED, replace(OK, body_cut=True), OK):
        log.write(record)
    assert [line["level"] for line in told(stream)] == ["warning", "warning", "info"]


def test_hostile_text_stays_one_bounded_line_without_query() -> None:
    hostile = '\n{"event": "forged"}\x1b[2J\udcff' + "A" * 100_000
    record = replace(
        FAILED,
        path="/x" + hostile + "?token=SECRET",
        method=hostile,
        host=hostile,
        request_id=hostile,
        correlation_id=hostile,
        error_code=hostile,
        error_message="see https://user:SECRET@x/?key=SECRET " + hostile,
        upstream_request_id=hostile,
    )
    for settings in (JSON, PRETTY):
        stream = io.StringIO()
        ExchangeLog(settings, stream, HandClock()).write(record)
        text = stream.getvalue()
        assert text.count("\n") == 1
        assert len(text) < 8_000
        assert text[:-1].isprintable()
        assert "SECRET" not in text


def test_a_clock_beyond_the_calendar_is_no_error() -> None:
    assert timestamp(1e300) == timestamp(float("nan")) == timestamp(0) == "1970-01-01T00:00:00.000Z"


def test_auto_is_json_for_a_file_and_pretty_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = io.StringIO()
    ExchangeLog(Logging(), stream, HandClock()).write(RECOVERED)
    assert told(stream)[0]["event"] == "exchange"
    assert at_a_terminal() == f"22:13:21Z {pretty_line(RECOVERED)}"


def test_colour_is_only_for_a_terminal_that_nobody_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[32mrecovered" in at_a_terminal()
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in at_a_terminal()
    stream = io.StringIO()
    ExchangeLog(PRETTY, stream, HandClock()).write(RECOVERED)
    assert stream.getvalue() == f"22:13:21Z {pretty_line(RECOVERED)}\n"


def at_a_terminal() -> str:
    """What a terminal is sent for one record."""
    parent, child = pty.openpty()
    with os.fdopen(child, "w") as stream:
        log = ExchangeLog(Logging(), stream, HandClock())
        log.write(RECOVERED)
        log.close(10)
        text = os.read(parent, 65_536).decode()
    os.close(parent)
    return text.rstrip("\r\n")


def test_an_event_is_one_line_in_either_form() -> None:
    stream = io.StringIO()
    EventLog(JSON, stream, HandClock()).event("listening", address="127.0.0.1:8080", upstreams=2, nothing=None)
    assert told(stream) == [
        {
            "time": "2023-11-14T22:30:00.000Z",
            "level": "info",
            "event": "listening",
            "address": "127.0.0.1:8080",
            "upstreams": 2,
        }
    ]
    stream = io.StringIO()
    EventLog(PRETTY, stream, HandClock()).event("listening", address="127.0.0.1:8080", note="two words")
    assert stream.getvalue() == '22:30:00  listening  address=127.0.0.1:8080  note="two words"\n'


def test_foreign_fields_of_an_event_are_escaped_and_a_message_keeps_its_lines_indented() -> None:
    stream = io.StringIO()
    log = EventLog(PRETTY, stream, HandClock())
    log.event("malformed", "warning", peer="a\nb\x1b", big=1 << 70, both=["x", "y"], ok=True)
    log.event("reload", "error", message="first\nsecond")
    assert stream.getvalue() == (
        "22:30:00  malformed  peer=a\\nb\\x1b  big=1180591620717411303424  both=x,y  ok=True\n"
        "22:30:00  reload  first\n    second\n"
    )
    stream = io.StringIO()
    EventLog(JSON, stream, HandClock()).event("malformed", peer="a\nb\udcff", big=1 << 70)
    assert told(stream)[0]["peer"] == "a\\nb\\udcff"


def test_a_storm_of_the_same_event_is_a_few_lines_and_a_number() -> None:
    stream, clock = io.StringIO(), HandClock()
    log = EventLog(JSON, stream, clock)
    for _ in range(10_000):
        log.limited("malformed", kind="framing")
    assert len(told(stream)) == 5
    clock.now += 10.0
    log.limited("malformed", kind="framing")
    assert told(stream)[-1]["suppressed"] == 9_995
    log.limited("other")
    assert told(stream)[-1]["event"] == "other"


def test_what_was_kept_back_is_told_at_the_end() -> None:
    stream = io.StringIO()
    log = EventLog(JSON, stream, HandClock())
    for _ in range(8):
        log.limited("malformed")
    log.close()
    assert told(stream)[-1]["suppressed"] == 3


def test_two_logs_share_one_output_and_one_count_of_losses() -> None:
    writer = LineWriter(None)
    exchanges, events = ExchangeLog(JSON, writer, HandClock()), EventLog(JSON, writer, HandClock())
    exchanges.write(OK)
    events.event("started")
    assert exchanges.dropped == events.dropped == 2


@pytest.fixture
def quiet_logging() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield logging.getLogger("aiohttp.server")
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_library_is_told_without_its_traceback_and_without_bytes_of_a_request(
    quiet_logging: logging.Logger,
) -> None:
    stream = io.StringIO()
    listen_to_libraries(EventLog(JSON, stream, HandClock()))
    try:
        raise ValueError("SECRET bytes of a request")
    except ValueError:
        quiet_logging.exception("Error handling request from %s\nSECRET", "SECRET")
    quiet_logging.info("chatter")
    [line] = told(stream)
    assert "SECRET" not in stream.getvalue()
    assert (line["level"], line["library"], line["error"]) == ("error", "aiohttp.server", "ValueError")
    assert line["message"] == "Error handling request from %s"


def test_a_storm_from_a_library_is_bounded(quiet_logging: logging.Logger) -> None:
    stream = io.StringIO()
    handler = listen_to_libraries(EventLog(JSON, stream, HandClock()))
    assert isinstance(handler, LibraryHandler)
    for _ in range(2_000):
        quiet_logging.warning("again")
    assert len(told(stream)) == 5


def test_a_record_is_frozen() -> None:
    with pytest.raises(AttributeError):
        RECOVERED.status = 200  # type: ignore[misc]
    with pytest.raises(AttributeError):
        AttemptRecord(1).status = 200  # type: ignore[misc]
