"""The page in a real browser against the whole world: what a newcomer does with the mouse reaches Envoy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, async_playwright, expect

from bot.sandbox.world import Options
from tests.e2e.conftest import opened
from tests.e2e.town import Town, mark_of
from tests.fixtures.requirements import needs_binary
from tests.sandbox.test_page import CHROMIUM_ARGS

PATIENCE_MS = 80_000
CATALOG = """
defaults: {namespace: shop, check_every: 1s, arrival: 4s}
gates:
  error-rate: {max: 1%, min_requests: 30}
  p99: {max: 2s, min_requests: 30}
services:
  payments:
    route: {name: payments, http: primary}
    channel: "#payments"
    approvers: ["@release-leads"]
  checkout: {channel: "#checkout"}
"""


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A world with its page."""
    catalog: Path = tmp_path_factory.mktemp("page") / "catalog.yaml"
    catalog.write_text(CATALOG)
    town = opened(Options(catalog=str(catalog), rate=80.0))
    yield town
    town.close()


def test_a_release_by_hand_on_the_page(town: Town) -> None:
    """Ada starts, Grace approves in a dialog, and it is promoted; a fault switched on there rolls the next one back."""
    town.play(_by_hand(town))


async def _by_hand(town: Town) -> None:
    errors: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=needs_binary("chromium"), args=CHROMIUM_ARGS)
        page = await browser.new_page(viewport={"width": 1500, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        await page.goto(town.world.page_url)
        await _promoted(town, page)
        await _rolled_back(page)
        await browser.close()
    assert errors == []


async def _promoted(town: Town, page: Page) -> None:
    await _room(page, "payments")
    await _type(page, "/canary start payments v2 steps 50%:3s,60%:2s:approve,100%:2s")
    card = page.locator("#messages .message", has_text="payments").filter(has=page.locator("h3")).first
    await expect(card.locator("h3")).to_contain_text("payments v2 at 50%")
    await _shot(page, "card")
    question = page.locator("#messages .message", has_text="Approval needed").last
    await expect(question.get_by_role("button", name="Promote to 60%")).to_be_visible()
    await page.get_by_label("You are").select_option("U0GRACE")
    await question.get_by_role("button", name="Promote to 60%").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("from 50% to 60%")
    await _shot(page, "dialog")
    assert mark_of(await town.route("payments"))["weight"] == 50
    await dialog.get_by_role("button", name="Promote").click()
    await expect(card.locator("h3")).to_contain_text("Promoted: payments v2")
    await expect(question.get_by_role("button", name="Promote to 60%")).to_have_count(0)
    article = page.get_by_role("article", name="payments")
    await expect(article.get_by_role("img", name="wanted: 0% to 100%")).to_be_visible()
    assert mark_of(await town.route("payments"))["phase"] == "Promoted"
    await card.get_by_role("button", name="replies").click()
    await expect(page.get_by_role("complementary", name="Thread")).to_contain_text("approved by grace")
    await _shot(page, "thread")
    await page.keyboard.press("Escape")


async def _rolled_back(page: Page) -> None:
    await page.get_by_label("You are").select_option("U0ADA")
    await _room(page, "checkout")
    await page.locator("[data-switch=fail-checkout]").click()
    await expect(page.get_by_role("switch", name="checkout v2 fails 5%")).to_be_checked()
    await _type(page, "/canary start checkout v2 steps 50%:5m,100%:5m")
    card = page.locator("#messages .message").filter(has=page.locator("h3")).first
    await expect(card.locator("h3")).to_contain_text("Rolled back: checkout v2")
    await expect(card).to_contain_text("error-rate failed")
    await expect(page.locator("#messages .message", has_text="Rolled back: checkout is on v1 again")).to_be_visible()
    article = page.get_by_role("article", name="checkout")
    await expect(article.get_by_role("img", name="wanted: 100% to 0%")).to_be_visible()
    await _shot(page, "rolled-back")
    await page.emulate_media(color_scheme="dark")
    await _shot(page, "dark")
    await page.set_viewport_size({"width": 420, "height": 900})
    await _shot(page, "narrow")
    width = await page.evaluate("document.documentElement.scrollWidth")
    assert width <= 420, "the page is wider than a phone"


async def _room(page: Page, name: str) -> None:
    await page.locator("#channels button", has_text=name).click()
    await expect(page.locator("#room-name")).to_have_text(f"# {name}")


async def _type(page: Page, text: str) -> None:
    box: Locator = page.get_by_role("combobox", name="Message").first
    await box.fill(text)
    await box.press("Enter")
    await expect(page.locator("#messages .message.ephemeral")).to_contain_text("has been started")


async def _shot(page: Page, name: str) -> None:
    """Keep a picture where `E2E_SHOTS` says, for people to look at."""
    if folder := os.environ.get("E2E_SHOTS"):
        await page.screenshot(path=str(Path(folder) / f"{name}.png"))
