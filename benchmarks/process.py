"""One measured process: started on one core, its CPU time and memory read from /proc, stopped by its id.

It never drives load; the counterpart that does is ``load``.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

__all__ = ["ANY_CORE", "CORE_LOAD", "CORE_PROXY", "Process", "on_core", "raise_file_limit"]

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 5.0

_cores = sorted(os.sched_getaffinity(0))
CORE_PROXY = _cores[0]
"""The proxy has this one for itself."""
CORE_LOAD = _cores[1 % len(_cores)]
"""Upstream and load share this one. On a machine with one core it is the proxy's too, and results say so."""


ANY_CORE = ",".join(map(str, _cores))
"""For many processes at once, which share what there is."""


def on_core(core: int | str, command: list[str]) -> list[str]:
    """The command bound to one core by ``taskset`` (util-linux), which replaces itself with it."""
    return [shutil.which("taskset") or "taskset", "-c", str(core), *command]


def raise_file_limit() -> int:
    """Open files up to the hard limit, for this process and those that it starts; that limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Process:
    """A process and its children. A context manager: it ends with the block, by SIGTERM, then SIGKILL."""

    def __init__(
        self, command: list[str], core: int | str, log: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        self.started_at = time.perf_counter()
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                on_core(core, command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environ or {})},
            )
        self.pid = self._popen.pid

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def is_running(self) -> bool:
        return self._popen.poll() is None

    def cpu_seconds(self) -> float:
        """User and system time of the process, its threads, and its children, dead or alive."""
        return sum(_ticks(pid) for pid in _tree(self.pid)) / TICKS_PER_SECOND

    def rss_bytes(self) -> int:
        """Resident memory; pages shared between parent and child count twice (no peer here has a child)."""
        return sum(_rss_bytes(pid) for pid in _tree(self.pid))

    def stop(self) -> None:
        if not self.is_running():
            return
        self._popen.send_signal(signal.SIGTERM)
        try:
            self._popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


def _stat_fields(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the command's name (proc(5)); empty when the process has gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _ticks(pid: int) -> int:
    fields = _stat_fields(pid)
    # utime stime cutime cstime are fields 14 … 17 of the line, counted from 1; two stand before this list.
    return sum(int(field) for field in fields[11:15])


def _rss_bytes(pid: int) -> int:
    fields = _stat_fields(pid)
    return int(fields[21]) * os.sysconf("SC_PAGE_SIZE") if fields else 0


def _tree(root: int) -> list[int]:
    parents = {pid: int(fields[1]) for pid in _all_pids() if (fields := _stat_fields(pid))}
    tree = [root]
    for known in tree:  # grows while it is read
        tree.extend(pid for pid, parent in parents.items() if parent == known)
    return tree


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]
