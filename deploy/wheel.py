"""Hatchling's hook: a wheel carries the compiled path of a request, if it can be compiled here (``compile.py``).

Where it cannot, the wheel is pure Python, and ``pip -v`` says why; ``SIDECAR_COMPILE=must`` makes that an error.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent.parent))
from deploy.compile import CannotCompile, compile_path

__all__ = ["CompiledPath"]


class CompiledPath(BuildHookInterface[Any]):
    """Found by hatchling through ``pyproject.toml``."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            # A source tree: `make setup` compiles it, and again when a source has changed.
            return
        try:
            compile_path(Path(self.root))
        except CannotCompile as exc:
            if os.environ.get("SIDECAR_COMPILE") == "must":
                raise
            self.app.display_warning(f"The path of a request is not compiled, and costs a fifth more CPU: {exc}.")
            return
        build_data["artifacts"].append("sidecar/_compiled/*")
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
