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

from sidecar.config.child_process import ConfigProcess, ConfigProcessFailed
from sidecar.config.load import ConfigError, load_deployment

ROOT = Path(__file__).resolve().parents[2]
GOOD = Path(__file__).parent / "good" / "site.yaml"
BAD = Path(__file__).parent / "bad"


def alone(code: str) -> str:
    """What the code prints in a fresh process, which has one thread: it may be copied, where pytest's may not."""
    given = "import os, signal, sys, threading\nfrom pathlib import Path\nfrom sidecar.config.child_process import *\n"
    done = subprocess.run([sys.executable, "-c", given + code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def _from_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process finds the package by the environment, wherever it was started."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.parametrize("path", [GOOD, ROOT / "config" / "sidecar.yaml", None], ids=["good", "shipped", "built-in"])
def test_the_same_deployment_comes_out(path: Path | None) -> None:
    overrides = {"log.format": "json"}
    judged = ConfigProcess(path, overrides).result()
    loaded = load_deployment(path, environ=os.environ, overrides=overrides)
    assert dataclasses.asdict(judged.deployment) == dataclasses.asdict(loaded.deployment)
    assert judged.deployment.logging.format == "json"
    assert (judged.warnings, judged.files, judged.digest) == (loaded.warnings, loaded.files, loaded.digest)
    assert judged.text() == loaded.text()


def test_variables_of_this_process_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDECAR_LOG_SAMPLE", "0.5")
    assert ConfigProcess(None, {}).result().deployment.logging.sample == 0.5


def test_a_process_whose_asker_has_ended_says_nothing() -> None:
    asked = subprocess.Popen(
        [sys.executable, "-m", "sidecar.config.child_main", '{"path": null, "overrides": {}}'],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert asked.stdout is not None
    assert asked.stderr is not None
    asked.stdout.close()
    with asked.stderr as said:
        assert said.read() == b""
    assert asked.wait() == 0


@pytest.mark.parametrize("name", ["not-yaml", "unknown-key", "missing"])
def test_a_broken_file_is_told_in_the_same_words(name: str, tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    if name != "missing":
        path.write_text({"not-yaml": "a: [1,\n", "unknown-key": "lissen: 1\nupstreams: [{}]\n"}[name])
    with pytest.raises(ConfigError) as here:
        load_deployment(path, environ=os.environ)
    with pytest.raises(ConfigError) as there:
        ConfigProcess(path, {}).result()
    assert str(there.value) == str(here.value)
    assert (there.value.files, there.value.digest) == (here.value.files, here.value.digest)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_killed_is_no_judgement(how: signal.Signals, tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    os.mkfifo(path)
    judging = ConfigProcess(path, {})  # it waits for a writer that never comes
    judging._process.send_signal(how)
    with pytest.raises(ConfigProcessFailed, match="ended with"):
        judging.result()


def test_asking_for_a_judgement_brings_neither_models_nor_yaml() -> None:
    code = "import sys, sidecar.config.child_process; print(sorted({'yaml', 'pydantic', 'pickle'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "['pickle']", done.stderr


def test_a_judgement_crosses_as_plain_values() -> None:
    judged = ConfigProcess(None, {}).result()
    assert pickle.loads(pickle.dumps(judged)) == judged  # noqa: S301 - our own bytes


@pytest.mark.parametrize("path", [GOOD, None], ids=["good", "built-in"])
def test_a_copy_of_a_young_process_judges_alike(path: Path | None) -> None:
    where = f"Path({str(path)!r})" if path is not None else "None"
    said = alone(
        f"first = first_config_process({where}, {{'log.format': 'json'}})\n"
        f"second = ConfigProcess({where}, {{'log.format': 'json'}})\n"
        "print(type(first).__name__, first.result() == second.result(), 'pydantic' in sys.modules)"
    )
    assert said == "ForkedConfigProcess True False"


def test_a_copy_tells_what_is_wrong_in_the_same_words(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    path.write_text("lissen: 1\nupstreams: [{}]\n")
    with pytest.raises(ConfigError) as here:
        load_deployment(path, environ=os.environ)
    code = "from sidecar.config.text.problems import ConfigError\n"
    code += f"try: first_config_process(Path({str(path)!r}), {{}}).result()\nexcept ConfigError as error: print(error)"
    assert alone(code) == str(here.value)


def test_a_copy_that_is_killed_is_no_judgement(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    os.mkfifo(path)
    said = alone(
        f"judging = first_config_process(Path({str(path)!r}), {{}})\n"
        "os.kill(judging.pid, signal.SIGKILL)\n"
        "try: judging.result()\n"
        "except ConfigProcessFailed as error: print(error)"
    )
    assert said == "the configuration could not be judged: its process ended with -9"


def test_a_process_with_a_second_thread_is_not_copied() -> None:
    said = alone(
        "over = threading.Event()\n"
        "threading.Thread(target=over.wait).start()\n"
        "judging = first_config_process(None, {})\n"
        "print(type(judging).__name__, judging.result().warnings)\n"
        "over.set()"
    )
    assert said == "ConfigProcess ()"
