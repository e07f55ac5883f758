"""Durations, sizes and rates: read exactly, written so that they read back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.config.schema.units import (
    parse_duration,
    parse_rate,
    parse_size,
    write_duration,
    write_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("2s", 2.0), ("1.5s", 1.5), ("5m", 300.0), ("1h", 3600.0)]
)
def test_durations_are_read_exactly(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert write_duration(seconds) == text


@pytest.mark.parametrize(("text", "size"), [("0B", 0), ("10KB", 10_000), ("64KiB", 65536), ("1.5MiB", 1572864)])
def test_sizes_are_read_exactly(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "rate"), [("10/s", 10.0), ("600/m", 10.0), ("36000/h", 10.0)])
def test_rates_are_read_exactly(text: str, rate: float) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "5", "5 s", "s", "-1s", "+1s", "1e3s", "1d", ".5s", "1.s", "٣s", "5S", "1m30s"])
def test_anything_else_is_no_duration(text: str) -> None:
    assert parse_duration(text) is None


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 24 * 3600 * 1000))
def test_what_is_written_reads_back(milliseconds: int) -> None:
    assert parse_duration(write_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000, rel=1e-9)
    assert parse_size(write_size(milliseconds)) == milliseconds
