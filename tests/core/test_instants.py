"""Numbers, dates and durations: what is read, what is not, and no exception for any text."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.decision.times import duration, http_date, iso8601, json_number, number
from tests.core.making import floats, short, steady, texts

NOW = 1_696_004_797.0  # 2023-09-29T16:26:37Z


def unix(*fields: int) -> float:
    return datetime(*fields, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("20", 20), ("007", 7), ("1.5", 1.5), ("0.000", 0), ("9" * 20, 1e20), ("0" * 40 + "5", 5)],
)
def test_whole_and_decimal_numbers_are_read(text: str, value: float) -> None:
    assert number(text) == value


@pytest.mark.parametrize("text", ["9" * 21, "9" * 64, "9" * 65, "9" * 1_000_000, "9" * 30 + ".5"], ids=short)
def test_endless_digits_are_infinite(text: str) -> None:
    assert number(text) == float("inf")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "-1",
            "+1",
            "1e3",
            "1_000",
            "1,5",
            "1.",
            ".5",
            "1.2.3",
            "0x10",
            "5s",
            "5 ",
            " 5",
            "5\n",
            "NaN",
            "inf",
        ),
        *("٣", "５", "²", "x" * 1_000_000, "5" * 1_000_000 + "x", "٣" * 100),
    ],
    ids=short,
)
def test_anything_else_is_no_number(text: str) -> None:
    assert number(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("0.5", 0.5),
        ("2e1", 20),
        ("1E400", float("inf")),
        ("-1", None),
        ("-0", None),
        ("1" * 100, float("inf")),
    ],
)
def test_a_json_number_may_carry_an_exponent_but_no_minus(text: str, value: float | None) -> None:
    assert json_number(text) == value


@pytest.mark.parametrize(
    "text",
    ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"],
)
def test_the_three_forms_of_an_http_date_are_read(text: str) -> None:
    assert http_date(text, NOW) == unix(1994, 11, 6, 8, 49, 37)


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("Sun Nov 16 08:49:37 1994", (1994, 11, 16, 8, 49, 37)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", (9999, 12, 31, 23, 59, 59)),
        ("Mon, 01 Jan 0001 00:00:00 GMT", (1, 1, 1)),
        ("Sat, 31 Dec 2016 23:59:60 GMT", (2017, 1, 1)),
    ],
)
def test_far_dates_and_leap_seconds_are_read(text: str, when: tuple[int, ...]) -> None:
    assert http_date(text, NOW) == unix(*when)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 10000 08:49:37 GMT",
        "sun, 06 nov 1994 08:49:37 gmt",
        "Sun, ٠٦ Nov 1994 08:49:37 GMT",
        "Sunday, 31-Feb-94 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT\n",
        "Sun, 06 Nov 1994 08:49:37 GMT" * 1000,
        "1994-11-06T08:49:37Z",
    ],
    ids=short,
)
def test_what_is_no_http_date_is_not_read(text: str) -> None:
    assert http_date(text, NOW) is None


@pytest.mark.parametrize(
    ("year_now", "two_digits", "year"),
    [
        (2023, "94", 1994),
        (2023, "23", 2023),
        (2023, "73", 2073),
        (2023, "74", 1974),
        (1999, "00", 2000),
        (2080, "10", 2110),
    ],
)
def test_two_digit_years_are_at_most_fifty_years_ahead(year_now: int, two_digits: str, year: int) -> None:
    """RFC 9110 section 5.6.7."""
    text = f"Sunday, 15-Jan-{two_digits} 00:00:00 GMT"
    assert http_date(text, unix(year_now, 6, 1)) == unix(year, 1, 15)


def test_a_leap_day_of_two_digits_skips_the_centuries_without_one() -> None:
    assert http_date("Tuesday, 29-Feb-00 00:00:00 GMT", NOW) == unix(2000, 2, 29)


def test_a_two_digit_year_against_a_broken_clock_is_not_read() -> None:
    assert http_date("Sunday, 06-Nov-94 08:49:37 GMT", float("nan")) is None
    assert http_date("Sunday, 06-Nov-94 08:49:37 GMT", -1e18) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2023-09-29T16:26:37Z", NOW),
        ("2023-09-29t16:26:37z", NOW),
        ("2023-09-29T16:26:37.25Z", NOW + 0.25),
        ("2023-09-29T16:26:37,25Z", NOW + 0.25),
        ("2023-09-29T16:26:37.123456789Z", NOW + 0.123456789),
        ("2023-09-29T16:26Z", NOW - 37),
        ("2023-09-29T18:26:37+02:00", NOW),
        ("2023-09-29T11:56:37-0430", NOW),
        ("0001-01-01T00:00:00+23:59", unix(1, 1, 1) - (23 * 60 + 59) * 60),
    ],
)
def test_timestamps_are_read_with_a_zone(text: str, value: float) -> None:
    assert iso8601(text) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2023-09-29T16:26:37",
        "2023-09-29",
        "2023-09-29 16:26:37Z",
        "2023-02-30T00:00:00Z",
        "2023-09-29T24:00:00Z",
        "2023-09-29T16:26:61Z",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "2023-09-29T16:26:37+24:00",
        "2023-09-29T16:26:37+01:60",
        "2023-09-29T16:26:37." + "1" * 100 + "Z",
        "20230929T162637Z",
    ],
)
def test_what_names_no_moment_is_not_read(text: str) -> None:
    assert iso8601(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("1s", 1),
        ("6m0s", 360),
        ("120ms", 0.12),
        ("7.66s", 7.66),
        ("34.07s", 34.07),
        ("1h2m3.5s", 3723.5),
        ("5us", 5e-6),
        ("5µs", 5e-6),
        ("9ns", 9e-9),
        (".5s", 0.5),
        ("1.s", 1),
    ],
)
def test_durations_are_read_as_go_and_protobuf_write_them(text: str, value: float) -> None:
    assert duration(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-5s", "+5s", "5 s", "5S", "1d", "PT5S", "1e3s", ".s", "5sx", "٥s", "9" * 100 + "s"]
)
def test_what_is_no_duration_is_not_read(text: str) -> None:
    assert duration(text) is None


@steady
@given(st.one_of(texts, st.text("0123456789", min_size=40, max_size=400)), floats)
def test_no_text_raises_and_none_is_negative_as_a_number(text: str, now: float) -> None:
    for seconds in (number(text), duration(text)):
        assert seconds is None or seconds >= 0
    http_date(text, now)
    iso8601(text)


@steady
@given(st.datetimes(timezones=st.just(UTC)))
def test_every_moment_is_read_back(moment: datetime) -> None:
    assert iso8601(moment.isoformat()) == pytest.approx(moment.timestamp(), abs=1e-3)
    year = f"{moment.year:04}"
    text = moment.strftime(f"%a, %d %b {year} %H:%M:%S GMT")
    assert http_date(text, NOW) == pytest.approx(moment.replace(microsecond=0).timestamp())
