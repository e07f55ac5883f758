"""aiohttp without its client: ``serve`` needs its parsers and a small server for the admin port.

``import aiohttp`` alone imports the client, which reads the system's certificates and much else that nothing here uses:
a tenth of the time to the first response, and 4 MiB for ever. So the package is registered before its own first lines
have run; they run when a name of the package itself is asked for.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import version
from types import ModuleType
from typing import Any

__all__ = ["leave_out_the_client"]

PACKAGE = "aiohttp"


def leave_out_the_client() -> None:
    """Call it before anything imports aiohttp; after that it does nothing."""
    spec = importlib.util.find_spec(PACKAGE) if PACKAGE not in sys.modules else None
    if spec is None or spec.loader is None:
        return
    package, loader = importlib.util.module_from_spec(spec), spec.loader

    def ask(name: str) -> Any:
        """Called for a name that the package does not have (PEP 562)."""
        if name.startswith("__") or importlib.util.find_spec(f"{PACKAGE}.{name}") is not None:
            # A module of the package: the import system finds it.
            raise AttributeError(name)
        del package.__dict__["__getattr__"]
        loader.exec_module(package)
        return getattr(package, name)

    # Its modules use nothing else of their package.
    _set(package, __version__=version(PACKAGE), __getattr__=ask)
    sys.modules[PACKAGE] = package


def _set(module: ModuleType, **names: object) -> None:
    module.__dict__.update(names)
