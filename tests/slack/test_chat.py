"""The chat's adapter against the stand-in: nothing twice, errors in the house's words, whispers that arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from bot.adapters.slack import SlackChat, SlackDirectory
from bot.errors import NotFound, Permanent, Transient
from tests.fakes.clock import FakeClock
from tests.fixtures.slack import SlackServer

BLOCKS = [{"type": "section", "text": {"type": "mrkdwn", "text": "hello"}}]


@pytest.fixture
async def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def chat(slack_server: SlackServer, clock: FakeClock) -> AsyncIterator[SlackChat]:
    await slack_server.put("settings", rate_limits=False)
    made = SlackChat(slack_server.bot_token, clock, base_url=slack_server.api_url)
    yield made
    await made.close()


async def calls(slack: SlackServer, method: str) -> list[dict[str, Any]]:
    return [call for call in (await slack.look("calls"))["calls"] if call["method"] == method]


async def test_a_message_is_posted_and_edited(slack_server: SlackServer, chat: SlackChat) -> None:
    """Post gives the place by which it is edited; a reply stays in its thread."""
    channel, ts = await chat.post("#deploys", "one", BLOCKS)
    assert channel == "C0DEPLOYS"
    await chat.update(channel, ts, "two", [])
    await chat.post(channel, "reply", [], thread=ts)
    card, reply = await slack_server.messages("#deploys")
    assert (card["text"], card["blocks"], card["edit_count"]) == ("two", [], 1)
    assert reply["thread_ts"] == ts
    assert await chat.permalink(channel, ts) == f"https://sandbox.slack.com/archives/{channel}/p{ts.replace('.', '')}"


async def test_a_rate_limit_is_passed_on_with_its_time(slack_server: SlackServer, chat: SlackChat) -> None:
    """429 is not waited out here: whoever delivers knows how long."""
    await slack_server.put("faults", rate_limited=1, retry_after_s=17)
    with pytest.raises(Transient) as caught:
        await chat.post("#deploys", "x", BLOCKS)
    assert caught.value.delay_s == 17.0
    assert len(await calls(slack_server, "chat.postMessage")) == 1


async def test_a_lost_reply_is_not_sent_again(slack_server: SlackServer, chat: SlackChat) -> None:
    """When the connection dies after the post, the caller is told; Slack holds one message and not two."""
    await slack_server.put("faults", lose_reply=1)
    with pytest.raises(Transient):
        await chat.post("#deploys", "once", BLOCKS)
    assert [message["text"] for message in await slack_server.messages("#deploys")] == ["once"]


async def test_errors_of_the_server_may_pass(slack_server: SlackServer, chat: SlackChat) -> None:
    """5xx and a server that is away are Transient, whatever the call."""
    await slack_server.put("faults", errors=3)
    for call in (chat.post("#deploys", "x", []), chat.update("C0DEPLOYS", "1.1", "x", []), chat.myself()):
        with pytest.raises(Transient):
            await call


async def test_a_server_that_is_away_is_transient() -> None:
    """No connection at all is Transient too."""
    chat = SlackChat("xoxb-x", FakeClock(), base_url="http://127.0.0.1:9/api/")
    with pytest.raises(Transient):
        await chat.post("#deploys", "x", [])
    await chat.close()


async def test_what_is_gone_is_not_found(chat: SlackChat) -> None:
    """Editing a message that was deleted says so, so that it can be posted anew."""
    with pytest.raises(NotFound):
        await chat.update("C0DEPLOYS", "1.000001", "x", [])


@pytest.mark.parametrize(("channel", "code"), [("#nowhere", "channel_not_found"), ("G0SECRET", "channel_not_found")])
async def test_refusals_name_slacks_word(chat: SlackChat, channel: str, code: str) -> None:
    """A channel that is not there is Permanent, with Slack's own code."""
    with pytest.raises(Permanent, match=code):
        await chat.post(channel, "x", [])


async def test_a_missing_scope_is_named(slack_server: SlackServer, chat: SlackChat) -> None:
    """The scope that the token lacks is in the error."""
    await slack_server.put("settings", scopes=["commands"])
    with pytest.raises(Permanent, match="the token needs chat:write"):
        await chat.post("#deploys", "x", [])


async def test_a_wrong_token_is_permanent_and_stays_hidden(slack_server: SlackServer) -> None:
    """The error says invalid_auth and does not show the token."""
    chat = SlackChat("xoxb-very-secret", FakeClock(), base_url=slack_server.api_url)
    with pytest.raises(Permanent, match="invalid_auth") as caught:
        await chat.myself()
    assert "very-secret" not in repr(caught.value) + str(caught.value.__cause__)
    await chat.close()


async def test_blocks_that_slack_refuses_do_not_silence_the_message(slack_server: SlackServer, chat: SlackChat) -> None:
    """The text says it all, so it is sent alone when the blocks are not taken."""
    await chat.post("#deploys", "the point", [{"type": "section"}])
    (message,) = await slack_server.messages("#deploys")
    assert (message["text"], message["blocks"]) == ("the point", [])


async def test_identity_is_asked_for_once(slack_server: SlackServer, chat: SlackChat) -> None:
    """auth.test tells the bot's user id and scopes, one time."""
    me = await chat.myself()
    assert me.user_id == "U0CANARY"
    assert "chat:write" in me.scopes
    await chat.myself()
    assert len(await calls(slack_server, "auth.test")) == 1


async def test_the_channels_that_the_bot_can_see(chat: SlackChat) -> None:
    """By id and name, over all pages; a private channel without the bot is not among them."""
    found = await chat.channels(page=2)
    assert {"#deploys", "C0DEPLOYS", "#payments", "#checkout", "#random"} <= found
    assert not {"#secret", "G0SECRET"} & found
    assert found == await chat.channels()


async def test_a_whisper_reaches_one_person(slack_server: SlackServer, chat: SlackChat) -> None:
    """Without a response_url it is an ephemeral message, and a direct one for whoever is not in the channel."""
    await chat.whisper("C0PAYMENTS", "U0ADA", "psst", BLOCKS)
    await chat.whisper("C0PAYMENTS", "U0GUEST", "psst guest", BLOCKS)
    said = {message["text"]: message for message in await slack_server.messages()}
    assert said["psst"]["ephemeral_to"] == "U0ADA"
    assert said["psst guest"]["channel"] != "C0PAYMENTS"


async def test_a_used_up_response_url_is_no_dead_end(slack_server: SlackServer, chat: SlackChat) -> None:
    """After its five uses the answer still arrives."""
    done = await slack_server.act("command", user="U0ADA", channel="#payments", text="/canary status")
    assert not done["ok"]  # nobody is connected, but the address was given out
    sent = f"{slack_server.url}/response/none"
    await chat.whisper("C0PAYMENTS", "U0ADA", "still here", BLOCKS, response_url=sent)
    texts = [message["text"] for message in await slack_server.messages("#payments")]
    assert "still here" in texts


async def test_a_group_is_called_by_its_id(slack_server: SlackServer, chat: SlackChat) -> None:
    """`<!subteam^@handle>` becomes the mention that pings, in text and blocks; an unknown handle becomes plain text."""
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "<!subteam^@oncall> look"}}]
    await chat.post("#deploys", "<!subteam^@release-leads> and <!subteam^@nobody>", blocks)
    (message,) = await slack_server.messages("#deploys")
    assert message["text"] == "<!subteam^S0LEADS> and @nobody"
    assert message["blocks"][0]["text"]["text"] == "<!subteam^S0ONCALL> look"


@pytest.mark.parametrize(
    ("user", "full"), [("U0ADA", True), ("U0GUEST", False), ("U0STRANGER", False), ("U0CANARY", False)]
)
async def test_who_is_a_full_member(chat: SlackChat, clock: FakeClock, user: str, full: bool) -> None:
    """Guests, strangers from another workspace and bots are none."""
    person = await SlackDirectory(chat, clock).person(user)
    assert (person.id, person.full_member) == (user, full)


async def test_people_have_a_time_zone(chat: SlackChat, clock: FakeClock) -> None:
    """The zone is the one of the person's profile."""
    assert "/" in (await SlackDirectory(chat, clock).person("U0ADA")).timezone


async def test_groups_are_remembered_for_five_minutes(
    slack_server: SlackServer, chat: SlackChat, clock: FakeClock
) -> None:
    """Slack allows few questions about groups: one answer serves for five minutes, then it is asked again."""
    directory = SlackDirectory(chat, clock)
    assert await directory.members("@release-leads") == {"U0GRACE", "U0LINUS"}
    assert await directory.members("S0LEADS") == {"U0GRACE", "U0LINUS"}
    assert len(await calls(slack_server, "usergroups.users.list")) == 1
    clock.advance(301)
    await directory.members("@release-leads")
    assert len(await calls(slack_server, "usergroups.users.list")) == 2


async def test_unknown_people_and_groups_are_not_found(chat: SlackChat, clock: FakeClock) -> None:
    """A name that Slack does not know is NotFound, an outage Transient."""
    directory = SlackDirectory(chat, clock)
    for ask in (directory.person("U0NOBODY"), directory.members("@nobody")):
        with pytest.raises(NotFound):
            await ask


async def test_when_slack_cannot_tell_it_is_transient(
    slack_server: SlackServer, chat: SlackChat, clock: FakeClock
) -> None:
    """Permission is then a question of direction, which is decided elsewhere."""
    await chat.myself()
    await slack_server.put("faults", errors=-1)
    directory = SlackDirectory(chat, clock)
    for ask in (directory.person("U0ADA"), directory.members("@oncall")):
        with pytest.raises(Transient):
            await ask


async def test_a_token_that_may_not_ask_cannot_tell(
    slack_server: SlackServer, chat: SlackChat, clock: FakeClock
) -> None:
    """A missing scope is no answer about a person: it counts as Slack being unable to tell."""
    await slack_server.put("settings", scopes=["chat:write"])
    directory = SlackDirectory(chat, clock)
    for ask in (directory.person("U0ADA"), directory.members("@oncall")):
        with pytest.raises(Transient, match="the token needs"):
            await ask
