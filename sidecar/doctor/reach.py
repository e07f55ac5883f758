"""Checks that send requests: to the sidecar itself, then to each upstream as the sidecar would (name, connection,
certificate, clock).

Each request is one short connection, bounded in time. Only status and head of a response are read.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection

from sidecar.core.settings.deployment import Origin
from sidecar.doctor.context import CheckContext, SidecarAddresses
from sidecar.doctor.findings import CheckKind, Finding

__all__ = ["ask", "reach_checks"]

CLOCK_SECONDS = 5.0
"""Seconds that two clocks may differ: an HTTP-date is whole seconds, a response takes some; beyond this, waits until a
date go wrong.
"""
FEW_FILES = 1024
"""Open files below which there is a warning: each exchange takes two, so connections are refused at some hundred of
them.
"""
UPSTREAMS_AT_ONCE = 8


def ask(
    address: SidecarAddresses, method: str, target: str, seconds: float, headers: dict[str, str] | None = None
) -> tuple[int, HTTPResponse, bytes]:
    """One request, past every proxy. Raises ``OSError`` or ``HTTPException``."""
    connection = HTTPConnection(address.host, address.port, timeout=seconds)
    try:
        connection.request(method, target, headers=headers or {})
        response = connection.getresponse()
        return response.status, response, response.read(1 << 20)
    finally:
        connection.close()


def _sidecar(around: CheckContext) -> Iterator[Finding]:
    address = around.proxy
    try:
        # A question that the sidecar answers by itself, whatever is mounted.
        _, response, _ = ask(address, "OPTIONS", "*", around.timeout_seconds)
    except HTTPException:
        yield _stranger(address)
        return
    except OSError as error:
        text = f"nothing answers at {address.url}: {why(error)}"
        fix = "start it (sidecar serve), or say --proxy where it is; a container has a loopback of its own"
        yield Finding(CheckKind.UNREACHABLE, address.url, text, fix)
        return
    if response.getheader("Sidecar") is None:
        yield _stranger(address)


def _stranger(address: SidecarAddresses) -> Finding:
    text = f"something answers at {address.url}, and it is not a sidecar"
    return Finding(
        CheckKind.NOT_A_SIDECAR, address.url, text, "find out what holds that port, and give the sidecar another"
    )


def _admin(around: CheckContext) -> Iterator[Finding]:
    address = around.admin
    try:
        status, _, text = ask(address, "GET", "/readyz?verbose", around.timeout_seconds)
        _, _, metrics = ask(address, "GET", "/metrics", around.timeout_seconds)
    except (OSError, HTTPException):
        yield Finding(
            CheckKind.NO_ADMIN,
            address.url,
            f"the admin port does not answer at {address.url}: readiness, reload and file limit were not looked at",
            "run the doctor where the admin port is reached, or say --admin where it is",
        )
        return
    if status != 200:
        said = " · ".join(line for line in text.decode("utf-8", "replace").splitlines() if not line.startswith("[+]"))
        yield Finding(
            CheckKind.NOT_READY, address.url, f"the sidecar takes no new requests: {said[:200]}", "wait, or restart it"
        )
    if _sample(metrics, "sidecar_config_last_reload_successful") == 0:
        yield Finding(
            CheckKind.RELOAD_FAILED,
            address.url,
            "the last reload failed: the sidecar runs on an older configuration than its files",
            "sidecar check shows every mistake; mend them, the next change is read by itself",
        )
    if _sample(metrics, "sidecar_shared_store_up") == 0:
        faults = re.findall(rb'^sidecar_shared_store_errors_total\{fault="(\w+)"\} [1-9]', metrics, re.MULTILINE)
        faulty = b", ".join(faults).decode() or "not reached yet"
        yield Finding(
            CheckKind.STORE_LOST,
            address.url,
            f"the shared store is not used ({faulty}): each replica goes on alone",
            "the sidecar's log says why (shared_store_lost); look at `shared`, at the store, and at the way there",
        )
    yield from _files(_sample(metrics, "process_max_fds"), "the sidecar")


def _sample(metrics: bytes, name: str) -> float | None:
    found = re.search(rb"^" + name.encode("ascii") + rb" ([0-9.e+]+)$", metrics, re.MULTILINE)
    return float(found[1]) if found else None


def _files(limit: float | None, whose: str) -> Iterator[Finding]:
    if limit is not None and limit < FEW_FILES:
        text = f"{whose} may open only {limit:.0f} files; each exchange under way needs two"
        yield Finding(CheckKind.FEW_FILES, whose, text, "ulimit -n 65536 before it starts; LimitNOFILE= in systemd")


def _own_files(around: CheckContext) -> Iterator[Finding]:
    yield from _files(around.file_limit, "a process started from here")


def _upstreams(around: CheckContext) -> Iterator[Finding]:
    origins = {upstream.origin: upstream.name for upstream in around.deployment.upstreams}
    with ThreadPoolExecutor(max_workers=UPSTREAMS_AT_ONCE) as pool:
        for found in pool.map(lambda pair: list(_origin(around, *pair)), origins.items()):
            yield from found


def _origin(around: CheckContext, origin: Origin, name: str) -> Iterator[Finding]:
    place = f"{origin.scheme}://{origin.authority}"
    try:
        socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        text = f"the name {origin.host} does not resolve here"
        yield Finding(
            CheckKind.UNKNOWN_NAME,
            name,
            text,
            "look at the spelling of `origin`, at /etc/resolv.conf and at the network policy",
        )
        return
    try:
        yield from _clock(around, name, *_date(around, origin))
    except ssl.SSLCertVerificationError as error:
        text = f"the certificate of {place} is refused: {error.verify_message}"
        fix = (
            "mend it there; for a private authority, name its PEM file as `ca_file`. Verification cannot be turned off"
        )
        yield Finding(CheckKind.CERTIFICATE, name, text, fix)
    except (OSError, HTTPException) as error:
        text = f"{place} cannot be reached from here: {why(error)}"
        yield Finding(
            CheckKind.ORIGIN_UNREACHABLE, name, text, "look at `origin`, at egress rules and at security groups"
        )


def _date(around: CheckContext, origin: Origin) -> tuple[str | None, float]:
    """The upstream's time, and ours (the middle of the question)."""
    seconds = around.timeout_seconds
    connection: HTTPConnection
    if origin.scheme == "https":
        context = ssl.create_default_context(cadata=origin.trust)
        connection = HTTPSConnection(origin.host, origin.port, timeout=seconds, context=context)
    else:
        connection = HTTPConnection(origin.host, origin.port, timeout=seconds)
    try:
        before = around.wall()
        connection.request("HEAD", origin.base_path or "/")
        said = connection.getresponse().getheader("Date")
        return said, (before + around.wall()) / 2
    finally:
        connection.close()


def _clock(around: CheckContext, name: str, said: str | None, here: float) -> Iterator[Finding]:
    try:
        there = parsedate_to_datetime(said).timestamp() if said else here
    except ValueError:
        return
    off = here - there
    if abs(off) > CLOCK_SECONDS:
        side = "ahead of" if off > 0 else "behind"
        text = f"the clock here is {abs(off):.0f} s {side} that of {name}: waits until a date go wrong by as much"
        yield Finding(CheckKind.CLOCK, name, text, "synchronise the clock (NTP); or `clock: server` at the wait source")


def why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return "TLS failed: what answers does not speak it"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "not an HTTP answer"


reach_checks = (_sidecar, _admin, _own_files, _upstreams)
