"""``sidecar ca``: made once, and said how to trust it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sidecar.cli.ca import command

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "sidecar.yaml"
    path.write_text("intercept: {hosts: [api.example], ca: ca}\n", encoding="utf-8")
    return path


def ca(*words: str | Path) -> Result:
    return CliRunner().invoke(command, list(map(str, words)), env={"SIDECAR_CONFIG": None})


def test_it_is_made_before_the_configuration_is_sound_and_then_it_is(site: Path) -> None:
    result = ca("init", "-c", site)
    assert result.exit_code == 0
    assert "api.example" in result.output
    assert sorted(path.name for path in (site.parent / "ca").iterdir()) == ["bundle.pem", "ca.key", "ca.pem"]


def test_an_authority_that_is_there_is_kept_unless_told(site: Path) -> None:
    ca("init", "-c", site)
    before = (site.parent / "ca" / "ca.pem").read_bytes()
    result = ca("init", "-c", site)
    assert result.exit_code == 1
    assert "--again" in result.output
    assert (site.parent / "ca" / "ca.pem").read_bytes() == before
    assert ca("init", "--again", "-c", site).exit_code == 0
    assert (site.parent / "ca" / "ca.pem").read_bytes() != before


def test_alone_it_says_what_each_runtime_needs(site: Path) -> None:
    ca("init", "-c", site)
    result = ca("-c", site)
    assert result.exit_code == 0
    for word in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "keytool", "# go", "wget"):
        assert word in result.output


def test_alone_before_it_is_made_it_says_how(site: Path) -> None:
    result = ca("-c", site)
    assert result.exit_code == 1
    assert "sidecar ca init" in result.output


def test_without_an_intercept_it_says_what_to_write(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    path.write_text("listen: 127.0.0.1:8080\n", encoding="utf-8")
    result = ca("init", "-c", path)
    assert result.exit_code == 1
    assert "intercept: {hosts:" in result.output


def test_a_folder_that_cannot_be_written_is_named(site: Path) -> None:
    (site.parent / "ca").write_text("a file", encoding="ascii")
    result = ca("init", "-c", site)
    assert result.exit_code == 1
    assert "cannot be written" in result.output


def test_without_the_extra_it_says_what_to_install(site: Path) -> None:
    script = "import sys; sys.modules['cryptography'] = None; from sidecar.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "ca", "init", "-c", site], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "pip install 'retry-sidecar[intercept]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_without_the_extra_says_it_too(site: Path) -> None:
    ca("init", "-c", site)
    script = "import sys; sys.modules['cryptography'] = None; from sidecar.cli.main import main; main()"
    words = ["serve", "-c", str(site), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "pip install 'retry-sidecar[intercept]'" in done.stderr
    assert "Traceback" not in done.stderr
