"""Channels that are not there: refused at the start, and told elsewhere when one vanishes later."""

from dataclasses import replace

import pytest

from bot.engine.deliver import ELSEWHERE_S
from bot.errors import Transient, UserError
from bot.rollout.model import Phase
from bot.usecases.requests import put
from bot.usecases.start import StartAsk, start
from tests.engine.stage import ADA, Stage, stage
from tests.engine.test_stories import started

GONE = {"#payments", "payments"}
DEFAULT = {"#deploys", "deploys"}


def here(made: Stage, channel: str) -> list[str]:
    return [said.text for said in made.chat.messages.values() if said.channel == channel]


def pages(made: Stage) -> list[bool]:
    return [page.resolved for page in made.pager.pages if page.key == "unannounced"]


async def test_a_start_in_a_channel_that_is_not_there_is_refused_with_the_way_on() -> None:
    """Nobody would be told or asked; nothing is begun."""
    async with stage() as made:
        made.directory.unheard |= {"#payments"}
        with pytest.raises(UserError, match="#payments is not there, archived, or private without the bot") as refused:
            await start(made.desk, StartAsk("payments"), ADA)
        assert "/invite" in refused.value.message
        assert not made.store.rollouts.records


@pytest.mark.parametrize("why", ["the chat is away", "no channel is named"])
async def test_a_start_whose_channel_cannot_be_looked_up_is_warned_of(why: str) -> None:
    """Slack being away delays no release: its messages follow."""
    async with stage() as made:

        async def silent(channel: str) -> bool:
            raise Transient("Slack does not answer")

        made.directory.hears = silent  # type: ignore[method-assign]
        if why == "no channel is named":
            entry = made.catalog.services["payments"]
            made.catalog.services["payments"] = replace(entry, rules=replace(entry.rules, channel=""))  # type: ignore[index]
        answer = await start(made.desk, StartAsk("payments", dry_run=True), ADA)
        (finding,) = [one for one in answer.findings if one.item == "channel"]
        assert finding.severity.value == "warn"


@pytest.mark.parametrize("when", ["before the first message", "in the middle"])
async def test_a_channel_that_vanishes_is_replaced_by_the_default_one(when: str) -> None:
    """Card, notes and questions are told there and say for which channel they are; nothing is lost, nobody is paged."""
    async with stage() as made:
        if when == "before the first message":
            made.chat.unknown |= GONE
        name = await started(made, "10%:4s, 50%:4s:approve, 100%:4s")
        await made.play(3)
        made.chat.unknown |= GONE
        await put(made.desk, "hold", name, ADA, reason="lunch")
        await made.play(3)
        await put(made.desk, "resume", name, ADA)
        await made.play(30)
        told = here(made, "deploys")
        assert any("Approval needed" in text for text in told)
        assert any("lunch" in text for text in told)
        (card,) = [one for one in made.chat.messages.values() if one.channel == "deploys" and one.edits]
        assert "For #payments, which is not there" in str(card.blocks)
        assert made.telemetry.counts["messages_dropped"] == 0
        assert pages(made) == []
        assert await made.store.outbox.depth() == 0


async def test_when_the_default_channel_is_not_there_either_people_are_paged_once() -> None:
    """The rollout goes on and ends; the page closes with the first message that is heard."""
    async with stage() as made:
        made.chat.unknown |= GONE | DEFAULT
        name = await started(made, "10%:4s, 100%:4s")
        await made.play(60, until=lambda: made.store.rollouts.records[name].rollout.phase.final)
        await made.play(5)
        assert (await made.rollout(name)).phase is Phase.PROMOTED
        assert pages(made) == [False]
        assert made.telemetry.counts["messages_dropped"] > 0
        made.chat.unknown.clear()
        await started(made, "10%:4s, 100%:4s")
        await made.play(5)
        assert pages(made) == [False, True]


async def test_a_channel_that_is_back_is_used_again() -> None:
    """After five minutes the next rollout tries it again."""
    async with stage() as made:
        made.chat.unknown |= GONE
        name = await started(made, "10%:4s, 100%:4s")
        await made.play(60, until=lambda: made.store.rollouts.records[name].rollout.phase.final)
        await made.play(5)
        assert not here(made, "payments")
        made.chat.unknown.clear()
        made.mesh.edit("payments", canary_weight=0)
        await made.play(ELSEWHERE_S)
        await started(made, "10%:4s, 100%:4s")
        await made.play(5)
        assert here(made, "payments")
