"""All checks, in the order in which a person would look: the nearest cause first."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sidecar.doctor.context import CheckContext
from sidecar.doctor.findings import Finding
from sidecar.doctor.layers import layer_checks
from sidecar.doctor.reach import reach_checks
from sidecar.doctor.trust import trust_checks
from sidecar.doctor.variables import variable_checks

__all__ = ["examine"]

CHECKS: tuple[Callable[[CheckContext], Iterator[Finding]], ...] = (
    *variable_checks,
    *reach_checks,
    *trust_checks,
    *layer_checks,
)


def examine(around: CheckContext) -> list[Finding]:
    """Everything that is wrong."""
    return [finding for check in CHECKS for finding in check(around)]
