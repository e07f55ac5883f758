"""What mypyc needs of the modules that a wheel compiles, and what a build says that cannot compile them.

Nothing is compiled here: `.ci/run` builds the wheel and runs the behaviour tests against it.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest

from deploy import compile as compiling
from sidecar.cli.form import form

ROOT = Path(__file__).resolve().parent.parent
MODULES = [ROOT / module for module in compiling.marked(ROOT)]
TREES = {path: ast.parse(path.read_bytes()) for path in (ROOT / "sidecar").rglob("*.py")}


def test_the_path_of_a_request_is_marked() -> None:
    packages = {module.relative_to(ROOT / "sidecar").parts[0] for module in MODULES}
    assert packages == {"observe", "proxy", "upstream", "wire"}
    assert len(MODULES) >= 20


def test_a_source_tree_runs_source() -> None:
    assert not list((ROOT / "sidecar").rglob("*.so"))
    assert form() == "source"


def test_a_subclass_of_a_compiled_class_is_compiled() -> None:
    """mypyc refuses to let an interpreted class inherit from a compiled one."""
    classes = {node.name for path in MODULES for node in ast.walk(TREES[path]) if isinstance(node, ast.ClassDef)}
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and path not in MODULES:
                bases = classes & {base.id for base in node.bases if isinstance(base, ast.Name)}
                assert not bases, f"{path.name}: {node.name} inherits from {bases}: mark it, too: {compiling.MARK}"


def test_no_default_of_a_compiled_class_is_lost() -> None:
    """mypyc leaves ``attribute: A_PROTOCOL | None = None`` in a class body unset, without a word."""
    protocols = {
        node.name
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and "Protocol" in {ast.unparse(base) for base in node.bases}
    }
    assert "ResponseMessage" in protocols
    for path in MODULES:
        for made in ast.walk(TREES[path]):
            if isinstance(made, ast.ClassDef) and not any("dataclass" in ast.unparse(d) for d in made.decorator_list):
                for node in made.body:
                    if isinstance(node, ast.AnnAssign) and node.value is not None:
                        named = {each.id for each in ast.walk(node.annotation) if isinstance(each, ast.Name)}
                        assert not named & protocols, f"{path.name}: set {ast.unparse(node.target)} in __init__"


def test_no_field_of_a_compiled_dataclass_is_an_object() -> None:
    """mypyc looks the annotation up among the names of the module, where ``object`` is not: importing it fails."""
    for path in MODULES:
        for made in ast.walk(TREES[path]):
            if isinstance(made, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in made.decorator_list):
                fields = [node for node in made.body if isinstance(node, ast.AnnAssign)]
                wrong = [ast.unparse(node) for node in fields if ast.unparse(node.annotation) == "object"]
                assert not wrong, f"{path.name}: write `Any` in {made.name}: {wrong}"


def test_without_a_compiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(compiling.CannotCompile, match=r"no C compiler \(no-such-compiler\); .* apt install gcc"):
        compiling.build(ROOT, tmp_path)


def test_a_type_that_is_missing_stops_the_build(tmp_path: Path) -> None:
    """Compiled with ``Any`` for its base class, an object has the wrong layout and the process dies."""
    module = tmp_path / "sidecar" / "heir.py"
    module.parent.mkdir()
    module.write_text(f"{compiling.MARK}\nfrom nowhere_installed import Base\n\n\nclass Heir(Base):\n    pass\n")
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(compiling.CannotCompile, match="nowhere_installed"):
        compiling.build(tmp_path, work)
    assert not list(work.rglob("*.c"))


def test_every_dependency_whose_types_are_compiled_in_is_there_at_the_build() -> None:
    """``build-system.requires`` has the same ranges as ``dependencies``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    names = {name.split(">=")[0]: name for name in project["project"]["dependencies"]}
    used = {
        name.split(".")[0].replace("_", "-")
        for path in MODULES
        for node in ast.walk(TREES[path])
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        if name.split(".")[0] not in {*sys.stdlib_module_names, "sidecar"}
    }
    ours = {names.get(name) for name in used} - {None}
    assert {"aiohttp", "prometheus-client"} <= used
    assert ours <= set(project["build-system"]["requires"])
