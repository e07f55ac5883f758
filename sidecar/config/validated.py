"""What crosses from the process that validates a configuration to the one that serves: plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sidecar.config.text.problems import Problem
from sidecar.core.dryrun.compare import Comparison, Situation
from sidecar.core.settings.deployment import Deployment

__all__ = ["ConfigInForce", "ValidatedConfig"]


@dataclass(frozen=True, slots=True)
class ConfigInForce:
    """What a new configuration is compared with."""

    deployment: Deployment
    settings: dict[str, tuple[str, ...]]
    """See ``show.changes``."""
    situations: tuple[Situation, ...] = ()
    """Recent exchanges, to be judged by both."""


@dataclass(frozen=True, slots=True)
class ValidatedConfig:
    """A sound configuration, as the running process needs it."""

    deployment: Deployment
    warnings: tuple[Problem, ...]
    files: tuple[Path, ...]
    """Every file that was read or looked for: what a watcher watches."""
    digest: str
    config_text: str
    settings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """See ``show.changes``."""
    comparison: Comparison | None = None
    """What it changes; None at the first start, and where it could not be told."""

    def text(self) -> str:
        """What is in force, as YAML with the origin of each value."""
        return self.config_text
