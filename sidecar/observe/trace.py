"""W3C Trace Context: reading and making the header ``traceparent`` (https://www.w3.org/TR/trace-context/ section 3.2).

It keeps a trace and gives every attempt a span id of its own. It exports nothing; random bits are an argument.
``tracestate`` is passed on as it is. Counterpart: ``proxy.exchange.prepare``, which sends what this makes.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TraceParent", "child", "create", "parse"]

_LENGTH = 55  # 2 + 1 + 32 + 1 + 16 + 1 + 2
_ALPHABET = "0123456789abcdef-"
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16
# Sampled (1) and random (2) are passed on; the other flags must be sent as zero (section 3.2.2.5).
_SENT_FLAGS = {digit: f"0{int(digit, 16) & 0b11}" for digit in "0123456789abcdef"}


@dataclass(frozen=True, slots=True)
class TraceParent:
    trace_id: str
    """32 lower-case hexadecimal digits, not all zero."""
    parent_id: str
    """16 lower-case hexadecimal digits, not all zero."""
    flags: int
    """The eight flags, as they came."""


def parse(header: str) -> TraceParent | None:
    """The parts of a ``traceparent``, or None if it is invalid and the trace must start anew.

    Version ff is invalid. Of a version above 00 the known fields are read, and more may follow after a
    dash (section 4.3).
    """
    if not _is_valid(header):
        return None
    return TraceParent(header[3:35], header[36:52], int(header[53:55], 16))


def child(header: str, random_bits: int) -> str | None:
    """The same trace and flags with a new span id from 64 ``random_bits``; None if ``header`` is invalid.

    Always written as version 00, the highest known here (section 4.3).
    """
    if not _is_valid(header):
        return None
    return f"00-{header[3:35]}-{_digits(random_bits, 64)}-{_SENT_FLAGS[header[54]]}"


def create(random_bits: int) -> str:
    """A new trace from 192 ``random_bits``: not sampled, its id random (section 3.2.2.5)."""
    return f"00-{_digits(random_bits >> 64, 128)}-{_digits(random_bits, 64)}-02"


def _is_valid(header: str) -> bool:
    if len(header) != _LENGTH and not _is_longer(header):
        return False
    known = header[:_LENGTH]
    return (
        not known.strip(_ALPHABET)  # whatever stops it is foreign
        and known[2] == known[35] == known[52] == "-"
        and known.count("-") == 3
        and known[3:35] != _NO_TRACE
        and known[36:52] != _NO_SPAN
        and known[:2] != "ff"
    )


def _is_longer(header: str) -> bool:
    """Whether more may follow: only after a dash, and only in a version above 00."""
    return header[_LENGTH : _LENGTH + 1] == "-" and header[:2] != "00"


def _digits(random_bits: int, size: int) -> str:
    """``size`` low bits in hexadecimal; all zero is not an id, so it becomes one."""
    value = random_bits & ((1 << size) - 1)
    return f"{value or 1:0{size // 4}x}"
