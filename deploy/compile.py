"""Compiles the path of a request to machine code, with mypyc: ``python deploy/compile.py``.

Same sources, same tests, a fifth less CPU for each request (docs/performance.md). It needs a C compiler and Python's
headers. The result lies in ``sidecar/_compiled`` and says what it was made from; ``sidecar/compiled.py`` uses it only
as long as that holds. Called again while it holds, it does nothing.

With ``SIDECAR_INTERPRETED`` in the environment there is nothing to do. With ``--if-possible`` a machine that cannot
compile is told so, and everything runs from source. ``wheel.py`` does the same for a wheel.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import io
import os
import shutil
import sys
import sysconfig
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NAME = "sidecar_path"
"""Of the one library that holds all of it."""
LOST_DEFAULT = "Unsupported default attribute value"
"""mypyc's warning where a default in a class body is no constant: it is a failure here."""

MODULES = (
    "observe.metrics",
    "proxy.answering",
    "proxy.destinations",
    "proxy.exchange",
    "proxy.front",
    "proxy.headers",
    "proxy.ids",
    "proxy.intake",
    "proxy.listener",
    "proxy.nobody",
    "proxy.opening",
    "proxy.preparation",
    "proxy.routing",
    "proxy.sending",
    "proxy.services",
    "proxy.switching",
    "proxy.tunnel",
    "proxy.upgrade",
    "upstream.connection",
    "upstream.pool",
    "upstream.reception",
    "upstream.timers",
    "wire.framing",
    "wire.heads",
    "wire.turn",
)
"""What an untroubled request runs through; and who inherits from it, since a compiled class has compiled heirs only."""


class CannotCompile(Exception):
    """The text says what is missing, and what to do."""


def compile_path(root: Path) -> bool:
    """Make ``sidecar/_compiled`` under ``root``; False if what is there holds. Raises ``CannotCompile``."""
    compiled = _room(root)
    if compiled.fit() == "compiled" and _is_of_these(root, compiled.COMPILED, compiled.MADE_FROM):
        return False
    _look_for_tools()
    print("compiling the path of a request (half a minute) …", flush=True)
    with tempfile.TemporaryDirectory(prefix="sidecar-compile-") as name:
        made = Path(name) / "made"
        noted = [f"{compiled.digest(root / 'sidecar' / source)} {source}" for source in sources_of(root)]
        _build(root, Path(name), made)
        noted += [f"{compiled.digest(file)} {compiled.COMPILED.name}/{file.name}" for file in sorted(made.iterdir())]
        (made / compiled.MADE_FROM).write_text("\n".join([_suffix(), *noted]) + "\n")
        _put(made, compiled.COMPILED)
    if (found := compiled.fit()) != "compiled":
        raise CannotCompile(f"a source was changed meanwhile ({found}); try again")
    return True


def _is_of_these(root: Path, folder: Path, made_from: str) -> bool:
    """Whether exactly these ``MODULES`` were compiled, and from all of their sources."""
    noted = [line.partition(" ")[2] for line in (folder / made_from).read_text().splitlines()[1:]]
    sources = [name for name in noted if not name.startswith(folder.name)]
    modules = {f"{folder.name}/sidecar.{name}{_suffix()}" for name in MODULES}
    return sources == sources_of(root) and modules == {
        name for name in noted if name.startswith(f"{folder.name}/sidecar.")
    }


def _room(root: Path) -> Any:
    """``sidecar/compiled.py`` itself: the package is not imported, so that none of it is in use while it is made."""
    spec = importlib.util.spec_from_file_location("compiled", root / "sidecar" / "compiled.py")
    if spec is None or spec.loader is None:
        raise CannotCompile(f"{root} is not a source tree of the sidecar")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _suffix() -> str:
    return str(sysconfig.get_config_var("EXT_SUFFIX"))


def _look_for_tools() -> None:
    missing = [name for name in ("mypyc", "setuptools") if importlib.util.find_spec(name) is None]
    if missing:
        raise CannotCompile(f"{' and '.join(missing)} must be installed (deploy/constraints-build.txt)")
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        raise CannotCompile(f"there is no C compiler ({compiler}); on Debian and Ubuntu: apt install gcc python3-dev")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise CannotCompile("Python's headers are missing; on Debian and Ubuntu: apt install python3-dev")


def _build(root: Path, work: Path, made: Path) -> None:
    """Compile into ``made``, flat: ``sidecar.proxy.front.SUFFIX`` and the like."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.errors import BaseError, CCompilerError

    here, said = Path.cwd(), io.StringIO()
    settings = work / "mypy.ini"
    settings.write_text("[mypy]\nignore_missing_imports = True\nfollow_imports = silent\n")
    files = [f"sidecar/{name.replace('.', '/')}.py" for name in MODULES]
    os.chdir(root)
    try:
        with redirect_stdout(said), redirect_stderr(said):
            extensions = mypycify(
                [f"--config-file={settings}", f"--cache-dir={work / 'cache'}", *files],
                opt_level="2",
                debug_level="0",
                group_name=NAME,
                target_dir=str(work / "c"),
            )
        if LOST_DEFAULT in said.getvalue():
            raise CannotCompile(f"an attribute would be unset:\n{said.getvalue()}")
        for each in extensions:
            each.extra_compile_args.append("-Wno-error")
            each.extra_link_args.append("-s")
        distribution = Distribution({"name": NAME, "ext_modules": extensions, "script_name": __file__})
        command: Any = distribution.get_command_obj("build_ext")
        command.build_lib, command.build_temp = str(work / "lib"), str(work / "temp")
        command.ensure_finalized()
        command.run()
    except SystemExit:
        raise CannotCompile(f"mypyc refused the sources:\n{said.getvalue()}") from None
    except (BaseError, CCompilerError) as exc:
        raise CannotCompile(f"the C compiler failed: {str(exc)[:200]}") from None
    finally:
        os.chdir(here)
    made.mkdir()
    for file in (work / "lib").rglob(f"*{_suffix()}"):
        file.rename(made / ".".join(file.relative_to(work / "lib").parts))


def _put(made: Path, target: Path) -> None:
    """In place of what was there before. A process that has loaded the old files keeps them."""
    old = target.with_name(f"{target.name}.old")
    new = target.with_name(f"{target.name}.new")
    for leftover in (old, new):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(made, new)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def sources_of(root: Path) -> list[str]:
    """The compiled modules, and all of ours that they lead to by imports: types and constants are compiled in."""
    package = root / "sidecar"
    found = {f"{name.replace('.', '/')}.py" for name in MODULES}
    unread = list(found)
    while unread:
        for node in ast.walk(ast.parse((package / unread.pop()).read_bytes())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sidecar."):
                path = "/".join((node.module or "").split(".")[1:])
                more = {name for name in (f"{path}.py", f"{path}/__init__.py") if (package / name).is_file()} - found
                found |= more
                unread += more
    return sorted(found)


def main() -> int:
    parser = argparse.ArgumentParser(prog="deploy/compile.py", description="Compile the path of a request (mypyc).")
    parser.add_argument("--if-possible", action="store_true", help="say so and go on, where it cannot be compiled")
    given = parser.parse_args()
    try:
        if not _room(ROOT).is_turned_off():
            compile_path(ROOT)
    except CannotCompile as exc:
        print(f"The path of a request is not compiled, and costs a fifth more CPU: {exc}.", file=sys.stderr)
        return 0 if given.if_possible else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
