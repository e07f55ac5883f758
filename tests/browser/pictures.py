"""``python -m tests.browser.pictures``: the pictures of docs/page.md, of a real sidecar before two sample upstreams.

Four minutes: the axis is filled by time alone. One upstream flows throughout; the other flows, is down, flows, asks for
quiet; a second sidecar sees it go down.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from PIL import Image
from playwright.async_api import Browser, ViewportSize, async_playwright

from sidecar.app import Sidecar
from sidecar.config.load import load_deployment
from tests.browser.conftest import ARGUMENTS, chromium

FOLDER = Path(__file__).parents[2] / "docs" / "page"
DESKTOP, PHONE = ViewportSize(width=1280, height=1060), ViewportSize(width=390, height=1500)
COLOURS = 200
PER_SECOND = {"meshqu": 6.0, "devices-v3": 2.0}

SITE = """
listen: 127.0.0.1:0
admin: 127.0.0.1:0
log: {{sample: 0.1}}
upstreams:
  - {{name: meshqu, origin: "http://127.0.0.1:{port}", mount: /meshqu, policy: shown}}
  - {{name: devices-v3, origin: "http://127.0.0.1:{port}", mount: /devices-v3, policy: shown}}
"""
POLICY = "extends: default\ndeadline: 30s\nattempts: 4\nbackoff: {base: 400ms, factor: 2, cap: 4s, jitter: equal}\n"


class Sample:
    """What both upstreams answer; ``mood`` is that of the one called meshqu."""

    def __init__(self) -> None:
        self.mood = "well"
        self._calls = itertools.count(1)

    async def answer(self, request: web.Request) -> web.Response:
        number = next(self._calls)
        await asyncio.sleep(0.02 + 0.03 * (number % 5))
        if not request.path.startswith("/v1/readings") and self.mood == "down":
            return web.json_response({"error": {"code": "unavailable"}}, status=503)
        if not request.path.startswith("/v1/readings") and self.mood == "quiet":
            return web.json_response({"error": {"code": "slow_down"}}, status=429, headers={"Retry-After": "12"})
        if number % 17 == 0:
            return web.json_response({"error": {"code": "unavailable"}}, status=503)
        return web.json_response({"ok": True}, status=404 if number % 41 == 0 else 200)


@contextlib.asynccontextmanager
async def serving(sample: Sample) -> AsyncIterator[Sidecar]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", sample.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "policies").mkdir()
        (folder / "policies" / "shown.yaml").write_text(POLICY, encoding="utf-8")
        (folder / "sidecar.yaml").write_text(SITE.format(port=runner.addresses[0][1]), encoding="utf-8")
        deployment = load_deployment(folder / "sidecar.yaml", environ={}).deployment
        sidecar = Sidecar(deployment, log_stream=io.StringIO(), token="shown")
        await sidecar.start()
        try:
            yield sidecar
        finally:
            await sidecar.stop()
            await runner.cleanup()


async def load(port: int, name: str) -> None:
    """Requests at a steady pace, whatever becomes of them."""
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:

        async def ask(number: int) -> None:
            path = f"/v1/readings/{number}" if name == "devices-v3" else f"/v1/decisions/{number}"
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"http://127.0.0.1:{port}/{name}{path}") as response:
                    await response.read()

        for number in itertools.count(1000):
            group.create_task(ask(number))
            await asyncio.sleep(1 / PER_SECOND[name])  # a tool, no test: the pictures need steady traffic


async def picture(browser: Browser, url: str, name: str, size: ViewportSize, scheme: Any, story: str = "") -> None:
    context = await browser.new_context(viewport=size, color_scheme=scheme)
    page = await context.new_page()
    await page.goto(url)
    await page.wait_for_selector("tr.x")
    await page.wait_for_timeout(4500)  # two polls: rates need both
    if story:
        await page.locator("#outcome").select_option(story)
        await page.wait_for_timeout(500)
        await page.locator("tr.x").first.get_by_role("button").click()
        await page.wait_for_selector(".story h3")
        await page.locator("#h-ex").scroll_into_view_if_needed()
        await page.evaluate("document.getElementById('h-ex').scrollIntoView()")
    path = FOLDER / f"{name}.png"
    await page.screenshot(path=path)
    await context.close()
    with Image.open(path) as image:
        _with_few_colours(image.convert("RGB")).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB", file=sys.stderr)  # noqa: T201 - a tool


def _with_few_colours(image: Image.Image) -> Image.Image:
    """The most frequent ones as they are, the others as the nearest of them."""
    counted: list[tuple[int, Any]] = sorted(image.getcolors(1 << 24) or [], reverse=True)[:COLOURS]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for _, colour in counted for part in colour])
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


Shot = tuple[str, ViewportSize, str, str]
Phase = tuple[str, float, tuple[Shot, ...]]
"""The mood, how many seconds of it, and the pictures at its end."""

QUIET: tuple[Phase, ...] = (
    ("well", 110, ()),
    ("down", 15, ()),
    (
        "well",
        45,
        (
            ("flowing-light", DESKTOP, "light", ""),
            ("flowing-phone-dark", PHONE, "dark", ""),
            ("story-light", DESKTOP, "light", "recovered"),
        ),
    ),
    ("quiet", 3, (("held-dark", DESKTOP, "dark", ""), ("held-phone-light", PHONE, "light", ""))),
)
OUTAGE: tuple[Phase, ...] = (
    ("well", 45, ()),
    ("down", 8, (("outage-light", DESKTOP, "light", ""), ("outage-phone-dark", PHONE, "dark", ""))),
)


async def take(phases: tuple[Phase, ...]) -> None:
    """A sidecar of its own, through these phases."""
    FOLDER.mkdir(exist_ok=True)
    sample = Sample()
    async with serving(sample) as sidecar, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        users = [asyncio.create_task(load(sidecar.address.port, name)) for name in PER_SECOND]
        for mood, seconds, shots in phases:
            sample.mood = mood
            await asyncio.sleep(seconds)
            for name, size, scheme, story in shots:
                await picture(browser, f"http://127.0.0.1:{sidecar.admin_address.port}/", name, size, scheme, story)
        for user in users:
            user.cancel()
        await asyncio.gather(*users, return_exceptions=True)
        await browser.close()


async def main() -> None:
    await take(QUIET)
    await take(OUTAGE)


if __name__ == "__main__":
    asyncio.run(main())
