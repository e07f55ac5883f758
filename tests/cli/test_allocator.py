"""The allocator's advice: harmless wherever it is given, and taken by glibc."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

from sidecar.cli.serving.memory import KEPT_BYTES, LARGE_BYTES, keep_freed_memory

ROOT = Path(__file__).resolve().parents[2]
COUNT = """
import resource
from sidecar.cli.serving.memory import keep_freed_memory
{advice}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytes(512 << 10)
before = faults()
for _ in range(50):
    bytearray(b"a" * (512 << 10))
print(faults() - before)
"""


def faults(advice: str) -> int:
    done = subprocess.run([sys.executable, "-c", COUNT.format(advice=advice)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_it_may_be_given_more_than_once() -> None:
    keep_freed_memory()
    keep_freed_memory()
    assert LARGE_BYTES < KEPT_BYTES


def test_with_it_a_large_buffer_does_not_fault_in_again_each_time() -> None:
    advised = faults("keep_freed_memory()")
    if platform.libc_ver()[0] == "glibc":
        assert advised < 50 * 128 / 4, f"{advised} page faults for 50 buffers of 128 pages"


def test_the_collector_rests_until_everything_is_built_and_then_leaves_that_alone() -> None:
    code = """
import gc
from sidecar.cli.serving.memory import THRESHOLDS, collect_nothing_yet, collect_rarely
collect_nothing_yet()
print(gc.isenabled())
collect_rarely()
print(gc.isenabled(), gc.get_threshold() == THRESHOLDS, gc.get_freeze_count() > 1000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "True", "True", "True"], done.stderr
