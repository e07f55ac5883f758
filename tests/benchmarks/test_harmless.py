"""Do no harm, the commands: a few seeds, one named model, and the same over real sockets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.harmless import judged, shipped_policy
from benchmarks.storms.harmless import LONGEST_SECONDS, QUICK_REQUESTS, quicker, random_models, stand
from sidecar.simulate.models import Hint, Model, Refusal, Traffic

ROOT = Path(__file__).resolve().parents[2]


def test_a_seed_is_judged_the_same_every_time() -> None:
    assert judged(5) == judged(5)


def test_the_command_tells_one_seed() -> None:
    command = [sys.executable, "-m", "benchmarks.harmless", "--one", "5", "--shrink", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert "seed 5: sidecar" in done.stdout
    assert "| plain" in done.stdout
    assert "1 models" in done.stdout


def test_over_sockets_both_sides_meet_the_same_dice(tmp_path: Path) -> None:
    model = Model(Traffic(rate=100, requests=60), refusals=(Refusal(share=0.1, hint=Hint("none")),))
    found = stand("few", model, shipped_policy(), tmp_path)
    assert sum(found.pair.sidecar.good) == sum(found.pair.plain.good) == 60
    assert found.pair.sidecar.sends == found.pair.plain.sends > 60
    assert found.pair.plain.causes["ok"] == 60


def test_what_is_chosen_for_sockets_is_small() -> None:
    chosen = random_models(2)
    assert len(chosen) == 2
    assert all(quicker(model).traffic.requests <= QUICK_REQUESTS for model in chosen.values())
    assert LONGEST_SECONDS < 60
