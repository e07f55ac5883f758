"""The local authority: what it may sign for, who may read its key, and what it refuses to be used for."""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sidecar.intercept.authority import BUNDLE, CERTIFICATE, KEY, Authority, UnfitAuthority, create, names_of
from sidecar.intercept.leaves import Leaves
from sidecar.intercept.open import CannotIntercept, contexts_for

NOW = datetime.now(UTC)
HOSTS = ["api.example", "10.0.0.1:8443", "[::1]:8443"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create(tmp_path / "ca", HOSTS, NOW)
    return tmp_path / "ca"


def shake_hands(context: ssl.SSLContext, authority: Path, name: str) -> None:
    """A whole handshake in memory, the client verifying ``name`` by ``authority``. Raises what the client raises."""
    trusting = ssl.create_default_context(cafile=authority)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server, server_hostname=name)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    waiting = {client, server}
    for _ in range(8):
        for side in (client, server):
            try:
                side.do_handshake()
                waiting.discard(side)
            except ssl.SSLWantReadError:
                pass
    assert not waiting


def leaf_context(folder: Path, host: str) -> ssl.SSLContext:
    return Leaves(Authority.open(folder, HOSTS, NOW), NOW.timestamp).context(host)


@pytest.mark.parametrize("host", ["api.example", "10.0.0.1", "::1"])
def test_a_client_that_trusts_the_authority_accepts_its_hosts(folder: Path, host: str) -> None:
    shake_hands(leaf_context(folder, host), folder / CERTIFICATE, host)


@pytest.mark.parametrize("host", ["bank.example", "api.example.org", "10.0.0.2"])
def test_no_client_accepts_another_host_even_if_the_key_is_stolen(folder: Path, host: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(leaf_context(folder, host), folder / CERTIFICATE, host)


@pytest.mark.parametrize("hosts", [["api.example"], ["10.0.0.1"]])
def test_what_kind_of_name_is_not_configured_is_excluded(tmp_path: Path, hosts: list[str]) -> None:
    create(tmp_path, hosts, NOW)
    leaves = Leaves(Authority.open(tmp_path, hosts, NOW), NOW.timestamp)
    shake_hands(leaves.context(hosts[0]), tmp_path / CERTIFICATE, hosts[0])
    for other in ("10.0.0.9", "other.example"):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(leaves.context(other), tmp_path / CERTIFICATE, other)


def test_the_key_is_the_owners_alone_under_any_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        create(tmp_path, HOSTS, NOW)
    finally:
        os.umask(old)
    assert (tmp_path / KEY).stat().st_mode & 0o777 == 0o600


def test_the_constraints_are_critical_and_the_authority_signs_no_further_one(folder: Path) -> None:
    certificate = x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())
    constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints)
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert basic.critical
    assert basic.value.path_length == 0


def test_a_leaf_is_short_lived_even_for_a_name_too_long_for_a_subject(tmp_path: Path) -> None:
    long = ".".join(["a" * 40] * 3)
    create(tmp_path, [long], NOW)
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    leaf = Authority.open(tmp_path, [long], NOW).leaf(long, key, NOW)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc < timedelta(hours=26)
    assert leaf.subject == x509.Name([])


def test_a_leaf_is_made_anew_before_it_ends(folder: Path) -> None:
    now = [NOW.timestamp()]
    leaves = Leaves(Authority.open(folder, HOSTS, NOW), lambda: now[0])
    first = leaves.context("api.example")
    now[0] += 11 * 3600
    assert leaves.context("api.example") is first
    now[0] += 2 * 3600
    assert leaves.context("api.example") is not first


def test_the_bundle_ends_with_the_authority(folder: Path) -> None:
    assert (folder / BUNDLE).read_bytes().endswith((folder / CERTIFICATE).read_bytes())


def test_names_of_hosts_lose_port_and_brackets() -> None:
    assert names_of(["api.example:8443", "api.example", "[::1]:1", "[::2]"]) == ["api.example", "::1", "::2"]


def refused(folder: Path, hosts: list[str], now: datetime = NOW) -> str:
    with pytest.raises(UnfitAuthority) as caught:
        Authority.open(folder, hosts, now)
    return str(caught.value)


def test_an_authority_is_refused_for_hosts_that_it_does_not_cover(folder: Path) -> None:
    said = refused(folder, ["api.example", "new.example"])
    assert "new.example" in said
    assert "sidecar ca init --again" in said


def test_an_expired_one_is_refused(folder: Path) -> None:
    assert "expired" in refused(folder, HOSTS, NOW + timedelta(days=731))


def test_a_key_that_everybody_may_read_is_refused(folder: Path) -> None:
    (folder / KEY).chmod(0o644)
    assert "chmod 600" in refused(folder, HOSTS)


def test_a_key_of_another_authority_is_refused(folder: Path, tmp_path: Path) -> None:
    create(tmp_path / "other", HOSTS, NOW)
    (folder / KEY).write_bytes((tmp_path / "other" / KEY).read_bytes())
    assert "is not the key" in refused(folder, HOSTS)


@pytest.mark.parametrize("name", [KEY, CERTIFICATE])
def test_garbage_and_missing_files_are_named(folder: Path, name: str) -> None:
    (folder / name).write_text("no PEM", encoding="ascii")
    assert "PEM" in refused(folder, HOSTS)
    (folder / name).unlink()
    assert f"{name} cannot be read" in refused(folder, HOSTS)


def test_an_authority_without_constraints_is_not_one_of_ours(folder: Path) -> None:
    """It could sign for the whole world."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    plain = x509.CertificateBuilder().issuer_name(name).subject_name(name).public_key(key.public_key())
    plain = plain.serial_number(1).not_valid_before(NOW).not_valid_after(NOW + timedelta(days=1))
    pem = serialization.Encoding.PEM
    (folder / CERTIFICATE).write_bytes(plain.sign(key, hashes.SHA256()).public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / KEY).write_bytes(private)
    assert "may not sign" in refused(folder, ["api.example"])


def test_the_door_says_in_a_sentence_what_is_wrong(folder: Path) -> None:
    with pytest.raises(CannotIntercept, match=r"new\.example"):
        contexts_for(str(folder), ("new.example",), NOW.timestamp)
