"""The page in headless Chromium: what is on it stays where it is, nothing foreign runs, and a keyboard is enough."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from sidecar.core.decision.decide import Decision
from sidecar.core.enums import Outcome, Verb
from sidecar.observe.families import UNREAD_BODY
from tests.browser.conftest import Shown
from tests.observe.samples import FAILED, OK, RECOVERED

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>\x1b[2J\u202e'

CONTRASTS = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const text = [...node.childNodes].filter((n) => n.nodeType === 3 && n.textContent.trim()).length;
    if (!text && !node.placeholder || !node.getClientRects().length || node.closest("script, svg")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), `${node.tagName}.${node.className} ${node.textContent.slice(0, 30)}`]);
  }
  return found.sort((x, y) => x[0] - y[0]);
}"""
"""The contrast of every visible text against what stands behind it (WCAG 2.2, section 1.4.3)."""


async def test_nothing_goes_wrong_and_nothing_goes_out(shown: Shown) -> None:
    await shown.page.locator("button.open").first.click()
    await expect(shown.page.locator(".story h3")).to_be_visible()
    await shown.refreshed()
    assert shown.errors == []
    assert [url for url in shown.requests if not url.startswith((shown.url + "/", "data:,"))] == []


async def test_its_policy_forbids_every_other_place(shown: Shown) -> None:
    ask = """(url) => fetch(url).then(() => "answered", () => "refused")"""
    assert await shown.page.evaluate(ask, shown.url.replace("127.0.0.1", "localhost") + "/livez") == "refused"
    inline = """() => { const s = document.createElement("script"); s.textContent = "window.ran = 1";
      document.body.append(s); return window.ran; }"""
    assert await shown.page.evaluate(inline) is None


async def test_rows_are_added_without_touching_those_that_are_there(shown: Shown) -> None:
    page = shown.page
    third = page.locator("button.open").nth(2)
    await third.focus()
    await page.evaluate("document.querySelectorAll('tr.x').forEach((row, i) => row.mark = i)")
    for _ in range(3):
        shown.add(RECOVERED)
    await shown.polled()
    await expect(page.locator("tr.x")).to_have_count(7)
    marks = await page.evaluate("[...document.querySelectorAll('tr.x')].map((row) => row.mark ?? -1)")
    assert marks == [-1, -1, -1, 0, 1, 2, 3]
    assert await page.evaluate("document.activeElement.closest('tr').mark") == 2


async def test_a_filter_keeps_focus_and_selection(shown: Shown) -> None:
    page = shown.page
    box = page.locator("#id")
    await box.fill("x-2")
    await expect(page.locator("tr.x")).to_have_count(1)
    await box.evaluate("(box) => box.setSelectionRange(1, 3)")
    shown.add(OK)
    await shown.refreshed()
    assert await page.evaluate("[document.activeElement.id, $('id').selectionStart, $('id').selectionEnd]") == [
        "id",
        1,
        3,
    ]
    await page.locator("#outcome").select_option("failed")
    await box.fill("")
    await expect(page.locator("tr.x .c-out")).to_have_text([f"{FAILED.outcome} {FAILED.reason}"])
    await shown.refreshed()
    assert await page.locator("#outcome").input_value() == "failed"


async def test_text_that_is_marked_stays_marked(shown: Shown) -> None:
    page = shown.page
    await page.evaluate("getSelection().selectAllChildren(document.querySelectorAll('tr.x .c-id')[1])")
    marked = await page.evaluate("String(getSelection())")
    shown.add(OK)
    await shown.refreshed()
    assert await page.evaluate("String(getSelection())") == marked == "x-3"


@pytest.mark.parametrize("key", ["Enter", "Space"])
async def test_a_story_opens_by_keyboard_and_stays_open(shown: Shown, key: str) -> None:
    page = shown.page
    opener = page.locator("button.open").nth(2)
    await opener.focus()
    await page.keyboard.press(key)
    await expect(page.locator(".story h3")).to_have_text("GET meshqu /v1/x")
    await expect(opener).to_have_attribute("aria-expanded", "true")
    await expect(page.locator(".bars li")).to_have_count(5)
    await expect(page.locator(".bars li").nth(1)).to_contain_text("waited 0.26 s: backoff")
    await page.evaluate("document.querySelector('.story').mark = 1")
    shown.add(OK)
    await shown.refreshed()
    assert await page.evaluate("document.querySelector('.story').mark") == 1
    assert await page.evaluate("document.activeElement.className") == "open"
    await page.keyboard.press(key)
    await expect(page.locator(".story")).to_have_count(0)


async def test_a_story_tells_every_held_second_with_its_cause(shown: Shown) -> None:
    told: dict[str, object] = {
        "exchange": {
            "outcome": "rejected",
            "attempts": [{"n": 1, "status": 429, "seconds": 0.5}],
            "held": [
                {"by": "breaker", "scope": "upstream", "seconds": 2.0, "before": 1},
                {"by": "gate", "scope": "endpoint GET /v1/*", "seconds": 7.0, "before": 2},
            ],
            "duration_seconds": 9.5,
            "waited_seconds": 9.0,
        },
        "steps": [],
        "test": None,
    }
    lines = """(told) => { const box = document.createElement("div"); box.append(...story(told));
      return [...box.querySelectorAll(".bars li")].map((line) => line.textContent); }"""
    assert await shown.page.evaluate(lines, told) == [
        "held by breaker (upstream): 2.00 s",
        "attempt 1: 429 in 0.50 s",
        "held by gate (endpoint GET /v1/*): 7.00 s",
    ]


async def test_a_story_is_copied_as_a_policy_test_and_shows_its_report(shown: Shown) -> None:
    page = shown.page
    shown.add(RECOVERED, judged_path="/v1/x", request_id="known")
    await page.locator("tr.x", has_text="known").get_by_role("button").click()
    await page.get_by_role("button", name="Copy as policy test").click()
    await expect(page.locator(".story pre.card")).to_contain_text('request: {method: "GET", path: "/v1/x"}')
    await page.get_by_role("button", name="Its report").click()
    await expect(page.locator(".story pre.card")).to_contain_text('"request_id": "known"')


async def test_what_holds_is_told_and_counted_down(shown: Shown) -> None:
    page, world = shown.page, shown.world
    hold = {"by": "breaker", "scope": "upstream", "seconds": 40.0}
    world.metrics.upstream("meshqu").held["breaker"] = 3
    world.told["meshqu"] = {"state": "breaker", "holds": [hold], "retries_off": {"seconds": 125.0}}
    await shown.refreshed()
    await expect(page.locator(".state")).to_have_text("breaker")
    why = page.locator(".why li")
    await expect(why).to_contain_text("breaker holds 3 of upstream")
    await page.locator("#pause").click()
    await expect(why).to_contain_text("next probe in 3")
    before = await why.inner_text()
    await expect(why).not_to_have_text(before, timeout=3000)
    await expect(page.locator("#say")).to_have_text("meshqu: breaker, 3 held")
    await expect(page.locator(".card p.warn")).to_contain_text("retries are off for 2 min")
    await expect(page.locator("#tiles .big").nth(3)).to_have_text("3")


async def test_it_says_flowing_only_where_nobody_is_held(shown: Shown) -> None:
    meters = shown.world.metrics.upstream("meshqu")
    shown.trend.sample()
    meters.finished("GET", Outcome.OK, 0.1)
    await shown.refreshed()
    await expect(shown.page.locator(".state")).to_have_text("flowing")
    meters.held["wait"] = 1
    shown.world.told["meshqu"] = {"state": "flowing", "holds": []}
    await shown.refreshed()
    await expect(shown.page.locator(".state")).to_have_text("wait")


async def test_a_breaker_that_opened_a_minute_ago_leaves_a_trace(shown: Shown) -> None:
    meters, trend = shown.world.metrics.upstream("meshqu"), shown.trend
    for second in range(70):
        meters.breaker_state = 2 if second < 10 else 0
        meters.held["breaker"] = 4 if second < 10 else 0
        trend.sample()
    await shown.refreshed()
    await expect(shown.page.locator("#events li")).to_contain_text(
        ["meshqu: breaker open for about 10 s, up to 4 held"]
    )
    await expect(shown.page.locator("#plot rect.f-lost")).to_have_count(2)


async def test_nothing_foreign_is_taken_for_html(shown: Shown) -> None:
    page = shown.page
    shown.world.metrics.upstream(HOSTILE).finished("GET", Outcome.FAILED, 0.1)
    shown.world.told[HOSTILE] = {"state": HOSTILE, "holds": [{"by": HOSTILE, "scope": HOSTILE, "seconds": 9}]}
    shown.add(
        FAILED,
        upstream=HOSTILE,
        path="/" + HOSTILE,
        correlation_id=HOSTILE,
        method=HOSTILE,
        host=HOSTILE,
        error_code=HOSTILE,
        error_message=HOSTILE,
        policy=HOSTILE,
    )
    await shown.refreshed()
    await page.locator("button.open").first.click()
    await expect(page.locator(".story h3")).to_contain_text("<img src=x")
    assert await page.evaluate("[window.pwned, document.images.length, document.scripts.length]") == [None, 0, 1]
    assert shown.errors == []


async def test_a_switch_needs_the_token_and_a_keyboard_is_enough(shown: Shown) -> None:
    page, world = shown.page, shown.world
    await page.locator(".card summary").first.focus()
    await page.keyboard.press("Enter")
    button = page.get_by_role("button", name="Retries off: meshqu")
    await button.focus()
    await page.keyboard.press("Space")
    await expect(page.locator("#told")).to_contain_text("Type the admin token first")
    assert await page.evaluate("document.activeElement.id") == "token"
    assert world.changes == []
    await page.keyboard.type("correct horse")
    await button.focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#told.good")).to_be_visible()
    assert world.changes == [("off", "meshqu", 600.0)]
    kept = "[localStorage.length, sessionStorage.length, document.cookie, location.href]"
    assert await page.evaluate(kept) == [0, 0, "", shown.url + "/"]
    await page.reload()
    assert await page.locator("#token").input_value() == ""


@pytest.mark.parametrize(("name", "upstream"), [("meshqu", "meshqu"), ("all upstreams", None)])
async def test_what_is_held_is_let_go(shown: Shown, name: str, upstream: str | None) -> None:
    page, world = shown.page, shown.world
    hold = {"by": "gate", "scope": "upstream", "seconds": 40.0}
    world.metrics.upstream("meshqu").held["gate"] = 3
    world.told["meshqu"] = {"state": "gate", "holds": [hold], "retries_off": None}
    await shown.refreshed()
    await expect(page.locator(".state")).to_have_text("gate")
    if upstream is not None:
        await page.locator(".card summary").first.click()
    await page.locator("#switches summary").first.click()
    await page.locator("#token").fill("correct horse")
    await page.get_by_role("button", name=f"Let go what is held: {name}").click()
    await expect(page.locator("#told.good")).to_contain_text("3 exchanges were held")
    assert world.changes == [("open", upstream)]
    world.metrics.upstream("meshqu").held["gate"] = 0
    world.told["meshqu"] = {"state": "flowing", "holds": [], "retries_off": None}
    await shown.refreshed()
    await expect(page.locator(".state")).to_have_text("idle")


async def test_what_a_shadow_policy_would_have_done_is_on_its_card_and_in_the_story(shown: Shown) -> None:
    page, meters = shown.page, shown.world.metrics.upstream("meshqu")
    await shown.refreshed()
    await expect(page.locator(".card dl").first).not_to_contain_text("shadow policy")
    meters.shadowed("retry", "retry")
    meters.shadowed("retry", "pass")
    meters.shadowed("pass", UNREAD_BODY)
    first = replace(RECOVERED.attempts[0], decision=Decision(Verb.RETRY), shadow=Decision(Verb.PASS))
    shown.add(RECOVERED, shadow="next", attempts=(first, *RECOVERED.attempts[1:]))
    await shown.refreshed()
    card = page.locator(".card dl").first
    await expect(card).to_contain_text("2 judged, 1 differ (retry → pass); 1 not judged: body")
    await page.locator("button.open").first.click()
    await expect(page.get_by_text("The shadow policy next would have decided:")).to_be_visible()
    assert shown.errors == []


async def test_a_wrong_token_changes_nothing_and_is_told(shown: Shown) -> None:
    page = shown.page
    await page.locator("#switches summary").click()
    await page.locator("#token").fill("wrong")
    await page.get_by_role("button", name="Retries off: all upstreams").click()
    await expect(page.locator("#told.bad")).to_contain_text("SIDECAR_ADMIN_TOKEN")
    assert shown.world.changes == []


async def test_it_says_when_nobody_answers(shown: Shown) -> None:
    page = shown.page
    await page.route("**/debug/numbers", lambda route: route.abort())
    await expect(page.locator("#lost")).to_contain_text("what you see is old", timeout=6000)
    await page.unroute("**/debug/numbers")
    await expect(page.locator("#lost")).to_be_hidden(timeout=6000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_can_be_read(shown: Shown, scheme: Any) -> None:
    page, world = shown.page, shown.world
    await page.emulate_media(color_scheme=scheme)
    world.told["meshqu"] = {
        "state": "gate",
        "holds": [{"by": "gate", "scope": "upstream"}],
        "retries_off": {"seconds": 9},
    }
    world.metrics.upstream("down")
    world.told["down"] = {"state": "breaker", "holds": []}
    await shown.refreshed()
    await page.locator("button.open").nth(2).click()
    await expect(page.locator(".story h3")).to_be_visible()
    await page.locator("#switches summary").click()
    worst = (await page.evaluate(CONTRASTS))[:3]
    assert worst[0][0] >= 4.5, worst


async def test_headings_are_in_order_and_every_control_has_a_name(shown: Shown) -> None:
    page = shown.page
    await page.locator("button.open").nth(2).click()
    await expect(page.locator(".story h3")).to_be_visible()
    levels = await page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels
    unnamed = """[...document.querySelectorAll("button, input, select, summary")].filter((c) =>
      !(c.textContent.trim() || c.getAttribute("aria-label") || c.labels?.length)).length"""
    assert await page.evaluate(unnamed) == 0
    assert await page.locator("[aria-live=polite], [role=status], [role=alert]").count() >= 3


async def test_a_phone_shows_attempts_first_and_nothing_sticks_out(shown: Shown) -> None:
    page = shown.page
    await page.set_viewport_size({"width": 360, "height": 780})
    await page.locator("button.open").nth(2).click()
    await expect(page.locator(".story h3")).to_be_visible()
    out = "[...document.querySelectorAll('main *')].filter((n) => n.getBoundingClientRect().right > 360.5)"
    assert await page.evaluate(out + ".map((n) => n.tagName + '.' + n.className + '#' + n.id)") == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    row = page.locator("tr.x").nth(2)
    tops = [await row.locator(part).evaluate("(n) => n.offsetTop") for part in (".c-tries", ".c-out", ".c-path")]
    assert tops == sorted(tops)


async def test_thousands_of_exchanges_do_not_stop_it(shown: Shown) -> None:
    for _ in range(10_000):
        shown.add(RECOVERED)
    await shown.refreshed()
    await expect(shown.page.locator("tr.x")).to_have_count(100)
    assert shown.errors == []


async def test_another_site_cannot_press_a_switch(shown: Shown, browser: Browser) -> None:
    """A page under another name, served by nobody: a form, and a fetch with and without credentials."""
    context = await browser.new_context()
    page = await context.new_page()
    await page.route("http://evil.example/**", lambda route: route.fulfill(body="<body>", content_type="text/html"))
    await page.goto("http://evil.example/")
    target = shown.url + "/-/retries/off"
    tries = """(url) => Promise.all([{}, { mode: "no-cors" }, { headers: { Authorization: "Bearer x" } }].map((how) =>
      fetch(url, { method: "POST", ...how }).then((a) => a.type + a.status, () => "refused")))"""
    assert await page.evaluate(tries, target) == ["refused"] * 3
    form = """(url) => { const f = document.createElement("form"); f.method = "post"; f.action = url;
      document.body.append(f); f.submit(); }"""
    async with page.expect_response(target) as waiting:
        await page.evaluate(form, target)
    assert (await waiting.value).status == 403
    assert shown.world.changes == []
    await context.close()
