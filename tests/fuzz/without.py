"""Takes each mend out, one at a time, and shows what finds that, and how soon: ``make mutants``.

In a copy of the tree, in processes of its own: first the fuzz, then the tests that name the mend. A mend that neither
finds is a hole.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.mends import MENDS, Mend
from tests.matrix.page import homes, node_of

MOST_SECONDS = 240
"""Of the tests for one mend, and of the fuzz beyond its own limit: more is as good as a failure."""
ROOT = Path(__file__).resolve().parents[2]


def taken_out(tree: Path, mend: Mend) -> str | None:
    """Edit the copy; what an edit was not found for, if any."""
    for before, after in mend.edits:
        places = [path for path in (tree / "sidecar").rglob("*.py") if before in path.read_text(encoding="utf-8")]
        if len(places) != 1 or places[0].read_text(encoding="utf-8").count(before) != 1:
            return before
        places[0].write_text(places[0].read_text(encoding="utf-8").replace(before, after), encoding="utf-8")
    return None


def copied(tree: Path) -> None:
    for name in ("sidecar", "tests", "config"):
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "node_modules")
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tree)


def _run(tree: Path, most_seconds: float, *arguments: str) -> tuple[str, float]:
    begun = time.monotonic()
    command = [sys.executable, "-m", *arguments]
    try:
        done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False, timeout=most_seconds)
    except subprocess.TimeoutExpired:
        return f"FAILED ::no_end_within_{most_seconds:.0f}_s\nexit 1", most_seconds
    return done.stdout + (f"\nexit {done.returncode}" if done.returncode else ""), time.monotonic() - begun


def _fuzzed(tree: Path, seconds: float, start: int) -> str:
    """After how many runs and seconds the fuzz has found it; empty: it has not."""
    told, took = _run(
        tree, seconds + MOST_SECONDS, "tests.fuzz", "--no-shrink", f"--seconds={seconds}", f"--start={start}"
    )
    found = re.search(r"fails, after (\d+) runs", told)
    return f"run {found[1]}, {took:.0f} s" if found else ""


def _tested(tree: Path, tests: tuple[str, ...]) -> str:
    """After how many seconds one of the tests that name it has failed; empty: none has."""
    known = homes()
    nodes = ["tests/" + "::".join(node_of(test, known)) for test in tests]
    told, took = _run(tree, MOST_SECONDS, "pytest", "-x", "-q", "-p", "no:cacheprovider", *nodes)
    found = re.search(r"^(?:FAILED|ERROR) \S*::(\w+)", told, re.MULTILINE)
    return f"{found[1]}, {took:.0f} s" if found and "exit 1" in told else ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.without", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="of the fuzz, for each mend")
    parser.add_argument("--start", type=int, default=1, help="the first seed")
    parser.add_argument("only", nargs="*", help="words in the names of the mends to take out")
    options = parser.parse_args()
    print("| # | without the mend of | the fuzz finds it at | the tests that name it |\n|---|---|---|---|", flush=True)
    missed = 0
    for mend in MENDS:
        if options.only and not any(word in mend.fault or word == str(mend.number) for word in options.only):
            continue
        with tempfile.TemporaryDirectory(prefix="without-") as folder:
            tree = Path(folder)
            copied(tree)
            strange = taken_out(tree, mend)
            if strange is not None:
                cells = [f"NOT TAKEN OUT: its text has changed: {strange.strip()[:100]}", ""]
            else:
                cells = [
                    _fuzzed(tree, options.seconds, options.start) if mend.is_fuzzed else "",
                    _tested(tree, mend.tests),
                ]
        missed += strange is not None or not any(cells)
        print(f"| {mend.number or '-'} | {mend.fault} | {cells[0] or '-'} | {cells[1] or '-'} |", flush=True)
    print(f"{missed} not found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
