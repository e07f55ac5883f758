"""The RateLimit family: three dialects, garbage says nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.flow.ratelimit_headers import NO_RATELIMIT_HEADERS, RateLimitHeaders, read_ratelimit_headers
from tests.core.making import headers, steady

WALL = 1_696_004_797.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("RateLimit-Policy", '"default";q=50;w=1'),
        ("RateLimit-Policy", '"burst";q=100;w=1, "hour";q=180000;w=3600'),
        ("RateLimit-Policy", "50;w=1"),
        ("RateLimit-Limit", "10, 50;w=1"),
        ("X-RateLimit-Limit", "3000;w=60"),
    ],
)
def test_an_announced_quota_is_units_by_window_and_the_smallest_counts(field: str, value: str) -> None:
    assert read_ratelimit_headers(headers((field, value)), WALL) == RateLimitHeaders(50.0)


@pytest.mark.parametrize(
    "fields",
    [
        [("RateLimit", '"default";r=30;t=10')],
        [("RateLimit", '"a";r=30;t=10, "b";r=900;t=60')],
        [("RateLimit-Remaining", "30"), ("RateLimit-Reset", "10")],
        [("X-RateLimit-Remaining", "30"), ("X-RateLimit-Reset", "10")],
        [("X-RateLimit-Remaining", "30"), ("X-RateLimit-Reset", "1696004807")],
    ],
)
def test_what_remains_is_spread_over_the_time_until_it_is_renewed(fields: list[tuple[str, str]]) -> None:
    assert read_ratelimit_headers(headers(*fields), WALL) == RateLimitHeaders(None, 3.0, 10.0)


def test_a_reset_within_a_moment_is_mostly_rounding_and_says_nothing() -> None:
    assert read_ratelimit_headers(headers(("RateLimit", '"default";r=3;t=1')), WALL) == NO_RATELIMIT_HEADERS


def test_nothing_left_still_leaves_one() -> None:
    assert read_ratelimit_headers(headers(("RateLimit", '"default";r=0;t=10')), WALL) == RateLimitHeaders(
        None, 0.1, 10.0
    )


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [("RateLimit-Policy", '"default";q=0;w=0')],
        [("RateLimit-Policy", '"default";q=-5;w=x')],
        [("RateLimit-Policy", "9" * 400 + ";w=1")],
        [("RateLimit-Remaining", "30"), ("RateLimit-Remaining", "31"), ("RateLimit-Reset", "10")],
        [("RateLimit-Limit", "5000"), ("RateLimit-Remaining", "many"), ("RateLimit-Reset", "soon")],
        [("RateLimit", '"unfinished;r=1')],
    ],
)
def test_garbage_says_nothing(fields: list[tuple[str, str]]) -> None:
    assert read_ratelimit_headers(headers(*fields), WALL) == NO_RATELIMIT_HEADERS


@steady
@given(st.lists(st.sampled_from(["ratelimit", "ratelimit-policy", "ratelimit-limit", "x-ratelimit-reset"])), st.data())
def test_no_field_raises(names: list[str], data: st.DataObject) -> None:
    text = st.text(st.characters(max_codepoint=255), max_size=60)
    figures = read_ratelimit_headers(headers(*((name, data.draw(text)) for name in names)), WALL)
    assert figures.quota_per_second is None or figures.quota_per_second > 0
