"""Which way out a host has: the readings of ``NO_PROXY`` that curl and Go share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.settings.gateway import Outbound, OutboundProxy
from sidecar.upstream.outbound_proxy import OutboundProxies, named

PROXY = OutboundProxy("proxy.example", 3128, "Basic c2VjcmV0")
OTHER = OutboundProxy("other.example", 3128)


def goes_direct(no_proxy: str, host: str, port: int = 443) -> bool:
    return OutboundProxies(Outbound(PROXY, tuple(no_proxy.split(",")))).of_host(host, port) is None


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("example.com", "example.com", True),
        ("example.com", "EXAMPLE.com.", True),
        ("example.com", "a.b.example.com", True),
        ("example.com", "badexample.com", False),
        (".example.com", "a.example.com", True),
        (".example.com", "example.com", True),
        ("*.example.com", "a.example.com", True),
        ("a.example, b.example", "b.example", True),
        ("*", "anything.example", True),
        ("", "example.com", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.33", False),
        ("10.0.0.0/8", "10.200.0.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8", "10.example", False),
        ("10.0.0.1/8", "10.200.0.1", True),
        ("fd00::/8", "fd00::1", True),
        ("::1:2", "::1:2", True),
        ("[2001:db8::1]", "2001:db8::1", True),
        ("nonsense/nonsense", "10.0.0.1", False),
        ("none.example", "localhost", True),
        ("none.example", "127.9.9.9", True),
        ("none.example", "::1", True),
    ],
)
def test_a_host_goes_direct_if_the_list_means_it(no_proxy: str, host: str, direct: bool) -> None:
    assert goes_direct(no_proxy, host) is direct


def test_an_entry_with_a_port_means_that_port() -> None:
    assert goes_direct("example.com:8443", "a.example.com", 8443)
    assert not goes_direct("example.com:8443", "example.com", 443)
    assert goes_direct("[2001:db8::1]:80", "2001:db8::1", 80)


@given(st.text(max_size=30), st.text(max_size=30), st.integers(1, 65535))
def test_no_list_is_too_odd_to_be_read(no_proxy: str, host: str, port: int) -> None:
    assert goes_direct(no_proxy, host, port) in (True, False)
    assert named(no_proxy, host, port) in (True, False)


def test_an_upstreams_own_way_goes_before_everything() -> None:
    way = OutboundProxies(Outbound(PROXY, ("*",), (("a", OTHER), ("b", None))))
    assert way.of_upstream("a", "example.com", 443) == OTHER
    assert way.of_upstream("b", "example.com", 443) is None
    assert way.of_upstream("c", "example.com", 443) is None
    assert OutboundProxies(Outbound(PROXY)).of_upstream("c", "example.com", 443) == PROXY


def test_a_credential_is_in_no_repr() -> None:
    assert "c2VjcmV0" not in repr(Outbound(PROXY))


@pytest.mark.parametrize(
    ("pattern", "host", "port", "means"),
    [
        ("a.example", "a.example", 1, True),
        ("a.example", "A.example.", 1, True),
        ("a.example", "b.a.example", 1, False),
        ("*.example", "a.example", 1, True),
        ("*.example", "a.b.example", 1, True),
        ("*.example", "example", 1, False),
        ("a.example:80", "a.example", 80, True),
        ("a.example:80", "a.example", 443, False),
        ("*.example:80", "a.example", 80, True),
        ("[::1]:80", "::1", 80, True),
        ("[::1]", "::1", 80, True),
    ],
)
def test_a_pattern_means_a_host_exactly_and_a_star_what_is_below(
    pattern: str, host: str, port: int, means: bool
) -> None:
    assert named(pattern, host, port) is means
