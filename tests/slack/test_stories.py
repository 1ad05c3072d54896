"""What people do in Slack, in both modes, with the whole bot behind it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bot.rollout.model import HoldReason, Phase
from tests.fixtures.slack import SlackServer
from tests.slack.office import Office, office

BOTH = pytest.mark.parametrize("mode", ["socket", "http"])
QUIET = "start payments v2 steps 10%:5m,100%:10s"


async def asked(made: Office) -> dict[str, Any]:
    """The approval's message."""
    return await made.message(
        lambda message: message["text"].startswith("✋ Approval needed: payments v2 to 50% in shop")
    )


async def baking(made: Office) -> dict[str, Any]:
    """The card at 10%."""
    return await made.message(lambda message: message["text"].startswith("🐤 Progressing: payments v2 at 10% in shop"))


def labels(message: dict[str, Any]) -> list[str]:
    """The buttons of a message."""
    rows = [block["elements"] for block in message["blocks"] if block["type"] == "actions"]
    return [element["text"]["text"] for row in rows for element in row if element["type"] == "button"]


@BOTH
async def test_a_canary_is_started_approved_and_promoted(slack_server: SlackServer, mode: str) -> None:
    """A slash command starts it, the approval calls the group once and lets it on, and the same card tells the end."""
    async with office(slack_server, mode=mode) as made:
        name = await made.start()
        ask = await asked(made)
        assert ask["text"].endswith("(gates pass) <!subteam^S0LEADS>")
        assert ask["thread_ts"] is None
        assert labels(ask) == ["Promote to 50%", "Reject…", "Roll back"]
        done = await slack_server.act("click", user="U0GRACE", channel="#payments", ts=ask["ts"], action_id="approve")
        assert done["ok"]
        await made.intake.idle()
        decided = await made.message(lambda message: message["ts"] == ask["ts"] and message["edit_count"] > 0)
        assert decided["text"].startswith("✅ payments v2 to 50% in shop: Approved by")
        assert labels(decided) == []
        await made.play(60, until=lambda: made.stage.store.rollouts.records[name].rollout.phase.final)
        card = await made.message(lambda message: "Promoted" in message["text"] and message["edit_count"] > 0)
        assert card["text"].startswith("✅ Promoted: payments v2 has all traffic in shop")
        assert labels(card) == []
        threads = {message["thread_ts"] for message in await slack_server.messages("#payments")}
        assert threads == {None, card["ts"]}
        assert (await made.stage.rollout(name)).phase is Phase.PROMOTED
        assert made.stage.telemetry.failures == []


@BOTH
async def test_a_rejection_asks_for_its_reason_and_holds(slack_server: SlackServer, mode: str) -> None:
    """The button opens a modal; an empty reason is refused there, and the reason is what the channel reads."""
    async with office(slack_server, mode=mode) as made:
        name = await made.start()
        ask = await asked(made)
        clicked = await slack_server.act(
            "click", user="U0GRACE", channel="#payments", ts=ask["ts"], action_id="reject", wait_s=5
        )
        empty = await slack_server.act(
            "submit", user="U0GRACE", view_id=clicked["view_id"], values={"reason": {"text": "   "}}
        )
        assert empty["errors"] == {"reason": "The reason is recorded: say why."}
        await slack_server.act(
            "submit", user="U0GRACE", view_id=clicked["view_id"], values={"reason": {"text": "p99 looks <odd>"}}
        )
        await made.intake.idle()
        await made.message(lambda message: "p99 looks &lt;odd&gt;" in message["text"])
        rollout = await made.stage.rollout(name)
        assert HoldReason.PERSON in rollout.hold_reasons
        assert rollout.weight_percent == 10


async def test_hold_and_resume_by_button(slack_server: SlackServer) -> None:
    """The card offers what can be done now: Hold while it goes, Resume while somebody holds it."""
    async with office(slack_server) as made:
        name = await made.start(QUIET)
        card = await baking(made)
        assert labels(card) == ["Promote to 100%", "Hold", "Roll back"]
        await slack_server.act("click", user="U0LINUS", channel="#payments", ts=card["ts"], action_id="hold")
        await made.intake.idle()
        held = await made.message(lambda message: message["text"].startswith("⏸️ Holding: payments v2 at 10%"))
        assert held["ts"] == card["ts"]
        assert labels(held) == ["Resume", "Roll back"]
        await slack_server.act("click", user="U0LINUS", channel="#payments", ts=card["ts"], action_id="resume")
        await made.intake.idle()
        await made.answered("U0LINUS", "Resumed")
        assert (await made.stage.rollout(name)).phase is Phase.PROGRESSING


async def test_roll_back_by_button(slack_server: SlackServer) -> None:
    """The danger button, behind a dialog that repeats target, from and to, sends the canary to 0."""
    async with office(slack_server) as made:
        name = await made.start(QUIET)
        card = await baking(made)
        (button,) = [
            element
            for block in card["blocks"]
            if block["type"] == "actions"
            for element in block["elements"]
            if element.get("action_id") == "rollback"
        ]
        assert button["style"] == "danger"
        assert button["confirm"]["text"]["text"].startswith("payments v2 in shop: from 10% to 0% at once.")
        await slack_server.act("click", user="U0LINUS", channel="#payments", ts=card["ts"], action_id="rollback")
        await made.intake.idle()
        await made.message(
            lambda message: message["text"].startswith("🔴 Rolled back: payments v2 has no traffic in shop")
        )
        assert made.stage.mesh.weights("payments") == (100, 0)
        assert (await made.stage.rollout(name)).phase is Phase.ROLLED_BACK


async def test_the_menu_extends_a_bake_and_shows_queries(slack_server: SlackServer) -> None:
    """What is used rarely is behind the three dots."""
    async with office(slack_server) as made:
        name = await made.start(QUIET)
        card = await made.message(lambda message: "at 10% in shop (gates pass)" in message["text"])
        (menu,) = [
            element
            for block in card["blocks"]
            if block["type"] == "actions"
            for element in block["elements"]
            if element["type"] == "overflow"
        ]
        extend, queries = menu["options"]
        done = await slack_server.act(
            "click",
            user="U0ADA",
            channel="#payments",
            ts=card["ts"],
            action_id="more",
            selected_option=queries,
            wait_s=5,
        )
        assert "istio_requests_total" in json.dumps(done["ephemeral"][-1]["blocks"])
        await slack_server.act(
            "click", user="U0ADA", channel="#payments", ts=card["ts"], action_id="more", selected_option=extend
        )
        await made.intake.idle()
        await made.answered("U0ADA", "Extended")
        assert (await made.stage.rollout(name)).bake.extra_s == 600.0


async def test_a_mention_in_the_thread_is_a_command(slack_server: SlackServer) -> None:
    """Slash commands do not work in threads; the same words after a mention do, and the answer is private."""
    async with office(slack_server) as made:
        name = await made.start(QUIET)
        card = await baking(made)
        await slack_server.act(
            "mention", user="U0ADA", channel="#payments", thread_ts=card["ts"], text=f"hold {name} lunch"
        )
        for _ in range(100):
            if (await made.stage.rollout(name)).holds:
                break
            await made.play(0.2)
        assert (await made.stage.rollout(name)).holds[0].detail.endswith("holds it: lunch")
        said = await made.message(lambda message: message["ephemeral_to"] == "U0ADA" and "Held" in message["text"])
        assert said["thread_ts"] == card["ts"]


async def test_a_direct_message_is_a_command(slack_server: SlackServer) -> None:
    """Nobody has to mention the bot where only the bot listens; it answers there."""
    async with office(slack_server, engine=False) as made:
        await slack_server.act("dm", user="U0ADA", text="services")
        await made.message(lambda message: message["text"].startswith("1 service can be steered."), channel="")


async def test_drift_is_asked_about_and_settled_by_a_button(slack_server: SlackServer) -> None:
    """Weights that somebody else wrote hold the rollout; a person says which are right."""
    async with office(slack_server) as made:
        name = await made.start(QUIET)
        await baking(made)
        made.stage.mesh.edit("payments", canary_weight=40, by="kubectl-edit")
        held = await made.message(lambda message: message["text"].startswith("⏸️ Holding: payments v2 at 10%"))
        assert labels(held)[:2] == ["Keep theirs", "Write ours again"]
        await slack_server.act("click", user="U0ADA", channel="#payments", ts=held["ts"], action_id="drift:reapply")
        await made.intake.idle()
        for _ in range(100):
            if made.stage.mesh.weights("payments") == (90, 10):
                break
            await made.play(0.2)
        assert made.stage.mesh.weights("payments") == (90, 10)
        assert not (await made.stage.rollout(name)).held(HoldReason.DRIFT)


async def test_a_bad_release_is_told_once_in_the_channel(slack_server: SlackServer) -> None:
    """It ends in one new message that calls the group, beside the card and the thread."""
    async with office(slack_server) as made:
        made.stage.metrics.behave("payments.shop.svc.cluster.local", "v2", fail=0.05)
        await made.start(QUIET)
        await made.message(lambda message: message["text"].startswith("🔴 Rolled back: payments v2 has no traffic"))
        await made.play(10)
        told = [
            message
            for message in await slack_server.messages("#payments")
            if "<!subteam^S0LEADS>" in message["text"] and not message["thread_ts"]
        ]
        assert len(told) == 1, [message["text"] for message in told]
        assert "error-rate" in told[0]["text"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("start", "You may start `payments`."),
        ("status", "No rollout is active."),
        ("pending", "Nothing waits for anybody."),
        ("history", "No rollout has ended yet."),
        ("gates payments", "Gates of payments: v2 beside v1: "),
        ("nodes", "2 nodes, all healthy."),
        ("freezes", "Nothing is frozen."),
        ("plans", "3 plans."),
        ("services", "1 service can be steered."),
        ("help", "What you can do: start, status, promote, "),
        ("help rollback", "`/canary rollback &lt;id, service or all&gt; [&lt;reason&gt;]`"),
        ("", "What you can do: "),
        ("version", "canary-bot "),
        ("start payments v2 --dry-run", "Dry run: payments v1 → v2 would start. Nothing was changed."),
    ],
)
async def test_reading_is_answered_in_private_and_changes_nothing(
    slack_server: SlackServer, typed: str, words: str
) -> None:
    """Every verb that only reads answers the person alone."""
    async with office(slack_server, engine=False) as made:
        answer = await made.command(typed)
        assert answer.startswith(words), answer
        assert not made.stage.store.rollouts.records
        assert not made.stage.mesh.writes
        assert [message for message in await slack_server.messages() if not message["ephemeral_to"]] == []


async def test_help_shows_what_this_person_may_run(slack_server: SlackServer) -> None:
    """A verb for approvers is not in the help of somebody who is none."""
    async with office(slack_server, engine=False) as made:
        assert "approve" not in (await made.command("help", user="U0ADA")).split(", ")
        assert "approve" in (await made.command("help", user="U0GRACE")).split(", ")


async def test_a_scheduled_start_says_when_in_the_persons_time(slack_server: SlackServer) -> None:
    """`at 14:30` is read in the person's zone and answered with the date."""
    async with office(slack_server) as made:
        said = await made.command("start payments v2 at 23:59")
        assert "starts <!date^" in said
        (record,) = made.stage.store.rollouts.records.values()
        assert record.rollout.phase is Phase.SCHEDULED
        assert f"<!date^{int(record.rollout.scheduled_at)}^" in said


async def test_work_that_was_acknowledged_is_finished_before_the_end(slack_server: SlackServer) -> None:
    """Closing the entrance waits for commands under way, and lets no more in."""
    async with office(slack_server, engine=False) as made:
        await slack_server.act("command", user="U0ADA", channel="#payments", text="/canary freeze all for 1h end")
        await made.entrance.stop(5.0)
        assert len(await made.stage.store.freezes.all()) == 1
        late = await slack_server.act("command", user="U0ADA", channel="#payments", text="/canary unfreeze")
        assert late["error"] == "dispatch_failed"
