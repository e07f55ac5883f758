"""What ``Host`` says toward an upstream."""

from __future__ import annotations

import pytest

from sidecar.core.settings.deployment import Origin


@pytest.mark.parametrize(
    ("origin", "authority"),
    [
        (Origin("https", "api.example", 443), "api.example"),
        (Origin("http", "api.example", 80), "api.example"),
        (Origin("http", "api.example", 443), "api.example:443"),
        (Origin("https", "api.example", 8443), "api.example:8443"),
        (Origin("http", "::1", 80), "[::1]"),
        (Origin("http", "::1", 8080), "[::1]:8080"),
    ],
)
def test_the_authority_names_a_port_only_where_it_is_not_the_schemes_own(origin: Origin, authority: str) -> None:
    assert origin.authority == authority
