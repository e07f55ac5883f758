"""The parts of a decision in words."""

from __future__ import annotations

import re

import pytest

from sidecar.core.decision.rows import Condition, HintSource
from sidecar.core.dryrun.story_words import condition_text, cut, range_text, source_text
from sidecar.core.enums import Unit


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (HintSource("header", "retry-after"), "header retry-after (seconds or HTTP-date)"),
        (
            HintSource("field", "ratelimit", field="t", unit=Unit.S, plus_seconds=1),
            "header ratelimit, field t (seconds) plus 1 s",
        ),
        (HintSource("body", "/wait", unit=Unit.MS, at_least_seconds=2), "body /wait (milliseconds), at least 2 s"),
        (HintSource("constant", constant_seconds=30), "constant 30 s"),
    ],
)
def test_a_source_is_named_by_its_place_and_unit(source: HintSource, text: str) -> None:
    assert source_text(source) == text


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (Condition("header", "x-left", "equals", ("0",)), "header x-left is `0`"),
        (Condition("body", "/code", "in", ("a", "b")), "body /code is `a` or `b`"),
        (Condition("path", "", "matches", pattern=re.compile("^/v1")), "path matches ^/v1"),
        (Condition("query", "dry", present=False), "query dry is absent"),
        (Condition("request_header", "x-test"), "request_header x-test is present"),
    ],
)
def test_a_condition_is_a_sentence(condition: Condition, text: str) -> None:
    assert condition_text(condition) == text


def test_a_strangers_text_is_cut_and_escaped() -> None:
    assert cut("a\r\nb") == "a\\r\\nb"
    assert len(cut("x" * 500)) == 60


def test_a_range_of_one_value_is_that_value() -> None:
    assert (range_text(2.0, 2.0), range_text(0.0, 0.25)) == ("2 s", "0 … 0.25 s")
    assert range_text(float("inf"), float("inf")) == "endless"
