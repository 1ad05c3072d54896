"""Every row of the product's table of bad input that concerns Slack: the exact message, and nothing changed."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import json
import time
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from slack_bolt.request.async_request import AsyncBoltRequest

from bot.catalog import load
from bot.rollout.model import Phase
from tests.engine.stage import CATALOG
from tests.fixtures.slack import SlackServer
from tests.slack.office import Office, office

NEXT = "Nothing was changed."


def untouched(made: Office) -> bool:
    """No rollout, no write, no freeze."""
    store = made.stage.store
    return not store.rollouts.records and not made.stage.mesh.writes and store.calls["freeze"] == 0


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("strat payments", f"There is no verb `strat`. Did you mean `start`? {NEXT} For example "),
        ("start payments v2 steps 5%:10m", f"The plan ends at 5%: the last step has to be 100%. {NEXT} For example "),
        (
            "start payments v2 plan slow",
            "There is no plan called `slow`. Nothing was started. Plans: `default`, `free`, `short`. ",
        ),
        ("start paymets", "paymets was not started, and nothing was changed:\n• "),
        ("start payments nosuch<5", "There is no gate called `nosuch` in the catalog. Nothing was started."),
        ("hold nothing-here", f"No active rollout is called `nothing-here`. {NEXT} "),
        ("undo payments", "There is nothing to undo: the newest rollout of `payments` is not known. "),
        ("unfreeze", "Nothing is frozen. "),
        ("freeze all for 90d x", "`90d` is too long: at most 30d is possible. Nothing was changed."),
    ],
)
async def test_a_malformed_command_is_answered_in_private(slack_server: SlackServer, typed: str, said: str) -> None:
    """A private message says what was wrong and what would be right; nothing was changed."""
    async with office(slack_server, engine=False) as made:
        answer = await made.command(typed)
        assert answer.startswith(said.replace("<", "&lt;")), answer
        assert untouched(made)
        assert [message for message in await slack_server.messages() if not message["ephemeral_to"]] == []


async def test_a_route_outside_the_catalogs_namespaces_is_not_steered(slack_server: SlackServer) -> None:
    """`namespaces` in the catalog says where services without an entry may be: elsewhere none starts or is listed."""
    async with office(slack_server, engine=False) as made:
        await made.stage.add_service("stray")
        made.stage.catalog = load(CATALOG + "namespaces: [web]")
        answer = await made.command("start stray v2")
        assert answer.startswith("`stray` has no entry in the catalog, and "), answer
        assert untouched(made)
        assert await made.command("services") == "1 service can be steered."
        made.stage.catalog = load(CATALOG + "namespaces: [shop]")
        assert await made.command("services") == "2 services can be steered."
        assert "stray" in await made.command("start stray v2")
        assert [one.target.service for one, _ in (await made.stage.desk.rollouts.active()).rollouts] == ["stray"]


@pytest.mark.parametrize("user", ["U0GUEST", "U0STRANGER"])
@pytest.mark.parametrize("verb", ["start payments v2", "freeze all now"])
async def test_guests_and_strangers_may_do_nothing(slack_server: SlackServer, user: str, verb: str) -> None:
    """Guests and Slack Connect strangers are refused whatever they ask for, and that is audited."""
    async with office(slack_server, engine=False) as made:
        answer = await made.command(verb, user=user, channel="#deploys")
        assert "full member" in answer, answer
        assert untouched(made)
        (line,) = made.stage.store.audits
        assert (line.what, line.by) == ("refused", user)
        assert line.text.startswith(verb)


async def test_a_guest_may_not_roll_back(slack_server: SlackServer) -> None:
    """Not even a rollback: the weight stays."""
    async with office(slack_server) as made:
        name = await made.start()
        await made.message(lambda message: message["text"].startswith("🐤 Progressing: payments v2 at 10%"))
        answer = await made.command(f"rollback {name}", user="U0GUEST", channel="#deploys")
        assert "full member" in answer, answer
        assert made.stage.mesh.weights("payments") == (90, 10)


async def test_who_may_not_approve_reads_who_may(slack_server: SlackServer) -> None:
    """A refusal is private and names the role and who holds it."""
    async with office(slack_server) as made:
        name = await made.start()
        ask = await made.message(lambda message: message["text"].startswith("✋ Approval needed: payments v2 to 50%"))
        done = await slack_server.act(
            "click", user="U0ADA", channel="#payments", ts=ask["ts"], action_id="approve", wait_s=5
        )
        answer = await made.private(done)
        assert "@release-leads" in answer, answer
        assert "approver" in answer, answer
        assert (await made.stage.rollout(name)).phase is Phase.AWAITING_APPROVAL
        assert any(line.what == "refused" and line.by == "U0ADA" for line in made.stage.store.audits)


async def test_a_second_start_links_to_the_running_rollout(slack_server: SlackServer) -> None:
    """Another rollout on the same route is refused with the id and a link to the card of the one that runs."""
    async with office(slack_server) as made:
        name = await made.start()
        card = await made.message(lambda message: message["text"].startswith("🐤 Progressing"))
        done = await slack_server.act(
            "command", user="U0GRACE", channel="#payments", text="/canary start payments v2", wait_s=5
        )
        said = done["ephemeral"][-1]
        assert f"{name} is already running on this route" in said["text"]
        assert f"/p{card['ts'].replace('.', '')}|Its card>" in json.dumps(said["blocks"])
        assert list(made.stage.store.rollouts.records) == [name]


async def test_hostile_words_are_shown_and_never_obeyed(slack_server: SlackServer) -> None:
    """A reason full of mentions and backticks pings nobody and breaks nothing."""
    async with office(slack_server) as made:
        name = await made.start()
        await made.message(lambda message: message["text"].startswith("🐤 Progressing"))
        hostile = '<!channel> <@U0LINUS> ```x``` `sum(rate({a="b"}))`'
        await slack_server.act("command", user="U0ADA", channel="#payments", text=f"/canary hold {name} {hostile}")
        await made.intake.idle()
        await made.answered("U0ADA", "Held")
        told = await made.message(lambda message: "&lt;!channel&gt;" in json.dumps(message["blocks"]))
        for message in await slack_server.messages():
            assert "<!channel>" not in json.dumps(message["blocks"]) + message["text"]
        assert "```x" not in told["text"]


def signed(secret: str, body: str, stamp: int) -> dict[str, str]:
    digest = hmac.new(secret.encode(), f"v0:{stamp}:{body}".encode(), hashlib.sha256).hexdigest()
    return {
        "X-Slack-Request-Timestamp": str(stamp),
        "X-Slack-Signature": f"v0={digest}",
        "Content-Type": "application/x-www-form-urlencoded",
    }


def slash(text: str) -> str:
    return urlencode(
        {
            "command": "/canary",
            "text": text,
            "user_id": "U0ADA",
            "user_name": "ada",
            "channel_id": "C0PAYMENTS",
            "team_id": "T0SANDBOX",
            "trigger_id": "1.2.3",
            "response_url": "",
        }
    )


async def post(made: Office, body: str | bytes | io.BytesIO, headers: dict[str, str]) -> int:
    url = f"{made.door.address}/slack/events"
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
        return answer.status


async def test_unsigned_and_stale_requests_get_401_and_are_counted(slack_server: SlackServer) -> None:
    """Neither a missing, nor a wrong, nor an old signature opens the door."""
    async with office(slack_server, mode="http", engine=False) as made:
        body, now = slash("freeze all for 1h test"), int(time.time())
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        right = signed(slack_server.signing_secret, body, now)
        assert await post(made, body, form) == 401
        assert await post(made, body, signed("wrong", body, now)) == 401
        assert await post(made, body + "&x=1", right) == 401
        assert await post(made, body, signed(slack_server.signing_secret, body, now - 301)) == 401
        await made.intake.idle()
        assert made.stage.telemetry.counts["slack_refused"] == 4
        assert untouched(made)


async def test_a_replayed_request_gets_401_and_changes_nothing_more(slack_server: SlackServer) -> None:
    """A signed request works once; its copy within five minutes is refused and counted."""
    async with office(slack_server, mode="http", engine=False) as made:
        body = slash("freeze all for 1h test")
        headers = signed(slack_server.signing_secret, body, int(time.time()))
        assert await post(made, body, headers) == 200
        await made.intake.idle()
        assert await post(made, body, headers) == 401
        await made.intake.idle()
        assert len(await made.stage.store.freezes.all()) == 1
        assert made.stage.telemetry.counts["slack_refused"] == 1


async def test_one_delivery_under_two_signatures_is_done_once(slack_server: SlackServer) -> None:
    """The same trigger signed afresh is acknowledged, dropped and counted."""
    async with office(slack_server, mode="http", engine=False) as made:
        body, now = slash("freeze all for 1h test"), int(time.time())
        for stamp in (now, now - 1):
            assert await post(made, body, signed(slack_server.signing_secret, body, stamp)) == 200
            await made.intake.idle()
        assert len(await made.stage.store.freezes.all()) == 1
        assert made.stage.telemetry.counts["slack_repeated"] == 1


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{not json", "application/json"),
        (b"payload={not+json", "application/x-www-form-urlencoded"),
        (b"\xff\xfe", "application/json; charset=utf-8"),
        (b"x", "text/plain; charset=nonsense"),
    ],
)
async def test_a_malformed_body_gets_400(slack_server: SlackServer, body: bytes, content_type: str) -> None:
    """What cannot be read is a bad request, never an error of ours."""
    async with office(slack_server, mode="http", engine=False) as made:
        assert await post(made, body, {"Content-Type": content_type}) == 400
        assert made.stage.telemetry.counts["slack_refused"] == 1
        assert made.stage.telemetry.failures == []


async def test_too_large_a_body_gets_413(slack_server: SlackServer) -> None:
    """More than 1 MiB is not read."""
    async with office(slack_server, mode="http", engine=False) as made:
        assert await post(made, io.BytesIO(b"x" * (1024 * 1024 + 1)), {"Content-Type": "application/json"}) == 413


async def test_without_a_secret_no_signature_is_right(slack_server: SlackServer) -> None:
    """In Socket Mode the app refuses every HTTP request, also one signed with nothing."""
    async with office(slack_server, mode="socket", engine=False) as made:
        body = slash("freeze all for 1h test")
        headers: Any = signed("", body, int(time.time()))
        answer = await made.app.async_dispatch(AsyncBoltRequest(body=body, headers=headers))
        assert answer.status == 401
        assert untouched(made)


async def test_an_event_that_is_delivered_again_is_done_once(slack_server: SlackServer) -> None:
    """Slack's retries of an event, and doubled clicks and commands, change nothing a second time."""
    async with office(slack_server, engine=False) as made:
        await slack_server.put("faults", duplicate=True)
        await slack_server.act("mention", user="U0ADA", channel="#payments", text="freeze all for 1h test", wait_s=5)
        await made.intake.idle()
        assert len(await made.stage.store.freezes.all()) == 1
        await slack_server.act(
            "command", user="U0ADA", channel="#payments", text="/canary freeze payments too", wait_s=5
        )
        await made.intake.idle()
        assert len(await made.stage.store.freezes.all()) == 2


async def test_without_the_store_all_but_a_rollback_is_refused(slack_server: SlackServer) -> None:
    """When seen ids cannot be asked for, what changes something is refused in words; a rollback goes by the route."""
    async with office(slack_server) as made:
        name = await made.start()
        await made.play(5, until=lambda: made.stage.mesh.weights("payments")[1] == 10)
        made.stage.store.down = True
        answer = await made.command("freeze all for 1h test")
        assert answer == (
            "The state store or the cluster cannot be reached right now. Nothing was changed. "
            "Try again in a minute. `/canary rollback` works meanwhile, by the routes themselves."
        )
        answer = await made.command("rollback all it burns")
        assert "Redis does not answer, so the routes themselves were read." in answer
        assert f"{name}: the canary of payments is at 0." in answer
        assert made.stage.mesh.weights("payments") == (100, 0)
        made.stage.store.down = False


async def test_a_stale_button_changes_nothing_and_says_so(slack_server: SlackServer) -> None:
    """A click on an earlier version of the card gets an answer, and the rollout stays as it is."""
    async with office(slack_server) as made:
        name = await made.start()
        card = await made.message(
            lambda message: message["text"].startswith("✋ Approval needed: payments v2 from 10%")
        )
        before = await made.stage.rollout(name)
        await slack_server.act("click", user="U0ADA", channel="#payments", ts=card["ts"], action_id="hold", stale=True)
        await made.intake.idle()
        await made.answered("U0ADA", "that button was drawn for an earlier state")
        after = await made.stage.rollout(name)
        assert (after.phase, after.holds, after.weight_percent) == (before.phase, before.holds, before.weight_percent)


async def test_a_stale_roll_back_is_one_click_more(slack_server: SlackServer) -> None:
    """It changes nothing, says how it stands now, and brings a button that is drawn for that."""
    async with office(slack_server) as made:
        name = await made.start()
        card = await made.message(lambda message: message["text"].startswith("🐤 Progressing: payments v2 at 10%"))
        await slack_server.act(
            "click", user="U0ADA", channel="#payments", ts=card["ts"], action_id="rollback", stale=True
        )
        await made.answered("U0ADA", "that button was drawn for an earlier state")
        assert made.stage.mesh.weights("payments") == (90, 10)
        answer = await made.message(
            lambda message: message["ephemeral_to"] == "U0ADA" and "click here" in message["text"]
        )
        assert f"{name} is Progressing at 10% now" in answer["text"]
        await slack_server.act("click", user="U0ADA", channel="#payments", ts=answer["ts"], action_id="rollback")
        for _ in range(100):
            if made.stage.mesh.weights("payments") == (100, 0):
                break
            await made.play(0.2)
        assert made.stage.mesh.weights("payments") == (100, 0)


async def test_when_nobody_holds_the_lease_the_person_is_told(slack_server: SlackServer) -> None:
    """A request that no replica takes is kept, and the answer says so with the line that works by hand."""
    async with office(slack_server) as made:
        name = await made.start()
        await made.play(2)
        await made.stage.engine.stop()
        doing = slack_server.act("command", user="U0ADA", channel="#payments", text=f"/canary hold {name}", wait_s=8)
        task = asyncio.create_task(doing)
        while made.stage.store.calls["put"] == 0:
            await asyncio.sleep(0.01)
        await made.intake.idle()
        made.stage.clock.advance(5.0)
        answer = await made.private(await task)
        assert answer.startswith(f"Your request for `{name}` is kept, but no replica of the bot has taken it yet.")
        await made.stage.engine.start()


async def test_a_button_that_we_no_longer_draw_is_answered(slack_server: SlackServer) -> None:
    """A message from an older version of the bot is not a dead end."""
    async with office(slack_server, engine=False) as made:
        old = {"type": "button", "action_id": "promote_all", "text": {"type": "plain_text", "text": "x"}, "value": "{}"}
        _, ts = await made.chat.post("#payments", "old", [{"type": "actions", "elements": [old]}])
        done = await slack_server.act(
            "click", user="U0ADA", channel="#payments", ts=ts, action_id="promote_all", wait_s=5
        )
        assert await made.private(done) == "This button is not known any more. Nothing was changed. `/canary help`"
        assert untouched(made)


async def test_an_error_of_ours_has_an_id_for_person_and_log(slack_server: SlackServer) -> None:
    """What we did not foresee is logged with its traceback, and the person reads under which id."""
    async with office(slack_server, engine=False) as made:

        async def broken() -> None:
            raise RuntimeError("a bug")

        made.stage.store.rollouts.active = broken  # type: ignore[assignment,method-assign]
        answer = await made.command("status")
        assert answer.startswith("Something went wrong in the bot (error 7000).")
        ((event, error),) = made.stage.telemetry.failures
        assert event == "slack-request"
        assert str(error) == "a bug"
