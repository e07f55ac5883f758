"""What the numbers were measured on: processor, kernel, versions, and whether the machine was quiet.

No host name, no user, no path: only what a reader needs to weigh a number.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.load import wrk_program
from benchmarks.peers import Peer, sidecar_python
from benchmarks.process import CORE_LOAD, CORE_PROXY

__all__ = ["busy_share", "described", "missing_tools"]

TOOLS = {"wrk": "wrk", "nginx": "nginx-light", "taskset": "util-linux"}
"""Without these nothing can be measured; the Debian package of each."""


def missing_tools() -> list[str]:
    """Debian packages that must be installed first."""
    return [package for tool, package in TOOLS.items() if not _has(tool)]


def described(peers: Iterable[Peer], busy: float) -> str:
    """A Markdown list."""
    cores = "one core for all: expect noise" if CORE_LOAD == CORE_PROXY else "one core for the proxy, one for the load"
    lines = [
        f"- Machine: {_cpu_model()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB; {cores}",
        f"- System: {platform.system()} {_kernel()}, {_distribution()}",
        f"- Python: {platform.python_implementation()} {platform.python_version()}",
        f"- Busy before the first round: {busy:.0%} of the cores",
        f"- Load: {_wrk_version()}",
    ]
    for peer in peers:
        program = peer.find()
        on = "on aiohttp " if program in {sys.executable, sidecar_python()} else ""
        lines.append(f"- {peer.name}: {on + _short(peer.version(program)) if program else 'not installed'}")
    return "\n".join(lines)


def busy_share() -> float:
    """Load of the last minute over the cores: above a tenth, somebody else is working here."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def _has(tool: str) -> bool:
    return any(os.access(Path(folder) / tool, os.X_OK) for folder in [*os.get_exec_path(), "/usr/sbin", "/sbin"])


def _short(version: str) -> str:
    """The number alone, without its builder's words."""
    found = re.search(r"\b\d+\.\d+[\w.+-]*(?:, (?:compiled|source.*))?", version)
    return found.group() if found else "version unknown"


def _kernel() -> str:
    """Its series; what a builder adds says where it runs, not how fast."""
    return ".".join(platform.release().split(".")[:2])


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found.group(1) if found else platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "unknown distribution")
    except OSError:
        return "unknown distribution"


def _wrk_version() -> str:
    program = wrk_program()
    if program is None:
        return "wrk not installed"  # storms are made without it
    done = subprocess.run([program, "-v"], capture_output=True, text=True)
    line = (done.stdout + done.stderr).splitlines()[0] if done.stdout + done.stderr else "wrk"
    return line.split(" Copyright")[0]
