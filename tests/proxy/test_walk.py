"""The walk of a request, as ``docs/design.md`` lists it, held against real requests over real sockets.

Each list is every function of ``sidecar`` that such a request enters, in the order of first entry; those that follow
one another in one file stand on one line. ``WRITE_WALK=1 python -m pytest tests/proxy/test_walk.py`` writes them anew.
"""

from __future__ import annotations

import os
import re
import sys
from itertools import groupby, pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from sidecar.proxy.routing.router import valid_hosts
from tests.behaviour.conftest import Make
from tests.support.upstream import Upstream, say

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = f"{ROOT / 'sidecar'}/"
PAGE = ROOT / "docs" / "design.md"
TRIES = 3
"""What a timer of the sidecar enters by chance is not in all of them."""
GOALS = {"untroubled": (16, 40), "retried": (45, 180)}
"""Modules, and how often the reader changes the file."""
STATUSES = {"untroubled": (200,), "retried": (503, 200)}
Entry = tuple[str, str]


class Walk:
    """Which functions are entered, in order."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def note(self, frame: FrameType, event: str, _argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE) and not code.co_name.startswith("<"):
            module = code.co_filename.removeprefix(PACKAGE).removesuffix(".py")
            self.entries.append((module, code.co_qualname))


async def walked(make: Make, upstream: Upstream, kind: str) -> list[Entry]:
    """One request over a connection that has served others before; nothing of it is logged."""
    valid_hosts.clear()  # bounded: where other tests have filled it, each host is looked at anew
    sidecar = await make(upstream, top="log: {sample: 0}")
    listener = sidecar.sidecar.listener
    listener._on_record = None
    listener._is_watched = False
    async with sidecar.client() as client:
        for _ in range(3):
            upstream.script(say(200, b"{}"))
            await client.ask("GET", "/api/v1/x", [])
        upstream.script(*(say(status, b"{}") for status in STATUSES[kind]))
        walk = Walk()
        sys.setprofile(walk.note)
        try:
            await client.ask("GET", "/api/v1/x", [])
            await sidecar.until(lambda: listener.exchanges == 4)
        finally:
            sys.setprofile(None)
    return walk.entries


def as_lines(entries: list[Entry]) -> str:
    once = dict.fromkeys(entries)
    lines = [(module, [name for _, name in group]) for module, group in groupby(once, key=lambda entry: entry[0])]
    return "".join(f"{number:3}  {module}: {', '.join(names)}\n" for number, (module, names) in enumerate(lines, 1))


@pytest.mark.parametrize("kind", list(GOALS))
async def test_the_walk_is_the_one_that_is_documented(make: Make, upstream: Upstream, kind: str) -> None:
    tries = [await walked(make, upstream, kind) for _ in range(TRIES)]
    always = set.intersection(*map(set, tries))
    walks = [[entry for entry in entries if entry in always] for entries in tries]
    shortest = min(walks, key=len)
    modules = len({module for module, _ in shortest})
    moves = sum(one[0] != other[0] for one, other in pairwise(shortest))
    lines = f"{modules} modules, {moves} moves between files:\n\n{as_lines(shortest)}"
    block = re.compile(rf"(<!-- walk: {kind} -->\n```\n).*?(```\n<!-- end -->)", re.DOTALL)
    page = PAGE.read_text(encoding="utf-8")
    if os.environ.get("WRITE_WALK"):
        PAGE.write_text(block.sub(lambda found: found[1] + lines + found[2], page), encoding="utf-8")
        page = PAGE.read_text(encoding="utf-8")
    assert (modules, moves) <= GOALS[kind]
    assert moves <= GOALS[kind][1]
    assert lines in page, f"docs/design.md shows another walk than this one:\n{lines}"
