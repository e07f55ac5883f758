"""A configuration judged in another process is judged alike; one that is killed is told so."""

from __future__ import annotations

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.config.apart import Judging, NotJudged
from sidecar.config.load import ConfigError, load_deployment

ROOT = Path(__file__).resolve().parents[2]
GOOD = Path(__file__).parent / "good" / "site.yaml"
BAD = Path(__file__).parent / "bad"


@pytest.fixture(autouse=True)
def _from_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process finds the package by the environment, wherever it was started."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.parametrize("path", [GOOD, ROOT / "config" / "sidecar.yaml", None], ids=["good", "shipped", "built-in"])
def test_the_same_deployment_comes_out(path: Path | None) -> None:
    overrides = {"log.format": "json"}
    judged = Judging(path, overrides).result()
    loaded = load_deployment(path, environ=os.environ, overrides=overrides)
    assert dataclasses.asdict(judged.deployment) == dataclasses.asdict(loaded.deployment)
    assert judged.deployment.logging.format == "json"
    assert (judged.warnings, judged.files, judged.digest) == (loaded.warnings, loaded.files, loaded.digest)
    assert judged.text() == loaded.text()


def test_variables_of_this_process_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDECAR_LOG_SAMPLE", "0.5")
    assert Judging(None, {}).result().deployment.logging.sample == 0.5


@pytest.mark.parametrize("name", ["not-yaml", "unknown-key", "missing"])
def test_a_broken_file_is_told_in_the_same_words(name: str, tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    if name != "missing":
        path.write_text({"not-yaml": "a: [1,\n", "unknown-key": "lissen: 1\nupstreams: [{}]\n"}[name])
    with pytest.raises(ConfigError) as here:
        load_deployment(path, environ=os.environ)
    with pytest.raises(ConfigError) as there:
        Judging(path, {}).result()
    assert str(there.value) == str(here.value)
    assert (there.value.files, there.value.digest) == (here.value.files, here.value.digest)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_killed_is_no_judgement(how: signal.Signals, tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    os.mkfifo(path)
    judging = Judging(path, {})  # it waits for a writer that never comes
    judging._process.send_signal(how)
    with pytest.raises(NotJudged, match="ended with"):
        judging.result()


def test_asking_for_a_judgement_brings_neither_models_nor_yaml() -> None:
    code = "import sys, sidecar.config.apart; print(sorted({'yaml', 'pydantic', 'pickle'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "['pickle']", done.stderr


def test_a_judgement_crosses_as_plain_values() -> None:
    judged = Judging(None, {}).result()
    assert pickle.loads(pickle.dumps(judged)) == judged  # noqa: S301 - our own bytes
