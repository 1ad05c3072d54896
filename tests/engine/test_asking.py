"""What people ask, in every phase: one answer each, and a button acts on what it was drawn for, once."""

import asyncio

import pytest

from bot.rollout.effects import MessageKind
from bot.rollout.events import VERBS, Request
from bot.rollout.machine import decide
from bot.rollout.model import Direction, Phase, Rollout
from bot.usecases.requests import put
from bot.usecases.start import StartAsk, start
from tests.engine.stage import ADA, GRACE, Stage, stage
from tests.engine.test_stories import started

ASKS = "10%:4s, 50%:600s:approve, 100%:4s"
OPTIONS = {"drift": ("adopt", "reapply", "?"), "promote": ("", "full", "override"), "extend": ("60", "soon")}


async def in_phase(made: Stage, phase: Phase) -> Rollout:
    """A rollout of payments that has come to rest in a phase."""
    at = made.clock.now() + 3600 if phase in (Phase.SCHEDULED, Phase.CANCELLED) else None
    steps = "10%:4s, 100%:4s" if phase is Phase.PROMOTED else ASKS
    if phase in (Phase.PROGRESSING, Phase.HOLDING, Phase.ROLLING_BACK, Phase.ROLLED_BACK):
        steps = "10%:600s, 100%:4s"
    answer = await start(made.desk, StartAsk("payments", steps=steps, at=at), ADA)
    assert answer.rollout is not None
    name = answer.rollout.id
    if at is None:
        await made.play(12, until=lambda: made.weights() == [10])
    match phase:
        case Phase.HOLDING:
            await put(made.desk, "hold", name, ADA)
        case Phase.ROLLING_BACK:
            made.mesh.fail("refused", times=10_000)
            await put(made.desk, "rollback", name, ADA)
        case Phase.ROLLED_BACK:
            await put(made.desk, "rollback", name, ADA)
        case Phase.CANCELLED:
            await put(made.desk, "cancel", name, ADA)
        case _:
            pass
    await made.play(40, until=lambda: made.store.rollouts.records[name].rollout.phase is phase)
    await made.play(2)
    rollout = await made.rollout(name)
    assert rollout.phase is phase
    return rollout


def answers(made: Stage) -> list[str]:
    return [message.text for _, message in made.store.said if message.kind is MessageKind.ANSWER]


@pytest.mark.parametrize("phase", list(Phase), ids=lambda phase: phase.value)
async def test_every_verb_gets_exactly_one_answer_in_every_phase(phase: Phase) -> None:
    """Typed words, each with its options: one sentence to the person who asked, never none and never two."""
    async with stage() as made:
        rollout = await in_phase(made, phase)
        for verb in VERBS:
            for option in OPTIONS.get(verb, ("",)):
                for reason in ("", "because"):
                    request = Request(
                        "r", rollout.id, verb, GRACE.actor, made.clock.now(), reason, option, reply=GRACE.reply
                    )
                    said = [
                        message
                        for message in decide(rollout, request, made.clock.now()).messages
                        if message.kind is MessageKind.ANSWER
                    ]
                    assert len(said) == 1, (verb, option, said)
                    assert said[0].text
                    assert said[0].reply == GRACE.reply


@pytest.mark.parametrize("phase", list(Phase), ids=lambda phase: phase.value)
async def test_stale_buttons_change_nothing_and_are_answered(phase: Phase) -> None:
    """Every button of a card drawn for the first revision, through inbox and holder: no write, one whisper each."""
    async with stage() as made:
        before = await in_phase(made, phase)
        writes, said = len(made.mesh.writes), len(answers(made))
        for verb in VERBS:
            request = Request(
                f"stale-{verb}",
                before.id,
                verb,
                GRACE.actor,
                made.clock.now(),
                "because",
                revision=0,
                reply=GRACE.reply,
            )
            await made.desk.inbox.put(request)
        await made.play(3)
        after = await made.rollout(before.id)
        assert len(answers(made)) - said == len(VERBS), answers(made)[said:]
        assert all(text.startswith("Nothing changed") or "nothing was changed" in text for text in answers(made)[said:])
        assert len(made.mesh.writes) == writes
        assert (after.phase, after.weight_percent, after.holds, after.approval) == (
            before.phase,
            before.weight_percent,
            before.holds,
            before.approval,
        )


async def test_two_clicks_on_roll_back_at_once_are_one_roll_back_and_two_answers() -> None:
    """Two people press the same button in the same moment: one write to 0, both hear what became of it."""
    async with stage() as made:
        rollout = await in_phase(made, Phase.PROGRESSING)
        clicks = (put(made.desk, "rollback", rollout.id, who, revision=rollout.revision) for who in (ADA, GRACE))
        await asyncio.gather(*clicks)
        await made.play(5)
        zeros = [change for change in made.mesh.writes if change.direction is Direction.ZERO]
        assert (len(zeros), len(answers(made))) == (1, 2)
        assert {said.to for said in made.chat.whispers} == {ADA.user_id, GRACE.user_id}


async def test_an_approval_and_a_rejection_at_once_are_decided_in_their_order() -> None:
    """Whoever came first counts: the second is told that the question is closed."""
    async with stage() as made:
        rollout = await in_phase(made, Phase.AWAITING_APPROVAL)
        assert rollout.approval is not None
        step, revision = rollout.approval.step, rollout.revision
        await put(made.desk, "approve", rollout.id, GRACE, step=step, revision=revision)
        await put(made.desk, "reject", rollout.id, GRACE, reason="no", step=step, revision=revision)
        await made.play(4)
        assert made.weights() == [10, 50]
        first, second = answers(made)
        assert first.startswith("Approved")
        assert second.startswith("Nothing changed")


async def test_a_double_click_on_promote_goes_up_one_step() -> None:
    """The second click was drawn for a state that is over."""
    async with stage() as made:
        name = await started(made, "10%:600s, 50%:600s, 100%:600s")
        await made.play(12, until=lambda: made.weights() == [10])
        await made.play(5)
        revision = (await made.rollout(name)).revision
        for _ in range(2):
            await put(made.desk, "promote", name, ADA, revision=revision, step=0)
        await made.play(20)
        assert made.weights() == [10, 50]
        assert len(answers(made)) == 2


async def test_a_request_put_twice_is_heard_once() -> None:
    """Its first reply was lost and it was sent again under the same id: one answer."""
    async with stage() as made:
        rollout = await in_phase(made, Phase.PROGRESSING)
        request = Request("once", rollout.id, "hold", GRACE.actor, made.clock.now(), reply=GRACE.reply)
        await made.desk.inbox.put(request)
        await made.play(2)
        await made.desk.inbox.put(request)
        await made.play(2)
        assert len(answers(made)) == 1, answers(made)
