"""The process that validates one configuration for ``child_process`` and ends; values or problems go out pickled."""

from __future__ import annotations

import gc
import json
import os
import pickle
import sys
import traceback
from pathlib import Path
from typing import Final

from sidecar.config.load import ConfigError, Loaded, load_deployment
from sidecar.config.show.changes import Settings, changed_settings, settings_of
from sidecar.config.validated import ConfigInForce, ValidatedConfig
from sidecar.core.dryrun.compare import Comparison, compare

__all__ = ["judged"]

COMPARE_NICENESS: Final = 10
"""The comparison is for people to read; the process that serves may share this core, and goes first."""


def judged(question: str) -> bytes:
    """The answer, pickled. Where the question says so, the configuration in force is read from standard input."""
    # Imported objects stay; of those that a hostile file makes, some may go.
    gc.freeze()
    gc.enable()
    asked = json.loads(question)
    path = None if asked["path"] is None else Path(asked["path"])
    answer: object
    try:
        loaded = load_deployment(path, environ=os.environ, overrides=asked["overrides"])
        settings = settings_of(loaded.site, loaded.chains)
        comparison = _compared(loaded, settings) if asked.get("compares") else None
        answer = ValidatedConfig(
            loaded.deployment, loaded.warnings, loaded.files, loaded.digest, loaded.text(), settings, comparison
        )
    except ConfigError as error:
        answer = (error.problems, error.files, error.digest)
    return pickle.dumps(answer)


def _compared(loaded: Loaded, settings: Settings) -> Comparison | None:
    """What the new configuration changes; None if that cannot be told: it is sound, and nothing else may stop it."""
    try:
        os.nice(COMPARE_NICENESS)
        known: ConfigInForce = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by our own parent
        changes = changed_settings(known.settings, settings)
        return compare(known.deployment, loaded.deployment, changes, known.situations)
    except Exception:
        traceback.print_exc()
        return None


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
