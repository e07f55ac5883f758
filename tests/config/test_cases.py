"""One bad file for each mistake, its first line saying what must be found; good files that must load."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from sidecar.config.load import load_deployment, load_policy
from sidecar.config.policy_tests import load_cases
from sidecar.config.text.problems import Code, ConfigError, Problem

HERE = Path(__file__).parent
BAD = sorted((HERE / "bad").glob("*.yaml"))
GOOD = sorted((HERE / "good").glob("*.yaml"))
GOOD_POLICIES = sorted((HERE / "good" / "policies").glob("*.yaml"))
ROOT = HERE.parent.parent
SHIPPED = [ROOT / "config" / "sidecar.yaml"]
SHIPPED_POLICIES = sorted((ROOT / "config" / "policies").glob("*.yaml"))


def problems_of(path: Path) -> tuple[Problem, ...]:
    try:
        if path.name.startswith("policy-"):
            return load_policy(path).warnings
        if path.name.startswith("tests-"):
            load_cases([path], None, environ={})
            return ()
        return load_deployment(path, environ={}).warnings
    except ConfigError as error:
        return error.problems


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_each_bad_file_is_told_its_one_mistake_at_its_place(path: Path) -> None:
    expected = path.read_bytes().splitlines()[0].decode().removeprefix("# ")
    problems = problems_of(path)
    told = [f"{p.line}:{p.column} {p.code.value[0]} {p.message}" for p in problems]
    if any(p.code is Code.NOT_YAML for p in problems):  # the rest of the sentence is the YAML library's
        told, expected = [text.split(" E003 ")[0] for text in told], expected.split(" E003 ")[0]
    assert told == [expected]


def test_every_code_has_a_bad_file() -> None:
    found = {line.split()[2] for path in BAD for line in [path.read_bytes().splitlines()[0].decode()]}
    environment_only = {Code.UNKNOWN_VARIABLE.value[0]}
    assert found | environment_only == {code.value[0] for code in Code}


@pytest.mark.parametrize("path", GOOD + SHIPPED, ids=lambda path: path.stem)
def test_each_good_site_loads_without_a_warning(path: Path) -> None:
    assert load_deployment(path, environ={}).warnings == ()


@pytest.mark.parametrize("path", GOOD_POLICIES + SHIPPED_POLICIES, ids=lambda path: path.stem)
def test_each_good_policy_loads_without_a_warning(path: Path) -> None:
    assert load_policy(path).warnings == ()


def test_all_mistakes_of_all_files_are_told_at_once_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "one.yaml").write_text(
        "extends: two\ndealine: 5s\ntable:\n  - {status: 42, then: retry}\n"
    )
    (tmp_path / "policies" / "two.yaml").write_text("deadline: 5\nattempt: [\n")
    (tmp_path / "sidecar.yaml").write_text(
        "listen: 8080\nupstreams:\n"
        "  - {name: a, origin: 'https://a.example', mount: /a, policy: one}\n"
        "  - {name: a, origin: a.example, mount: b, policy: three}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_deployment(tmp_path / "sidecar.yaml", environ={"SIDECAR_LISTNE": "x"})
    told = [(Path(p.file).name, p.line, p.code.name) for p in caught.value.problems]
    assert told == [
        ("one.yaml", 2, "UNKNOWN_KEY"),
        ("one.yaml", 4, "BAD_VALUE"),
        ("two.yaml", 3, "NOT_YAML"),
        ("sidecar.yaml", 1, "BAD_VALUE"),
        ("sidecar.yaml", 4, "REPEATED_NAME"),
        ("sidecar.yaml", 4, "BAD_VALUE"),
        ("sidecar.yaml", 4, "BAD_VALUE"),
        ("sidecar.yaml", 4, "UNKNOWN_POLICY"),
        ("environment", 0, "UNKNOWN_VARIABLE"),
    ]
    assert {path.name for path in caught.value.files} == {"sidecar.yaml", "default.yaml", "one.yaml", "two.yaml"}


def test_three_mistakes_in_one_row_take_only_that_row(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "table:\n  - {status: 42, than: retry, attempts: 0}\n  - {status: 5xx, then: retry}\n"
        "  - {status: 503, then: pass}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_policy(path)
    assert [p.line for p in caught.value.problems] == [2, 2, 2, 2, 4]


def test_a_frame_shows_the_line_and_points_at_the_mistake(tmp_path: Path) -> None:
    path = tmp_path / "policies" / "p.yaml"
    path.parent.mkdir()
    path.write_text("attempts: 4\ndealine: 60s\ntable: [{status: 5xx, then: retry}]\n")
    with pytest.raises(ConfigError) as caught:
        load_policy(path)
    assert str(caught.value.problems[0]).split("\n", 1)[1] == (
        "  1 | attempts: 4\n  2 | dealine: 60s\n    | ^^^^^^^\n  help: did you mean `deadline`?"
    )


def test_a_frame_of_a_long_line_is_cut_around_the_mistake() -> None:
    problem = Problem(Code.BAD_VALUE, "m", "f", 1, 5000, 3, lines=("x" * 4999 + "bad" + "x" * 5000,))
    _, line, caret = str(problem).split("\n")
    assert len(line) < 130
    assert line[caret.index("^") : caret.index("^") + 3] == "bad"


def test_a_frame_hides_passwords_and_steers_no_terminal() -> None:
    problem = Problem(Code.BAD_VALUE, "m\x1b[2J", "f", 1, 1, lines=("origin: https://me:hunter2@a.example\x1b[2J",))
    text = str(problem)
    assert "hunter2" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize("name", ["directory", "fifo", "missing"])
def test_what_is_no_readable_file_is_said_in_a_sentence(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "directory":
        path.mkdir()
    if name == "fifo":
        os.mkfifo(path)
    with pytest.raises(ConfigError, match=r"E001 unreadable: (it is|there is no)"):
        load_deployment(path, environ={})


def test_places_are_written_as_file_line_column(tmp_path: Path) -> None:
    (tmp_path / "sidecar.yaml").write_text("listen: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_deployment(tmp_path / "sidecar.yaml", environ={})
    assert re.fullmatch(r".*sidecar\.yaml:1:9", caught.value.problems[0].place)
