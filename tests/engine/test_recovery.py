"""The store loses its data, or goes away for a while: what goes on, what is held, and what people are told."""

from dataclasses import replace

from bot.errors import Transient
from bot.rollout.effects import MessageKind
from bot.rollout.events import Request
from bot.rollout.model import Direction, HoldReason, Phase
from bot.usecases.requests import put
from bot.usecases.rollback import rollback
from bot.usecases.start import StartAsk, start
from tests.engine.stage import ADA, HOST, Stage, stage
from tests.engine.test_stories import started

RECOVERED = frozenset({HoldReason.RECOVERED})


async def lost(made: Stage) -> str:
    """A rollout at 10% of which nothing is left but the route: the process and all that Redis had are gone."""
    answer = await start(made.desk, StartAsk("payments", steps="10%:10s, 50%:10s, 100%:10s"), ADA)
    assert answer.rollout is not None
    await made.play(8, until=lambda: made.weights() == [10])
    await made.engine.stop()
    made.store.wipe()
    made.engine = made.new_engine("bot-2")
    await made.engine.start()
    return answer.rollout.id


def asked(made: Stage) -> list[str]:
    return [message.text for _, message in made.store.said if message.kind is MessageKind.ASK]


async def test_on_an_empty_store_a_rollout_is_rebuilt_from_its_route_and_held() -> None:
    """Same id, weight and step, what stands behind it resolved, plan of the catalog; it holds and asks once."""
    async with stage() as made:
        name = await lost(made)
        await made.play(60)
        rollout = await made.rollout(name)
        assert (rollout.phase, rollout.weight_percent, rollout.step) == (Phase.HOLDING, 10, 0)
        assert rollout.hold_reasons == RECOVERED
        assert rollout.target == made.mesh.targets["payments"]
        assert rollout.plan == made.catalog.plans["short"]
        assert rollout.assessment is not None
        assert rollout.assessment.passed
        assert made.mesh.weights("payments") == (90, 10)
        (question,) = asked(made)
        assert "rebuilt from the mark" in question
        assert made.pager.pages == []


async def test_a_rebuilt_rollout_goes_on_when_it_is_resumed_and_not_before() -> None:
    """Resuming takes the reason away; then the bake of its step begins anew and the plan goes on."""
    async with stage() as made:
        name = await lost(made)
        await made.play(60)
        await put(made.desk, "resume", name, ADA)
        await made.play(60, until=lambda: made.store.rollouts.records[name].rollout.approval is not None)
        rollout = await made.rollout(name)
        assert rollout.phase is Phase.AWAITING_APPROVAL
        assert rollout.holds == ()
        assert any(message.kind is MessageKind.ASKED for _, message in made.store.said)


async def test_a_rebuilt_rollout_is_rolled_back_by_its_gates_and_by_people() -> None:
    """Held or not, a failing canary goes to 0 by itself; a person's word does the same."""
    async with stage() as made:
        name = await lost(made)
        await made.play(30)
        made.metrics.behave(HOST, "v2", fail=0.3)
        await made.play(60, until=lambda: made.weights()[-1] == 0)
        await made.play(3)
        assert (await made.rollout(name)).phase is Phase.ROLLED_BACK
    async with stage() as made:
        name = await lost(made)
        await made.play(10)
        await rollback(made.desk, name, ADA, "no")
        await made.play(3)
        assert (await made.rollout(name)).phase is Phase.ROLLED_BACK
        assert made.mesh.weights("payments") == (100, 0)


async def test_a_button_of_the_lost_record_is_out_of_date_on_the_rebuilt_one() -> None:
    """Revisions of the record were ahead of the mark; the rebuilt one begins beyond them all."""
    async with stage() as made:
        name = await started(made)
        await made.play(8, until=lambda: made.weights() == [10])
        for verb in ("hold", "resume") * 5:
            await put(made.desk, verb, name, ADA)
            await made.play(1)
        drawn = (await made.rollout(name)).revision
        await made.engine.stop()
        made.store.wipe()
        made.engine = made.new_engine("bot-2")
        await made.engine.start()
        await made.play(5)
        assert (await made.rollout(name)).revision > drawn
        await put(made.desk, "rollback", name, ADA, revision=drawn, step=0)
        await made.play(3)
        assert made.mesh.weights("payments") == (90, 10)


async def test_a_process_that_outlives_the_stores_data_keeps_what_it_knows() -> None:
    """Plan, starter and evidence go on from memory and are saved again; it is held, for freezes are gone too."""
    async with stage() as made:
        name = await started(made, "10%:10s, 50%:60s, 100%:10s")
        await made.play(8, until=lambda: made.weights() == [10])
        before = await made.rollout(name)
        made.store.wipe()
        await made.play(40)
        rollout = await made.rollout(name)
        assert rollout.hold_reasons == RECOVERED
        assert (rollout.plan, rollout.started_by, rollout.weight_percent) == (before.plan, before.started_by, 10)
        assert made.weights() == [10]
        (question,) = asked(made)
        assert "kept in memory" in question
        await put(made.desk, "resume", name, ADA)
        await made.play(30, until=lambda: made.weights() == [10, 50])
        assert made.weights() == [10, 50]


async def test_a_save_that_a_wiped_store_refuses_does_not_cost_the_memory() -> None:
    """The store forgot the fencing token between two renewals: the holder finds out and saves all of it again."""
    async with stage() as made:
        name = await started(made, "10%:30s, 50%:60s, 100%:10s")
        await made.play(8, until=lambda: made.weights() == [10])
        made.store.wipe()
        await made.store.inbox.put(Request("r1", name, "hold", ADA.actor, made.clock.now()))
        await made.play(5)
        rollout = await made.rollout(name)
        assert rollout.hold_reasons == {HoldReason.RECOVERED, HoldReason.PERSON}
        assert rollout.started_by.id == ADA.user_id


async def test_a_store_that_comes_back_without_its_last_second_loses_to_the_route() -> None:
    """The raise to 50% was written and saved, and the save is gone: the next holder takes 50% from the mark."""
    async with stage() as made:
        name = await started(made, "10%:5s, 50%:60s, 100%:10s")
        await made.play(8, until=lambda: made.weights() == [10])
        older = await made.rollout(name)
        await made.play(20, until=lambda: made.weights() == [10, 50])
        await made.play(1)
        await made.engine.stop()
        made.store.rollouts.records[name].rollout = older
        made.engine = made.new_engine("bot-2")
        await made.engine.start()
        await made.play(5)
        rollout = await made.rollout(name)
        assert (rollout.weight_percent, rollout.step) == (50, 1)
        assert made.weights() == [10, 50]


async def test_a_store_that_is_away_is_told_once_in_the_channel_and_again_when_it_is_back() -> None:
    """Past the outbox, after some seconds; nothing goes up meanwhile, and the rollout goes on afterwards."""
    async with stage() as made:
        await started(made, "10%:5s, 50%:60s, 100%:10s")
        await made.play(4, until=lambda: made.weights() == [10])
        made.store.down = True
        await made.play(4)
        assert not any("cannot reach its Redis" in text for text in made.chat.texts)
        await made.play(30)
        told = [text for text in made.chat.texts if "its Redis" in text]
        assert len(told) == 1, told
        assert "payments v2 at 10%" in told[0]
        assert made.weights() == [10]
        made.store.down = False
        await made.play(30, until=lambda: made.weights() == [10, 50])
        await made.play(3)
        assert made.weights() == [10, 50]
        told = [text for text in made.chat.texts if "its Redis" in text]
        assert len(told) == 2, told
        assert "reaches its Redis again" in told[1]


async def test_a_short_absence_of_the_store_is_nobodys_trouble() -> None:
    """A fail-over of three seconds says nothing."""
    async with stage() as made:
        await started(made, "10%:60s, 100%:10s")
        await made.play(4, until=lambda: made.weights() == [10])
        made.store.down = True
        await made.play(3)
        made.store.down = False
        await made.play(10)
        assert not any("its Redis" in text for text in made.chat.texts)


async def test_a_notice_that_the_chat_does_not_take_is_said_later() -> None:
    """Redis and Slack away together: people read it when Slack is back."""
    async with stage() as made:
        await started(made, "10%:60s, 100%:10s")
        await made.play(4, until=lambda: made.weights() == [10])
        post = made.chat.post

        async def away(*args: object, **named: object) -> tuple[str, str]:
            raise Transient("Slack is away")

        made.store.down = True
        made.chat.post = away  # type: ignore[method-assign]
        await made.play(20)
        made.chat.post = post  # type: ignore[method-assign]
        await made.play(3)
        assert sum("cannot reach its Redis" in text for text in made.chat.texts) == 1


async def test_what_is_decided_while_the_store_is_away_is_said_and_saved_afterwards() -> None:
    """Gates roll back from memory although the lease lapsed; nobody else had it, so the record and the story follow."""
    async with stage() as made:
        name = await started(made, "10%:60s, 100%:10s")
        await made.play(4, until=lambda: made.weights() == [10])
        made.metrics.behave(HOST, "v2", fail=0.3)
        made.store.down = True
        await made.play(30)
        assert made.weights() == [10, 0]
        made.store.leases.expire()
        made.store.down = False
        await made.play(8)
        assert (await made.rollout(name)).phase is Phase.ROLLED_BACK
        assert any("Rolling back" in text for text in made.chat.texts), made.chat.texts


async def test_a_weight_zeroed_by_hand_while_nobody_watched_is_drift_on_the_rebuilt_rollout() -> None:
    """The mark says 10% and the route 0: nothing is overwritten, people are asked."""
    async with stage() as made:
        answer = await start(made.desk, StartAsk("payments", steps="10%:60s, 100%:10s"), ADA)
        assert answer.rollout is not None
        await made.play(8, until=lambda: made.weights() == [10])
        await made.engine.stop()
        made.store.wipe()
        made.mesh.edit("payments", canary_weight=0, by="kubectl-patch")
        made.engine = made.new_engine("bot-2")
        await made.engine.start()
        await made.play(10)
        rollout = await made.rollout(answer.rollout.id)
        assert rollout.hold_reasons == {HoldReason.RECOVERED, HoldReason.DRIFT}
        assert made.mesh.weights("payments") == (100, 0)
        assert [change.direction for change in made.mesh.writes] == [Direction.RAISE]
        assert replace(rollout.target, fingerprint="") == replace(made.mesh.targets["payments"], fingerprint="")
