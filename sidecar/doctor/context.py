"""What a check may look at: the app's environment, the configuration, the sidecar's addresses, a clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sidecar.core.settings.deployment import Deployment

__all__ = ["CheckContext", "SidecarAddresses"]


class SidecarAddresses(NamedTuple):
    """An address that answers HTTP."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class CheckContext:
    environ: Mapping[str, str]
    deployment: Deployment
    proxy: SidecarAddresses
    """The address at which the app reaches the sidecar."""
    admin: SidecarAddresses
    runtime: str | None
    """A runtime of ``client_setup.runtimes``, if the app's is known."""
    wall: Callable[[], float]
    """Seconds since the epoch."""
    timeout_seconds: float
    """Seconds for each question."""
    file_limit: int
    """Files that this process may open."""
    client: tuple[str, ...] = ()
    """A command of the app that requests the URL standing for ``{}``, to count what it sends."""
