"""Compiles the path of a request to machine code, with mypyc, for a wheel (``wheel.py``, and so for the image).

Same sources, a fifth less CPU for each request (docs/performance.md). Each extension module lies beside its source,
which Python prefers to the source; a source tree holds none, and runs source.

A module is compiled if one of its lines is ``# Compiled in the wheel.``: the mark moves with the file. Marked are the
modules that an untroubled request runs through, and those whose classes inherit from one of theirs.

A compiled module takes each declared type at its word, so a type that is missing here (``Any`` in place of a base
class) would be a crash there. Therefore mypy reads everything in strict mode and any complaint ends the build;
``build-system.requires`` names the packages whose types are needed. Counterpart: ``tests/test_compiled.py``.
"""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import sysconfig
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

__all__ = ["MARK", "CannotCompile", "build", "marked"]

MARK = "# Compiled in the wheel."
LIBRARY = "sidecar_path"
"""Name of the one library that holds the code of all modules; it lies beside the package."""

_SETTINGS = """\
[mypy]
strict = True
disallow_any_unimported = True
# Other versions of the dependencies may need fewer exemptions than the pinned ones.
warn_unused_ignores = False
# The one dependency without types; only modules that are not compiled use it.
[mypy-http_sf.*]
ignore_missing_imports = True
"""
_LOST_DEFAULT = "Unsupported default attribute value"
"""mypyc's warning where a default in a class body is no constant: the attribute would be unset."""

_THROW_THREE = "res = PyObject_CallFunctionObjArgs(_m, type, value, traceback, NULL);"
_THROW_ONE = "res = PyObject_CallFunctionObjArgs(_m, value, NULL);"
"""mypyc 2.4 throws into what a coroutine awaits with the three arguments that Python 3.12 deprecates
(``lib-rt/misc_ops.c``, ``CPy_YieldFromErrorHandle``). The exception itself, which carries its traceback, is enough."""


class CannotCompile(Exception):
    """The text says what is missing, and what to do."""


def marked(root: Path) -> list[Path]:
    """The modules to compile, relative to ``root``."""
    sources = sorted((root / "sidecar").rglob("*.py"))
    return [path.relative_to(root) for path in sources if MARK in path.read_text("utf-8").splitlines()]


def build(root: Path, work: Path) -> dict[Path, str]:
    """Compile inside ``work``; the files made, each with its place in a wheel. Raises ``CannotCompile``."""
    _look_for_tools()
    print("compiling the path of a request (half a minute) …", flush=True)
    modules = marked(root)
    _compile(root, work, modules)
    suffix = str(sysconfig.get_config_var("EXT_SUFFIX"))
    made = {file: file.relative_to(work / "lib").as_posix() for file in sorted((work / "lib").rglob(f"*{suffix}"))}
    missing = {f"{module.with_suffix('').as_posix()}{suffix}" for module in modules} - set(made.values())
    if missing or not modules:
        raise CannotCompile(f"mypyc made nothing of {', '.join(sorted(missing)) or 'an empty list of modules'}")
    return made


def _look_for_tools() -> None:
    missing = [name for name in ("mypyc", "setuptools") if importlib.util.find_spec(name) is None]
    if missing:
        raise CannotCompile(f"{' and '.join(missing)} must be installed (deploy/constraints-build.txt)")
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        raise CannotCompile(f"there is no C compiler ({compiler}); on Debian and Ubuntu: apt install gcc python3-dev")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise CannotCompile("Python's headers are missing; on Debian and Ubuntu: apt install python3-dev")


def _mended_runtime(work: Path) -> Path:
    """A folder with a copy of the file, to be searched before mypyc's own: the generated C file includes it by name."""
    from mypyc.build import include_dir

    folder = work / "runtime"
    folder.mkdir()
    runtime = Path(include_dir(), "misc_ops.c").read_text(encoding="utf-8")
    (folder / "misc_ops.c").write_text(runtime.replace(_THROW_THREE, _THROW_ONE), encoding="utf-8")
    return folder


def _compile(root: Path, work: Path, modules: list[Path]) -> None:
    """Leaves ``work/lib/sidecar/…/MODULE.SUFFIX`` and the library beside it."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.errors import BaseError, CCompilerError

    here, said = Path.cwd(), io.StringIO()
    settings = work / "mypy.ini"
    settings.write_text(_SETTINGS)
    os.chdir(root)
    try:
        with redirect_stdout(said), redirect_stderr(said):
            extensions = mypycify(
                [f"--config-file={settings}", f"--cache-dir={work / 'cache'}", *map(str, modules)],
                opt_level="2",
                debug_level="0",
                group_name=LIBRARY,
                target_dir=str(work / "c"),
            )
        if _LOST_DEFAULT in said.getvalue():
            raise CannotCompile(f"an attribute would be unset:\n{said.getvalue()}")
        runtime = _mended_runtime(work)
        for each in extensions:
            each.include_dirs.insert(0, str(runtime))
            each.extra_compile_args.append("-Wno-error")
            each.extra_link_args.append("-s")
        distribution = Distribution({"name": LIBRARY, "ext_modules": extensions, "script_name": __file__})
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
