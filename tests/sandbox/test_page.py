"""The page in a real browser: what the bot posts is rendered as in Slack, and what one does reaches the app."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from playwright.async_api import Page, Route, async_playwright, expect
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from bot.sandbox.page.switches import SWITCHES
from bot.sandbox.page.watch import nodes, services
from bot.sandbox.process import Part
from tests.fixtures.requirements import needs_binary
from tests.fixtures.slack import SlackServer

CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 60_000


def plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text}


def mrkdwn(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text}


CONFIRM = {
    "title": plain("Promote payments?"),
    "text": mrkdwn("*payments* from *25%* to *50%*"),
    "confirm": plain("Promote to 50%"),
    "deny": plain("Not yet"),
}
CARD: list[dict[str, Any]] = [
    {"type": "header", "text": plain("Approval needed: payments v2 to 50%")},
    {
        "type": "plan",
        "title": "Steps",
        "tasks": [{"type": "task_card", "task_id": "1", "title": "5% for 10 min", "status": "complete"}],
    },
    {"type": "section", "fields": [mrkdwn("*Next*\nwaits for <!subteam^S0LEADS>"), mrkdwn("*Observed*\n24.8%")]},
    {"type": "table", "rows": [[{"type": "raw_text", "text": "gate"}], [{"type": "raw_text", "text": "error-rate"}]]},
    {
        "type": "actions",
        "elements": [
            {
                "type": "button",
                "action_id": "promote",
                "text": plain("Promote to 50%"),
                "style": "primary",
                "value": "7",
                "confirm": CONFIRM,
            },
            {
                "type": "overflow",
                "action_id": "more",
                "options": [
                    {"text": plain("Extend bake"), "value": "extend"},
                    {"text": plain("Mute"), "value": "mute"},
                ],
            },
        ],
    },
]
MODAL = {
    "type": "modal",
    "callback_id": "reason",
    "title": plain("Reject"),
    "submit": plain("Reject it"),
    "blocks": [
        {
            "type": "input",
            "block_id": "why",
            "label": plain("Why?"),
            "element": {"type": "plain_text_input", "action_id": "text"},
        }
    ],
}


@pytest.fixture
def page_part(slack_process: Part, tmp_path: Path) -> Iterator[Part]:
    """The page beside the stand-in alone."""
    world = tmp_path / "world.json"
    world.write_text(json.dumps({"slack": slack_process.url}))
    part = Part.module("page", "--world", str(world))
    part.wait_ready()
    yield part
    part.stop()


@pytest.fixture
async def browser_page() -> AsyncIterator[Page]:
    """A page of a real browser; an error in its scripts fails the test."""
    errors: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=needs_binary("chromium"), args=CHROMIUM_ARGS)
        page = await browser.new_page(viewport={"width": 1500, "height": 950})
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        await browser.close()
    assert errors == []


@pytest.fixture
async def page(browser_page: Page, page_part: Part, slack_server: SlackServer) -> Page:
    """The page, loaded, as Ada in #deploys."""
    await browser_page.goto(page_part.url)
    await expect(browser_page.locator("#room-name")).to_have_text("# deploys")
    return browser_page


class App:
    """A Bolt app that notes clicks, answers commands and opens a form."""

    def __init__(self, slack: SlackServer) -> None:
        self.client = AsyncWebClient(slack.bot_token, base_url=slack.api_url)
        self.clicks: list[tuple[str, str]] = []
        self.reasons: list[str] = []
        self.app = AsyncApp(client=self.client, signing_secret=slack.signing_secret)
        self.app.action(re.compile(".*"))(self.click)
        self.app.command("/canary")(self.command)
        self.app.view("reason")(self.submit)

    async def click(self, ack: Any, body: dict[str, Any]) -> None:
        await ack()
        action = body["actions"][0]
        self.clicks.append((body["user"]["id"], action.get("value") or action["selected_option"]["value"]))
        where = {"channel": body["channel"]["id"], "ts": body["message"]["ts"]}
        await self.client.chat_update(**where, text="decided", blocks=[])

    async def command(self, ack: Any, body: dict[str, Any]) -> None:
        if body["text"].startswith("reject"):
            await ack()
            await self.client.views_open(trigger_id=body["trigger_id"], view=MODAL)
        else:
            await ack(f"You said *{body['text']}*")

    async def submit(self, ack: Any, body: dict[str, Any]) -> None:
        self.reasons.append(body["view"]["state"]["values"]["why"]["text"]["value"])
        await ack()


@pytest.fixture
async def app(slack_server: SlackServer) -> AsyncIterator[App]:
    """The app, connected by Socket Mode."""
    app = App(slack_server)
    handler = AsyncSocketModeHandler(app.app, slack_server.app_token)
    await handler.connect_async()
    yield app
    await handler.close_async()


async def test_a_card_is_rendered_and_its_button_asks_first(page: Page, app: App) -> None:
    """A card shows its parts; the button's dialog repeats what will happen, only its confirmation reaches the app."""
    await app.client.chat_postMessage(channel="#deploys", text="card", blocks=CARD)
    card = page.locator("#messages .message")
    await expect(card.locator("h3")).to_have_text("Approval needed: payments v2 to 50%")
    await expect(card.locator(".task.complete")).to_contain_text("5% for 10 min")
    await expect(card.locator(".mention")).to_have_text("@release-leads")
    await expect(card.locator("table td")).to_have_text("error-rate")
    await card.get_by_role("button", name="Promote to 50%").click()
    dialog = page.get_by_role("dialog", name="Promote payments?")
    await expect(dialog.locator("strong")).to_have_text(["payments", "25%", "50%"])
    await dialog.get_by_role("button", name="Not yet").click()
    await expect(dialog).to_have_count(0)
    assert app.clicks == []
    await card.get_by_role("button", name="Promote to 50%").click()
    await dialog.get_by_role("button", name="Promote to 50%").click()
    await expect(card.locator(".text")).to_contain_text("decided (edited)")
    assert app.clicks == [("U0ADA", "7")]


async def test_everything_works_by_keyboard(page: Page, app: App) -> None:
    """Escape leaves a dialog, arrows walk the menu, Enter chooses, and focus comes back to where it was."""
    await app.client.chat_postMessage(channel="#deploys", text="card", blocks=CARD)
    promote = page.get_by_role("button", name="Promote to 50%")
    await promote.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(promote).to_be_focused()
    await page.keyboard.press("Tab")
    await page.keyboard.press("ArrowDown")
    await expect(page.get_by_role("menuitem", name="Extend bake")).to_be_focused()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await expect(page.locator("#messages .text")).to_contain_text("decided")
    assert app.clicks == [("U0ADA", "mute")]


async def test_a_command_is_completed_and_answered_privately(page: Page, app: App) -> None:
    """/canary completes its verbs; the answer is marked as private and nobody else sees it."""
    box = page.get_by_role("combobox", name="Message").first
    await box.fill("/canary roll")
    await expect(page.get_by_role("option")).to_contain_text(["/canary rollback"])
    await box.press("Enter")
    await expect(box).to_have_value("/canary rollback ")
    await box.press_sequentially("payments")
    await box.press("Enter")
    answer = page.locator(".message.ephemeral")
    await expect(answer).to_contain_text("Only visible to you")
    await expect(answer.locator("strong")).to_have_text("rollback payments")
    await page.get_by_label("You are").select_option("U0GRACE")
    await expect(page.locator("#user-title")).to_contain_text("@release-leads")
    await expect(answer).to_have_count(0)


async def test_a_form_is_filled_in(page: Page, app: App) -> None:
    """A modal opens, refuses to go without its required field, and what was typed reaches the app."""
    box = page.get_by_role("combobox", name="Message").first
    await box.fill("/canary reject payments-7f3a")
    await box.press("Enter")
    form = page.get_by_role("dialog", name="Reject")
    await form.get_by_role("button", name="Reject it").click()
    await expect(form.locator(".error")).to_have_text("Please complete this required field.")
    await form.get_by_label("Why?").fill("too slow")
    await form.get_by_role("button", name="Reject it").click()
    await expect(form).to_have_count(0)
    assert app.reasons == ["too slow"]


async def test_texts_never_become_markup(page: Page, app: App) -> None:
    """Markup, scripts and javascript: links in messages are shown as the text they are."""
    evil = "&lt;img src=x onerror=alert(1)&gt; <javascript:alert(1)|click> <https://example.com/?a=1&amp;b=2|fine>"
    await app.client.chat_postMessage(channel="#deploys", text=evil)
    raw = [{"type": "section", "text": plain("<b>bold</b><script>alert(1)</script>")}]
    await app.client.chat_postMessage(channel="#deploys", text="x", blocks=raw)
    await expect(page.locator("#messages .message")).to_have_count(2)
    messages = page.locator("#messages .body")
    await expect(messages.first).to_contain_text("<img src=x onerror=alert(1)> click fine")
    await expect(messages.last).to_contain_text("<b>bold</b><script>alert(1)</script>")
    await expect(messages.locator("img, script, b:text('bold')")).to_have_count(0)
    assert await messages.locator("a").evaluate_all("links => links.map((a) => a.href)") == [
        "https://example.com/?a=1&b=2"
    ]


async def test_threads_open_beside_the_channel(page: Page, app: App) -> None:
    """Replies are counted under their message, open in a panel, and an answer typed there stays in the thread."""
    parent = await app.client.chat_postMessage(channel="#deploys", text="card")
    await app.client.chat_postMessage(channel="#deploys", text="*25%* reached", thread_ts=parent["ts"])
    await page.get_by_role("button", name="1 reply").click()
    thread = page.get_by_role("complementary", name="Thread")
    await expect(thread.locator(".message")).to_have_count(2)
    await thread.get_by_role("combobox", name="Message").fill("thanks")
    await page.keyboard.press("Enter")
    await expect(thread.locator(".message")).to_have_count(3)
    await expect(page.locator("#messages .message")).to_have_count(1)
    await page.keyboard.press("Escape")
    await expect(thread).to_be_hidden()


async def test_a_switch_makes_slack_refuse(page: Page, slack_server: SlackServer) -> None:
    """The 429 switch turns the fault on in the stand-in, shows it as on, and turns it off again."""
    switch = page.get_by_role("switch", name="429 on all calls")
    await expect(switch).to_be_enabled()
    await page.locator("[data-switch=slack-429]").click()
    await expect(switch).to_be_checked()
    assert (await slack_server.look("faults"))["rate_limited"] == -1
    await page.locator("[data-switch=slack-429]").click()
    await expect(switch).not_to_be_checked()
    assert (await slack_server.look("faults"))["rate_limited"] == 0


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Origin": "https://evil.example", "Content-Type": "application/json"}, 403),
        ({"Content-Type": "text/plain"}, 415),
    ],
)
async def test_other_sites_cannot_use_the_page(page_part: Part, headers: dict[str, str], status: int) -> None:
    """A foreign Host or Origin and a body that is not JSON are refused before anything happens."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{page_part.url}/api/switches/slack-429", data='{"on": true}', headers=headers) as answer,
    ):
        assert answer.status == status


async def test_the_mesh_is_shown_and_its_switches_work(browser_page: Page, slack_process: Part, tmp_path: Path) -> None:
    """Weights of the route stand beside what Envoy counted; a switch of the page changes the mesh."""
    kube = Part.module("kube", "--token", "t")
    parts = [kube]
    try:
        kube.wait_ready()
        mesh = Part.module("mesh", "--kube", kube.url, "--token", "t", "--rate", "20")
        parts.append(mesh)
        mesh.wait_ready(30)
        world = tmp_path / "world.json"
        world.write_text(
            json.dumps({"slack": slack_process.url, "kube": kube.url, "kube_token": "t", "mesh": mesh.url})
        )
        page_part = Part.module("page", "--world", str(world))
        parts.append(page_part)
        page_part.wait_ready()
        await browser_page.goto(page_part.url)
        payments = browser_page.get_by_role("article", name="payments")
        await expect(payments.get_by_role("img", name="wanted: 100% to 0%")).to_be_visible()
        await expect(payments.get_by_role("img", name="observed: 100% to 0%")).to_be_visible()
        await expect(payments.locator("svg.chart path").first).to_have_attribute("d", re.compile("^M"))
        await browser_page.locator("[data-switch=fail-payments]").click()
        await browser_page.locator("[data-switch=not-ready]").click()
        await expect(browser_page.get_by_role("switch", name="payments v2 fails 5%")).to_be_checked()
        await expect(browser_page.locator(".node.bad")).to_contain_text("NotReady")
        async with aiohttp.ClientSession() as session, session.get(f"{mesh.url}/_sandbox/faults") as answer:
            assert (await answer.json())["workloads"]["payments-v2"]["fail_percent"] == 5
    finally:
        for part in reversed(parts):
            part.stop()


async def test_the_bot_is_killed_and_started_from_the_page(
    browser_page: Page, slack_process: Part, tmp_path: Path
) -> None:
    """The button kills, even before the first sample came, sees that the bot is gone, and then starts it."""
    asked: list[str] = []
    pressed = asyncio.Event()

    async def control(request: web.Request) -> web.Response:
        asked.append(request.match_info["what"])
        pressed.set()
        return web.json_response({"ok": True})

    async def health(request: web.Request) -> web.Response:
        return web.json_response({}, status=503 if asked[-1:] == ["kill"] else 200)

    world_app = web.Application()
    world_app.add_routes([web.post("/bot/{what}", control), web.get("/healthz", health)])
    runner = web.AppRunner(world_app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    world = tmp_path / "world.json"
    world.write_text(json.dumps({"slack": slack_process.url, "bot": {"url": url}, "control": url}))
    page_part = Part.module("page", "--world", str(world))

    async def late(route: Route) -> None:
        await pressed.wait()
        await route.continue_()

    try:
        page_part.wait_ready()
        await browser_page.route("**/api/mesh/stream", late)
        await browser_page.goto(page_part.url)
        await browser_page.get_by_role("button", name="Kill the bot").click()
        await browser_page.get_by_role("button", name="Start the bot").click()
        await expect(browser_page.get_by_role("button", name="Kill the bot")).to_be_visible()
        assert asked == ["kill", "start"]
    finally:
        page_part.stop()
        await runner.cleanup()


def test_weights_and_counts_become_shares() -> None:
    """Shares are of all requests, errors count 5xx and 0, and a version without requests has no figures."""
    route = {
        "metadata": {"name": "payments"},
        "spec": {
            "http": [
                {"route": [{"destination": {"host": "p", "subset": "v1"}}]},
                {
                    "route": [
                        {"destination": {"host": "p", "subset": "v1"}, "weight": 75},
                        {"destination": {"host": "p", "subset": "v2"}, "weight": 25},
                    ]
                },
            ]
        },
    }
    truth = {
        "services": {
            "payments": {
                "v1": {"total": 300, "codes": {"200": 300}, "p99_ms": 12.0},
                "v2": {"total": 100, "codes": {"200": 90, "500": 6, "0": 4}, "p99_ms": 80.0},
            }
        }
    }
    shown = services({"items": [route]}, truth)["payments"]
    assert shown["weights"] == {"v1": 75, "v2": 25}
    assert shown["versions"]["v2"] == {"share_percent": 25.0, "error_percent": 10.0, "p99_ms": 80.0, "per_s": 10.0}
    silent = services({"items": [route]}, {"services": {"payments": {"v1": {"total": 0, "codes": {}}}}})["payments"]
    assert silent["versions"]["v1"]["error_percent"] is None


def test_steal_that_nobody_measured_is_not_zero() -> None:
    """A node that Prometheus says nothing about shows None, not 0%."""
    steal = {"data": {"result": [{"metric": {"instance": "node-1"}, "value": [0, "0.15"]}]}}
    shown = nodes({"nodes": {"node-1": {"Ready": "True"}, "node-2": {"Ready": "Unknown"}}}, steal)
    assert shown["node-1"] == {"ready": True, "troubles": [], "steal_percent": 15.0}
    assert (shown["node-2"]["ready"], shown["node-2"]["steal_percent"]) == (False, None)


def test_api_server_switches_leave_other_faults_alone() -> None:
    """Turning 409 on and off keeps the rules that somebody else has set."""
    other = {"verbs": ["get"], "status": 503}
    switch = SWITCHES["kube-409"]
    on = switch.change({"requests": [other]}, True)
    assert on["requests"][0] == other
    assert switch.is_on(on)
    assert switch.change(on, False) == {"requests": [other]}
