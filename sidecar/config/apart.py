"""A configuration judged in a process of its own, so that the one that proxies never carries what judging takes.

Models and YAML cost a dozen MiB that are of no use once the values are there, and a hostile file can cost seconds
of computing: neither belongs beside a running loop. The other process is ``judge``; what crosses is plain frozen
values. This room imports neither pydantic nor yaml.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from sidecar.config.problems import ConfigError, Problem
from sidecar.core.deployment import Deployment

__all__ = ["ForkedJudging", "Judged", "Judging", "NotJudged", "first_judging"]


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
        self._process = subprocess.Popen(  # noqa: S603 - our own module, in our own interpreter
            [sys.executable, "-m", "sidecar.config.judge", _question(path, overrides)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=os.environ,
        )

    def result(self) -> Judged:
        """Raises ``ConfigError`` with all that is wrong; ``NotJudged`` if the process was killed."""
        answer, code = self._ended()
        if code != 0:
            raise NotJudged(f"the configuration could not be judged: its process ended with {code}")
        found = pickle.loads(answer)  # noqa: S301 - written by our own child
        if isinstance(found, Judged):
            return found
        raise ConfigError(*found)

    def _ended(self) -> tuple[bytes, int]:
        """What it wrote, and its exit code."""
        answer, _ = self._process.communicate()
        return answer, self._process.returncode


class ForkedJudging(Judging):
    """The same in a copy of this process, which starts with what is imported here already (``can_fork``)."""

    def __init__(self, path: Path | None, overrides: Mapping[str, str]) -> None:
        question = _question(path, overrides)
        self._answer, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _judge_and_end(question, writing)
        os.close(writing)

    def _ended(self) -> tuple[bytes, int]:
        with open(self._answer, "rb") as reading:
            answer = reading.read()
        _, status = os.waitpid(self.pid, 0)
        return answer, os.waitstatus_to_exitcode(status)


def can_fork() -> bool:
    """Only a process with a single thread may be copied: a lock that another one holds would stay locked for ever."""
    return sys.platform == "linux" and threading.active_count() == 1


def first_judging(path: Path | None, overrides: Mapping[str, str]) -> Judging:
    """The quickest way, for a process that has only just begun."""
    return ForkedJudging(path, overrides) if can_fork() else Judging(path, overrides)


def _question(path: Path | None, overrides: Mapping[str, str]) -> str:
    return json.dumps({"path": None if path is None else str(path), "overrides": dict(overrides)})


def _judge_and_end(question: str, writing: int) -> NoReturn:
    """The life of the copy. It leaves nothing of its parent's behind: no handler runs, no buffer is written twice."""
    code = 1
    try:
        judge = importlib.import_module("sidecar.config.judge")
        with open(writing, "wb") as answer:
            answer.write(judge.judged(question))
        code = 0
    except BrokenPipeError:
        pass  # nobody waits for it any more
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code)
