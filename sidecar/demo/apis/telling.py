"""Plays the story of one emulated API through a sidecar with the shipped policy, and tells it as a table.

The app here never retries; waits are real and short. It prints nothing. The counterpart is ``cli.demo``.
"""

from __future__ import annotations

import asyncio
import io
import re
import time
from dataclasses import dataclass
from typing import Final

from sidecar.app import Sidecar
from sidecar.demo.apis.emulator import PLAN, Call, Emulator
from sidecar.demo.apis.scenes import STORIES, Scene
from sidecar.demo.apis.stage import deployment_of, emulated
from sidecar.demo.apis.tokens import Tokens

__all__ = ["tell"]

CROWD: Final = 200
PATIENCE_SECONDS: Final = 14.0

_STATUS: Final = re.compile(rb"HTTP/1\.1 ([0-9]{3})")
_STORY: Final = re.compile(rb"^sidecar: *outcome=([^\r\n]+)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Got:
    """What the app got."""

    status: str
    told: str
    """The ``Sidecar`` header, from its outcome on."""
    body: str


async def tell(name: str) -> str:
    """The whole text for the API of that name. Raises ``OSError`` if loopback cannot be listened on."""
    story = STORIES[name]
    async with emulated(name, time.monotonic) as api:
        sidecar = Sidecar(deployment_of(name, api.port), log_stream=io.StringIO())
        await sidecar.start()
        try:
            port = sidecar.address.port
            gots = [await _ask(port, name, story.first, 0)]
            gots += await asyncio.gather(*(_ask(port, name, each, n) for n, each in enumerate(story.scenes, 1)))
            crowd = await _crowd(port, name, story.crowd, api) if story.crowd is not None else ""
        finally:
            await sidecar.stop()
        return _text(api, [story.first, *story.scenes], gots, crowd)


async def _crowd(port: int, name: str, scene: Scene, api: Emulator) -> str:
    tokens = getattr(api, "tokens", None)
    if isinstance(tokens, Tokens):
        tokens.revoke_all()
    before = api.logins
    gots = await asyncio.gather(*(_ask(port, name, scene, 1000 + number) for number in range(CROWD)))
    good = sum(got.status.startswith("2") for got in gots)
    return f"{CROWD} requests at once, {scene.title}: {good} succeeded, with {api.logins - before} login."


async def _ask(port: int, name: str, scene: Scene, number: int) -> Got:
    plan = f"{PLAN}: {scene.plan}\r\n" if scene.plan else ""
    head = (
        f"{scene.method} /{name}{scene.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
        f"X-Request-Id: demo-{number}\r\nContent-Type: application/json\r\n{plan}"
        f"Content-Length: {len(scene.body)}\r\n\r\n"
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write((head + scene.body).encode())
                raw = await reader.read(-1)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return Got("none", "no answer in time", "")
    status, told = _STATUS.match(raw), _STORY.search(raw)
    return Got(
        status[1].decode() if status else "none",
        told[1].decode("latin-1") if told else "",
        raw.partition(b"\r\n\r\n")[2].decode("utf-8", "replace"),
    )


def _text(api: Emulator, scenes: list[Scene], gots: list[Got], crowd: str) -> str:
    rows = [("what happens", "the app asks", "the API says", "the app gets")]
    for number, (scene, got) in enumerate(zip(scenes, gots, strict=True)):
        said = ", ".join(_said(call, scene.method) for call in api.calls_of(f"demo-{number}"))
        rows.append((scene.title, f"{scene.method} {scene.path}", said, f"{got.status}  {got.told}".rstrip()))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  " + "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]))
        for row in rows
    ]
    own = next((got for got in gots if got.told.startswith("failed") and got.body), None)
    parts = ["\n".join(line.rstrip() for line in lines)]
    if crowd:
        parts.append(crowd)
    twice = sum(count > 1 for count in api.applied.values())
    parts.append(f"Done twice: {twice}. Sent again sooner than the API asked: {len(api.came_too_soon())}.")
    if own is not None:
        parts.append(f"The sidecar's own answer, in the API's envelope:\n  {own.body}")
    return "\n\n".join(parts)


def _said(call: Call, method: str) -> str:
    what = str(call.status) if call.status is not None else "reset"
    if call.hint_seconds is not None:
        what += f" (wait {call.hint_seconds:g} s)"
    return what if call.method == method else f"{call.method}: {what}"
