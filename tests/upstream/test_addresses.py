"""The judge of addresses, alone: every way of writing or carrying an address is judged as that address."""

from __future__ import annotations

import ipaddress
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.upstream.address_guard import AddressGuard, Forbidden, is_loopback, is_own, literal_address

OWN_PORT = 8080


def guard(*, open_door: bool = False) -> AddressGuard:
    made = AddressGuard(lambda address: address in ("192.0.2.7", "2001:db8::7"))
    made.open_door = open_door
    made.own_ports.update((OWN_PORT, 9180))
    return made


def refuses(address: str, port: int = 443, *, open_door: bool = False, configured: bool = False) -> bool:
    try:
        guard(open_door=open_door).check(address, port, configured=configured)
    except Forbidden:
        return True
    return False


def carried(number: int) -> list[str]:
    """IPv6 addresses that carry this IPv4 address."""
    high, low = number >> 16, number & 0xFFFF
    flipped = number ^ 0xFFFFFFFF
    return [
        f"::ffff:{high:x}:{low:x}",
        f"::ffff:0:{high:x}:{low:x}",
        f"64:ff9b::{high:x}:{low:x}",
        f"64:ff9b:1::{high:x}:{low:x}",
        str(ipaddress.IPv6Address((0x0064FF9B0001 << 80) | (high << 64) | (low << 40))),
        f"2002:{high:x}:{low:x}::1",
        f"2001:0:101:101:0:ffff:{flipped >> 16:x}:{flipped & 0xFFFF:x}",
        f"2001:db8::5efe:{high:x}:{low:x}",
        *([f"::{high:x}:{low:x}"] if number > 0xFFFF else []),
    ]


def numbers(network: str) -> st.SearchStrategy[int]:
    found = ipaddress.IPv4Network(network)
    return st.integers(int(found.network_address), int(found.broadcast_address))


@given(numbers("169.254.0.0/16"))
def test_link_local_is_refused_in_every_form_whoever_asks(number: int) -> None:
    for address in (str(ipaddress.IPv4Address(number)), *carried(number)):
        assert refuses(address), address
        assert refuses(address, configured=True), address


@given(numbers("127.0.0.0/8"), st.booleans())
def test_loopback_is_refused_in_every_form_behind_an_open_door(number: int, open_door: bool) -> None:
    for address in (str(ipaddress.IPv4Address(number)), *carried(number)):
        assert refuses(address, open_door=open_door) is open_door, address
        assert not refuses(address, open_door=open_door, configured=True), address
        assert refuses(address, OWN_PORT, open_door=open_door, configured=True), address


@given(numbers("0.0.0.0/0"))
def test_an_address_and_what_carries_it_are_judged_alike(number: int) -> None:
    plain = refuses(str(ipaddress.IPv4Address(number)), open_door=True)
    for address in carried(number):
        assert refuses(address, open_door=True) is plain, address


@given(st.integers(0, (1 << 128) - 1))
def test_no_address_is_too_odd_to_be_judged(number: int) -> None:
    assert refuses(str(ipaddress.IPv6Address(number)), open_door=True) in (True, False)


@given(numbers("0.0.0.0/0"), st.sampled_from(["dotted", "decimal", "hexadecimal", "octal", "three", "two", "dot"]))
def test_every_way_of_writing_an_address_is_recognised(number: int, form: str) -> None:
    a, b, c, d = struct.pack("!I", number)
    written = {
        "dotted": f"{a}.{b}.{c}.{d}",
        "decimal": str(number),
        "hexadecimal": f"0x{number:x}",
        "octal": ".".join(f"0{part:o}" for part in (a, b, c, d)),
        "three": f"{a}.{b}.{c << 8 | d}",
        "two": f"{a}.{b << 16 | c << 8 | d}",
        "dot": f"{a}.{b}.{c}.{d}.",
    }[form]
    assert literal_address(written) == str(ipaddress.IPv4Address(number))


@given(st.text(max_size=40))
def test_no_name_is_too_odd_to_be_looked_at(name: str) -> None:
    found = literal_address(name)
    assert found is None or ipaddress.ip_address(found)


@pytest.mark.parametrize("name", ["example.com", "", "localhost", "1.2.3.4.5", "127.0.0.1.nip.io", "a b"])
def test_a_name_is_no_address(name: str) -> None:
    assert literal_address(name) is None


@pytest.mark.parametrize(
    "address",
    ["100.100.100.200", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254", "fe80::1", "fe80::1%eth0", "febf::1"],
)
def test_metadata_services_outside_the_ipv4_range_are_refused_too(address: str) -> None:
    assert refuses(address)
    assert refuses(address, configured=True)


@pytest.mark.parametrize("address", ["224.0.0.1", "255.255.255.255", "ff02::1"])
def test_the_addresses_of_many_are_nobodys(address: str) -> None:
    assert refuses(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "10.1.2.3", "192.168.1.1", "fd12:3456::1"])
def test_public_and_private_addresses_are_allowed(address: str) -> None:
    """A sidecar's upstreams are often private; which hosts may be asked for is the configuration's to say."""
    assert not refuses(address)
    assert not refuses(address, open_door=True)


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7"])
def test_the_machines_own_addresses_are_refused_behind_an_open_door(address: str) -> None:
    assert refuses(address, open_door=True)
    assert not refuses(address, open_door=True, configured=True)
    assert not refuses(address)
    assert refuses(address, OWN_PORT)
    assert not refuses("192.0.2.8", OWN_PORT)


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])  # noqa: S104 - dialled, not bound
def test_the_unspecified_address_means_this_machine(address: str) -> None:
    assert refuses(address, open_door=True)
    assert refuses(address, OWN_PORT)
    assert not is_loopback(address), "listening there is an open door"


def test_a_machine_knows_its_own_addresses() -> None:
    assert is_own("127.0.0.1")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        assert is_own(listener.getsockname()[0])


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST.", "a.localhost", "127.1", "[::1]".strip("[]")])
def test_a_name_that_a_proxy_would_resolve_is_judged_as_far_as_it_can_be(name: str) -> None:
    with pytest.raises(Forbidden):
        guard(open_door=True).check_name(name, 443, configured=False)
    guard().check_name(name, 443, configured=False)
    for metadata in ("metadata.google.internal", "metadata.google.internal.", "169.254.169.254"):
        with pytest.raises(Forbidden):
            guard().check_name(metadata, 80, configured=True)
    guard(open_door=True).check_name("far.example", 443, configured=False)
