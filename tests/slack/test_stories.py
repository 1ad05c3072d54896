"""What people do in Slack, in both modes, with the whole bot behind it."""

from __future__ import annotations

import pytest

from bot.rollout.model import Phase
from tests.fixtures.slack import SlackServer
from tests.slack.office import office

BOTH = pytest.mark.parametrize("mode", ["socket", "http"])


@BOTH
async def test_a_canary_is_started_approved_and_promoted(slack_server: SlackServer, mode: str) -> None:
    """A slash command starts it, the approval's button lets it on, and the same card tells the end."""
    async with office(slack_server, mode=mode) as made:
        name = await made.start()
        ask = await made.message(
            lambda message: (
                "Approval needed" in message["text"]
                and not message["thread_ts"]
                and "<!subteam^S0LEADS>" in message["text"]
            )
        )
        done = await slack_server.act("click", user="U0GRACE", channel="#payments", ts=ask["ts"], action_id="approve")
        assert done["ok"]
        await made.intake.idle()
        await made.play(60, until=lambda: made.stage.store.rollouts.records[name].rollout.phase.final)
        card = await made.message(lambda message: "Promoted" in message["text"] and message["edit_count"] > 0)
        assert card["text"].startswith("✅ Promoted: payments v2 has all traffic in shop")
        assert (await made.stage.rollout(name)).phase is Phase.PROMOTED
        assert made.stage.telemetry.failures == []
