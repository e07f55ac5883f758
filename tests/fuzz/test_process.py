"""A short run of the fuzz over real sockets; ``python -m tests.fuzz.process`` runs longer ones."""

from __future__ import annotations

import os
from pathlib import Path

from tests.fuzz.process import fuzz


async def test_what_must_hold_holds_for_a_process_that_is_stopped_killed_and_reloaded(tmp_path: Path) -> None:
    run = await fuzz(3, 4.0, tmp_path, os.environ.get("FUZZ_SIDECAR", ""))
    assert not run.faults, run.faults
    assert run.said["stop"] + run.said["kill"] > 0
    assert sum(run.applied.values()) > 50
