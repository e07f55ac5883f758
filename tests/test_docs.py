"""The documents say what is so: links lead somewhere, commands exist, the YAML loads, closed lists are the code's."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
from enum import StrEnum
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sidecar.cli.main import EXIT_CONFIGURATION, EXIT_FAILURE, VERBS
from sidecar.config.load import load_deployment
from sidecar.core.enums import Jitter, Outcome, Reason, Safe
from sidecar.observe.families import FAMILIES

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = sorted([README, ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").glob("*.md")])

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def links(page: Path) -> list[tuple[Path, str]]:
    """The files that a page links to, each with the anchor."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    pairs = [target.partition("#") for target in targets if "://" not in target]
    return [((page.parent / path).resolve() if path else page, anchor) for path, _, anchor in pairs]


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def block(page: Path, language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None, f"{page.name} has no {language} block"
    return found[1]


def table_words(page: Path, heading: str) -> set[str]:
    """The words in back-quotes in the first column of the table whose first heading begins so."""
    text = page.read_text(encoding="utf-8")
    found = re.search(rf"^\| *`?{heading}`? *\|[^\n]*\n\|[-| ]+\n((?:\|[^\n]*\n)+)", text, re.MULTILINE)
    assert found is not None, f"{page.name} has no table of {heading}"
    return {word for row in found[1].splitlines() for word in re.findall(r"`([a-z_]+)`", row.split("|")[1])}


def words(closed: type[StrEnum]) -> set[str]:
    return {str(word) for word in closed}


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in links(page):
        assert target.exists(), f"{page.name} links to {target.name}, which is not there"
        assert not anchor or anchor in anchors(target), f"{page.name}: {target.name} has no heading #{anchor}"


def test_every_page_is_two_clicks_from_the_readme() -> None:
    one = {target for target, _ in links(README)}
    two = {target for page in one if page.suffix == ".md" for target, _ in links(page)}
    lost = [page.name for page in PAGES if page not in {README} | one | two]
    assert not lost


@each_page
def test_every_command_that_is_named_exists(page: Path) -> None:
    for verb in re.findall(r"(?:`|^|\n)sidecar ([a-z]+)\b", page.read_text(encoding="utf-8")):
        assert verb in VERBS, f"{page.name} names `sidecar {verb}`"
        assert importlib.util.find_spec(f"sidecar.cli.{verb}"), (
            f"{page.name} names `sidecar {verb}`, which is not there"
        )


@each_page
def test_every_make_verb_that_is_named_exists(page: Path) -> None:
    verbs = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert named <= verbs, f"{page.name} names {named - verbs}"


@each_page
def test_every_metric_that_is_named_exists(page: Path) -> None:
    known = {family.name for family in FAMILIES}
    for name in re.findall(r"`(sidecar_[a-z_]+)`", page.read_text(encoding="utf-8")):
        assert name == "sidecar_" or any(name in {full, f"{full}_bucket", f"{full}_count"} for full in known), name


def test_the_yaml_of_the_readme_loads(tmp_path: Path) -> None:
    files = re.split(r"^# config/(\S+)\n", block(README, "yaml"), flags=re.MULTILINE)[1:]
    for name, text in zip(files[::2], files[1::2], strict=True):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (payments,) = load_deployment(tmp_path / "sidecar.yaml", environ={}).deployment.upstreams
    assert (payments.mount, payments.policy.name, payments.policy.deadline_seconds) == ("/payments", "payments", 30)


def test_the_readme_begins_with_its_promise_and_two_commands() -> None:
    first_screen = README.read_text(encoding="utf-8").splitlines()[:45]
    assert first_screen[2].startswith("An HTTP proxy")
    commands = [line.split("#")[0].strip() for line in block(README, "sh").splitlines()]
    assert commands == ["make run", "make test"]
    assert len(block(README, "yaml").splitlines()) == 10
    assert any(line.startswith("It will never") for line in first_screen)


@pytest.mark.parametrize("page", [README, ROOT / "docs" / "operations.md"], ids=lambda page: page.name)
def test_exit_codes_are_those_of_the_commands(page: Path) -> None:
    found = re.search(r"^\| code \|[^\n]*\n\|[-| ]+\n((?:\|[^\n]*\n)+)", page.read_text("utf-8"), re.MULTILINE)
    assert found is not None
    codes = {int(row.split("|")[1]) for row in found[1].splitlines()}
    assert codes == {0, EXIT_FAILURE, 2, EXIT_CONFIGURATION}


def test_closed_lists_in_the_documents_are_those_of_the_code() -> None:
    semantics = ROOT / "docs" / "semantics.md"
    assert table_words(semantics, "word") == words(Safe)
    assert table_words(semantics, "outcome") == words(Outcome)
    assert table_words(semantics, "jitter") == words(Jitter)
    assert table_words(ROOT / "docs" / "operations.md", "reason") == words(Reason)
    named = set(re.findall(r"`([a-z_]+)`", semantics.read_text(encoding="utf-8")))
    assert words(Reason) <= named


def command_lines(page: Path) -> list[list[str]]:
    """Every line of a fenced block that calls ``sidecar``, without comments, as its words."""
    blocks = page.read_text(encoding="utf-8").split("\n```")[1::2]
    lines = [line.removeprefix("$ ").partition("#")[0].strip() for text in blocks for line in text.splitlines()[1:]]
    return [shlex.split(line) for line in lines if re.match(r"sidecar [a-z]+\b(?!:)", line)]


def test_every_command_line_of_the_documents_is_understood() -> None:
    """Each verb and each option exists, and takes a value where one is given."""
    found = [(page, words) for page in PAGES for words in command_lines(page)]
    assert len(found) > 8
    for page, words in found:
        command = importlib.import_module(f"sidecar.cli.{words[1]}").command
        known = {name for option in command.params for name in option.opts + option.secondary_opts}
        options = {word.partition("=")[0] for word in words[2:] if word.startswith("-")}
        assert options <= known or isinstance(command, click.Group), f"{page.name}: {' '.join(words)}"


def shown_outputs(page: Path) -> list[tuple[str, str]]:
    """Each command that is shown with its output (``$ sidecar …`` first in a block), with that output."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```\n\$ (sidecar [^\n]*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_what_the_documents_show_of_a_command_is_what_it_says() -> None:
    """A line ``…`` stands for any number of lines; after the last one that is shown, more may follow."""
    found = [(page, command, shown) for page in PAGES for command, shown in shown_outputs(page)]
    assert len(found) >= 4
    for page, line, shown in found:
        words = shlex.split(line)
        done = CliRunner().invoke(importlib.import_module(f"sidecar.cli.{words[1]}").command, words[2:])
        assert done.exit_code == 0, f"{page.name}: {line}: {done.output}"
        parts = [re.escape(part) for part in re.split(r"^…\n", shown, flags=re.MULTILINE)]
        assert re.match(".*?".join(parts), done.output, re.DOTALL), f"{page.name}: {line}: {done.output}"


def test_what_the_readme_says_of_explain_is_what_explain_says() -> None:
    text = README.read_text(encoding="utf-8")
    shown = re.search(r"^\$ (sidecar explain .*?)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert shown is not None
    done = CliRunner().invoke(importlib.import_module("sidecar.cli.explain").command, shlex.split(shown[1])[2:])
    assert done.exit_code == 0
    assert done.output.startswith(shown[2]), done.output
