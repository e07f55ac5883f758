"""What crosses from the process that validates a configuration to the one that serves: plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sidecar.config.text.problems import Problem
from sidecar.core.settings.deployment import Deployment

__all__ = ["ValidatedConfig"]


@dataclass(frozen=True, slots=True)
class ValidatedConfig:
    """A sound configuration, as the running process needs it."""

    deployment: Deployment
    warnings: tuple[Problem, ...]
    files: tuple[Path, ...]
    """Every file that was read or looked for: what a watcher watches."""
    digest: str
    config_text: str

    def text(self) -> str:
        """What is in force, as YAML with the origin of each value."""
        return self.config_text
