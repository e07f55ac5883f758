"""``sidecar serve``, many times over: a process that has everything imported, and forks a new life for each line.

    python -m tests.support.lives sidecar.yaml

Each line on its standard input starts one; its process id is the answer. A life that is over is reaped before the next
begins. For tests that kill often: a fork takes milliseconds, an interpreter half a second.
"""

from __future__ import annotations

import contextlib
import os
import sys

import sidecar.cli.serve
from sidecar.cli.main import main

__all__: list[str] = []


def lives(path: str) -> None:
    previous = 0
    for _ in sys.stdin:
        if previous:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(previous, 0)
        previous = os.fork()
        if previous == 0:
            os.close(0)
            main(["serve", "-c", path])
        print(previous, flush=True)  # noqa: T201 - that is its protocol


if __name__ == "__main__":
    assert sidecar.cli.serve.command is not None
    lives(sys.argv[1])
