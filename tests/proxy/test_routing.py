"""Which upstream is meant: tables of mounts and hosts, refusals, and a look-up that costs the same among many."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.settings.deployment import Address, Deployment, Origin, Upstream
from sidecar.observe.metrics import Metrics
from sidecar.proxy.routing.clock import SystemClock
from sidecar.proxy.routing.destination import TimersByLength
from sidecar.proxy.routing.limiter import Holding
from sidecar.proxy.routing.router import UNKNOWN_HOSTS, Refused, Router, UserInfo, check_host
from sidecar.upstream.pool import Pools
from tests.core.making import policy, short, steady

POLICY = policy()
PORT, ADMIN_PORT = 18080, 19090


def upstream(
    name: str, mount: str | None = None, hosts: tuple[str, ...] = (), base: str = "", scheme: str = "http"
) -> Upstream:
    origin = Origin("https" if scheme == "https" else "http", f"{name}.internal", 8000, base)
    return Upstream(name, origin, POLICY, mount=mount, hosts=hosts)


@contextmanager
def routing(*upstreams: Upstream, unknown: str = "pass") -> Iterator[Router]:
    """A router in a loop that stands still: finding needs no loop that runs."""
    loop = asyncio.SelectorEventLoop()
    pools = Pools(loop)
    pools.own_port = PORT
    pools.own_ports |= {PORT, ADMIN_PORT}
    deployment = Deployment(
        Address("127.0.0.1", PORT),
        Address("127.0.0.1", ADMIN_PORT),
        upstreams,
        POLICY,
        unknown_hosts="refuse" if unknown == "refuse" else "pass",
    )
    try:
        yield Router(
            deployment,
            pools,
            Metrics(),
            TimersByLength(loop),
            "sidecar",
            loop,
            hold=lambda policy, meters: Holding(loop, SystemClock(), lambda: 0.5, policy, meters),
        )
    finally:
        loop.run_until_complete(pools.close())
        loop.close()


def found(router: Router, target: str) -> tuple[str, str]:
    destination, rest = router.find(target)
    return destination.name, rest


MOUNTED = (upstream("a", "/a"), upstream("ab", "/ab"), upstream("deep", "/a/b", base="/v1"), upstream("d3", "/x/y/z"))

MOUNTS = [
    ("/a", "a", "/"),
    ("/a/", "a", "/"),
    ("/a/c", "a", "/c"),
    ("/a?q=1", "a", "/?q=1"),
    ("/a/c?q=/a/b", "a", "/c?q=/a/b"),
    ("/ab", "ab", "/"),
    ("/ab/a/b", "ab", "/a/b"),
    ("/a/b", "deep", "/v1/"),
    ("/a/b/c", "deep", "/v1/c"),
    ("/a/b?x", "deep", "/v1/?x"),
    ("/a/bc", "a", "/bc"),
    ("/a//b", "a", "//b"),
    ("/a/%62", "a", "/%62"),
    ("/a/../ab", "a", "/../ab"),
    ("/x/y/z/..", "d3", "/.."),
]


@pytest.mark.parametrize(("target", "name", "rest"), MOUNTS, ids=short)
def test_the_longest_mount_of_whole_segments_wins(target: str, name: str, rest: str) -> None:
    with routing(*MOUNTED) as router:
        assert found(router, target) == (name, rest)


@pytest.mark.parametrize("target", ["/", "//", "//a", "/A", "/abc", "/x", "/x/y", "/x/y/zz", "/%61", "/?/a", "/c/a"])
def test_no_mount_is_refused_with_the_list_of_mounts(target: str) -> None:
    with routing(*MOUNTED) as router, pytest.raises(Refused) as caught:
        router.find(target)
    assert (caught.value.status, caught.value.kind) == (404, "mount")
    assert "/a, /a/b, /ab, /x/y/z" in caught.value.detail
    assert "internal" not in caught.value.detail


@pytest.mark.parametrize(
    ("target", "name", "rest"),
    [
        ("/", "all", "/base/"),
        ("/a", "a", "/"),
        ("/b?q", "all", "/base/b?q"),
        ("//", "all", "/base//"),
        ("//b", "all", "/base//b"),
    ],
)
def test_the_root_takes_what_no_other_mount_takes(target: str, name: str, rest: str) -> None:
    with routing(upstream("all", "/", base="/base"), upstream("a", "/a")) as router:
        assert found(router, target) == (name, rest)


@steady
@given(st.text(alphabet="ab/?%.", max_size=12))
def test_a_target_goes_below_its_mount_or_is_refused(rest: str) -> None:
    with routing(*MOUNTED) as router:
        try:
            name, sent = found(router, "/" + rest)
        except Refused:
            return
    mount, base = {"a": ("/a", ""), "ab": ("/ab", ""), "deep": ("/a/b", "/v1")}[name]
    below = ("/" + rest)[len(mount) :]
    assert sent == base + (below if below.startswith("/") else "/" + below)
    assert below[:1] in ("", "/", "?")


NAMED = (
    upstream("plain", hosts=("api.test", "api.test:8081")),
    upstream("port", hosts=("other.test:9000",)),
    upstream("six", hosts=("[::1]:9000",), base="/v6"),
    upstream("tls", hosts=("safe.test",), scheme="https"),
)

HOSTS = [
    ("http://api.test/x?y", "plain", "/x?y"),
    ("HTTP://API.Test/X", "plain", "/X"),
    ("http://api.test", "plain", "/"),
    ("http://api.test?q", "plain", "/?q"),
    ("http://api.test:80/", "plain", "/"),
    ("https://api.test/", "plain", "/"),
    ("http://api.test:8081/", "plain", "/"),
    ("http://api.test:8082/", "unknown", "/"),
    ("http://other.test:9000/", "port", "/"),
    ("http://other.test/", "unknown", "/"),
    ("http://[::1]:9000/p", "six", "/v6/p"),
    ("http://api.test.evil/", "unknown", "/"),
    ("http://evil/api.test", "unknown", "/api.test"),
]


@pytest.mark.parametrize(("target", "name", "rest"), HOSTS, ids=short)
def test_a_host_leads_to_its_upstream(target: str, name: str, rest: str) -> None:
    with routing(*NAMED) as router:
        assert found(router, target) == (name, rest)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("ftp://api.test/", 400),
        ("api.test:80", 400),
        ("http:/api.test/", 400),
        ("", 400),
        ("http://", 400),
        ("http:///path", 400),
        ("http://a b/", 400),
        ("http://api.test:0/", 400),
        ("http://api.test:65536/", 400),
        ("http://api.test:x/", 400),
        ("http://api.test:80:80/", 400),
        ("http://[::1/", 400),
        ("*", 204),
        (f"http://localhost:{PORT}/", 508),
        (f"http://127.0.0.1:{PORT}/", 508),
        (f"http://[::1]:{PORT}/", 508),
        (f"http://LOCALHOST:{ADMIN_PORT}/", 403),
    ],
    ids=short,
)
def test_a_target_is_refused_with(target: str, status: int) -> None:
    with routing(*NAMED) as router, pytest.raises(Refused) as caught:
        router.find(target)
    assert caught.value.status == status


def test_credentials_in_a_target_are_told_and_cut_off() -> None:
    with routing(*NAMED) as router:
        for target in ("http://user:pa@ss@api.test/x", "HTTP://user:pa@ss@api.test/x"):
            with pytest.raises(UserInfo) as caught:
                router.find(target)
            assert (caught.value.target, caught.value.user_info) == ("http://api.test/x", "user:pa@ss")


def test_unknown_hosts_can_be_refused() -> None:
    with routing(*NAMED, unknown="refuse") as router:
        assert found(router, "http://api.test/")[0] == "plain"
        with pytest.raises(Refused) as caught:
            router.find("http://stranger.test/")
        assert (caught.value.status, caught.value.kind) == (403, "host")


def test_unknown_hosts_are_remembered_and_bounded() -> None:
    with routing() as router:
        first, _ = router.find("http://0.test/a")
        assert router.find("http://0.test:80/b")[0] is first
        for number in range(1, UNKNOWN_HOSTS):
            router.find(f"http://{number}.test/")
        assert router.find("http://0.test/a")[0] is first
        router.find("http://one-more.test/")
        assert router.find("http://0.test/a")[0] is first
        assert len(router._unknown) == UNKNOWN_HOSTS


@pytest.mark.parametrize(
    ("host", "port", "name"),
    [("safe.test", 443, "tls"), ("api.test", 443, "unknown"), ("stranger.test", 443, "unknown")],
)
def test_a_tunnel_leads_to_an_upstream_only_if_that_is_https(host: str, port: int, name: str) -> None:
    with routing(*NAMED) as router:
        assert router.tunnel(host, port).name == name


@pytest.mark.parametrize("value", ["a", "a.test", "a.test:1", "a:65535", "127.0.0.1", "[::1]", "[::1]:80", "a_b-c~d"])
def test_a_host_is_valid(value: str) -> None:
    check_host(value)


@pytest.mark.parametrize(
    "value",
    ["", ":80", "a:", "a:0", "a:65536", "a:-1", "a b", "a/b", "a?b", "a#b", "a@b", "a,b", "[::1", "::1", "ä", "a\x00"],
)
def test_a_host_is_not_valid(value: str) -> None:
    with pytest.raises(Refused) as caught:
        check_host(value)
    assert caught.value.status == 400


def test_policies_are_compiled_once_however_many_share_them() -> None:
    with routing(*(upstream(f"u{number}", f"/u{number}") for number in range(20))) as router:
        assert len({id(destination.compiled) for destination in router.destinations.values()}) == 1


def calls(router: Router, target: str) -> int:
    """Python and C calls of one look-up."""
    count = 0

    def tell(_frame: object, _event: str, _argument: object) -> None:
        nonlocal count
        count += 1

    router.find(target)
    sys.setprofile(tell)
    try:
        router.find(target)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(
    "target", ["/u0/path?q", "/u0", "http://h0.test/path", "http://h0.test:80", "http://stranger.test/"]
)
def test_a_look_up_costs_the_same_with_one_upstream_and_with_a_thousand(target: str) -> None:
    many = [upstream(f"u{number}", f"/u{number}", (f"h{number}.test",)) for number in range(1000)]
    with routing(many[0]) as alone, routing(*many) as crowded:
        # The fewest of several: the interpreter may clean up in between, and that is called too.
        fewest = [min(calls(router, target) for _ in range(5)) for router in (alone, crowded)]
        assert fewest[0] == fewest[1]
