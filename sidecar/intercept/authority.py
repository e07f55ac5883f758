"""The local authority: made once, kept in one folder, able to sign for the configured hosts and nothing else.

``ca.key`` is readable by its owner alone; ``ca.pem`` is what apps trust; ``bundle.pem`` is that and what the system
trusts, for runtimes that take one file instead of their own. A stolen key is worth no more than the hosts in its
certificate's name constraints (RFC 5280 section 4.2.1.10, critical).
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["BUNDLE", "CERTIFICATE", "KEY", "Authority", "UnfitAuthority", "create", "names_of"]

CERTIFICATE, KEY, BUNDLE = "ca.pem", "ca.key", "bundle.pem"
LIFE = timedelta(days=730)
LEAF_LIFE = timedelta(hours=24)
"""Life of a leaf certificate: short, since it is in memory and is made anew after half of its life."""
BEFORE = timedelta(hours=1)
"""Certificates begin this long before now, for apps whose clock is behind."""
LONGEST_NAME = 64
"""Characters of a common name (RFC 5280 appendix A.1)."""
SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where Debian and Alpine, Fedora, SUSE, BSD and macOS keep the system's certificates."""


class UnfitAuthority(Exception):
    """The authority cannot be used; the text says why and what to do."""


class Authority:
    """An opened authority."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self._key = key
        self._issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())

    @classmethod
    def open(cls, folder: Path, hosts: Iterable[str], now: datetime) -> Authority:
        """Read it, and check whether it covers these hosts. Raises ``UnfitAuthority``."""
        certificate, key = _read(folder)
        if now >= certificate.not_valid_after_utc:
            raise UnfitAuthority(f"{folder / CERTIFICATE} has expired: make a new one with `sidecar ca init --again`")
        if certificate.public_key() != key.public_key():
            raise UnfitAuthority(f"{folder / KEY} is not the key of {CERTIFICATE}: restore the pair, or make a new one")
        missing = [host for host in names_of(hosts) if not _may_sign(certificate, host)]
        if missing:
            raise UnfitAuthority(
                f"{folder / CERTIFICATE} may not sign for {', '.join(missing)}: it was made for other hosts; "
                "make a new one with `sidecar ca init --again`, and let the apps trust that"
            )
        return cls(certificate, key)

    def leaf(self, host: str, key: ec.EllipticCurvePublicKey, now: datetime) -> x509.Certificate:
        """A short-lived certificate for one host."""
        builder = (
            _begin(self.certificate.subject, _subject(host), key, now, now + LEAF_LIFE)
            .add_extension(x509.SubjectAlternativeName([_general(host)]), critical=not _fits_a_subject(host))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(self._issuer_id, critical=False)
        )
        return builder.sign(self._key, hashes.SHA256())


def create(folder: Path, hosts: Iterable[str], now: datetime) -> x509.Certificate:
    """Make a new authority and write its three files. Raises ``OSError``."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "retry-sidecar"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"retry-sidecar local authority {now:%Y-%m-%d}"),
        ]
    )
    builder = (
        _begin(subject, subject, key.public_key(), now, now + LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_constraints(names_of(hosts)), critical=True)
    )
    certificate = builder.sign(key, hashes.SHA256())
    folder.mkdir(parents=True, exist_ok=True)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    _write(folder / KEY, private, 0o600)
    _write(folder / CERTIFICATE, public, 0o644)
    _write(folder / BUNDLE, system_certificates() + public, 0o644)
    return certificate


def names_of(hosts: Iterable[str]) -> list[str]:
    """Configured hosts without port and brackets, each once."""
    bare = (host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0] for host in hosts)
    return list(dict.fromkeys(bare))


def system_certificates() -> bytes:
    """What the system trusts, as one PEM file; empty if this system keeps it elsewhere."""
    paths = ssl.get_default_verify_paths()
    for path in (paths.cafile, *SYSTEM_BUNDLES):
        if path is not None:
            with contextlib.suppress(OSError):
                return Path(path).read_bytes()
    return b""


def _read(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        mode = (folder / KEY).stat().st_mode
        certificate = x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())
        key = serialization.load_pem_private_key((folder / KEY).read_bytes(), None)
    except OSError as error:
        text = f"{error.filename} cannot be read: {error.strerror}; make an authority with `sidecar ca init`"
        raise UnfitAuthority(text) from None
    except (ValueError, TypeError):
        text = f"{folder} holds no authority in PEM form; make one with `sidecar ca init`"
        raise UnfitAuthority(text) from None
    if mode & 0o007:
        raise UnfitAuthority(f"everybody may read {folder / KEY}: chmod 600 {folder / KEY}")
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UnfitAuthority(f"{folder / KEY} is not a key that `sidecar ca init` has made")
    return certificate, key


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole or not at all, at no moment readable by others."""
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    beside.replace(path)


def _begin(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - BEFORE)
        .not_valid_after(end.astimezone(UTC))
    )


def _subject(host: str) -> x509.Name:
    """The subject; empty where it could not hold the name: then the alternative name alone counts (RFC 5280 section
    4.2.1.6).

    Empty for an address, too: OpenSSL would check it against the constraints for names.
    """
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)] if _fits_a_subject(host) else [])


def _fits_a_subject(host: str) -> bool:
    return len(host) <= LONGEST_NAME and isinstance(_general(host), x509.DNSName)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general(host: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(host))
    return x509.DNSName(host)


def _constraints(hosts: list[str]) -> x509.NameConstraints:
    """These names (and what is below them, as constraints mean it), these addresses, nothing else."""
    permitted: list[x509.GeneralName] = []
    excluded: list[x509.GeneralName] = []
    addresses: list[x509.GeneralName] = []
    for host in hosts:
        general = _general(host)
        if isinstance(general, x509.DNSName):
            permitted.append(general)
        else:
            addresses.append(x509.IPAddress(ipaddress.ip_network(host)))
    if not permitted:
        excluded.append(x509.DNSName(""))
    if not addresses:
        excluded += [x509.IPAddress(ipaddress.ip_network(all_of)) for all_of in ("0.0.0.0/0", "::/0")]
    return x509.NameConstraints(permitted + addresses or None, excluded or None)


def _may_sign(certificate: x509.Certificate, host: str) -> bool:
    try:
        rule = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return False  # not one of ours: it could sign for the whole world
    return any(_covers(general.value, host) for general in rule.permitted_subtrees or ())


def _covers(permitted: object, host: str) -> bool:
    if isinstance(permitted, str):
        return host == permitted or host.endswith("." + permitted)
    if isinstance(permitted, ipaddress.IPv4Network | ipaddress.IPv6Network):
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(host) in permitted
    return False
