"""Foreign text cannot leave its field, its line or its bounds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.observe.sanitize import clean, clean_message, clean_path


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("größe → ok", "größe → ok"),
        ("a\nb", "a\\nb"),
        ("a\r\nb", "a\\r\\nb"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("nul\x00", "nul\\x00"),
        ("c1\x85\x9b", "c1\\x85\\x9b"),
        ("line\u2028sep", "line\\u2028sep"),
        ("over\u202eride", "over\\u202eride"),
        ("lone\udcff", "lone\\udcff"),
        ('quote" back\\slash', 'quote" back\\slash'),
    ],
)
def test_what_a_terminal_could_act_upon_is_escaped(text: str, shown: str) -> None:
    assert clean(text, 100) == shown


def test_a_long_text_is_cut_with_an_ellipsis() -> None:
    assert clean("x" * 10_000, 5) == "xxxxx…"
    assert clean("xxxxx", 5) == "xxxxx"
    assert len(clean_path("/" + "p" * 100_000)) == 2049


def test_a_path_is_shown_without_query_and_fragment() -> None:
    assert clean_path("/a%2Fb?api_key=secret#x") == "/a%2Fb"
    assert clean_path("/a#frag") == "/a"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://api.example/x?key=SECRET#f now", "see https://api.example/x now"),
        ("at http://user:SECRET@host/p", "at http://host/p"),
        ("HTTPS://A@B@host", "HTTPS://host"),
        ("no url: a?b", "no url: a?b"),
    ],
)
def test_urls_in_a_message_lose_what_may_be_secret(text: str, shown: str) -> None:
    assert clean_message(text, 300) == shown


@settings(deadline=None, derandomize=True)
@given(st.text(), st.integers(1, 50))
def test_whatever_the_text_the_result_is_one_bounded_printable_line(text: str, limit: int) -> None:
    shown = clean_message(text, limit)
    assert shown.isprintable()
    assert len(shown) <= 10 * limit + 1
