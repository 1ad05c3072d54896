"""The stand-in's Web API refuses what Slack refuses, through the real slack_sdk client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_async_handlers import AsyncRateLimitErrorRetryHandler
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bot.sandbox.slack.methods import DEFAULT_SCOPES
from tests.fixtures.slack import SlackServer


def section(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}, **more}


def button(action_id: str, text: str = "Go", **more: Any) -> dict[str, Any]:
    return {"type": "button", "action_id": action_id, "text": {"type": "plain_text", "text": text}, **more}


@pytest.fixture
async def client(slack_server: SlackServer) -> AsyncIterator[AsyncWebClient]:
    async with aiohttp.ClientSession() as session:
        yield AsyncWebClient(slack_server.bot_token, base_url=slack_server.api_url, session=session, retry_handlers=[])


async def refusal(call: Any) -> dict[str, Any]:
    """The body of the refusal that the call must get."""
    with pytest.raises(SlackApiError) as caught:
        await call
    body: dict[str, Any] = caught.value.response.data
    return body


async def test_auth_test_names_the_bot(client: AsyncWebClient) -> None:
    """auth.test answers with the ids of the workspace and the bot, and the granted scopes in a header."""
    answer = await client.auth_test()
    assert (answer["team_id"], answer["user_id"], answer["bot_id"]) == ("T0SANDBOX", "U0CANARY", "B0CANARY")
    assert "chat:write" in answer.headers["X-OAuth-Scopes"].split(",")


@pytest.mark.parametrize(
    ("token", "code"),
    [("xoxb-wrong", "invalid_auth"), (None, "not_authed"), ("xapp-sandbox", "not_allowed_token_type")],
)
async def test_tokens_are_checked(slack_server: SlackServer, token: str | None, code: str) -> None:
    """A missing, wrong or app-level token is refused with Slack's codes."""
    client = AsyncWebClient(token, base_url=slack_server.api_url, retry_handlers=[])
    assert (await refusal(client.auth_test()))["error"] == code


async def test_a_message_is_posted_and_edited_in_place(client: AsyncWebClient, slack_server: SlackServer) -> None:
    """chat.update changes the message it names and keeps what it said before."""
    posted = await client.chat_postMessage(channel="#deploys", text="one", blocks=[section("one")])
    await client.chat_update(channel=posted["channel"], ts=posted["ts"], text="two", blocks=[section("two")])
    (message,) = await slack_server.messages("#deploys")
    assert (message["text"], message["edit_count"], message["ts"]) == ("two", 1, posted["ts"])
    assert [old["text"] for old in message["history"]] == ["one"]


async def test_a_reply_stays_in_its_thread(client: AsyncWebClient, slack_server: SlackServer) -> None:
    """thread_ts puts a message below its parent, also when it names a reply; a thread that is not there is refused."""
    parent = await client.chat_postMessage(channel="C0DEPLOYS", text="parent")
    reply = await client.chat_postMessage(channel="C0DEPLOYS", text="reply", thread_ts=parent["ts"])
    await client.chat_postMessage(channel="C0DEPLOYS", text="again", thread_ts=reply["ts"])
    threads = [message["thread_ts"] for message in await slack_server.messages("C0DEPLOYS")]
    assert threads == [None, parent["ts"], parent["ts"]]
    lost = client.chat_postMessage(channel="C0DEPLOYS", text="lost", thread_ts="1.000001")
    assert (await refusal(lost))["error"] == "thread_not_found"


@pytest.mark.parametrize(
    ("method", "args", "code"),
    [
        ("chat.postMessage", {"channel": "#nowhere", "text": "x"}, "channel_not_found"),
        ("chat.postMessage", {"channel": "G0SECRET", "text": "x"}, "channel_not_found"),
        ("chat.postMessage", {"channel": "C0DEPLOYS"}, "no_text"),
        ("chat.postMessage", {"channel": "C0DEPLOYS", "text": "x" * 40_001}, "msg_too_long"),
        ("chat.postMessage", {"text": "x"}, "invalid_arguments"),
        ("chat.postMessage", {"channel": "C0DEPLOYS", "text": "x", "colour": "red"}, "invalid_arguments"),
        ("chat.postMessage", {"channel": "C0DEPLOYS", "text": "x", "username": "Boss"}, "missing_scope"),
        ("chat.update", {"channel": "C0DEPLOYS", "ts": "1.1", "text": "x"}, "message_not_found"),
        ("chat.update", {"channel": "C0DEPLOYS", "ts": "1.1"}, "message_not_found"),
        ("chat.postEphemeral", {"channel": "C0PAYMENTS", "user": "U0GUEST", "text": "x"}, "user_not_in_channel"),
        ("reactions.add", {"channel": "C0DEPLOYS", "name": "eyes", "timestamp": "1.1"}, "missing_scope"),
        ("conversations.open", {"users": "U0ADA"}, "missing_scope"),
        ("team.info", {}, "missing_scope"),
        ("users.info", {"user": "U0NOBODY"}, "user_not_found"),
        ("usergroups.users.list", {"usergroup": "S0NOBODY"}, "no_such_subteam"),
        ("conversations.list", {"types": "everything"}, "invalid_types"),
        ("views.open", {"trigger_id": "1.2.3", "view": {"type": "modal", "blocks": []}}, "invalid_arguments"),
        ("chat.everything", {}, "unknown_method"),
    ],
)
async def test_refusals_carry_slacks_codes(client: AsyncWebClient, method: str, args: Any, code: str) -> None:
    """Each refusal has the error code that Slack's reference names."""
    assert (await refusal(client.api_call(method, json=args)))["error"] == code


async def test_missing_scope_says_which(client: AsyncWebClient, slack_server: SlackServer) -> None:
    """Without a scope the call is refused, naming the scope needed and those provided."""
    await slack_server.put("settings", scopes=["commands"])
    body = await refusal(client.chat_postMessage(channel="C0DEPLOYS", text="x"))
    assert (body["error"], body["needed"], body["provided"]) == ("missing_scope", "chat:write", "commands")


async def test_posting_where_the_bot_is_not(client: AsyncWebClient, slack_server: SlackServer) -> None:
    """A public channel without the bot takes messages only with chat:write.public."""
    assert (await client.chat_postMessage(channel="#random", text="x"))["ok"]
    await slack_server.put("settings", scopes=["chat:write"])
    assert (await refusal(client.chat_postMessage(channel="#random", text="x")))["error"] == "not_in_channel"


async def test_only_its_own_messages_can_be_changed(client: AsyncWebClient, slack_server: SlackServer) -> None:
    """A person's message is not the bot's to edit or delete, an ephemeral one can only be reached by response_url."""
    said = await slack_server.act("message", user="U0ADA", channel="#deploys", text="hello")
    where = {"channel": "C0DEPLOYS", "ts": said["ts"]}
    assert (await refusal(client.chat_update(**where, text="x")))["error"] == "cant_update_message"
    assert (await refusal(client.chat_delete(**where)))["error"] == "cant_delete_message"
    hidden = await client.chat_postEphemeral(channel="C0DEPLOYS", user="U0ADA", text="psst")
    edit = client.chat_update(channel="C0DEPLOYS", ts=hidden["message_ts"], text="x")
    assert (await refusal(edit))["error"] == "message_not_found"


@pytest.mark.parametrize(
    ("blocks", "complaint"),
    [
        ([section("x")] * 51, "no more than 50 items allowed [json-pointer:/blocks]"),
        ([section("x" * 3001)], "must be less than 3001 characters [json-pointer:/blocks/0/text/text]"),
        ([section("")], "must be more than 0 characters [json-pointer:/blocks/0/text/text]"),
        (
            [{"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}],
            "must be less than 151 characters [json-pointer:/blocks/0/text/text]",
        ),
        (
            [{"type": "header", "text": {"type": "mrkdwn", "text": "x"}}],
            "unsupported type: mrkdwn [json-pointer:/blocks/0/text/type]",
        ),
        (
            [{"type": "section", "fields": [{"type": "mrkdwn", "text": "x"}] * 11}],
            "no more than 10 items allowed [json-pointer:/blocks/0/fields]",
        ),
        (
            [{"type": "section", "fields": [{"type": "mrkdwn", "text": "x" * 2001}]}],
            "must be less than 2001 characters [json-pointer:/blocks/0/fields/0/text]",
        ),
        (
            [{"type": "actions", "elements": [button("go", "x" * 76)]}],
            "must be less than 76 characters [json-pointer:/blocks/0/elements/0/text/text]",
        ),
        (
            [{"type": "actions", "elements": [button("go", value="x" * 2001)]}],
            "must be less than 2001 characters [json-pointer:/blocks/0/elements/0/value]",
        ),
        (
            [{"type": "actions", "elements": [button("go"), button("go")]}],
            "action_id already exists: go [json-pointer:/blocks/0/elements/1]",
        ),
        (
            [{"type": "actions", "elements": [button("x" * 256)]}],
            "must be less than 256 characters [json-pointer:/blocks/0/elements/0/action_id]",
        ),
        (
            [{"type": "actions", "elements": [button("go", style="red")]}],
            "value must be one of: primary, danger [json-pointer:/blocks/0/elements/0/style]",
        ),
        (
            [section("x", block_id="a"), section("y", block_id="a")],
            "block_id already exists: a [json-pointer:/blocks/1/block_id]",
        ),
        (
            [{"type": "table", "rows": [[{"type": "raw_text", "text": "x"}] * 21]}],
            "no more than 20 items allowed [json-pointer:/blocks/0/rows/0]",
        ),
        (
            [{"type": "table", "rows": [[{"type": "raw_text", "text": "x"}]]}] * 2,
            "only one table allowed in a message [json-pointer:/blocks/1]",
        ),
        (
            [{"type": "alert", "text": {"type": "plain_text", "text": "x"}}],
            "unsupported type: alert [json-pointer:/blocks/0/type]",
        ),
        ([{"type": "divider", "colour": "red"}], "invalid additional property: colour [json-pointer:/blocks/0]"),
        ([{"type": "section"}], "must provide one of: text, fields [json-pointer:/blocks/0]"),
    ],
)
async def test_block_limits(client: AsyncWebClient, blocks: Any, complaint: str) -> None:
    """A block over one of Slack's limits is refused with invalid_blocks, where and why."""
    body = await refusal(client.chat_postMessage(channel="C0DEPLOYS", text="x", blocks=blocks))
    assert body["error"] == "invalid_blocks"
    assert body["errors"] == [complaint]
    assert body["response_metadata"]["messages"] == [f"[ERROR] {complaint}"]


@pytest.mark.parametrize(("part", "longest"), [("title", 100), ("text", 300), ("confirm", 30), ("deny", 30)])
async def test_confirm_dialog_limits(client: AsyncWebClient, part: str, longest: int) -> None:
    """Each text of a confirm dialog is taken at its limit and refused one character over it."""

    def with_length(length: int) -> Any:
        texts = {name: {"type": "plain_text", "text": "ok"} for name in ("title", "text", "confirm", "deny")}
        texts[part] = {"type": "plain_text", "text": "x" * length}
        return [{"type": "actions", "elements": [button("go", confirm=texts)]}]

    assert (await client.chat_postMessage(channel="#deploys", text="x", blocks=with_length(longest)))["ok"]
    over = client.chat_postMessage(channel="#deploys", text="x", blocks=with_length(longest + 1))
    assert (await refusal(over))["error"] == "invalid_blocks"


async def test_a_full_card_is_accepted(client: AsyncWebClient) -> None:
    """Header, context, plan, table, rich text, fields, buttons with confirm and overflow are all taken at once."""
    plain = {"type": "plain_text", "text": "ok"}
    confirm = {"title": plain, "text": plain, "confirm": plain, "deny": plain, "style": "danger"}
    option = {"text": plain, "value": "extend"}
    rich = {
        "type": "rich_text",
        "elements": [{"type": "rich_text_section", "elements": [{"type": "text", "text": "x"}]}],
    }
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": plain},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": "<!date^1700000000^{time}|now>"}]},
        {
            "type": "plan",
            "title": "Steps",
            "tasks": [{"type": "task_card", "task_id": "1", "title": "5%", "status": "complete", "details": rich}],
        },
        {"type": "table", "rows": [[{"type": "raw_text", "text": "gate"}, rich]], "column_settings": [None]},
        rich,
        {"type": "markdown", "text": "**x**"},
        {"type": "divider"},
        section("x", fields=[plain], accessory=button("accessory")),
        {
            "type": "actions",
            "elements": [
                button("promote", style="primary", confirm=confirm),
                {"type": "overflow", "action_id": "more", "options": [option]},
            ],
        },
    ]
    assert (await client.chat_postMessage(channel="#deploys", text="card", blocks=blocks))["ok"]


async def test_broadcast_replies_lose_their_buttons(client: AsyncWebClient, slack_server: SlackServer) -> None:
    """A reply that is also sent to the channel has nothing left to click."""
    parent = await client.chat_postMessage(channel="#deploys", text="parent")
    blocks = [section("x"), {"type": "actions", "elements": [button("go")]}]
    await client.chat_postMessage(
        channel="#deploys", text="x", blocks=blocks, thread_ts=parent["ts"], reply_broadcast=True
    )
    assert [block["type"] for block in (await slack_server.messages("#deploys"))[1]["blocks"]] == ["section"]


async def calls_until_refused(call: Callable[[int], Awaitable[Any]], at_most: int) -> tuple[int, AsyncSlackResponse]:
    """How many calls went through, and the answer to the first that did not."""
    for number in range(at_most):
        try:
            await call(number)
        except SlackApiError as refused:
            return number, refused.response
    raise AssertionError(f"all of {at_most} calls went through")


async def test_posting_is_limited_per_channel(client: AsyncWebClient) -> None:
    """More than about a message a second into one channel is answered 429 with Retry-After; others go on."""

    async def post(number: int) -> None:
        await client.chat_postMessage(channel="C0DEPLOYS", text=str(number))

    done, answer = await calls_until_refused(post, 30)
    assert 6 <= done < 30
    assert (answer.status_code, answer["error"]) == (429, "ratelimited")
    assert int(answer.headers["Retry-After"]) >= 1
    assert (await client.chat_postMessage(channel="C0PAYMENTS", text="x"))["ok"]


async def test_edits_are_limited_for_the_workspace(client: AsyncWebClient) -> None:
    """After 50 edits in a burst, wherever they were made, the next is answered 429."""
    cards = [await client.chat_postMessage(channel=name, text="x") for name in ("#deploys", "#payments")]

    async def edit(number: int) -> None:
        card = cards[number % 2]
        await client.chat_update(channel=card["channel"], ts=card["ts"], text=str(number))

    done, answer = await calls_until_refused(edit, 120)
    assert answer.status_code == 429
    assert done >= 50


async def test_the_sdks_retry_handler_gets_through(slack_server: SlackServer) -> None:
    """A 429 fault hits as many calls as asked, then calls go through."""
    await slack_server.put("faults", rate_limited=1)
    client = AsyncWebClient(slack_server.bot_token, base_url=slack_server.api_url, retry_handlers=[])
    assert (await refusal(client.auth_test()))["error"] == "ratelimited"
    handler = AsyncRateLimitErrorRetryHandler(max_retry_count=1)
    patient = AsyncWebClient(slack_server.bot_token, base_url=slack_server.api_url, retry_handlers=[handler])
    await slack_server.put("faults", rate_limited=1)
    assert (await patient.auth_test())["ok"]


async def test_a_lost_reply_was_done(client: AsyncWebClient, slack_server: SlackServer) -> None:
    """With lose_reply the message is there although the caller saw the connection break."""
    await slack_server.put("faults", lose_reply=1)
    with pytest.raises((aiohttp.ClientError, SlackApiError)):
        await client.chat_postMessage(channel="#deploys", text="once")
    assert [message["text"] for message in await slack_server.messages("#deploys")] == ["once"]


async def test_errors_are_500s(client: AsyncWebClient, slack_server: SlackServer) -> None:
    """The errors fault answers 500 that many times and does nothing."""
    await slack_server.put("faults", errors=1)
    with pytest.raises(SlackApiError) as caught:
        await client.chat_postMessage(channel="#deploys", text="x")
    assert caught.value.response.status_code == 500
    assert await slack_server.messages("#deploys") == []


async def test_unknown_faults_are_refused(slack_server: SlackServer) -> None:
    """A misspelt fault is an error that names the known ones, not silence."""
    async with slack_server.session.put(f"{slack_server.url}/_sandbox/faults", json={"rate_limit": 1}) as answer:
        assert answer.status == 400
        assert "rate_limited" in await answer.text()


async def test_files_are_uploaded_into_a_thread(client: AsyncWebClient, slack_server: SlackServer) -> None:
    """The SDK's files_upload_v2 ends as a message with the file in the thread, its bytes as they were sent."""
    await slack_server.put("settings", scopes=[*DEFAULT_SCOPES, "files:write"])
    parent = await client.chat_postMessage(channel="C0DEPLOYS", text="card")
    png = b"\x89PNG\r\n\x1a\n" + bytes(100)
    await client.files_upload_v2(
        filename="chart.png", content=png, title="Chart", channel="C0DEPLOYS", thread_ts=parent["ts"]
    )
    (file,) = (await slack_server.look("files"))["files"]
    message = (await slack_server.messages("C0DEPLOYS"))[-1]
    assert (message["files"], message["thread_ts"], file["title"]) == ([file["id"]], parent["ts"], "Chart")
    async with slack_server.session.get(slack_server.url + file["path"]) as answer:
        assert await answer.read() == png


async def test_people_and_groups_can_be_looked_up(client: AsyncWebClient) -> None:
    """Guests and strangers are marked, groups have their members, lists come in pages."""
    assert (await client.users_info(user="U0GUEST"))["user"]["is_restricted"]
    stranger = (await client.users_info(user="U0STRANGER"))["user"]
    assert stranger["is_stranger"]
    assert stranger["team_id"] != "T0SANDBOX"
    groups = (await client.usergroups_list(include_users=True))["usergroups"]
    assert {group["handle"]: group["users"] for group in groups}["release-leads"] == ["U0GRACE", "U0LINUS"]
    assert (await client.usergroups_users_list(usergroup="S0LEADS"))["users"] == ["U0GRACE", "U0LINUS"]
    first = await client.conversations_list(limit=2)
    second = await client.conversations_list(limit=2, cursor=first["response_metadata"]["next_cursor"])
    names = [channel["name"] for answer in (first, second) for channel in answer["channels"]]
    assert names == ["deploys", "payments", "checkout", "random"]


async def test_whom_a_message_pings_is_recorded(client: AsyncWebClient, slack_server: SlackServer) -> None:
    """An unescaped <!channel> counts as a ping of everybody, an escaped one does not."""
    await client.chat_postMessage(channel="#deploys", text="<!channel> <!subteam^S0LEADS>")
    await client.chat_postMessage(channel="#deploys", text="&lt;!channel&gt;")
    assert [message["pings"] for message in await slack_server.messages("#deploys")] == [["channel", "S0LEADS"], []]
