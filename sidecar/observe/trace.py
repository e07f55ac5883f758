"""W3C Trace Context: reading and making the header ``traceparent`` (https://www.w3.org/TR/trace-context/ section 3.2).

It keeps a trace and gives every attempt a span id of its own. It exports nothing; random bits are an argument. Where
spans are exported (``sidecar.tracing``), ``SpanIds`` are the ids that go upstream and those of the spans.
``tracestate`` is passed on as it is. Counterpart: ``proxy.exchange.prepare``, which sends what this makes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["Sampler", "SpanIds", "TraceParent", "child", "create", "parse"]

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


_SAMPLED: Final = 0b01
_RANDOM: Final = 0b10
_SPAN_MASK: Final = (1 << 64) - 1


class SpanIds:
    """The ids of one exchange's spans: consecutive numbers from a random one."""

    __slots__ = ("_first", "is_sampled", "parent_id", "random_flag", "trace_id")

    def __init__(self, trace_id: str, parent_id: str, first: int, *, is_sampled: bool, random_flag: int) -> None:
        self.trace_id = trace_id
        self.parent_id = parent_id
        """The span of the app that asked; empty: the trace begins here."""
        self._first = first
        self.is_sampled = is_sampled
        """Whether the spans are exported."""
        self.random_flag = random_flag

    def span_id(self, number: int) -> str:
        """0: the exchange; n: attempt n; negative numbers: waits."""
        return f"{(self._first + number) & _SPAN_MASK or _SPAN_MASK:016x}"

    def header(self, number: int) -> str:
        """The ``traceparent`` of attempt ``number``."""
        flags = self.random_flag | (_SAMPLED if self.is_sampled else 0)
        return f"00-{self.trace_id}-{self.span_id(number)}-{flags:02x}"


class Sampler:
    """Which traces are exported: a share of those that begin here, by their id, so that every service agrees
    (OpenTelemetry's ``TraceIdRatioBased``); of the others those that their parent sampled, if it follows parents.
    """

    __slots__ = ("_bound", "_follows_parent")

    def __init__(self, share: float = 1.0, *, follows_parent: bool = True) -> None:
        self._bound = round(share * (1 << 64))
        self._follows_parent = follows_parent

    def begin(self, given: str | None, random_bits: int) -> SpanIds:
        """The ids of an exchange. ``given``: the app's ``traceparent``; what is invalid begins a new trace (section
        3.2.2). ``random_bits``: 192 of them.
        """
        parent = None if given is None else parse(given)
        if parent is None:
            trace_id = _digits(random_bits >> 64, 128)
            sampled = (int(trace_id, 16) & _SPAN_MASK) < self._bound
            return SpanIds(trace_id, "", random_bits & _SPAN_MASK, is_sampled=sampled, random_flag=_RANDOM)
        if self._follows_parent:
            sampled = bool(parent.flags & _SAMPLED)
        else:
            sampled = (int(parent.trace_id, 16) & _SPAN_MASK) < self._bound
        flag = parent.flags & _RANDOM
        return SpanIds(
            parent.trace_id, parent.parent_id, random_bits & _SPAN_MASK, is_sampled=sampled, random_flag=flag
        )


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
