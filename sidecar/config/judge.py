"""The process that judges one configuration for ``apart`` and ends: values or problems, pickled, on its output."""

from __future__ import annotations

import gc
import json
import os
import pickle
import sys
from pathlib import Path

from sidecar.config.apart import Judged
from sidecar.config.load import ConfigError, load_deployment

__all__ = ["judged"]


def judged(question: str) -> bytes:
    """The answer, pickled."""
    # Of what is imported nothing will go; of what a hostile file makes, something may.
    gc.freeze()
    gc.enable()
    asked = json.loads(question)
    path = None if asked["path"] is None else Path(asked["path"])
    answer: object
    try:
        loaded = load_deployment(path, environ=os.environ, overrides=asked["overrides"])
        answer = Judged(loaded.deployment, loaded.warnings, loaded.files, loaded.digest, loaded.text())
    except ConfigError as error:
        answer = (error.problems, error.files, error.digest)
    return pickle.dumps(answer)


if __name__ == "__main__":
    sys.stdout.buffer.write(judged(sys.argv[1]))
