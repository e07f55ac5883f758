"""Text becomes values by the core schema of YAML 1.2; what multiplies or executes is refused."""

from __future__ import annotations

import pytest

from sidecar.config.text.contents import MAX_BYTES
from sidecar.config.text.document import Listing, Table, parse, plain


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("y", "y"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-3", -3),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("0b11", "0b11"),
        ("true", True),
        ("False", False),
        ("tRUE", "tRUE"),
        ("~", None),
        ("null", None),
        ("", None),
        ("'5'", "5"),
        ('"true"', "true"),
        ("0xZZ", "0xZZ"),
        ("5m", "5m"),
    ],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    document = parse("f", f"a: {text}\n".encode())
    assert document.problems == []
    assert plain(document.root) == {"a": value}
    assert type(plain(document.root)["a"]) is type(value)  # type: ignore[index]


def test_values_remember_where_they_stand() -> None:
    root = parse("f", "# é\na:\n  - {b: ü, c: 1}\n".encode()).root
    assert isinstance(root, Table)
    assert isinstance(root["a"], Listing)
    inner = root["a"][0]
    assert isinstance(inner, Table)
    assert (inner.keys_at["c"].line, inner.keys_at["c"].column) == (2, 11)
    assert (inner.values_at["c"].line, inner.values_at["c"].column) == (2, 14)


def test_aliases_are_understood() -> None:
    assert plain(parse("f", b"a: &x [1, 2]\nb: *x\n").root) == {"a": [1, 2], "b": [1, 2]}


def test_a_file_beyond_the_limit_is_refused_unparsed() -> None:
    document = parse("f", b"#" * (MAX_BYTES + 1))
    assert [problem.code.value[0] for problem in document.problems] == ["E001"]


def test_a_byte_order_mark_and_windows_line_ends_are_fine() -> None:
    assert plain(parse("f", b"\xef\xbb\xbfa: 1\r\nb: 2\r\n").root) == {"a": 1, "b": 2}


@pytest.mark.parametrize("opening", [b"[", b"{a: ", b"- ", b"a:\n "])
def test_a_hundred_thousand_openings_are_refused_quickly(opening: bytes) -> None:
    assert parse("f", opening * 100_000).problems


def test_lines_are_counted_as_yaml_counts_them() -> None:
    document = parse("f", "a: 'x\u2028y'\r\nb: 1\nb: 2\n".encode())
    assert [problem.code.value[0] for problem in document.problems] == ["E004"]
    assert document.problems[0].lines[-1] == "b: 2"
