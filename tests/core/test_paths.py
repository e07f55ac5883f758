"""The index of path patterns: it finds what trying them all in order would find, and looks at few of them."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.config.schema.addresses import compile_path
from sidecar.core.settings.path_index import PathIndex

SEGMENTS = st.sampled_from(["a", "b", "ab", "a*", "*b", "*", "**", "%2F"])
PATTERNS = st.lists(SEGMENTS, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
ASKED = st.lists(st.sampled_from(["a", "b", "ab", "abc", "", "%2F", "a.b"]), max_size=6).map(
    lambda p: "/" + "/".join(p)
)


METHODS = st.sampled_from([frozenset[str](), frozenset({"GET"}), frozenset({"POST", "PUT"})])
NONE: frozenset[str] = frozenset()


@given(st.lists(st.tuples(METHODS, PATTERNS | st.sampled_from(["/", "/a/"])), max_size=12), ASKED)
def test_it_finds_what_trying_all_in_order_finds(rows: list[tuple[frozenset[str], str]], path: str) -> None:
    compiled = [(methods, written, compile_path(written), place) for place, (methods, written) in enumerate(rows)]
    tried = [row[3] for row in compiled if row[0] != frozenset({"POST", "PUT"}) and row[2].fullmatch(path)]
    assert PathIndex(compiled).first("GET", path) == next(iter(tried), None)


def backtracking(path: str) -> re.Pattern[str]:
    """The same patterns, written so that nothing could be simpler, and tried in every way."""
    pattern = ""
    for segment in path.split("/")[1:]:
        if segment == "**":
            pattern += "(?:/[^/]*)*"
        elif segment == "*":
            pattern += "/[^/]+"
        else:
            pattern += "/" + "[^/]*".join(map(re.escape, segment.split("*")))
    return re.compile(pattern)


DEEP = st.lists(SEGMENTS | st.sampled_from(["**", "*a*b*", "a*b*a"]), min_size=1, max_size=7).map(
    lambda parts: "/" + "/".join(parts)
)
LONG = st.lists(st.sampled_from(["a", "b", "ab", "aab", "abab", ""]), max_size=8).map(
    lambda parts: "/" + "/".join(parts)
)


@given(DEEP | st.sampled_from(["/", "/a/", "/**", "/**/"]), LONG)
@settings(max_examples=500)
def test_what_stands_between_wildcards_is_taken_where_it_comes_first_and_nothing_is_missed(
    written: str, path: str
) -> None:
    assert bool(compile_path(written).fullmatch(path)) is bool(backtracking(written).fullmatch(path))


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("/v1/**/x/**/y/**/z", "/v1" + "/x/y" * 4000),
        ("/**/a/**/a/**/a/**/b", "/a" * 8000),
        ("/*a*a*a*a*b", "/" + "a" * 16_000),
        ("/**/*a*a*a/b", "/" + "a" * 16_000),
    ],
)
def test_a_hostile_path_costs_no_more_than_its_length(written: str, path: str) -> None:
    """With backtracking each of them takes from minutes to years; a second is what a busy machine may need."""
    pattern, began = compile_path(written), time.process_time()
    assert not pattern.fullmatch(path)
    assert time.process_time() - began < 1.0


def test_patterns_that_begin_otherwise_are_not_tried() -> None:
    never = re.compile("(?!)")
    rows = [(NONE, f"/v1/{n}/**", never, n) for n in range(1000)]
    index = PathIndex([*rows, (NONE, "/**", re.compile(".*"), 1000)])
    assert [row[3] for row in index._candidates("/v1/7/x/y")] == [7, 1000]
    assert [row[3] for row in index._candidates("/v2")] == [1000]
    assert index.first("GET", "/v1/7/x/y") == 1000


def test_a_path_of_many_slashes_costs_no_more_than_the_deepest_pattern() -> None:
    class Counted(str):
        finds = 0

        def find(self, *given: object) -> int:
            Counted.finds += 1
            return super().find(*given)  # type: ignore[arg-type]

    index = PathIndex([(NONE, "/a/b/*", re.compile("x"), 1), (NONE, "/**", re.compile("(?:/[^/]*)*"), 2)])
    assert index.first("GET", Counted("/" * 10_000)) == 2
    assert Counted.finds == 2
