"""The front door: suggestions, the version, completion, the first file, and the codes with their pages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sidecar import __version__
from sidecar.cli.main import VARIABLES, VERBS, main
from sidecar.config.environment import OTHER_VARIABLES, settings, variable_of
from sidecar.config.text.problems import Code, page_of

ROOT = Path(__file__).parent.parent.parent
BAD = ROOT / "tests" / "config" / "bad"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.mark.parametrize(("typed", "meant"), [("chek", "check"), ("severe", "serve"), ("explian", "explain")])
def test_a_mistyped_verb_is_answered_with_the_likeliest(typed: str, meant: str) -> None:
    result = run(typed)
    assert result.exit_code == 2
    assert f"did you mean `{meant}`?" in result.output


def test_the_version_is_one_line_or_one_object() -> None:
    assert run("--version").output == f"sidecar {__version__}\n"
    told = json.loads(run("--version", "--json").output)
    assert (told["name"], told["version"]) == ("sidecar", __version__)
    assert told == json.loads(run("--json", "--version").output)
    assert told["form"] in ("compiled", "source")


def test_the_help_names_variables_that_exist() -> None:
    known = {variable_of(keys) for keys, _ in settings()} | set(OTHER_VARIABLES)
    named = {name for name in VARIABLES if name.startswith("SIDECAR_") and "…" not in name}
    assert named <= known
    output = run("--help").output
    assert all(name in output for name in VARIABLES)
    assert "78 configuration" in output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_of_the_shell(shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert "_SIDECAR_COMPLETE" in result.output


def test_completion_knows_the_verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"_SIDECAR_COMPLETE": "bash_complete", "COMP_WORDS": "sidecar che", "COMP_CWORD": "1"}
    result = CliRunner().invoke(main, [], env=env, prog_name="sidecar")
    assert "plain,check" in result.output


def test_a_first_configuration_is_sound_commented_and_never_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("init", "https://api.payments.example", "other=http://127.0.0.1:9000/base", "https://meshqu.example")
    assert result.exit_code == 0, result.output
    site = Path("sidecar.yaml").read_text(encoding="utf-8")
    assert site.startswith("# yaml-language-server: $schema=sidecar.schema.json\n")
    assert json.loads(Path("sidecar.schema.json").read_text())["title"] == "sidecar.yaml"
    assert sorted(path.name for path in Path("policies").iterdir()) == ["other.yaml", "payments.yaml"]
    assert run("check").output == "sidecar.yaml: fine\n"
    assert run("check", "policies/payments.yaml").exit_code == 0
    told = run("explain", "GET", "http://127.0.0.1:8080/payments/v1/x", "--status", "503", "--format", "json")
    assert json.loads(told.output)["upstream"] == "payments"
    Path("sidecar.yaml").write_text("mine")
    again = run("init", "https://api.other.example")
    assert again.exit_code == 1
    assert "nothing is overwritten" in again.output
    assert Path("sidecar.yaml").read_text() == "mine"
    assert not Path("policies/other.example.yaml").exists()


@pytest.mark.parametrize(
    "api", ["ftp://x.example", "http://", "A=https://x.example", "https://u:p@x.example", "http://x:0x"]
)
def test_what_is_no_api_is_a_matter_of_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("init", api).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_every_verb_takes_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIDECAR_CONFIG", raising=False)
    (tmp_path / "sidecar.yaml").write_text("listen: 127.0.0.1:18181\n")
    assert "127.0.0.1:18181" in run("show").output
    assert "18181" in run("env", "--for", "curl").output
    assert run("check").output == "sidecar.yaml: fine\n"
    (tmp_path / "policies" / "tests").mkdir(parents=True)
    assert "no *.yaml in policies/tests" in run("test").output
    assert "sidecar.yaml has no `intercept`" in run("ca").output
    (tmp_path / "named.yaml").write_text("listen: 127.0.0.1:18182\n")
    monkeypatch.setenv("SIDECAR_CONFIG", "named.yaml")
    assert "127.0.0.1:18182" in run("show").output


def test_the_outbox_takes_its_file_behind_the_verb(tmp_path: Path) -> None:
    for arguments in (("outbox", "list", "--file"), ("outbox", "--file")):
        path = tmp_path / "none.db"
        rest = () if arguments[-2] == "list" else ("list",)
        result = run(*arguments, path, *rest)
        assert result.exit_code == 1, result.output
        assert "none.db" in result.output


def test_every_code_has_its_page() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    assert [section.split("\n")[0] for section in sections] == [" ".join(code.value) for code in Code]
    for section in sections:
        assert "```text\n" in section
        assert "**What to do:** " in section
    assert page_of(Code.UNKNOWN_KEY) == "docs/errors.md#e101-unknown-key"
    assert "docs/errors.md#e101-unknown-key" in run("check", BAD / "policy-unknown-key.yaml").output


def test_sarif_has_the_shape_of_the_standard() -> None:
    result = run("check", "--format", "sarif", BAD / "policy-unknown-key.yaml", BAD / "policy-warn-resend-methods.yaml")
    assert result.exit_code == 78
    told = json.loads(result.output)
    assert (told["version"], told["$schema"]) == ("2.1.0", "https://json.schemastore.org/sarif-2.1.0.json")
    (one,) = told["runs"]
    rules = one["tool"]["driver"]["rules"]
    assert {result["level"] for result in one["results"]} == {"error", "warning"}
    for found in one["results"]:
        assert rules[found["ruleIndex"]]["id"] == found["ruleId"]
        assert found["message"]["text"]
        region = found["locations"][0]["physicalLocation"]["region"]
        assert region["startLine"] >= 1
        assert 1 <= region["startColumn"] < region["endColumn"]
        uri = found["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert uri.endswith(".yaml")
        assert "\\" not in uri


def test_every_verb_says_what_it_does() -> None:
    for verb in VERBS:
        assert run(verb, "--help").exit_code == 0, verb
