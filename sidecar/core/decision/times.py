"""Text to seconds: numbers, dates and durations as real APIs write them.

Every function takes text and returns float seconds (or Unix seconds, where it says so), or None for anything outside
the grammar. None of them raises, whatever the text, and none is slow: text longer than any date is ignored, and a
number with endless digits is infinite. Counterpart: ``retry_after``, which chooses the text and uses the number.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

__all__ = ["duration", "http_date", "iso8601", "json_number", "number"]

LONGEST_TEXT: Final = 64
"""Characters; the longest HTTP-date has 33, the longest timestamp with nanoseconds 35."""
MOST_DIGITS: Final = 20
"""Digits of a whole number; 10^20 milliseconds are three billion years, so more digits mean infinity."""

MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
TIME: Final = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
MONTH: Final = f"(?P<month>{'|'.join(MONTHS)})"
DAY: Final = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
LONG_DAY: Final = "(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)"

NUMBER: Final = re.compile(r"(?P<whole>[0-9]+)(?:\.[0-9]+)?")
IMF_FIXDATE: Final = re.compile(rf"{DAY}, (?P<day>\d\d) {MONTH} (?P<year>\d{{4}}) {TIME} GMT", re.ASCII)
RFC850: Final = re.compile(rf"{LONG_DAY}, (?P<day>\d\d)-{MONTH}-(?P<year>\d\d) {TIME} GMT", re.ASCII)
ASCTIME: Final = re.compile(rf"{DAY} {MONTH} (?P<day>[ \d]\d) {TIME} (?P<year>\d{{4}})", re.ASCII)
ISO8601: Final = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)[Tt](?P<hour>\d\d):(?P<minute>\d\d)"
    r"(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?"
    r"(?:[Zz]|(?P<sign>[+-])(?P<zone_hour>\d\d):?(?P<zone_minute>\d\d))",
    re.ASCII,
)
DURATION_PART: Final = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|m|s|us|µs|μs|ns)"
DURATION: Final = re.compile(rf"(?:{DURATION_PART})+")
DURATION_PARTS: Final = re.compile(DURATION_PART)

UNIT_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
FIFTY_YEARS_SECONDS: Final = 50 * 365.2425 * 86400


def number(text: str) -> float | None:
    """A whole or decimal number: ASCII digits, one optional point; no sign, exponent, separator or suffix."""
    if len(text) > LONGEST_TEXT:
        return float("inf") if text.isascii() and text.isdigit() else None
    found = NUMBER.fullmatch(text)
    if found is None:
        return None
    return float("inf") if len(found["whole"].lstrip("0")) > MOST_DIGITS else float(text)


def json_number(text: str) -> float | None:
    """A JSON number (RFC 8259 section 6), which may carry an exponent; None for a negative one."""
    if len(text) > LONGEST_TEXT or text[:1] == "-":
        return number(text)
    return float(text)


def http_date(text: str, now: float) -> float | None:
    """Unix seconds of one of the three forms of an HTTP-date (RFC 9110 section 5.6.7).

    ``now``, in Unix seconds, places the two-digit years of the RFC 850 form: never more than 50 years ahead.
    """
    if len(text) > LONGEST_TEXT:
        return None
    found = IMF_FIXDATE.fullmatch(text) or ASCTIME.fullmatch(text)
    if found is not None:
        return _moment(found, int(found["year"]))
    found = RFC850.fullmatch(text)
    return _nearest_century(found, now) if found is not None else None


def _moment(found: re.Match[str], year: int) -> float | None:
    """Unix seconds of the matched date, or None if the calendar has no such second."""
    second = int(found["second"])
    if second > 60:  # 60: a leap second (RFC 9110 section 5.6.7)
        return None
    month = MONTHS.index(found["month"]) + 1
    try:
        start = datetime(year, month, int(found["day"]), int(found["hour"]), int(found["minute"]), tzinfo=UTC)
    except ValueError:
        return None
    return start.timestamp() + second


def _nearest_century(found: re.Match[str], now: float) -> float | None:
    """The latest reading of a two-digit year that is at most 50 years ahead."""
    for century in range(2200, 1800, -100):
        moment = _moment(found, century + int(found["year"]))
        if moment is not None and moment <= now + FIFTY_YEARS_SECONDS:
            return moment
    return None


def iso8601(text: str) -> float | None:
    """Unix seconds of ``2026-01-31T12:00:00.5Z``: the fraction and the seconds optional, the zone not.

    A timestamp without a zone names no moment, so it is not read.
    """
    found = ISO8601.fullmatch(text) if len(text) <= LONGEST_TEXT else None
    if found is None or int(found["second"] or 0) > 60:
        return None
    try:
        start = datetime.fromisoformat(f"{found['date']}T{found['hour']}:{found['minute']}")
        moment = start.replace(tzinfo=_zone(found)).timestamp()
    except (ValueError, OverflowError):
        return None
    return moment + int(found["second"] or 0) + float(f"0.{found['fraction'] or 0}")


def _zone(found: re.Match[str]) -> timezone:
    """The offset; ValueError for one that no clock has (24 hours and more, or 60 minutes)."""
    if found["sign"] is None:
        return UTC
    minutes = int(found["zone_minute"])
    if minutes > 59:
        raise ValueError(minutes)
    offset = timedelta(hours=int(found["zone_hour"]), minutes=minutes)
    return timezone(-offset if found["sign"] == "-" else offset)


def duration(text: str) -> float | None:
    """Seconds of a duration as Go and protobuf write it: ``6m0s``, ``120ms``, ``7.66s``, ``34.07s``, ``0``."""
    if text == "0":
        return 0.0
    if len(text) > LONGEST_TEXT or DURATION.fullmatch(text) is None:
        return None
    return sum(float(amount) * UNIT_SECONDS[unit] for amount, unit in DURATION_PARTS.findall(text))
