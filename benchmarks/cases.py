"""The cases of the comparison: which load, driven how, and what counts as its cost.

The list is the issue's. Parked exchanges are a case of their own kind, in ``parked``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.load import Load

__all__ = ["CASES", "PARKED", "Case", "chosen"]

PARKED = "parked"


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    kind: Literal["throughput", "steady", "newcomers", "parked"]
    load: Load
    seconds: float = 3.0
    rate: float = 0.0
    """Requests a second, for ``steady``."""
    per_mib: bool = False
    """Costs are told per MiB of body."""


CASES: tuple[Case, ...] = (
    Case("get", "small JSON GET, 32 connections", "throughput", Load("/small", 32), 4.0),
    Case("get-1", "small JSON GET, 1 connection", "throughput", Load("/small", 1)),
    Case("post", "POST of 2 KiB, 32 connections", "throughput", Load("/sink", 32, "POST", 2048), 4.0),
    Case("post-1", "POST of 2 KiB, 1 connection", "throughput", Load("/sink", 1, "POST", 2048)),
    Case("steady", "small JSON GET at 1,000 requests/s", "steady", Load("/small", 32), 5.0, 1000.0),
    Case(
        "1mib",
        "1 MiB response, 8 connections",
        "throughput",
        Load("/files/1mib", 8, response_bytes=1 << 20),
        per_mib=True,
    ),
    Case(
        "100mib",
        "100 MiB response, 2 connections",
        "throughput",
        Load("/files/100mib", 2, response_bytes=100 << 20),
        per_mib=True,
    ),
    Case(
        "upload",
        "10 MiB upload, 2 connections",
        "throughput",
        Load("/sink", 2, "POST", 10 << 20),
        per_mib=True,
    ),
    Case("flaky", "one answer in ten a 503, retried at once", "throughput", Load("/flaky", 32), 4.0),
    Case("tls", "small JSON GET over TLS, 32 connections", "throughput", Load("/tls/small", 32), 4.0),
    Case("tls-new", "each on a new TLS connection, 8 at a time", "throughput", Load("/tls/once", 8), 4.0),
    Case(
        "tls-1mib",
        "1 MiB response over TLS, 8 connections",
        "throughput",
        Load("/tls/files/1mib", 8, response_bytes=1 << 20),
        per_mib=True,
    ),
    Case(
        "tls-100mib",
        "100 MiB response over TLS, 2 connections",
        "throughput",
        Load("/tls/files/100mib", 2, response_bytes=100 << 20),
        per_mib=True,
    ),
    Case(
        "tls-upload",
        "10 MiB upload over TLS, 2 connections",
        "throughput",
        Load("/tls/sink", 2, "POST", 10 << 20),
        per_mib=True,
    ),
    Case(
        "tls-upload-1mib",
        "1 MiB upload over TLS, 8 connections",
        "throughput",
        Load("/tls/sink", 8, "POST", 1 << 20),
        per_mib=True,
    ),
    Case("newcomers", "a bystander during 100 new TLS connections", "newcomers", Load("/tls/once", 100)),
    Case(PARKED, "10,000 exchanges parked in a Retry-After wait", "parked", Load("/park", 10_000)),
)


def chosen(names: str) -> list[Case]:
    """The cases of a comma-separated list, all when it is empty. An unknown name is a ValueError."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = set(wanted) - {case.name for case in CASES}
    if unknown:
        there_are = ", ".join(case.name for case in CASES)
        raise ValueError(f"no case is called {', '.join(sorted(unknown))}; there are: {there_are}")
    return [case for case in CASES if not wanted or case.name in wanted]
