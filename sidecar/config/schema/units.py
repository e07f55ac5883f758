"""How durations, sizes and rates are written: ``250ms 2s 5m 1h``, ``64KiB 10KB``, ``10/s``. Both directions.

A bare number is refused, because its unit cannot be seen. This module knows no key and no limit of a key. Counterpart:
``fields``.
"""

from __future__ import annotations

import re

__all__ = ["parse_duration", "parse_rate", "parse_size", "write_duration", "write_size"]

_NUMBER = r"(?P<number>[0-9]{1,15}(\.[0-9]{1,9})?)"
_DURATION = re.compile(_NUMBER + r"(?P<unit>ms|s|m|h)", re.ASCII)
_SIZE = re.compile(_NUMBER + r"(?P<unit>B|KB|MB|GB|KiB|MiB|GiB)", re.ASCII)
_RATE = re.compile(_NUMBER + r"/(?P<unit>s|m|h)", re.ASCII)

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
BYTES = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

DURATION_PATTERN = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h)$"
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)?(B|KB|MB|GB|KiB|MiB|GiB)$"


def parse_duration(text: str) -> float | None:
    """``1.5s`` -> seconds; None if it is not written so."""
    match = _DURATION.fullmatch(text)
    if match is None:
        return None
    number = float(match["number"])
    return number / 1000 if match["unit"] == "ms" else number * SECONDS[match["unit"]]


def parse_size(text: str) -> int | None:
    """``64KiB`` -> bytes; None if it is not written so."""
    match = _SIZE.fullmatch(text)
    return None if match is None else round(float(match["number"]) * BYTES[match["unit"]])


def parse_rate(text: str) -> float | None:
    """``10/s`` -> per second; None if it is not written so."""
    match = _RATE.fullmatch(text)
    return None if match is None else float(match["number"]) / SECONDS[match["unit"]]


def write_duration(seconds: float) -> str:
    """The shortest way to write it: ``0.25`` -> ``250ms``, ``60`` -> ``60s``, ``3600`` -> ``1h``."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:.10g}ms"
    for unit, least in (("h", 3600), ("m", 120)):
        if seconds >= least and seconds % SECONDS[unit] == 0:
            return f"{seconds / SECONDS[unit]:.10g}{unit}"
    return f"{seconds:.10g}s"


def write_size(size_bytes: int) -> str:
    """The shortest exact way to write it: ``65536`` -> ``64KiB``."""
    for unit in ("GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % BYTES[unit] == 0:
            return f"{size_bytes // BYTES[unit]}{unit}"
    return f"{size_bytes}B"
