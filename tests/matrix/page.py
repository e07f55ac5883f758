"""``docs/faults.md`` from the rows; where a test stands is looked up in the files, none is run."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

from tests.matrix.rows import FAULTS, INPUTS, Row

__all__ = ["PAGE", "ROOT", "homes", "node_of", "page"]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "faults.md"

_FRONT = """\
# Fault matrix

What the app sees, what the upstream saw, and the tests that show it: 94 inputs and 55 faults, each once. Made from
`tests/matrix/rows.py` by `python -m tests.matrix`; a test holds that this page is what the rows give, and that every
test exists. *Not yet* marks what is not as it should be.

"Refused" is 400, `Connection: close`, and the end of the connection: nothing of that request, and of the bytes behind
it, reaches an upstream. A test is named by its file in `tests/`.
"""


def homes() -> dict[str, list[str]]:
    """For the name of each test, the files that have it."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found[node.name].append(path.relative_to(ROOT / "tests").as_posix())
    return found


def node_of(test: str, known: dict[str, list[str]]) -> tuple[str, str]:
    """File and name of a test. ``stem::name`` picks one of several files. Raises ``LookupError``."""
    stem, _, name = test.rpartition("::")
    files = [each for each in known.get(f"test_{name}", []) if not stem or Path(each).stem == stem]
    if len(files) != 1:
        raise LookupError(f"{test}: {files or 'no test'}")
    return files[0], f"test_{name}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _tests(row: Row, known: dict[str, list[str]]) -> str:
    by_file: dict[str, list[str]] = defaultdict(list)
    for test in row.tests:
        file, name = node_of(test, known)
        by_file[file].append(name)
    return "<br>".join(f"{file}: {', '.join(f'`{name}`' for name in names)}" for file, names in by_file.items())


def _table(rows: tuple[Row, ...], what: str, known: dict[str, list[str]]) -> list[str]:
    lines = [f"| # | {what} | the app sees | the upstream saw | shown by |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (str(row.number), row.what, row.app, row.upstream)
        lines.append(f"| {' | '.join(map(_cell, cells))} | {_tests(row, known)} |")
    return lines


def page() -> str:
    known = homes()
    inputs = ["## Inputs", "", *_table(INPUTS, "input", known)]
    faults = ["## Faults", "", *_table(FAULTS, "fault", known)]
    return "\n".join([_FRONT, *inputs, "", *faults, ""])
