"""The operator's door: health, metrics, the effective configuration and the page, on a port of their own."""

from __future__ import annotations

from sidecar.admin.door import make_admin, make_runner
from sidecar.admin.state import AdminState, Check, ReloadResult

__all__ = ["AdminState", "Check", "ReloadResult", "make_admin", "make_runner"]
