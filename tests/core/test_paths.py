"""The index of path patterns: it finds what trying them all in order would find, and looks at few of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.places import compile_path
from sidecar.core.paths import PathIndex

SEGMENTS = st.sampled_from(["a", "b", "ab", "a*", "*b", "*", "**", "%2F"])
PATTERNS = st.lists(SEGMENTS, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
ASKED = st.lists(st.sampled_from(["a", "b", "ab", "abc", "", "%2F", "a.b"]), max_size=6).map(
    lambda p: "/" + "/".join(p)
)


@given(st.lists(PATTERNS | st.sampled_from(["/", "/a/"]), max_size=12), ASKED)
def test_it_finds_what_trying_all_in_order_finds(patterns: list[str], path: str) -> None:
    compiled = [(pattern, (place, compile_path(pattern))) for place, pattern in enumerate(patterns)]
    tried = [place for _, (place, each) in compiled if each.fullmatch(path)]
    found = [place for place, each in PathIndex(compiled).candidates(path) if each.fullmatch(path)]
    assert found == tried


def test_patterns_that_begin_otherwise_are_not_looked_at() -> None:
    index = PathIndex([(f"/v1/{n}/**", n) for n in range(1000)] + [("/**", 1000)])
    assert index.candidates("/v1/7/x/y") == [7, 1000]
    assert index.candidates("/v2") == [1000]
    assert index.candidates("/") == [1000]


def test_a_path_of_many_slashes_costs_no_more_than_the_deepest_pattern() -> None:
    class Counted(str):
        finds = 0

        def find(self, *given: object) -> int:
            Counted.finds += 1
            return super().find(*given)  # type: ignore[arg-type]

    assert PathIndex([("/a/b/*", 1), ("/**", 2)]).candidates(Counted("/" * 100_000)) == [2]
    assert Counted.finds == 2
