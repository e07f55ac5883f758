"""A configuration validated in a process of its own, so that the serving one never loads pydantic and yaml.

Models and YAML cost a dozen MiB that are of no use once the values exist, and a hostile file can cost seconds of
computing. Only plain frozen values (``validated``) come back. Counterpart: ``child_main``.
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
from pathlib import Path
from typing import NoReturn

from sidecar.config.text.problems import ConfigError
from sidecar.config.validated import ConfigInForce, ValidatedConfig

__all__ = ["ConfigProcess", "ConfigProcessFailed", "ForkedConfigProcess", "first_config_process"]


class ConfigProcessFailed(Exception):
    """The other process ended without a result; the text says how."""


class ConfigProcess:
    """One run of the other process, beside the caller; ``result`` waits for it."""

    def __init__(self, path: Path | None, overrides: Mapping[str, str], before: ConfigInForce | None = None) -> None:
        """``before``: the configuration in force, which the new one is compared with."""
        self._before = None if before is None else pickle.dumps(before)
        self._process = subprocess.Popen(  # noqa: S603 - our own module, in our own interpreter
            [
                sys.executable,
                "-m",
                "sidecar.config.child_main",
                _question(path, overrides, compares=before is not None),
            ],
            stdin=subprocess.DEVNULL if before is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ,
        )

    def result(self) -> ValidatedConfig:
        """The result. Raises ``ConfigError`` with all problems; ``ConfigProcessFailed`` if the process was killed."""
        answer, code = self._ended()
        if code != 0:
            raise ConfigProcessFailed(f"the configuration could not be judged: its process ended with {code}")
        found = pickle.loads(answer)  # noqa: S301 - written by our own child
        if isinstance(found, ValidatedConfig):
            return found
        raise ConfigError(*found)

    def _ended(self) -> tuple[bytes, int]:
        """Its output, and its exit code."""
        answer, _ = self._process.communicate(self._before)
        return answer, self._process.returncode


class ForkedConfigProcess(ConfigProcess):
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
    """Only a process with a single thread may be forked: a lock that another thread holds would stay locked for
    ever.
    """
    return sys.platform == "linux" and threading.active_count() == 1


def first_config_process(path: Path | None, overrides: Mapping[str, str]) -> ConfigProcess:
    """The quickest way, for a process that has just started."""
    return ForkedConfigProcess(path, overrides) if can_fork() else ConfigProcess(path, overrides)


def _question(path: Path | None, overrides: Mapping[str, str], *, compares: bool = False) -> str:
    shown = None if path is None else str(path)
    return json.dumps({"path": shown, "overrides": dict(overrides), "compares": compares})


def _judge_and_end(question: str, writing: int) -> NoReturn:
    """Run in the forked copy. No handler of its parent runs, no buffer is written twice."""
    code = 1
    try:
        judge = importlib.import_module("sidecar.config.child_main")
        with open(writing, "wb") as answer:
            answer.write(judge.judged(question))
        code = 0
    except BrokenPipeError:
        pass  # The parent has ended: no reader is left.
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code)
