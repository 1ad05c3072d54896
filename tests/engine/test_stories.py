"""The whole engine over faked ports: what a team lives through."""

from itertools import pairwise

from bot.rollout.model import HoldReason, Phase
from bot.usecases.requests import put
from bot.usecases.start import StartAsk, start
from tests.engine.stage import ADA, GRACE, HOST, Stage, stage


async def started(made: Stage, steps: str = "10%:10s, 50%:10s, 100%:10s") -> str:
    """Start payments and return the rollout's id."""
    answer = await start(made.desk, StartAsk("payments", steps=steps), ADA)
    assert answer.rollout is not None
    return answer.rollout.id


async def test_a_good_release_goes_through_its_steps_and_is_promoted() -> None:
    """Weights go up in the order of the plan and the rollout ends as Promoted."""
    async with stage() as made:
        name = await started(made)
        await made.play(120, until=lambda: made.store.rollouts.records[name].rollout.phase.final)
        assert (await made.rollout(name)).phase is Phase.PROMOTED
        assert made.weights() == [10, 50, 100]
        assert made.telemetry.failures == []


async def test_every_bake_lasts_as_long_as_the_plan_says() -> None:
    """No step is left before its bake is covered by samples."""
    async with stage() as made:
        name = await started(made)
        await made.play(120, until=lambda: made.store.rollouts.records[name].rollout.phase.final)
        rollout = await made.rollout(name)
        raised = [entry.at for entry in rollout.history if entry.kind == "raised"]
        assert len(raised) == 3, [entry.kind for entry in rollout.history]
        gaps = [after - before for before, after in pairwise(raised)]
        assert all(10 <= gap <= 20 for gap in gaps), gaps


async def test_a_step_that_asks_waits_for_an_approver_who_did_not_start_it() -> None:
    """The rollout waits at 10% until a release lead approves, then goes on."""
    async with stage() as made:
        name = await started(made, "10%:10s, 50%:10s:approve, 100%:10s")
        await made.play(60)
        assert (await made.rollout(name)).phase is Phase.AWAITING_APPROVAL
        assert made.weights() == [10]
        await put(made.desk, "approve", name, GRACE)
        await made.play(60, until=lambda: made.store.rollouts.records[name].rollout.phase.final)
        assert (await made.rollout(name)).phase is Phase.PROMOTED


async def test_a_bad_release_is_rolled_back_with_its_reason() -> None:
    """A canary that fails 5% of its requests goes to 0, and the channel reads why."""
    async with stage() as made:
        made.metrics.behave(HOST, "v2", fail=0.05)
        name = await started(made)
        await made.play(60, until=lambda: made.store.rollouts.records[name].rollout.phase.final)
        rollout = await made.rollout(name)
        assert rollout.phase is Phase.ROLLED_BACK
        assert made.weights()[-1] == 0
        assert made.mesh.weights("payments") == (100, 0)
        await made.play(5)
        assert any("error-rate" in text and "rolled back" in text.lower() for text in made.chat.texts), made.chat.texts


async def test_prometheus_away_holds_and_goes_on_by_itself() -> None:
    """An outage of the metrics never rolls back, and the rollout ends as it should afterwards."""
    async with stage() as made:
        name = await started(made)
        await made.play(12)
        made.metrics.broken = "connection refused"
        await made.play(90)
        held = await made.rollout(name)
        assert HoldReason.CANNOT_MEASURE in held.hold_reasons
        assert made.weights() == [10]
        made.metrics.broken = ""
        await made.play(120, until=lambda: made.store.rollouts.records[name].rollout.phase.final)
        assert (await made.rollout(name)).phase is Phase.PROMOTED


async def test_redis_away_stops_raises_and_lets_a_rollback_through() -> None:
    """Without the store nothing goes up, and a failing canary still goes to 0; it is saved when Redis is back."""
    async with stage() as made:
        name = await started(made)
        await made.play(12)
        made.store.down = True
        await made.play(60)
        assert made.weights() == [10]
        made.metrics.behave(HOST, "v2", fail=0.5)
        await made.play(30)
        assert made.mesh.weights("payments") == (100, 0)
        made.store.down = False
        await made.play(10)
        assert (await made.rollout(name)).phase is Phase.ROLLED_BACK


async def test_one_card_stands_in_the_channel_however_often_it_is_edited() -> None:
    """The card is posted once and edited; everything else of a good rollout without approvals is in its thread."""
    async with stage() as made:
        name = await started(made)
        await made.play(150, until=lambda: made.store.rollouts.records[name].rollout.phase.final)
        await made.play(30)
        top = [said for said in made.chat.messages.values() if said.channel == "payments" and not said.thread]
        assert len(top) == 1, [said.text for said in top]
        assert len(top[0].edits) >= 3
        assert all(said.thread == top[0].ts for said in made.chat.messages.values() if said is not top[0])
