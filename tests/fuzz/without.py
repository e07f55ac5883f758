"""Takes each mend out, one at a time, and shows within how many runs the fuzz finds that: ``make mutants``.

In a copy of the tree, in a process of its own. A mend that is not found is a hole in the fuzz.
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

from tests.fuzz.mends import MENDS

ROOT = Path(__file__).resolve().parents[2]


def taken_out(tree: Path, edits: tuple[tuple[str, str], ...]) -> str | None:
    """Edit the copy; what an edit was not found for, if any."""
    for before, after in edits:
        homes = [path for path in (tree / "sidecar").rglob("*.py") if before in path.read_text(encoding="utf-8")]
        if len(homes) != 1 or homes[0].read_text(encoding="utf-8").count(before) != 1:
            return before
        homes[0].write_text(homes[0].read_text(encoding="utf-8").replace(before, after), encoding="utf-8")
    return None


def copied(tree: Path) -> None:
    for name in ("sidecar", "tests", "config"):
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "node_modules")
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tree)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.without", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="for each mend")
    parser.add_argument("--start", type=int, default=1, help="the first seed")
    parser.add_argument("only", nargs="*", help="words in the names of the mends to take out")
    options = parser.parse_args()
    missed = 0
    for name, edits in MENDS.items():
        if options.only and not any(word in name for word in options.only):
            continue
        with tempfile.TemporaryDirectory(prefix="without-") as folder:
            copied(Path(folder))
            strange = taken_out(Path(folder), edits)
            if strange is not None:
                print(f"{name}: not taken out, its text has changed: {strange.strip()[:100]}", flush=True)
                missed += 1
                continue
            command = [sys.executable, "-m", "tests.fuzz", "--no-shrink", f"--seconds={options.seconds}"]
            begun = time.monotonic()
            done = subprocess.run(
                [*command, f"--start={options.start}"], cwd=folder, capture_output=True, text=True, check=False
            )
        seconds = time.monotonic() - begun
        found = re.search(r"fails, after (\d+) runs.*:\n  (.*)", done.stdout)
        if found is None:
            missed += 1
            print(f"{name}: NOT FOUND in {seconds:.0f} s {done.stderr[-300:]}", flush=True)
        else:
            print(f"{name}: run {found[1]}, {seconds:.1f} s: {found[2][:110]}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
