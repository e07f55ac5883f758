"""``sidecar check [FILE…]``: every mistake of a configuration at once, each with its place. Changes nothing.

A ``sidecar.yaml`` is checked with the policies that it uses and the environment that it would run in; a policy file on
its own, and a file of policy tests with the policy that it tests. The tests are not run: ``sidecar test``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import orjson

from sidecar.cli.main import EXIT_CONFIGURATION
from sidecar.cli.paint import painter
from sidecar.cli.sarif import sarif
from sidecar.config.load import load_deployment, load_policy
from sidecar.config.policy_tests import load_cases
from sidecar.config.schema.validate import fields_by_key
from sidecar.config.show.json_schema import SCHEMAS
from sidecar.config.text.document import Table
from sidecar.config.text.files import Files, default_site
from sidecar.config.text.problems import ConfigError, Problem, page_of, sorted_problems

__all__ = ["command", "kind_of"]

BY_FOLDER = {"policies": "policy", "tests": "tests"}


@click.command("check")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE]...")
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "github", "sarif"]), default="text", show_default=True
)
def command(files: tuple[Path, ...], form: str) -> None:
    """Judge configuration files: sidecar.yaml with its policies, policies alone, or policy tests.

    Without FILE: what SIDECAR_CONFIG names, else sidecar.yaml of this directory, else the built-in configuration, each
    with the environment's settings. Exit code 78 if anything is wrong; warnings are printed and are no error.
    """
    site = default_site(os.environ)
    paths = files or (() if site is None else (site,))
    problems = sorted_problems(problem for path in paths or (None,) for problem in _problems(path))
    errors = sum(not problem.is_warning for problem in problems)
    if form == "json":
        click.echo(orjson.dumps([_as_object(problem) for problem in problems], option=orjson.OPT_INDENT_2))
    elif form == "sarif":
        click.echo(orjson.dumps(sarif(problems), option=orjson.OPT_INDENT_2))
    elif form == "github":
        for problem in problems:
            click.echo(_as_annotation(problem))
    else:
        _print_text(paths, problems, errors)
    sys.exit(EXIT_CONFIGURATION if errors else 0)


def _problems(path: Path | None) -> tuple[Problem, ...]:
    """None: the built-in configuration."""
    try:
        if path is None:
            return load_deployment(None, environ=os.environ).warnings
        kind = kind_of(path)
        if kind == "policy":
            return load_policy(path).warnings
        if kind == "sidecar":
            return load_deployment(path, environ=os.environ).warnings
        load_cases((path,), None, environ=os.environ)
    except ConfigError as error:
        return error.problems
    return ()


def kind_of(path: Path) -> str:
    """Decided by its keys; where they do not tell, by the name of its directory."""
    root = Files().parse(path).root
    keys = set(root) if isinstance(root, Table) else set()
    votes = {kind: len(keys & set(fields_by_key(model))) for kind, model in SCHEMAS.items()}
    most = [kind for kind, found in votes.items() if found == max(votes.values())]
    named = BY_FOLDER.get(path.absolute().parent.name, "sidecar")
    return most[0] if len(most) == 1 else named


def _print_text(paths: tuple[Path, ...], problems: tuple[Problem, ...], errors: int) -> None:
    paint = painter()
    for problem in problems:
        first, newline, rest = str(problem).partition("\n")
        colour = "yellow" if problem.is_warning else "red"
        word = "warning" if problem.is_warning else "error"
        place, _, told = first.partition(f": {word} ")
        click.echo(f"{paint(place, 'bold')}: {paint(word, colour)} {told}{newline}{rest}\n")
    if problems:
        pages = dict.fromkeys(page_of(problem.code) for problem in problems)
        click.echo(f"{paint('what they mean:', 'dim')} {' '.join(pages)}\n")
    warnings = len(problems) - errors
    names = ", ".join(map(str, paths)) or "built-in configuration"
    if errors:
        click.echo(f"{names}: {paint(_count(errors, 'error'), 'red')}, {_count(warnings, 'warning')}")
    else:
        click.echo(f"{names}: {paint('fine', 'green')}" + (f", {_count(warnings, 'warning')}" if warnings else ""))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _as_object(problem: Problem) -> dict[str, object]:
    code, name = problem.code.value
    return {
        "severity": "warning" if problem.is_warning else "error",
        "code": code,
        "name": name,
        "file": problem.file,
        "line": problem.line or None,
        "column": problem.column or None,
        "message": problem.message,
        "help": problem.help or None,
        "page": page_of(problem.code),
    }


def _as_annotation(problem: Problem) -> str:
    """A workflow command of GitHub Actions."""
    code, name = problem.code.value
    place = f"file={_escaped(problem.file, ',:')}"
    if problem.line:
        place += f",line={problem.line},col={problem.column}"
    text = problem.message + (f"; {problem.help}" if problem.help else "")
    return f"::{'warning' if problem.is_warning else 'error'} {place},title={code} {name}::{_escaped(text)}"


def _escaped(text: str, also: str = "") -> str:
    return "".join(f"%{ord(c):02X}" if c in "%\r\n" + also else c for c in text)
