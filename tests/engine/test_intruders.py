"""Somebody else's hands: changed weights, a redeployed canary, a stable that is gone. Held and asked, never fought."""

import pytest

from bot.rollout.effects import MessageKind
from bot.rollout.model import HoldReason, Phase, Rollout
from bot.usecases.requests import put
from bot.usecases.rollback import rollback
from tests.engine.stage import ADA, GRACE, HOST, Stage, stage
from tests.engine.test_stories import started

LONG = "10%:12s, 50%:12s, 100%:4s"


async def drifted(made: Stage, canary_weight: int) -> str:
    """A rollout at 10% whose route somebody has set to another weight with kubectl; its id."""
    name = await started(made, LONG)
    await made.play(8, until=lambda: made.weights() == [10])
    await made.play(3)
    made.mesh.edit("payments", canary_weight=canary_weight, by="kubectl-edit")
    await made.play(2)
    return name


async def ended(made: Stage, name: str) -> Rollout:
    await made.play(120, until=lambda: made.store.rollouts.records[name].rollout.phase.final)
    await made.play(5)
    return await made.rollout(name)


def answers(made: Stage) -> list[str]:
    return [message.text for _, message in made.store.said if message.kind is MessageKind.ANSWER]


async def test_drift_holds_names_who_wrote_and_overwrites_nothing() -> None:
    """A minute later the foreign weights still stand, and the channel was asked once."""
    async with stage() as made:
        name = await drifted(made, 30)
        await made.play(60)
        rollout = await made.rollout(name)
        assert (rollout.phase, rollout.hold_reasons) == (Phase.HOLDING, frozenset({HoldReason.DRIFT}))
        assert made.mesh.weights("payments") == (70, 30)
        asked = [text for text in made.chat.texts if "kubectl-edit" in text and "Adopt" in text]
        assert len(asked) == 1, made.chat.texts


async def test_adopted_weights_are_baked_anew_and_gone_on_from() -> None:
    """30% is taken as it is; the next weight of the plan comes after a whole bake."""
    async with stage() as made:
        name = await drifted(made, 30)
        await put(made.desk, "drift", name, GRACE, option="adopt")
        await made.play(2)
        adopted_at = made.clock.now()
        assert (await made.rollout(name)).weight_percent == 30
        await made.play(60, until=lambda: made.mesh.weights("payments")[1] == 50)
        assert made.clock.now() - adopted_at >= 8
        assert (await ended(made, name)).phase is Phase.PROMOTED


async def test_reapplying_after_somebody_raised_goes_down_at_once() -> None:
    """30% becomes 10% again without waiting for gates, and the plan goes on from there."""
    async with stage() as made:
        name = await drifted(made, 30)
        await put(made.desk, "drift", name, GRACE, option="reapply")
        await made.play(1.5)
        assert made.mesh.weights("payments") == (90, 10)
        assert (await ended(made, name)).phase is Phase.PROMOTED


async def test_drift_that_is_taken_back_by_hand_goes_on_by_itself() -> None:
    """The weights are ours again: nobody has to press anything."""
    async with stage() as made:
        name = await drifted(made, 30)
        made.mesh.edit("payments", canary_weight=10, by="kubectl-edit")
        rollout = await ended(made, name)
        assert (rollout.phase, made.weights()) == (Phase.PROMOTED, [10, 50, 100])


@pytest.mark.parametrize("found", [0, 30, 100])
async def test_a_roll_back_takes_whatever_the_canary_has(found: int) -> None:
    """Drift stops no way to 0, whichever weight somebody has set."""
    async with stage() as made:
        name = await drifted(made, found)
        await rollback(made.desk, name, ADA, "enough")
        rollout = await ended(made, name)
        assert (rollout.phase, made.mesh.weights("payments")) == (Phase.ROLLED_BACK, (100, 0))


async def test_a_failing_canary_goes_to_0_through_drift() -> None:
    """Rule 9: held for drift, and still rolled back by its gates."""
    async with stage() as made:
        name = await drifted(made, 30)
        made.metrics.behave(HOST, "v2", fail=0.5)
        rollout = await ended(made, name)
        assert (rollout.phase, made.mesh.weights("payments")) == (Phase.ROLLED_BACK, (100, 0))


async def test_a_redeployed_canary_holds_and_restart_begins_again_from_step_1() -> None:
    """What was measured is void: back to 0, then the whole plan with the new pods, after a person said so."""
    async with stage() as made:
        name = await started(made, LONG)
        await made.play(60, until=lambda: made.weights() == [10, 50])
        made.cluster.change("payments-v2", template="hash-2", images=("sha256:2",))
        await made.play(60)
        rollout = await made.rollout(name)
        assert (rollout.hold_reasons, made.weights()) == (frozenset({HoldReason.REDEPLOYED}), [10, 50])
        await put(made.desk, "restart", name, ADA)
        rollout = await ended(made, name)
        assert (rollout.phase, made.weights()) == (Phase.PROMOTED, [10, 50, 0, 10, 50, 100])
        assert "begins again" in answers(made)[-1]


async def test_a_redeployed_canary_that_fails_goes_back_without_asking() -> None:
    """Held for the redeployment, the new pods are watched all the same."""
    async with stage() as made:
        name = await started(made, LONG)
        await made.play(8, until=lambda: made.weights() == [10])
        made.cluster.change("payments-v2", template="hash-2", images=("sha256:2",))
        await made.play(3)
        made.metrics.behave(HOST, "v2", fail=0.5)
        assert (await ended(made, name)).phase is Phase.ROLLED_BACK


async def test_a_failure_with_no_stable_to_go_back_to_is_held_and_paged_and_a_person_may_still() -> None:
    """Nothing could take the traffic: it stays, people are paged; who rolls back all the same is obeyed."""
    async with stage() as made:
        name = await started(made, LONG)
        await made.play(8, until=lambda: made.weights() == [10])
        made.cluster.change("payments-v1", ready=False)
        made.metrics.behave(HOST, "v2", fail=0.5)
        await made.play(30)
        rollout = await made.rollout(name)
        assert (rollout.phase, made.mesh.weights("payments")) == (Phase.HOLDING, (90, 10))
        assert HoldReason.STABLE_UNHEALTHY in rollout.hold_reasons
        assert [page.resolved for page in made.pager.pages if "stable-unhealthy" in page.key] == [False]
        await rollback(made.desk, name, ADA, "v1 comes up in a minute")
        rollout = await ended(made, name)
        assert (rollout.phase, made.mesh.weights("payments")) == (Phase.ROLLED_BACK, (100, 0))
        assert [page.resolved for page in made.pager.pages if "stable-unhealthy" in page.key] == [False, True]


async def test_a_stable_that_comes_back_while_the_canary_fails_gets_the_traffic() -> None:
    """The hold was for want of stable pods: with one ready, the next deciding failure goes to 0 by itself."""
    async with stage() as made:
        name = await started(made, LONG)
        await made.play(8, until=lambda: made.weights() == [10])
        made.cluster.change("payments-v1", ready=False)
        made.metrics.behave(HOST, "v2", fail=0.5)
        await made.play(20)
        made.cluster.change("payments-v1", ready=True)
        rollout = await ended(made, name)
        assert (rollout.phase, made.mesh.weights("payments")) == (Phase.ROLLED_BACK, (100, 0))


async def test_a_canary_without_ready_pods_goes_to_0() -> None:
    """The last ready pod of the canary is gone while it has weight: that is a failure by itself."""
    async with stage() as made:
        name = await started(made, LONG)
        await made.play(8, until=lambda: made.weights() == [10])
        made.cluster.change("payments-v2", ready=False)
        rollout = await ended(made, name)
        assert rollout.phase is Phase.ROLLED_BACK
        assert "pods" in rollout.reason
