"""Headless Chromium over the page of a real admin port. `make browser` brings what these tests need."""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest_asyncio
from playwright.async_api import Browser, Page, ViewportSize, async_playwright

from sidecar.observe.recent import Recent
from sidecar.observe.record import ExchangeRecord
from sidecar.observe.trend import Trend
from tests.admin.test_admin import World, opened
from tests.observe.samples import FAILED, OK, RECOVERED, REJECTED

__all__ = ["ARGUMENTS", "Shown", "chromium"]

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Held(World):
    """A process whose upstreams hold what a test says."""

    told: dict[str, dict[str, object]] = field(default_factory=dict)

    def names(self) -> list[str]:
        return [meters.name for meters in self.metrics.upstreams()]

    def states(self) -> dict[str, dict[str, object]]:
        return self.told


@dataclass
class Shown:
    """The page in a browser, the process behind it, and everything that went wrong or out."""

    page: Page
    world: Held
    url: str
    trend: Trend
    errors: list[str]
    requests: list[str]
    made: int = 0

    def add(self, record: ExchangeRecord, **changes: object) -> ExchangeRecord:
        """One more exchange in the ring; its id is ``x-NUMBER``."""
        self.made += 1
        told = {"request_id": f"x-{self.made}", "started_at": time.time() + self.made / 1000, **changes}
        made = replace(record, **told)  # type: ignore[arg-type]
        self.world.recent.add(made)
        return made

    async def refreshed(self) -> None:
        """The page has asked again now, as it does every two seconds, and drawn what came."""
        await self.page.evaluate("refresh()")

    async def polled(self) -> None:
        """The same, by itself."""
        for _ in range(2):
            async with self.page.expect_response(lambda answer: "/debug/numbers" in answer.url):
                pass


def chromium() -> str:
    """The program. AssertionError if there is none: `make browser` installs it, or says that it cannot."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    assert found is not None, "no chromium on PATH: apt install chromium"
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def shown(browser: Browser) -> AsyncIterator[Shown]:
    """A fresh profile over a process with some history: one upstream that flows, a few exchanges."""
    world = Held(recent=Recent(10_000))
    trend = Trend(world.metrics)
    world.metrics.upstream("meshqu").finished("GET", OK.outcome, 0.1)
    runner, door = await opened(replace(world.state(), trend=trend))
    context = await browser.new_context(viewport=ViewportSize(width=1280, height=900))
    page = await context.new_page()
    url = f"http://127.0.0.1:{door.port}"
    shown = Shown(page, world, url, trend, [], [])
    page.on("console", lambda said: shown.errors.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: shown.errors.append(str(error)))
    page.on("request", lambda request: shown.requests.append(request.url))
    for record in (OK, RECOVERED, FAILED, REJECTED):
        shown.add(record)
    await page.goto(url)
    await page.wait_for_selector("tr.x")
    yield shown
    await context.close()
    await runner.cleanup()
