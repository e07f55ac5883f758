"""aiohttp without its client: what ``serve`` leaves out, and that it is there for who asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEAN = "import sys; from sidecar.cli.serving.lean_imports import leave_out_the_client; leave_out_the_client()\n"


def printed(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_what_serve_imports_leaves_the_client_out() -> None:
    """If it fails: a module of aiohttp that we use asks its package for more than its own modules."""
    code = (
        "import sidecar.cli.serving.run; print('aiohttp.http_parser' in sys.modules, 'aiohttp.client' in sys.modules)"
    )
    assert printed(LEAN + code) == "True False"


def test_who_asks_for_the_client_gets_it() -> None:
    code = "import sidecar.cli.serving.run, aiohttp\n"
    code += "print(aiohttp.ClientSession.__module__, aiohttp.ClientTimeout.__module__, hasattr(aiohttp, 'nothing'))"
    assert printed(LEAN + code) == "aiohttp.client aiohttp.client False"
    assert printed(LEAN + "from aiohttp import ClientSession; print(ClientSession.__name__)") == "ClientSession"


def test_the_package_knows_its_version() -> None:
    there = printed("import aiohttp; print(aiohttp.__version__)")
    assert printed(LEAN + "import aiohttp; print(aiohttp.__version__)") == there


def test_what_is_imported_already_stays_as_it_is() -> None:
    code = "import sys, aiohttp\nfrom sidecar.cli.serving.lean_imports import leave_out_the_client\n"
    code += "leave_out_the_client()\n"
    assert printed(code + "print(sys.modules['aiohttp'] is aiohttp, 'aiohttp.client' in sys.modules)") == "True True"
