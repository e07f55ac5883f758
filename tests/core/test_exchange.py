"""The look at header fields."""

from __future__ import annotations

from sidecar.core.decision.attempt import Headers, no_headers


def test_names_are_compared_without_case_and_values_keep_their_order() -> None:
    found = Headers(((b"X-A", b"1"), (b"x-b", b"2"), (b"x-a", b"3")))
    assert found.all("X-a") == ["1", "3"]
    assert found.get("x-A") == "1"


def test_an_absent_field_is_no_value() -> None:
    assert no_headers.all("x") == []
    assert no_headers.get("x") is None


def test_bytes_beyond_ascii_are_kept_one_to_one() -> None:
    assert Headers(((b"x", b"\xff\xfe"),)).get("x") == "\xff\xfe"
