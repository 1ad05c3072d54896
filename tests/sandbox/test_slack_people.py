"""What people do reaches a real Bolt app, over Socket Mode and over signed HTTP alike, with Slack's limits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.sandbox.slack.deliver import signature
from tests.fixtures.slack import SlackServer

PLAIN = {"type": "plain_text", "text": "ok"}
CARD = [
    {
        "type": "actions",
        "block_id": "card",
        "elements": [
            {"type": "button", "action_id": "promote", "text": PLAIN, "value": "7"},
            {
                "type": "overflow",
                "action_id": "more",
                "options": [{"text": PLAIN, "value": "extend"}, {"text": PLAIN, "value": "mute"}],
            },
        ],
    }
]
MODAL = {
    "type": "modal",
    "callback_id": "reason",
    "title": {"type": "plain_text", "text": "Why"},
    "submit": PLAIN,
    "blocks": [
        {
            "type": "input",
            "block_id": "why",
            "label": PLAIN,
            "element": {"type": "plain_text_input", "action_id": "text"},
        }
    ],
}


class Probe:
    """A tiny app: it notes what it got, and does what each test tells it."""

    def __init__(self, slack: SlackServer) -> None:
        self.slack = slack
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.retries: list[int] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.client = AsyncWebClient(slack.bot_token, base_url=slack.api_url, retry_handlers=[])
        self.app = AsyncApp(client=self.client, signing_secret=slack.signing_secret)
        self.app.command("/canary")(self.command)
        self.app.action("promote")(self.click)
        self.app.action("more")(self.click)
        self.app.view("reason")(self.submit)
        self.app.view_closed("reason")(self.closed)
        self.app.event("app_mention")(self.event)
        self.app.event("message")(self.event)
        self.app.event("app_home_opened")(self.event)

    async def command(self, ack: Any, body: dict[str, Any], respond: Any) -> None:
        await self.hold.wait()
        self.seen.append(("command", body))
        match body["text"].split():
            case ["modal"]:
                await ack()
                await self.client.views_open(trigger_id=body["trigger_id"], view=MODAL)
            case ["silent"]:
                await ack()
            case ["late"]:
                await ack()
                await respond("by response_url")
            case _:
                await ack(f"got {body['text']}")

    async def click(self, ack: Any, body: dict[str, Any]) -> None:
        self.seen.append(("click", body))
        await ack()

    async def submit(self, ack: Any, body: dict[str, Any]) -> None:
        self.seen.append(("submit", body))
        typed = body["view"]["state"]["values"]["why"]["text"]["value"]
        if typed == "no":
            await ack(response_action="errors", errors={"why": "Say more"})
        else:
            await ack()

    async def closed(self, ack: Any, body: dict[str, Any]) -> None:
        self.seen.append(("closed", body))
        await ack()

    async def event(self, event: dict[str, Any]) -> None:
        self.seen.append((event["type"], event))
        await self.client.chat_postMessage(channel=event["channel"], text="noted", thread_ts=event.get("thread_ts"))

    def got(self, kind: str) -> list[dict[str, Any]]:
        return [body for name, body in self.seen if name == kind]


@contextlib.asynccontextmanager
async def over_socket(probe: Probe) -> AsyncIterator[None]:
    handler = AsyncSocketModeHandler(probe.app, probe.slack.app_token)
    await handler.connect_async()
    await probe.slack.eventually(lambda: connections(probe.slack))
    try:
        yield
    finally:
        await handler.close_async()
        await asyncio.gather(
            *[
                task
                for task in (
                    handler.client.message_processor,
                    handler.client.message_receiver,
                    handler.client.current_session_monitor,
                )
                if task is not None
            ],
            return_exceptions=True,
        )


@contextlib.asynccontextmanager
async def over_http(probe: Probe) -> AsyncIterator[None]:
    async def events(request: web.Request) -> web.Response:
        if retry := request.headers.get("X-Slack-Retry-Num"):
            probe.retries.append(int(retry))
        bolt_request = await to_bolt_request(request)
        return await to_aiohttp_response(await probe.app.async_dispatch(bolt_request))

    app = web.Application()
    app.router.add_post("/slack/events", events)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    await probe.slack.put("settings", mode="http", bot_url=url)
    try:
        yield
    finally:
        await runner.cleanup()


async def connections(slack: SlackServer) -> int:
    return int((await slack.look("world"))["connections"])


@pytest.fixture(params=["socket", "http"])
async def probe(request: pytest.FixtureRequest, slack_server: SlackServer) -> AsyncIterator[Probe]:
    probe = Probe(slack_server)
    async with over_socket(probe) if request.param == "socket" else over_http(probe):
        yield probe


@pytest.fixture
async def probe_on_socket(slack_server: SlackServer) -> AsyncIterator[Probe]:
    probe = Probe(slack_server)
    async with over_socket(probe):
        yield probe


@pytest.fixture
async def probe_on_http(slack_server: SlackServer) -> AsyncIterator[Probe]:
    probe = Probe(slack_server)
    async with over_http(probe):
        yield probe


async def test_a_command_is_answered_privately(probe: Probe) -> None:
    """A slash command reaches the app with its fields, escaped; the answer is seen by its writer alone."""
    outcome = await probe.slack.act("command", user="U0ADA", channel="#deploys", text="/canary status error-rate<1%")
    (body,) = probe.got("command")
    assert (body["user_id"], body["channel_id"], body["text"]) == ("U0ADA", "C0DEPLOYS", "status error-rate&lt;1%")
    assert outcome["ok"]
    assert outcome["ack_ms"] > 0
    (answer,) = outcome["ephemeral"]
    assert (answer["text"], answer["ephemeral_to"]) == ("got status error-rate&lt;1%", "U0ADA")


async def test_a_command_can_be_answered_later(probe: Probe) -> None:
    """An answer through the response_url is private too, and the act waits for it when asked to."""
    outcome = await probe.slack.act("command", user="U0ADA", channel="#deploys", text="/canary late", wait_s=10)
    assert [message["text"] for message in outcome["ephemeral"]] == ["by response_url"]


@pytest.mark.parametrize(
    ("act", "said"),
    [
        ({"text": "/deploy x"}, "/deploy is not a valid command."),
        ({"text": "/canary x", "thread_ts": "1.1"}, "/canary is not supported in threads. Sorry!"),
    ],
)
async def test_commands_slack_keeps_to_itself(probe_on_socket: Probe, act: dict[str, str], said: str) -> None:
    """An unknown command, and any command in a thread, never reaches the app."""
    outcome = await probe_on_socket.slack.act("command", user="U0ADA", channel="#deploys", **act)
    assert [message["text"] for message in outcome["ephemeral"]] == [said]
    assert probe_on_socket.seen == []


async def test_no_acknowledgement_in_time(probe: Probe) -> None:
    """An app that does not acknowledge in time makes the person see operation_timeout; nothing is sent again."""
    await probe.slack.put("settings", ack_s=0.2)
    probe.hold.clear()
    outcome = await probe.slack.act("command", user="U0ADA", channel="#deploys", text="/canary slow")
    assert outcome["error"] == "operation_timeout"
    assert outcome["ephemeral"][0]["text"] == '/canary failed with the error "operation_timeout"'
    probe.hold.set()


async def test_no_app_at_all(slack_server: SlackServer) -> None:
    """With no connection the person sees dispatch_failed."""
    outcome = await slack_server.act("command", user="U0ADA", channel="#deploys", text="/canary status")
    assert outcome["ephemeral"][0]["text"] == '/canary failed with the error "dispatch_failed"'


async def test_a_click_brings_the_message_along(probe: Probe) -> None:
    """A click reaches the app with the person, the message as it is, the button's value and a response_url."""
    card = await probe.client.chat_postMessage(channel="#deploys", text="card", blocks=CARD)
    await probe.slack.act("click", user="U0GRACE", channel="#deploys", ts=card["ts"], action_id="promote")
    (body,) = probe.got("click")
    assert (body["user"]["id"], body["message"]["ts"], body["actions"][0]["value"]) == ("U0GRACE", card["ts"], "7")
    async with probe.slack.session.post(
        body["response_url"], json={"replace_original": True, "text": "done"}
    ) as answer:
        assert answer.status == 200
    assert [message["text"] for message in await probe.slack.messages("#deploys")] == ["done"]


async def test_an_overflow_menu_sends_the_option(probe: Probe) -> None:
    """Choosing in an overflow menu sends that option; one that is not offered is refused."""
    card = await probe.client.chat_postMessage(channel="#deploys", text="card", blocks=CARD)
    where = {"user": "U0GRACE", "channel": "#deploys", "ts": card["ts"], "action_id": "more"}
    assert (await probe.slack.act("click", **where, selected_option="drop"))["error"] == "no_such_option"
    await probe.slack.act("click", **where, selected_option="mute")
    assert [body["actions"][0]["selected_option"]["value"] for body in probe.got("click")] == ["mute"]


async def test_a_button_that_is_gone_cannot_be_clicked(probe_on_socket: Probe) -> None:
    """After an edit took the button away a click is refused, unless a stale screen is asked for."""
    probe = probe_on_socket
    card = await probe.client.chat_postMessage(channel="#deploys", text="card", blocks=CARD)
    await probe.client.chat_update(channel=card["channel"], ts=card["ts"], text="done", blocks=[])
    where = {"user": "U0GRACE", "channel": "#deploys", "ts": card["ts"], "action_id": "promote"}
    assert (await probe.slack.act("click", **where))["error"] == "no_such_action"
    assert probe.seen == []
    assert (await probe.slack.act("click", **where, stale=True))["ok"]
    assert probe.got("click")[0]["message"]["blocks"][0]["block_id"] == "card"


async def test_response_urls_work_five_times(probe_on_socket: Probe) -> None:
    """The sixth use is refused with used_url, any use after its life with expired_url."""
    probe = probe_on_socket
    await probe.slack.act("command", user="U0ADA", channel="#deploys", text="/canary silent")
    url = probe.got("command")[0]["response_url"]
    answers = []
    for number in range(6):
        async with probe.slack.session.post(url, json={"text": str(number)}) as answer:
            answers.append((answer.status, (await answer.json()).get("error")))
    assert answers == [(200, None)] * 5 + [(404, "used_url")]
    await probe.slack.act("command", user="U0ADA", channel="#deploys", text="/canary silent")
    await probe.slack.put("settings", response_url_s=0)
    async with probe.slack.session.post(probe.got("command")[1]["response_url"], json={"text": "x"}) as answer:
        assert (answer.status, (await answer.json())["error"]) == (404, "expired_url")


async def test_a_form_is_opened_filled_and_submitted(probe: Probe) -> None:
    """A modal opens by trigger id; required inputs, the app's errors and the filled state work as in Slack."""
    outcome = await probe.slack.act("command", user="U0ADA", channel="#deploys", text="/canary modal", wait_s=10)
    form = {"user": "U0ADA", "view_id": outcome["view_id"]}
    assert (await probe.slack.act("submit", **form, values={}))["error"] == "incomplete"
    refused = await probe.slack.act("submit", **form, values={"why": {"text": "no"}})
    assert refused["errors"] == {"why": "Say more"}
    assert (await probe.slack.act("submit", **form, values={"why": {"text": "because"}}))["ok"]
    assert [body["view"]["state"]["values"]["why"]["text"]["value"] for body in probe.got("submit")] == [
        "no",
        "because",
    ]
    assert (await probe.slack.look("views"))["views"] == []


async def test_trigger_ids_work_once_and_briefly(probe_on_socket: Probe) -> None:
    """A second use is exchanged_trigger_id, a late one expired_trigger_id, a made-up one invalid_trigger_id."""
    probe = probe_on_socket

    async def error_of(trigger_id: str) -> str:
        with pytest.raises(SlackApiError) as caught:
            await probe.client.views_open(trigger_id=trigger_id, view=MODAL)
        return str(caught.value.response["error"])

    await probe.slack.act("command", user="U0ADA", channel="#deploys", text="/canary modal", wait_s=10)
    assert await error_of(probe.got("command")[0]["trigger_id"]) == "exchanged_trigger_id"
    await probe.slack.act("command", user="U0ADA", channel="#deploys", text="/canary silent")
    await probe.slack.put("settings", trigger_s=0)
    assert await error_of(probe.got("command")[1]["trigger_id"]) == "expired_trigger_id"
    assert await error_of("1.2.abc") == "invalid_trigger_id"


async def test_mentions_and_direct_messages_are_events(probe: Probe) -> None:
    """A mention in a thread and a direct message reach the app; other talk in the channel does not."""
    await probe.slack.act("message", user="U0ADA", channel="#deploys", text="hello everybody")
    said = await probe.slack.act("mention", user="U0ADA", channel="#deploys", text="status")
    await probe.slack.act("mention", user="U0ADA", channel="#deploys", text="again", thread_ts=said["ts"])
    await probe.slack.act("dm", user="U0LINUS", text="help")

    async def all_answered() -> bool:
        return [message["text"] for message in await probe.slack.messages()].count("noted") == 3

    await probe.slack.eventually(all_answered)
    assert sorted(event["text"] for event in probe.got("app_mention")) == ["<@U0CANARY> again", "<@U0CANARY> status"]
    assert [(event["channel_type"], event["channel"]) for event in probe.got("message")] == [("im", "D0LINUS")]


async def test_commands_work_in_the_direct_conversation(probe_on_socket: Probe) -> None:
    """A person may command the bot in their own direct conversation, and not in somebody else's."""
    probe = probe_on_socket
    outcome = await probe.slack.act("command", user="U0ADA", channel="D0ADA", text="/canary status")
    assert outcome["ephemeral"][0]["channel"] == "D0ADA"
    assert probe.got("command")[0]["channel_name"] == "directmessage"
    refused = await probe.slack.act("command", user="U0LINUS", channel="D0ADA", text="/canary status")
    assert refused["error"] == "not_in_channel"


async def test_home_is_an_event_and_can_be_published(probe_on_socket: Probe) -> None:
    """Opening the home tab tells the app, and views.publish fills it."""
    probe = probe_on_socket
    await probe.slack.act("home", user="U0ADA")

    async def told() -> bool:
        return bool(probe.got("app_home_opened"))

    await probe.client.views_publish(user_id="U0ADA", view={"type": "home", "blocks": [{"type": "divider"}]})
    await probe.slack.eventually(told)
    assert (await probe.slack.look("views"))["homes"]["U0ADA"]["blocks"][0]["type"] == "divider"


async def test_clicks_are_delivered_twice_on_demand(probe: Probe) -> None:
    """With the duplicate fault the same click arrives twice with one trigger id, a command still once."""
    await probe.slack.put("faults", duplicate=True)
    card = await probe.client.chat_postMessage(channel="#deploys", text="card", blocks=CARD)
    await probe.slack.act("click", user="U0GRACE", channel="#deploys", ts=card["ts"], action_id="promote")
    await probe.slack.act("command", user="U0ADA", channel="#deploys", text="/canary x")
    clicks = probe.got("click")
    assert len({body["trigger_id"] for body in clicks}) == 1
    assert (len(clicks), len(probe.got("command"))) == (2, 1)


async def test_events_are_retried_three_times_and_commands_never(probe_on_http: Probe) -> None:
    """An app that answers an error gets an event four times in all, numbered, and a command once."""
    probe = probe_on_http
    calls: list[str] = []

    async def broken(request: web.Request) -> web.Response:
        calls.append(request.headers.get("X-Slack-Retry-Num", "first"))
        return web.Response(status=500)

    app = web.Application()
    app.router.add_post("/slack/events", broken)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        await probe.slack.put("settings", bot_url=url, retry_delays_s=[0, 0, 0])
        await probe.slack.act("mention", user="U0ADA", channel="#deploys", text="x")
        async with asyncio.timeout(30):
            while len(calls) < 4:
                await asyncio.sleep(0.01)
        outcome = await probe.slack.act("command", user="U0ADA", channel="#deploys", text="/canary x")
        assert outcome["error"] == "dispatch_failed"
        assert calls == ["first", "1", "2", "3", "first"]
    finally:
        await runner.cleanup()


async def test_each_payload_goes_to_one_of_several_connections(slack_server: SlackServer) -> None:
    """With two sockets open every command arrives exactly once."""
    first, second = Probe(slack_server), Probe(slack_server)
    async with over_socket(first), over_socket(second):
        for number in range(12):
            await slack_server.act("command", user="U0ADA", channel="#deploys", text=f"/canary {number}")
    texts = sorted(int(body["text"]) for probe in (first, second) for body in probe.got("command"))
    assert texts == list(range(12))


async def test_the_client_comes_back_after_a_disconnect(probe_on_socket: Probe) -> None:
    """After the disconnect fault the SDK's client opens a new connection and commands arrive again."""
    probe = probe_on_socket
    await probe.slack.put("faults", disconnect=True)

    async def works() -> bool:
        if not await connections(probe.slack):
            return False
        return bool((await probe.slack.act("command", user="U0ADA", channel="#deploys", text="/canary x"))["ok"])

    assert await probe.slack.eventually(works)


async def test_an_eleventh_connection_is_turned_away(slack_server: SlackServer) -> None:
    """Ten sockets may be open; the next is told too_many_websockets, and a ticket opens one socket only."""
    web_client = AsyncWebClient(base_url=slack_server.api_url, retry_handlers=[])
    async with aiohttp.ClientSession() as session, contextlib.AsyncExitStack() as open_sockets:
        for _ in range(10):
            url = (await web_client.apps_connections_open(app_token=slack_server.app_token))["url"]
            socket = await open_sockets.enter_async_context(session.ws_connect(url))
            assert (await socket.receive_json())["type"] == "hello"
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(url)
        url = (await web_client.apps_connections_open(app_token=slack_server.app_token))["url"]
        async with session.ws_connect(url) as eleventh:
            assert (await eleventh.receive_json())["reason"] == "too_many_websockets"


def test_signatures_are_slacks() -> None:
    """The v0 signature equals the worked example of Slack's documentation."""
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&"
        b"channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&"
        b"response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&"
        b"trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    expected = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
    assert signature("8f742231b10e8888abcd99yyyzzz85a5", "1531420618", body) == expected
