"""Hatchling's hook: a wheel carries the compiled path of a request, if it can be compiled here (``compile.py``).

Where it cannot, the wheel is pure Python: the build says why, and so does ``sidecar serve`` at each start (the reason
travels in ``NOTE``). ``SIDECAR_COMPILE=must`` makes that an error; the image and CI build so.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent.parent))
from deploy.compile import CannotCompile, build

__all__ = ["CompiledPath"]

NOTE = "sidecar/shipped/not-compiled.txt"
"""Place in the wheel; ``sidecar/cli/form.py`` reads it."""


class CompiledPath(BuildHookInterface[Any]):
    """Found by hatchling through ``pyproject.toml``."""

    PLUGIN_NAME = "custom"
    work: Path | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        self.work = Path(tempfile.mkdtemp(prefix="sidecar-compile-"))
        try:
            made = build(Path(self.root), self.work)
        except CannotCompile as exc:
            if os.environ.get("SIDECAR_COMPILE") == "must":
                self.app.abort(f"The path of a request cannot be compiled: {exc}.")
            self.app.display_warning(
                f"A PURE PYTHON WHEEL: the path of a request is not compiled and costs a fifth more CPU: {exc}."
            )
            note = self.work / "note.txt"
            note.write_text(f"{str(exc).splitlines()[0]}\n", encoding="utf-8")
            build_data["force_include"][str(note)] = NOTE
            return
        build_data["force_include"].update({str(file): place for file, place in made.items()})
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self.work is not None:
            shutil.rmtree(self.work, ignore_errors=True)
