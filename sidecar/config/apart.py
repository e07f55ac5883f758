"""A configuration judged in a process of its own, so that the one that proxies never carries what judging takes.

Models and YAML cost a dozen MiB that are of no use once the values are there, and a hostile file can cost seconds
of computing: neither belongs beside a running loop. The other process is ``judge``; what crosses is plain frozen
values. This room imports neither pydantic nor yaml.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sidecar.config.problems import ConfigError, Problem
from sidecar.core.deployment import Deployment

__all__ = ["Judged", "Judging", "NotJudged"]


class NotJudged(Exception):
    """The other process did not come to an end; the text says how."""


@dataclass(frozen=True, slots=True)
class Judged:
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


class Judging:
    """One run of the other process. It works while the caller does something else; ``result`` waits for it."""

    def __init__(self, path: Path | None, overrides: Mapping[str, str]) -> None:
        question = json.dumps({"path": None if path is None else str(path), "overrides": dict(overrides)})
        self._process = subprocess.Popen(  # noqa: S603 - our own module, in our own interpreter
            [sys.executable, "-m", "sidecar.config.judge", question],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=os.environ,
        )

    def result(self) -> Judged:
        """Raises ``ConfigError`` with all that is wrong; ``NotJudged`` if the process was killed."""
        answer, _ = self._process.communicate()
        if self._process.returncode != 0:
            raise NotJudged(f"the configuration could not be judged: its process ended with {self._process.returncode}")
        found = pickle.loads(answer)  # noqa: S301 - written by our own child
        if isinstance(found, Judged):
            return found
        raise ConfigError(*found)
