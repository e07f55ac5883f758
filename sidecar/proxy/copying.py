"""A copy of a failing exchange's bodies, as they pass: only for policies that keep them for reports.

Bounded; it delays nothing and changes nothing. What becomes of the copy is ``reporting``'s.
"""

from __future__ import annotations

from sidecar.core.policy import Policy
from sidecar.core.words import FailureKind
from sidecar.observe.redact import BODY_BYTES
from sidecar.proxy.front import AppConnection
from sidecar.wire.heads import ResponseMessage

__all__ = ["Copy", "copies", "copy_of"]


class Copy:
    """Between a connection and the app: hands on every byte, and keeps the first of them."""

    __slots__ = ("_app", "_pieces", "_size")

    def __init__(self, app: AppConnection) -> None:
        self._app = app
        self._pieces: list[bytes] = []
        self._size = 0

    @property
    def body(self) -> bytes:
        """All of it; nothing if it was too large."""
        return b"".join(self._pieces)

    def take(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= BODY_BYTES:
            self._pieces.append(data)
        else:
            self._pieces.clear()
        self._app.take(data)

    def end(self) -> None:
        self._app.end()

    def broke(self, kind: FailureKind) -> None:
        self._app.broke(kind)


def copies(policy: Policy, status: int | None) -> bool:
    """Whether the bodies of an exchange with this answer are kept."""
    return policy.report is not None and policy.report.bodies and status is not None and status >= 400


def copy_of(app: AppConnection, policy: Policy, message: ResponseMessage) -> Copy | None:
    """A copying sink for this answer, if it is to be kept."""
    return Copy(app) if copies(policy, message.code) else None
