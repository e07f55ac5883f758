"""Checks of what the app trusts: the files that its variables name, and the sidecar's authority where it intercepts."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

from sidecar.doctor.context import CheckContext
from sidecar.doctor.findings import CheckKind, Finding

__all__ = ["trust_checks"]

TRUST_VARIABLES = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "PIP_CERT",
)
RUNTIME_VARIABLES = {
    "curl": ("CURL_CA_BUNDLE", "SSL_CERT_FILE"),
    "python": ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
    "node": ("NODE_EXTRA_CA_CERTS",),
    "go": ("SSL_CERT_FILE",),
}
SOON_SECONDS = 14 * 86400.0


def _files(around: CheckContext) -> Iterator[Finding]:
    for name in TRUST_VARIABLES:
        value = around.environ.get(name)
        if value and not (_certificates(Path(value)) or Path(value).is_dir()):
            text = f"{name} names a file that is missing, unreadable or holds no certificate in PEM form"
            yield Finding(CheckKind.NO_TRUST_FILE, name, text, f"mend the path, or unset {name}")


def _certificates(path: Path) -> list[bytes]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ValueError):
        return []
    return context.get_ca_certs(binary_form=True)


def _trusted(around: CheckContext) -> Iterator[Finding]:
    """Where tunnels are intercepted, an app that uses one must trust the authority."""
    rule = around.deployment.intercept
    if rule is None or not (around.environ.get("https_proxy") or around.environ.get("HTTPS_PROXY")):
        return
    ours = _certificates(Path(rule.folder) / "ca.pem")
    names = RUNTIME_VARIABLES.get(around.runtime or "", TRUST_VARIABLES)
    files = [around.environ[name] for name in names if around.environ.get(name)]
    if ours and not any(set(ours) & set(_certificates(Path(file))) for file in files):
        text = f"no file with the sidecar's authority in {', '.join(names)}: calls to {rule.hosts[0]} fail in TLS"
        yield Finding(CheckKind.NOT_TRUSTED, names[0], text, "sidecar ca prints what each runtime needs")


def _authority(around: CheckContext) -> Iterator[Finding]:
    rule = around.deployment.intercept
    if rule is None:
        return
    folder = Path(rule.folder)
    for left in _seconds_left(folder / "ca.pem", around.wall()):
        if left < SOON_SECONDS:
            when = f"ends in {left / 86400:.0f} days" if left > 0 else "has expired"
            text = f"the sidecar's authority {when}"
            yield Finding(
                CheckKind.AUTHORITY, str(folder), text, "sidecar ca init --again, and let the apps trust the new one"
            )
    key = folder / "ca.key"
    if key.exists() and key.stat().st_mode & 0o007:
        text = f"everybody may read {key}: whoever does can pass as the intercepted hosts"
        yield Finding(CheckKind.AUTHORITY, str(key), text, f"chmod 600 {key}")


def _seconds_left(path: Path, now: float) -> Iterator[float]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with contextlib.suppress(OSError, ValueError):
        context.load_verify_locations(cafile=path)
        for certificate in context.get_ca_certs():
            yield ssl.cert_time_to_seconds(str(certificate["notAfter"])) - now


trust_checks = (_files, _trusted, _authority)
