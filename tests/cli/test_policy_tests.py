"""``sidecar test`` as its user meets it: what holds is quiet, what does not is told with its place and why."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sidecar.cli.main import main
from sidecar.config.policy_tests import load_cases
from sidecar.core.dryrun.replay import rehearse

ROOT = Path(__file__).parent.parent.parent
SHIPPED = sorted((ROOT / "config" / "policies" / "tests").glob("*.yaml"))
POLICIES = sorted((ROOT / "config" / "policies").glob("*.yaml"))

ORDERS = """\
extends: default
table:
  - {status: 503, when: {body: /code, in: [busy]}, then: retry, processed: false}
"""
HOLDS = """\
policy: orders
cases:
  - name: busy means not processed
    request: {method: POST, path: /v1/orders}
    answers: [{status: 503, body: {code: busy}}]
    expect: {decision: retry, safe_because: not_processed, wait: {from: backoff, max: 250ms}}
  - name: it may then succeed
    request: {method: POST, path: /v1/orders}
    answers: [{status: 503, body: '{"code": "busy"}'}, {status: 201}]
    expect: {decision: pass, reason: null}
"""
FAILS = """\
policy: orders
cases:
  - name: any 503 is sent again
    request: {method: POST, path: /v1/orders}
    answers: [{status: 503}]
    expect:
      gate: false
      decision: retry
"""
SITE = """\
upstreams:
  - name: shop
    origin: https://shop.example
    mount: /shop
    policy: orders
    routes:
      - {methods: [POST], path: /v1/events/**, policy: hasty}
      - {methods: [POST], path: /v1/samples, policy: hasty, store: always}
outbox: {file: outbox.db}
"""
ROUTED = """\
upstream: shop
cases:
  - name: events are in a hurry
    request: {method: POST, path: /v1/events/7}
    answers: [{status: 429}]
    expect: {policy: hasty, attempts_left: 1}
  - name: orders are not
    request: {method: POST, path: /v1/orders}
    answers: [{status: 429}]
    expect: {policy: orders, attempts_left: 4}
"""


@pytest.fixture(name="config")
def _config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration in ``config/`` of the directory that we are in, without a test."""
    folder = tmp_path / "config"
    (folder / "policies" / "tests").mkdir(parents=True)
    (folder / "policies" / "orders.yaml").write_text(ORDERS)
    (folder / "policies" / "hasty.yaml").write_text("extends: default\nattempts: 2\n")
    (folder / "sidecar.yaml").write_text(SITE)
    monkeypatch.chdir(tmp_path)
    return folder


def write(config: Path, text: str, name: str = "orders") -> Path:
    path = config / "policies" / "tests" / f"{name}.yaml"
    path.write_text(text)
    return path


def run(*arguments: str | Path, env: dict[str, str] | None = None) -> Result:
    """Without a file or a configuration: with that of the fixture."""
    if not arguments or arguments[0] == "--format":
        arguments = (*arguments, "-c", "config/sidecar.yaml")
    return CliRunner().invoke(main, ["test", *map(str, arguments)], env=env)


def told(*arguments: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*arguments, "--format", "json").output)
    return found


def test_what_holds_is_one_line(config: Path) -> None:
    write(config, HOLDS)
    result = run()
    assert (result.exit_code, result.output) == (0, "2 cases in 1 file: fine\n")


def test_what_fails_is_told_with_its_place_what_came_and_why(config: Path) -> None:
    write(config, FAILS)
    result = run()
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "config/policies/tests/orders.yaml:8: failed: any 503 is sent again: decision: expected retry, came pass",
        "",
        "  pass: hand over what there is",
        "    upstream       -",
        "    policy         orders",
        f"    row            {ROOT / 'config' / 'policies' / 'default.yaml'}:31",
        "    reason         not_safe: it may have been applied, and is neither idempotent nor keyed",
        "    attempts left  4",
        "",
        "1 case in 1 file: 1 failed",
    ]


def test_json_is_one_object(config: Path) -> None:
    write(config, HOLDS, "a")
    write(config, FAILS, "b")
    object_ = told()
    (failure,) = object_.pop("failures")
    assert object_ == {"files": 2, "cases": 3, "passed": 2, "failed": 1}
    explanation = failure.pop("explanation")
    assert failure == {
        "file": "config/policies/tests/b.yaml",
        "line": 8,
        "name": "any 503 is sent again",
        "attempt": 1,
        "unmet": [{"name": "decision", "expected": "retry", "came": "pass"}],
    }
    assert (explanation["decision"], explanation["reason"], explanation["row"]["line"]) == ("pass", "not_safe", 31)


def test_a_changed_policy_fails_the_test_that_it_breaks(config: Path) -> None:
    write(config, HOLDS)
    (config / "policies" / "orders.yaml").write_text("extends: default\nbackoff: {base: 1s}\n")
    object_ = told()
    assert [(f["line"], f["unmet"][0]["name"]) for f in object_["failures"]] == [(6, "decision"), (9, "decision")]
    assert object_["failures"][1]["unmet"][0]["expected"] == "another send"


def test_an_expectation_in_the_middle_is_judged_too(config: Path) -> None:
    text = HOLDS.replace('{status: 503, body: \'{"code": "busy"}\'}', "{status: 429, expect: {attempts_left: 9}}")
    write(config, text)
    result = run()
    assert result.exit_code == 1
    assert "orders.yaml:9: failed: it may then succeed: attempt 1: attempts_left: expected 9, came 4" in result.output


def test_the_routes_of_an_upstream_count(config: Path) -> None:
    write(config, ROUTED)
    assert run().exit_code == 0
    write(config, ROUTED.replace("policy: hasty", "policy: orders"))
    result = run()
    assert "policy: expected orders, came hasty" in result.output
    assert "upstream       shop" in result.output


def test_what_is_stored_unsent_has_no_answer_to_be_judged(config: Path) -> None:
    write(config, ROUTED.replace("/v1/events/7", "/v1/samples"))
    result = run()
    assert result.exit_code == 78
    assert "orders.yaml:4:14: error E204 impossible-case: requests of the route /v1/samples go into" in result.output


def test_an_upstream_that_is_not_configured_is_an_error_with_a_suggestion(config: Path) -> None:
    write(config, ROUTED.replace("upstream: shop", "upstream: shoq"))
    result = run()
    assert result.exit_code == 78
    assert "did you mean `shop`?; looked into config/sidecar.yaml" in result.output


def test_every_mistake_of_every_file_is_told_at_once(config: Path) -> None:
    write(config, HOLDS.replace("decision: retry", "decision: retri").replace("POST", "post"), "a")
    write(config, FAILS.replace("policy: orders", "policy: hasty"), "b")
    (config / "policies" / "hasty.yaml").write_text("attempts: many\n")
    result = run()
    assert result.exit_code == 78
    assert [line.split(": error ")[0] for line in result.output.splitlines() if ": error " in line] == [
        "config/policies/hasty.yaml:1:11",
        "config/policies/tests/a.yaml:4:23",
        "config/policies/tests/a.yaml:6:24",
        "config/policies/tests/a.yaml:8:23",
    ]
    assert "did you mean `retry`?" in result.output


def test_more_answers_than_sends_are_an_impossible_case(config: Path) -> None:
    answers = ", ".join(["{status: 429}"] * 3)
    write(config, ROUTED.replace("answers: [{status: 429}]", f"answers: [{answers}]", 1))
    result = run()
    assert result.exit_code == 78
    assert "orders.yaml:5:45: error E204 impossible-case: nothing can come back of send 3: the" in result.output
    assert "the policy `hasty` allows 2 sends in all" in result.output


def test_files_and_directories_may_be_named_from_anywhere(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(config, HOLDS)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for named in (path, path.parent, f"../config/policies/tests/{path.name}"):
        assert run(named).output == "2 cases in 1 file: fine\n"
    assert run(path, path.parent).output == "2 cases in 1 file: fine\n"


def test_policies_are_those_of_the_configuration_that_is_named(config: Path, tmp_path: Path) -> None:
    path = write(config, HOLDS)
    other = tmp_path / "other"
    (other / "policies").mkdir(parents=True)
    (other / "policies" / "orders.yaml").write_text("extends: default\n")
    (other / "sidecar.yaml").write_text("")
    assert run(path).exit_code == 0
    assert run(path, "-c", other / "sidecar.yaml").exit_code == 1
    assert run(path, env={"SIDECAR_CONFIG": str(other / "sidecar.yaml")}).exit_code == 1


def test_a_policy_beside_its_test_is_found_as_well(config: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: default\nattempts: 1\n")
    path = tmp_path / "mine-test.yaml"
    path.write_text(HOLDS.replace("policy: orders", "policy: mine").split("  - name: it may")[0])
    assert "decision: expected retry, came pass" in run(path).output


@pytest.mark.parametrize("named", [(), ("config/policies/tests",), ("-c", "config/sidecar.yaml")], ids=len)
def test_finding_no_test_is_no_success(config: Path, named: tuple[str, ...]) -> None:
    result = run(*named)
    assert result.exit_code == 2
    assert "No policy tests: there is no *.yaml in config/policies/tests." in result.output


def test_without_any_configuration_nothing_is_found_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["test"])
    assert result.exit_code == 2
    assert "there is no *.yaml in policies/tests" in result.output


@pytest.mark.parametrize("arguments", [("nowhere.yaml",), ("-c", "nowhere.yaml", "config/policies/tests/orders.yaml")])
def test_a_missing_file_is_a_sentence(config: Path, arguments: tuple[str, ...]) -> None:
    write(config, HOLDS)
    result = run(*arguments)
    assert result.exit_code == 78
    assert "nowhere.yaml: error E001 unreadable: there is no such file" in result.output


def test_a_wrong_flag_is_a_matter_of_usage() -> None:
    assert run("--formt", "json").exit_code == 2


def test_a_hostile_name_steers_no_terminal(config: Path) -> None:
    write(config, FAILS.replace("any 503 is sent again", '"\\e[2J"'))
    assert "\x1b" not in run().output


@pytest.mark.parametrize(("environ", "painted"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colour_is_for_terminals(config: Path, environ: dict[str, str], painted: bool) -> None:
    write(config, FAILS)
    ours, theirs = pty.openpty()
    bare = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    command = [sys.executable, "-m", "sidecar", "test", "-c", "config/sidecar.yaml"]
    done = subprocess.run(command, stdout=theirs, env={**bare, "TERM": "xterm", **environ}, timeout=60)
    os.close(theirs)
    output = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 1
    assert ("\x1b[31mfailed\x1b[0m" in output) is painted
    assert re.sub(r"\x1b\[\d+m", "", output).endswith("1 case in 1 file: 1 failed\r\n")


def test_check_judges_tests_and_runs_none(config: Path) -> None:
    path = write(config, FAILS)
    result = CliRunner().invoke(main, ["check", str(path)])
    assert (result.exit_code, result.output) == (0, f"{path}: fine\n")
    write(config, FAILS.replace("gate:", "gates:"))
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 78
    assert "did you mean `gate`?" in result.output


def test_the_example_in_the_documents_holds(config: Path) -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    example = re.search(r"^    # policies/tests/orders.yaml\n(?:    .*\n)+", page, re.MULTILINE)
    assert example is not None
    write(config, textwrap.dedent(example[0]))
    assert run().output == "2 cases in 1 file: fine\n"


def test_the_shipped_policies_keep_what_their_tests_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = run()
    assert result.exit_code == 0, result.output
    assert re.fullmatch(r"\d+ cases in 7 files: fine\n", result.output)


def test_every_shipped_policy_has_tests_and_each_of_its_rows_decides_one() -> None:
    assert [path.name for path in SHIPPED] == [path.name for path in POLICIES]
    cases = load_cases(SHIPPED, None, environ={})
    for path in POLICIES:
        own = [case for case in cases if case.policy.name == path.stem]
        assert len(own) >= 8
        rows = {(row.file, row.line) for row in own[0].policy.table.rows if Path(row.file).name == path.name}
        steps = [s for case in own for s in rehearse(case.policy, case.request, case.answers, case.wall, 0.5)]
        decided = {(s.decision.row.file, s.decision.row.line) for s in steps if s.decision.row is not None}
        assert rows <= decided, f"no case of {path.name} is decided by {sorted(rows - decided)}"
