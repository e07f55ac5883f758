"""``NO_PROXY`` as most tools read it, and both cases of every name."""

from __future__ import annotations

import pytest

from sidecar.client_setup.variables import DIRECT, bypasses, proxy_variables


@pytest.mark.parametrize(
    ("listed", "host", "entry"),
    [
        ("example.com", "example.com", "example.com"),
        ("example.com", "api.example.com", "example.com"),
        (".example.com", "api.example.com", ".example.com"),
        ("*.example.com", "api.example.com", "*.example.com"),
        ("EXAMPLE.com", "Example.COM", "example.com"),
        ("a, b  c", "c", "c"),
        ("example.com:8080", "example.com", "example.com:8080"),
        ("*", "anything", "*"),
        ("localhost,::1", "::1", "::1"),
        ("example.com", "notexample.com", None),
        ("example.com", "example.com.evil", None),
        ("", "example.com", None),
        (" , ,", "example.com", None),
    ],
)
def test_an_entry_stands_for_a_name_and_what_is_below_it(listed: str, host: str, entry: str | None) -> None:
    assert bypasses(listed, host) == entry


def test_every_name_is_written_in_both_cases() -> None:
    found = proxy_variables("http://127.0.0.1:8080", https=True)
    assert {name.lower() for name in found} == {"http_proxy", "https_proxy", "no_proxy"}
    assert all(found[name] == found[name.upper()] for name in ("http_proxy", "https_proxy", "no_proxy"))


def test_what_an_app_reaches_by_itself_is_left_out() -> None:
    listed = proxy_variables("http://127.0.0.1:8080", https=False)["no_proxy"]
    assert all(bypasses(listed, host) for host in DIRECT)
