"""``sidecar show``: what is in force, and where it comes from."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from sidecar.cli.main import main

ROOT = Path(__file__).parent.parent.parent


def test_it_shows_each_value_with_its_origin() -> None:
    path = str(ROOT / "config" / "sidecar.yaml")
    result = CliRunner().invoke(main, ["show", "-c", path], env={"SIDECAR_LOG_FORMAT": "json"})
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "format: json # SIDECAR_LOG_FORMAT" in lines
    assert any(line.startswith("listen: 127.0.0.1:8080 #") and "sidecar.yaml:" in line for line in lines)
    assert "max_wait: 2m # default" in lines


def test_without_a_file_it_shows_the_built_in_configuration() -> None:
    result = CliRunner().invoke(main, ["show"])
    assert result.stdout.startswith("# built-in configuration\nlisten: 127.0.0.1:8080 ")


def test_a_broken_file_ends_with_78_and_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    path.write_text("listen: 1\n")
    result = CliRunner().invoke(main, ["show", "-c", str(path)])
    assert result.exit_code == 78
    assert "sidecar.yaml:1:9: error E107 bad-value" in result.stderr
    assert result.stdout == ""
