"""``sidecar check`` as its user meets it: exit codes, forms, and nothing but sentences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sidecar.cli.main import main

ROOT = Path(__file__).parent.parent.parent
BAD = ROOT / "tests" / "config" / "bad"


def check(*arguments: str | Path, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, ["check", *map(str, arguments)], env=env)


def test_the_shipped_configuration_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = check("config/sidecar.yaml")
    assert (result.exit_code, result.output) == (0, "config/sidecar.yaml: fine\n")


def test_without_a_file_the_built_in_configuration_is_judged_with_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert check().output == "built-in configuration: fine\n"
    result = check(env={"SIDECAR_LISTN": "127.0.0.1:1"})
    assert result.exit_code == 78
    assert "did you mean `SIDECAR_LISTEN`" in result.output


def test_a_policy_alone_is_known_by_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "anything.yaml"
    path.write_text("extends: default\nattempts: 3\n")
    result = check(path)
    assert (result.exit_code, result.output) == (0, f"{path}: fine\n")


def test_a_warning_is_printed_and_is_no_error() -> None:
    result = check(BAD / "policy-warn-resend-methods.yaml")
    assert result.exit_code == 0
    assert "warning W201 resend-methods" in result.output
    assert result.output.endswith("fine, 1 warning\n")


def test_several_files_are_judged_in_one_run() -> None:
    result = check(BAD / "policy-unknown-key.yaml", BAD / "site-unknown-key.yaml")
    assert result.exit_code == 78
    assert "`dealine` is not a key of a policy" in result.output
    assert "`lisen` is not a key of sidecar.yaml" in result.output
    assert "2 errors, 0 warnings" in result.output


def test_json_is_a_list_of_objects() -> None:
    result = check("--format", "json", BAD / "policy-unknown-key.yaml")
    assert result.exit_code == 78
    (told,) = json.loads(result.output)
    assert (told["severity"], told["code"], told["name"], told["line"], told["column"]) == (
        "error",
        "E101",
        "unknown-key",
        2,
        1,
    )
    assert told["help"] == "did you mean `deadline`?"


def test_json_of_a_sound_file_is_an_empty_list() -> None:
    result = check("--format", "json", ROOT / "config" / "policies" / "default.yaml")
    assert (result.exit_code, json.loads(result.output)) == (0, [])


def test_annotations_are_one_line_each() -> None:
    result = check("--format", "github", BAD / "policy-unknown-key.yaml")
    assert result.output.startswith("::error file=")
    assert ",line=2,col=1,title=E101 unknown-key::`dealine` is not a key of a policy; did" in result.output
    assert result.output.count("\n") == 1


def test_a_missing_file_is_a_sentence() -> None:
    result = check("nowhere.yaml")
    assert result.exit_code == 78
    assert "nowhere.yaml: error E001 unreadable: there is no such file" in result.output


def test_the_environment_counts() -> None:
    result = check(ROOT / "config" / "sidecar.yaml", env={"SIDECAR_LISTNE": "1"})
    assert result.exit_code == 78
    assert "did you mean `SIDECAR_LISTEN`?" in result.output


def test_a_wrong_flag_is_a_matter_of_usage() -> None:
    assert check("--formt", "json").exit_code == 2


def test_the_version_and_the_verbs_are_told() -> None:
    assert CliRunner().invoke(main, ["--version"]).output.startswith("sidecar ")
    told = CliRunner().invoke(main, ["--help"]).output
    assert all(verb in told for verb in ("check", "explain", "show", "schema"))
    assert CliRunner().invoke(main, ["frobnicate"]).exit_code == 2
