"""The path of a request runs compiled only while it says what its source says (``sidecar/compiled.py``).

Each case is a copy of the package and an interpreter of its own; nothing is compiled here.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from deploy import compile as compiling
from sidecar import compiled

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "sidecar"
_OWN = EXTENSION_SUFFIXES[0].encode()
SAY = "import sidecar.wire.turn as room, sidecar.compiled as compiled; print(room.__file__); print(compiled.running())"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A package of the same sources, with what has been compiled from them, if that was done."""
    shutil.copytree(PACKAGE, tmp_path / "sidecar", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "sidecar"


def ask(package: Path, **environ: str) -> tuple[str, str]:
    """Which file a new interpreter takes for ``wire.turn``, and what it says of that."""
    variables = {name: value for name, value in os.environ.items() if name != "SIDECAR_INTERPRETED"}
    asked = subprocess.run(
        [sys.executable, "-c", SAY], cwd=package.parent, env={**variables, **environ}, capture_output=True, text=True
    )
    assert asked.returncode == 0, asked.stderr
    assert asked.stderr == ""
    file, said = asked.stdout.splitlines()
    return file, said


def pretend(package: Path, suffix: str = EXTENSION_SUFFIXES[0]) -> None:
    """As if it had been compiled from these sources: one module, of which only the place matters here."""
    shutil.rmtree(package / "_compiled", ignore_errors=True)
    (package / "_compiled").mkdir()
    lines = [f"{compiled.digest(package / name)} {name}" for name in ("wire/turn.py", "core/words.py")]
    (package / "_compiled" / compiled.MADE_FROM).write_text("\n".join([suffix, *lines]) + "\n")


@pytest.fixture
def is_compiled() -> None:
    if compiled.form() != "compiled":
        pytest.fail(f"{compiled.form()}; `make test` compiles it first, or says why it cannot")


@pytest.mark.usefixtures("is_compiled")
def test_what_is_compiled_runs_while_its_sources_are_the_same(copy: Path) -> None:
    file, said = ask(copy)
    assert said == "compiled"
    assert Path(file).parent == copy / "_compiled"
    library = next((copy / "_compiled").glob("sidecar_path*"))
    kept = library.read_bytes()
    for broken in (kept[:-1], b"garbage"):
        library.write_bytes(broken)
        assert ask(copy)[1] == f"interpreted: _compiled/{library.name} has changed since it was compiled"
    library.unlink()
    assert ask(copy)[1] == f"interpreted: _compiled/{library.name} has changed since it was compiled"
    library.write_bytes(kept)
    assert ask(copy)[1] == "compiled"
    source = copy / "wire" / "turn.py"
    source.write_text(source.read_text() + "# changed\n")
    assert ask(copy) == (str(source), "interpreted: wire/turn.py has changed since it was compiled")


def test_a_source_that_compiled_modules_only_import_counts_too(copy: Path) -> None:
    pretend(copy)
    words = copy / "core" / "words.py"
    words.write_text(words.read_text() + "\n")
    assert ask(copy)[1] == "interpreted: core/words.py has changed since it was compiled"
    words.unlink()
    assert compiled_of(copy) == "interpreted: core/words.py has changed since it was compiled"


def compiled_of(package: Path) -> str:
    """``form`` of this package, with nothing else of it imported."""
    asked = [sys.executable, "-c", "import compiled; print(compiled.form())"]
    return subprocess.run(asked, cwd=package, capture_output=True, text=True, check=True).stdout.strip()


def test_what_another_python_has_compiled_is_left_alone(copy: Path) -> None:
    pretend(copy, ".cpython-399-elsewhere.so")
    file, said = ask(copy)
    assert said == "interpreted: it was compiled for another Python (.cpython-399-elsewhere.so)"
    assert Path(file) == copy / "wire" / "turn.py"


@pytest.mark.parametrize("noted", [b"", b"\xff\xfe\x00", b"\n\n", b"nonsense", _OWN, _OWN + b"\n\n"])
def test_garbage_beside_it_means_interpreted(copy: Path, noted: bytes) -> None:
    pretend(copy)
    (copy / "_compiled" / compiled.MADE_FROM).write_bytes(noted)
    file, said = ask(copy)
    assert said.startswith("interpreted: ")
    assert Path(file) == copy / "wire" / "turn.py"


def test_nothing_compiled_means_interpreted(copy: Path) -> None:
    shutil.rmtree(copy / "_compiled", ignore_errors=True)
    assert ask(copy) == (str(copy / "wire" / "turn.py"), "interpreted: it has not been compiled")


def test_it_can_be_turned_off(copy: Path) -> None:
    pretend(copy)
    assert ask(copy, SIDECAR_INTERPRETED="1")[1] == "interpreted: SIDECAR_INTERPRETED is set"


@pytest.mark.parametrize(("arguments", "code"), [((), 1), (("--if-possible",), 0)])
def test_without_a_compiler_it_says_so(copy: Path, arguments: tuple[str, ...], code: int) -> None:
    shutil.rmtree(copy / "_compiled", ignore_errors=True)
    (copy.parent / "deploy").mkdir()
    shutil.copy(ROOT / "deploy" / "compile.py", copy.parent / "deploy")
    variables = {name: value for name, value in os.environ.items() if name != "SIDECAR_INTERPRETED"}
    asked = subprocess.run(
        [sys.executable, "deploy/compile.py", *arguments],
        cwd=copy.parent,
        env={**variables, "CC": "no-such-compiler"},
        capture_output=True,
        text=True,
    )
    assert asked.returncode == code
    assert "there is no C compiler (no-such-compiler); on Debian and Ubuntu: apt install gcc" in asked.stderr
    assert "Traceback" not in asked.stderr
    assert not (copy / "_compiled").exists()


@pytest.mark.usefixtures("is_compiled")
def test_what_is_compiled_was_made_from_every_source_that_it_imports() -> None:
    noted = {line.partition(" ")[2] for line in (compiled.COMPILED / compiled.MADE_FROM).read_text().splitlines()[1:]}
    assert {name for name in noted if not name.startswith("_compiled/")} == set(compiling.sources_of(ROOT))
    assert {"core/words.py", "core/flow/limiter.py", "proxy/front.py", "proxy/replies.py"} <= noted


def test_who_inherits_from_a_compiled_class_is_compiled() -> None:
    """mypyc: an interpreted heir of a compiled class is refused when it is defined."""
    trees = {path: ast.parse(path.read_bytes()) for path in PACKAGE.rglob("*.py")}
    modules = {PACKAGE / f"{name.replace('.', '/')}.py" for name in compiling.MODULES}
    classes = {node.name for path in modules for node in ast.walk(trees[path]) if isinstance(node, ast.ClassDef)}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and path not in modules:
                heir = classes & {base.id for base in node.bases if isinstance(base, ast.Name)}
                assert not heir, f"{path.name}: {node.name} inherits from {heir}: name its module in deploy/compile.py"


def test_no_default_of_a_compiled_class_is_lost() -> None:
    """mypyc leaves ``attribute: A_PROTOCOL | None = None`` in a class body unset, without a word."""
    trees = [ast.parse(path.read_bytes()) for path in PACKAGE.rglob("*.py")]
    protocols = {
        node.name
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and "Protocol" in {ast.unparse(base) for base in node.bases}
    }
    assert "ResponseMessage" in protocols
    for name in compiling.MODULES:
        for made in ast.walk(ast.parse((PACKAGE / f"{name.replace('.', '/')}.py").read_bytes())):
            if isinstance(made, ast.ClassDef) and not any("dataclass" in ast.unparse(d) for d in made.decorator_list):
                for node in made.body:
                    if isinstance(node, ast.AnnAssign) and node.value is not None:
                        named = {each.id for each in ast.walk(node.annotation) if isinstance(each, ast.Name)}
                        assert not named & protocols, f"{name}: set {ast.unparse(node.target)} in __init__"
