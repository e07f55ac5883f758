"""The ``OTEL_*`` variables that say whether spans are made, of which exchanges, and how many are kept for export.

Names and defaults are those of the OpenTelemetry specification (SDK environment variables); the exporter's own
(``OTEL_EXPORTER_OTLP_*``) are read by the exporter itself. A value that is not understood is
told, and the default holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sidecar.observe.trace import Sampler

__all__ = ["TraceSettings", "trace_settings"]

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SAMPLERS: Final = {
    "always_on": (1.0, False),
    "always_off": (0.0, False),
    "traceidratio": (None, False),
    "parentbased_always_on": (1.0, True),
    "parentbased_always_off": (0.0, True),
    "parentbased_traceidratio": (None, True),
}
"""Name → the share of traces (None: the argument) and whether a parent's decision comes first."""
DEFAULT_SAMPLER: Final = "parentbased_always_on"


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """What the variables ask for."""

    sampler: Sampler
    queue: int = 2048
    """Exchanges that wait for export, at most (``OTEL_BSP_MAX_QUEUE_SIZE``)."""
    batch: int = 512
    """Exchanges exported at once, at most (``OTEL_BSP_MAX_EXPORT_BATCH_SIZE``)."""
    delay_seconds: float = 5.0
    """Seconds between two exports (``OTEL_BSP_SCHEDULE_DELAY``, milliseconds)."""
    complaints: tuple[str, ...] = ()
    """Variables whose value is not understood, in words."""


def trace_settings(environ: Mapping[str, str]) -> TraceSettings | None:
    """None where no spans are asked for: no endpoint and no exporter is named, or the SDK is switched off."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if _is_true(environ.get("OTEL_SDK_DISABLED", "")) or exporter == "none":
        return None
    if exporter not in ("", "otlp"):
        return _Reading(environ).settings(f"OTEL_TRACES_EXPORTER is `{exporter}`: only otlp is known")
    if not exporter and not any(environ.get(name, "").strip() for name in ENDPOINTS):
        return None
    return _Reading(environ).settings()


class _Reading:
    """One pass over the variables, with what is wrong."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._complaints: list[str] = []

    def settings(self, *complaints: str) -> TraceSettings:
        self._complaints += complaints
        protocol = next((self._environ[name] for name in PROTOCOLS if self._environ.get(name)), "http/protobuf")
        if protocol != "http/protobuf":
            self._complaints.append(f"the protocol `{protocol}` is not known: spans go by http/protobuf")
        sampler = self._sampler()
        queue = int(self._number("OTEL_BSP_MAX_QUEUE_SIZE", 2048, 1, 1_000_000))
        batch = int(self._number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, 1, 1_000_000))
        delay = self._number("OTEL_BSP_SCHEDULE_DELAY", 5000, 0, 3_600_000) / 1000
        return TraceSettings(sampler, queue, min(batch, queue), delay, tuple(self._complaints))

    def _sampler(self) -> Sampler:
        name = self._environ.get("OTEL_TRACES_SAMPLER", "").strip().lower() or DEFAULT_SAMPLER
        if name not in SAMPLERS:
            self._complaints.append(f"OTEL_TRACES_SAMPLER is `{name}`: known are {', '.join(SAMPLERS)}")
            name = DEFAULT_SAMPLER
        share, follows_parent = SAMPLERS[name]
        if share is None:
            share = self._number("OTEL_TRACES_SAMPLER_ARG", 1.0, 0.0, 1.0)
        return Sampler(share, follows_parent=follows_parent)

    def _number(self, name: str, default: float, least: float, most: float) -> float:
        text = self._environ.get(name, "").strip()
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not least <= value <= most:
            self._complaints.append(f"{name} is no number from {least:g} to {most:g}: {default:g} holds")
            return default
        return value


def _is_true(text: str) -> bool:
    return text.strip().lower() == "true"
