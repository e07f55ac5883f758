"""The process that validates one configuration for ``child_process`` and ends; values or problems go out pickled."""

from __future__ import annotations

import gc
import json
import os
import pickle
import sys
from pathlib import Path

from sidecar.config.load import ConfigError, load_deployment
from sidecar.config.validated import ValidatedConfig

__all__ = ["judged"]


def judged(question: str) -> bytes:
    """The answer, pickled."""
    # Imported objects stay; of those that a hostile file makes, some may go.
    gc.freeze()
    gc.enable()
    asked = json.loads(question)
    path = None if asked["path"] is None else Path(asked["path"])
    answer: object
    try:
        loaded = load_deployment(path, environ=os.environ, overrides=asked["overrides"])
        answer = ValidatedConfig(loaded.deployment, loaded.warnings, loaded.files, loaded.digest, loaded.text())
    except ConfigError as error:
        answer = (error.problems, error.files, error.digest)
    return pickle.dumps(answer)


def _main() -> None:
    answer = judged(sys.argv[1])
    try:
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # The sidecar has ended meanwhile. Buffers are flushed again at exit: send them to the null device.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    _main()
