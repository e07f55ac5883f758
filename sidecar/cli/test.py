"""``sidecar test [FILE…]``: policy tests in YAML, played on the engine that ``serve`` runs. Nothing is sent.

It finds the files, has each case judged, and prints what did not hold and why. ``sidecar.config.schema.tests`` defines
a file; ``sidecar.core.dryrun.expectations`` judges.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import orjson

from sidecar.cli.paint import painter
from sidecar.config.policy_tests import load_cases
from sidecar.config.text.files import default_site
from sidecar.core.dryrun.expectations import Case, Failed, judge
from sidecar.core.dryrun.explain import explain_object, explain_text
from sidecar.observe.sanitize import clean

__all__ = ["command"]

EXIT_FAILED = 1
_LINE_LIMIT = 4000
"""Characters of a line; texts of the files are shown without control characters."""


@click.command("test")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE]...")
@click.option("-c", "--config", type=click.Path(path_type=Path), help="sidecar.yaml; else SIDECAR_CONFIG.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(files: tuple[Path, ...], config: Path | None, form: str) -> None:
    """Run policy tests: what must come of which answer, held against the policies. Offline.

    FILE is a file of cases, or a directory of them. Without: every *.yaml in policies/tests/ beside sidecar.yaml.
    Exit code 1 if a case fails, 78 if a file or a policy is wrong.
    """
    site = config or default_site(os.environ)
    paths = _paths(files or ((site.parent if site else Path()) / "policies" / "tests",))
    cases = load_cases(paths, site, environ=os.environ)
    failures = [failed for failed in map(judge, cases) if failed is not None]
    if form == "json":
        click.echo(orjson.dumps(_as_object(paths, cases, failures), option=orjson.OPT_INDENT_2))
    else:
        _print_text(paths, cases, failures)
    sys.exit(EXIT_FAILED if failures else 0)


def _paths(given: Sequence[Path]) -> list[Path]:
    """Files as they are, directories by the files in them; each once. Finding none is an error."""
    found: dict[Path, None] = {}
    for path in given:
        inside = [path]
        if path.is_dir() or not (path.suffix or path.exists()):
            inside = sorted(path.glob("*.yaml"))
            if not inside:
                raise click.UsageError(
                    f"No policy tests: there is no *.yaml in {path}. Name a file, or the sidecar.yaml beside "
                    "whose policies/tests/ they are (-c)."
                )
        found |= dict.fromkeys(inside)
    return list(found)


def _print_text(paths: Sequence[Path], cases: Sequence[Case], failures: Sequence[Failed]) -> None:
    for failed in failures:
        click.echo(f"{_headline(failed)}\n")
        for line in _explanation(failed).split("\n"):
            click.echo(f"  {clean(line, _LINE_LIMIT)}")
        click.echo()
    total = f"{_count(len(cases), 'case')} in {_count(len(paths), 'file')}"
    click.echo(f"{total}: {painter()(f'{len(failures)} failed', 'red') if failures else painter()('fine', 'green')}")


def _headline(failed: Failed) -> str:
    """One line: where, which case, what was expected and what came."""
    case = failed.case
    which = f"attempt {failed.attempt}: " if len(case.answers) > 1 else ""
    told = "; ".join(f"{unmet.name}: expected {unmet.expected}, came {unmet.came}" for unmet in failed.unmet)
    place = f"{case.file}:{failed.line}"
    return f"{place}: {painter()('failed', 'red')}: {clean(case.name, _LINE_LIMIT)}: {which}{clean(told, _LINE_LIMIT)}"


def _explanation(failed: Failed) -> str:
    case = failed.case
    return explain_text(case.upstream, case.policy.name, failed.decision)


def _as_object(paths: Sequence[Path], cases: Sequence[Case], failures: Sequence[Failed]) -> dict[str, object]:
    return {
        "files": len(paths),
        "cases": len(cases),
        "passed": len(cases) - len(failures),
        "failed": len(failures),
        "failures": [_failure_object(failed) for failed in failures],
    }


def _failure_object(failed: Failed) -> dict[str, object]:
    case = failed.case
    return {
        "file": case.file,
        "line": failed.line,
        "name": case.name,
        "attempt": failed.attempt,
        "unmet": [{"name": unmet.name, "expected": unmet.expected, "came": unmet.came} for unmet in failed.unmet],
        "explanation": explain_object(case.upstream, case.policy.name, failed.decision),
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
