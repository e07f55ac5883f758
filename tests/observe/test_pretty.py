"""The line for people: its exact form, for each way in which an exchange can end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.core.enums import Outcome, Reason
from sidecar.observe.pretty import coloured, pretty_line, seconds_text
from sidecar.observe.record import AttemptRecord, ExchangeRecord, HeldRecord
from tests.observe.samples import FAILED, OK, RECOVERED, REJECTED

PASSED = replace(
    OK, outcome=Outcome.PASSED, reason=Reason.NOT_RETRYABLE, attempts=(AttemptRecord(1, status=404),), status=404
)
HEDGED = replace(
    OK,
    attempts=(
        AttemptRecord(1, duration_seconds=0.3, cancelled=True),
        AttemptRecord(2, status=200, duration_seconds=0.01, hedge=True),
    ),
)
HELD = replace(
    OK,
    attempts=(AttemptRecord(1, status=503), AttemptRecord(2, status=200)),
    held=(HeldRecord("login", 0.012, 1), HeldRecord("rate", 2.1, 2, "upstream")),
)
OWN = replace(REJECTED, reason=None, status=404, own_code="mount")
TOLD = replace(PASSED, error_code="gone", error_message="see http://x/?k=SECRET\nfake line")


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (
            RECOVERED,
            "GET meshqu /v1/x → 503 ⟲ 0.26s → 503 ⟲ 0.61s → 200  recovered in 3 attempts, 1.1s  [req-1]",
        ),
        (HELD, "GET meshqu /v1/x ⏸ login 12ms → 503 ⏸ rate 2.1s → 200  ok in 2 attempts, 4.2ms  [req-1]"),
        (OWN, "POST meshqu /v1/x  rejected, 404 to the app (mount), 0.20s  [req-1]"),
        (OK, "GET meshqu /v1/x → 200  ok, 4.2ms  [req-1]"),
        (FAILED, "POST meshqu /v1/x → reset  failed (not_safe), 502 to the app, 0.20s  [req-1]"),
        (REJECTED, "POST meshqu /v1/x  rejected (gate), 503 to the app, 0.20s  [req-1]"),
        (PASSED, "GET meshqu /v1/x → 404  passed (not_retryable), 4.2ms  [req-1]"),
        (
            TOLD,
            'GET meshqu /v1/x → 404  passed (not_retryable), 4.2ms  "gone: see http://x/\\nfake line"  [req-1]',
        ),
        (HEDGED, "GET meshqu /v1/x → cancelled ⇉ 200  ok in 2 attempts, 4.2ms  [req-1]"),
        (replace(OK, body_cut=True), "GET meshqu /v1/x → 200  ok, body cut, 4.2ms  [req-1]"),
        (replace(OK, upstream="unknown", host="h.example"), "GET h.example /v1/x → 200  ok, 4.2ms  [req-1]"),
    ],
)
def test_the_line_tells_the_story(record: ExchangeRecord, line: str) -> None:
    assert pretty_line(record) == line


def test_foreign_text_cannot_begin_a_line_or_speak_to_the_terminal() -> None:
    hostile = "\n\x1b[2J\x07"
    record = replace(RECOVERED, path="/" + hostile, request_id=hostile, method="G" + hostile, host=hostile)
    assert pretty_line(record).isprintable()


def test_colour_only_wraps_the_words() -> None:
    line = pretty_line(RECOVERED, coloured)
    assert "\x1b[31m503\x1b[0m" in line
    assert "\x1b[32m200\x1b[0m" in line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0004, "0.4ms"), (0.026, "26ms"), (0.26, "0.26s"), (1.1, "1.1s"), (61.25, "61.2s")],
)
def test_seconds_have_the_decimals_that_a_reader_needs(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text
