"""Expressions find what ``re`` finds, and take a bounded number of steps to see it."""

from __future__ import annotations

import pickle
import re
import time
import warnings

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sidecar.core.decision.expression import MOST_STEPS, Expression, NotRegular
from tests.core.making import steady

ALIKE = [
    r"(a+)+$",
    r"^(\d+\.)+\d+$",
    r"(?i)quota.*exceeded",
    r"(?m)^b+$",
    r"^a*\Z",
    r"\Aa+b*",
    r"\bab*\b",
    r"a\B.*b",
    r"(?s)a.+b",
    r"a.+b",
    r"[^a\n]+$",
    r"(?:ab|a|b)*\n?$",
    r"(a*)*b",
    r"a{2,40}b",
    r"(?:a|(?i:B))+c",
    r"x*",
    r"(?a:\w+)\s",
    r"a+?b??$",
    r"",
    r"a|b",
]
"""The first go to the automaton, the last two to ``re``."""
TEXTS = st.text(alphabet="abABc1. \n\u00e9\u0130", max_size=12)


@steady
@given(st.sampled_from([Expression(pattern) for pattern in ALIKE]), TEXTS)
def test_it_finds_what_re_finds(expression: Expression, text: str) -> None:
    pattern = expression.pattern
    assert expression.search(text) == (re.search(pattern, text) is not None)


PIECE = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\w", r"\b", "^", "$", r"\Z", "(?:", ")", "|", "*", "+", "?"])
PATTERN = st.lists(PIECE | st.sampled_from(["{0,2}", "{2}", "{3,}", "+?", "(?i:", "(?m:"]), max_size=9).map("".join)


@settings(steady, max_examples=100)
@given(PATTERN, TEXTS)
def test_any_expression_finds_what_re_finds(pattern: str, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compiled = re.compile(pattern)
            expression = Expression(pattern)
        except (re.error, NotRegular):
            assume(False)
    found = compiled.search(text) is not None
    assert [expression.search(text), expression.search(text)] == [found, found]


SLOW = [
    r"(a+)+$",
    r"^(a|a)*$",
    r"(a|aa)+$",
    r"^(\w+\s?)*$",
    r"(.*a){20}$",
    r"a?" * 30 + "a" * 30 + "b",
    r"(x+x+)+y",
    r".*.*.*=.*;$",
    r"\s+$",
    r"(a|b)*a(a|b){14}c",
    r"(?:(?:a*)*)*c",
]


@pytest.mark.parametrize("pattern", SLOW)
@pytest.mark.parametrize("unit", ["a", "ab", "x", " ", "a ", "aab\n"])
def test_hostile_text_costs_a_bounded_time(pattern: str, unit: str) -> None:
    """64 KiB, the most that is looked at; with ``re`` most of these take years."""
    text = unit * ((64 << 10) // len(unit)) + "!"
    expression = Expression(pattern)
    begun = time.process_time()
    assert not expression.search(text)
    assert time.process_time() - begun < 2.0


def test_a_search_that_would_take_too_long_finds_nothing() -> None:
    """Each character leads to a set of positions that was never seen: a de Bruijn-like text, by a fixed rule."""
    bits = [bin(number * 2654435761 % (1 << 32))[2:] for number in range(4000)]
    text = "".join(bits).replace("0", "a").replace("1", "b")
    expression = Expression("a[ab]{1000}c")
    begun = time.process_time()
    assert not expression.search(text + "a" + "b" * 1000 + "c")
    assert time.process_time() - begun < 2.0
    assert len(text) * 100 > MOST_STEPS


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        (r"(a+)\1", "backreference"),
        (r"a+(?=b)", "look-ahead"),
        (r"^(?!.*maintenance)", "look-ahead"),
        (r"a++b", "possessive"),
        (r"(?>a+)b", "atomic"),
        (r"(a)?b+(?(1)c|d)", "conditional"),
        (r"((a{50}){50}){50}b*", "2000 positions"),
        (r"(a{1,60000}){1,60000}", "2000 positions"),
    ],
)
def test_what_is_not_regular_and_may_be_slow_is_refused(pattern: str, what: str) -> None:
    with pytest.raises(NotRegular, match=what):
        Expression(pattern)


@pytest.mark.parametrize("pattern", [r"quota(?! exceeded)", r"(a|b)\1", r"(?<=no )quota"])
def test_what_re_does_quickly_is_left_to_it(pattern: str) -> None:
    assert Expression(pattern).search("aa no quota") == (re.search(pattern, "aa no quota") is not None)


def test_it_is_a_value() -> None:
    one = Expression("(a+)+$")
    assert pickle.loads(pickle.dumps(one)) == one == Expression("(a+)+$") != Expression("a")  # noqa: S301 - our own
    assert hash(one) == hash(Expression("(a+)+$"))
    assert "(a+)+$" in repr(one)
