"""``sidecar fmt [FILE…]``: configuration files indented alike. Values, comments and the order of keys stay as they are.

Each file is written whole beside itself and then put in its place. Counterpart: ``sidecar.config.text.layout``.
"""

from __future__ import annotations

import difflib
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import click

from sidecar.cli.main import EXIT_FAILURE
from sidecar.config.text.files import Files, default_site
from sidecar.config.text.layout import formatted
from sidecar.config.text.problems import ConfigError

__all__ = ["command"]


@click.command("fmt")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE]...")
@click.option("--check", is_flag=True, help="Write nothing; show what would change, and exit with 1 if anything would.")
def command(files: tuple[Path, ...], check: bool) -> None:
    """Indent configuration files alike: two spaces for each level, one blank line at most.

    Values, comments and the order of keys stay as they are. Without FILE: sidecar.yaml (as every verb finds it), its
    policies and their tests. Exit code 78 if a file cannot be read; then nothing is written.
    """
    reading = Files()
    documents = {path: reading.parse(path) for path in dict.fromkeys(files or _all())}
    problems = [problem for document in documents.values() for problem in document.problems]
    if problems:
        raise ConfigError(problems)
    changed = 0
    for path, document in documents.items():
        before = reading.judged(path).decode("utf-8-sig")
        after = formatted(document)
        if after == before:
            continue
        changed += 1
        if check:
            click.echo("\n".join(_diff(path, before, after)))
        else:
            _write(path, after)
            click.echo(f"{path}: laid out")
    if not changed:
        click.echo(f"{len(documents)} file{'' if len(documents) == 1 else 's'}: nothing to do")
    sys.exit(EXIT_FAILURE if check and changed else 0)


def _all() -> Iterable[Path]:
    site = default_site(os.environ)
    if site is None:
        raise click.UsageError("There is no sidecar.yaml here, and SIDECAR_CONFIG names none: name the files.")
    policies = site.parent / "policies"
    return (site, *sorted(policies.glob("*.yaml")), *sorted((policies / "tests").glob("*.yaml")))


def _diff(path: Path, before: str, after: str) -> Iterable[str]:
    return difflib.unified_diff(before.splitlines(), after.splitlines(), str(path), str(path), lineterm="")


def _write(path: Path, text: str) -> None:
    """All or nothing, also through a symlink; the mode stays."""
    target = path.resolve()
    try:
        with tempfile.NamedTemporaryFile("w", dir=target.parent, delete=False, encoding="utf-8", newline="\n") as file:
            file.write(text)
        try:
            os.chmod(file.name, target.stat().st_mode & 0o7777)
            os.replace(file.name, target)
        except OSError:
            os.unlink(file.name)
            raise
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None
