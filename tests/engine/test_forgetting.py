"""A store that has lost its last second while the holder lives on."""

import pytest

from bot.rollout.effects import Message, MessageKind
from bot.rollout.model import Freeze, HoldReason, Phase, Rollout
from bot.rollout.route import Mark
from bot.usecases.requests import put
from bot.values import replace
from tests.engine.stage import ADA, HOST, Stage, stage
from tests.engine.test_letters import at_ten
from tests.engine.test_stories import started
from tests.fakes.store import FakeOutbox


async def test_a_card_whose_place_was_forgotten_is_posted_anew() -> None:
    """A fail-over lost where the card stands, which does not change any more: a note reaches people all the same."""
    async with stage() as made:
        name = await at_ten(made)
        await put(made.desk, "rollback", name, ADA, reason="I say so")
        await made.play(10)
        vars(made.store.outbox)["_posted"] = vars(FakeOutbox(made.store))["_posted"]
        made.store.outbox.queue(name, [Message(MessageKind.NOTE, "something happened")])
        await made.play(4)
        assert made.store.outbox.waiting == 0
        cards = {said.ts for said in made.chat.messages.values() if not said.thread and said.channel == "payments"}
        (thread,) = [said.thread for said in made.chat.messages.values() if "something happened" in said.text]
        assert thread in cards


async def test_a_rollout_that_is_not_in_memory_is_rebuilt_when_the_store_forgets_under_its_holder() -> None:
    """The holder rebuilt it, could not load it, and the store lost it once more: its mark is read again at once."""
    async with stage() as made:
        name = await at_ten(made)
        made.engine._book.drop(name)
        made.store.wipe()
        await made.play(5)
        assert made.store.rollouts.records[name].rollout.weight_percent == 10


async def test_freezes_of_a_store_that_has_just_forgotten_are_no_permission() -> None:
    """Between the save of a raise and the reading of the freezes somebody froze everything and the store forgot all:
    the raise is not made, and the rollout is held until a person says that it goes on."""
    async with stage() as made:
        name = await started(made)
        await made.play(8, until=lambda: made.weights() == [10])
        save = made.store.rollouts.save

        async def forgets(rollout: Rollout, *rest: object, **more: object) -> None:
            await save(rollout, *rest, **more)  # type: ignore[arg-type]
            if rollout.write is not None and rollout.write.weight_percent == 50:
                await made.desk.freezes.add(Freeze("f1", "all", "audit", ADA.actor, made.clock.now()))
                made.store.wipe()

        made.store.rollouts.save = forgets  # type: ignore[method-assign]
        await made.play(30)
        assert made.weights() == [10]
        assert HoldReason.RECOVERED in (await made.rollout(name)).hold_reasons


async def sent_back_behind_a_cut(made: Stage) -> str:
    """A rollout whose canary fails and goes to 0 while its holder cannot reach the store: nothing of that is saved."""
    name = await at_ten(made)
    made.store.down = True
    made.metrics.behave(HOST, "v2", fail=0.5)
    await made.play(60, until=lambda: made.weights() == [10, 0])
    await made.play(2)
    assert made.weights() == [10, 0]
    return name


def told(made: Stage, name: str) -> list[Message]:
    """What was said of a rollout in the channel, beside its card."""
    kinds = (MessageKind.NOTICE, MessageKind.ALERT)
    return [message for of, message in made.store.said if of == name and message.kind in kinds]


async def test_an_end_that_the_store_forgot_before_it_was_saved_is_told_by_who_brought_it_about() -> None:
    """The holder sent the canary to 0 behind a cut, the store forgot everything, and another has the lease: only the
    former holder knows, and says so once, with the reason and with what is lost; the audit has it too."""
    async with stage() as made:
        name = await sent_back_behind_a_cut(made)
        await another_has_an_empty_store(made)
        assert not made.engine.leading
        (notice,) = told(made, name)
        assert (notice.kind, notice.channel) == (MessageKind.NOTICE, "#payments")
        assert all(part in notice.text for part in ("payments is on v1 again", "v2 is at 0", "error-rate", "lost"))
        lines = [line for line in made.store.audits if line.rollout == name and line.weight_percent == 0]
        assert len([line for line in lines if line.what == "zero"]) == 1


async def test_an_end_that_the_store_still_shows_is_left_to_the_next_holder() -> None:
    """The same with the record still there: the next holder finds the end on the route, and nobody tells it twice."""
    async with stage() as made:
        name = await sent_back_behind_a_cut(made)
        made.store.leases.steal("bot-2", 5.0)
        made.store.down = False
        await made.play(20)
        (alert,) = told(made, name)
        assert alert.kind is MessageKind.ALERT
        assert (await made.rollout(name)).phase is Phase.ROLLED_BACK


@pytest.mark.parametrize("reply", ["came", "lost"])
async def test_a_way_to_0_after_the_end_that_others_brought_about_is_told(reply: str) -> None:
    """Another holder has ended the rollout, and then somebody set the canary to 100%. The former holder, which cannot
    reach the store, sends it to 0 again: it tells that once, as soon as it can."""
    async with stage() as made:
        name = await at_ten(made)
        made.store.down = True
        ended_by_another(made, name)
        made.mesh.edit("payments", canary_weight=100)
        if reply == "lost":
            made.mesh.fail("lost")
            made.mesh.fail("transient", times=500)
        await made.play(60, until=lambda: made.mesh.weights("payments")[1] == 0)
        await made.play(2)
        assert made.mesh.weights("payments") == (100, 0)
        made.store.leases.steal("bot-2", 600.0)
        made.store.down = False
        await made.play(20)
        (notice,) = told(made, name)
        assert all(
            part in notice.text for part in ("v2 of payments was sent to 0 once more", "RolledBack", "with 100%")
        )
        assert [line.weight_percent for line in made.store.audits if line.rollout == name][-1] == 0


async def test_an_end_that_others_brought_about_is_told_by_them_alone() -> None:
    """The former holder finds it on the route and writes nothing: what it could not save is no news."""
    async with stage() as made:
        name = await at_ten(made)
        made.store.down = True
        ended_by_another(made, name)
        await made.play(10)
        assert [rollout.phase for rollout in made.engine.cut_off()] == [Phase.ROLLED_BACK]
        made.store.leases.steal("bot-2", 600.0)
        made.store.down = False
        await made.play(20)
        assert told(made, name) == []


async def at_zero_unseen(made: Stage) -> str:
    """The store is away, and the canary's way to 0 arrives without a reply; the rollout's id."""
    name = await at_ten(made)
    made.store.down = True
    made.mesh.fail("lost")
    made.mesh.fail("transient", times=500)
    made.metrics.behave(HOST, "v2", fail=0.5)
    await made.play(60, until=lambda: made.weights() == [10, 0])
    return name


async def another_has_an_empty_store(made: Stage) -> None:
    """The store comes back without anything, and another process has the lease."""
    made.store.wipe()
    made.store.leases.steal("bot-2", 600.0)
    made.store.down = False
    await made.play(20)


def ended_by_another(made: Stage, name: str) -> None:
    """Another holder has sent the canary to 0 and saved the end."""
    record = made.store.rollouts.records[name]
    revision = record.rollout.revision + 3
    mark = Mark(name, revision, 0, Phase.ROLLED_BACK.value, reason="Ada asked for it.")
    made.mesh.edit("payments", canary_weight=0, by="canary-bot", mark=mark)
    record.rollout = replace(
        record.rollout, phase=Phase.ROLLED_BACK, weight_percent=0, marked=revision, revision=revision + 1, write=None
    )
    made.store.leases.steal("bot-2", 600.0)


async def test_an_end_that_was_not_seen_to_arrive_is_looked_for_on_the_route() -> None:
    """The patch to 0 arrived without a reply, and the store has forgotten the rollout: its mark says how it ended."""
    async with stage() as made:
        name = await at_zero_unseen(made)
        (rollout,) = made.engine.cut_off()
        assert rollout.phase is Phase.ROLLING_BACK
        await another_has_an_empty_store(made)
        (notice,) = told(made, name)
        assert "v2 is at 0" in notice.text
        assert [line.weight_percent for line in made.store.audits if line.rollout == name][-1] == 0


async def test_what_is_rebuilt_from_its_route_is_not_told_of_as_an_end() -> None:
    """The way to 0 never arrived: whoever holds the lease finds the mark and holds the rollout, and that is told."""
    async with stage() as made:
        name = await at_ten(made)
        made.store.down = True
        made.mesh.fail("transient", times=500)
        made.metrics.behave(HOST, "v2", fail=0.5)
        await made.play(30)
        (rollout,) = made.engine.cut_off()
        assert rollout.phase is Phase.ROLLING_BACK
        await another_has_an_empty_store(made)
        assert made.mesh.weights("payments") == (90, 10)
        assert told(made, name) == []


@pytest.mark.parametrize("route", ["deleted", "made again"])
async def test_a_way_to_0_that_nothing_tells_of_any_more_is_said_to_be_unknown(route: str) -> None:
    """The patch to 0 arrived without a reply, somebody deleted the route (and made it again with the canary in it), and
    the store has forgotten the rollout: people are told once that nobody can know, and what the route shows."""
    async with stage() as made:
        name = await at_zero_unseen(made)
        made.mesh.delete("payments") if route == "deleted" else made.mesh.make_again("payments", canary_weight=40)
        await another_has_an_empty_store(made)
        (notice,) = told(made, name)
        shows = "there is no route any more" if route == "deleted" else "the route gives it 40% now"
        assert f"was being sent to 0, and whether that arrived is not known: {shows}" in notice.text
        assert [line.weight_percent for line in made.store.audits if line.rollout == name][-1] == 0


async def test_an_end_that_another_holder_is_about_to_save_is_left_to_it() -> None:
    """The store has forgotten everything, and the next holder, which found the end on the route, has it in memory and
    saves it a moment later: the former one finds no record at first, and does not tell it as well."""
    async with stage() as made:
        name = await sent_back_behind_a_cut(made)
        (ended,) = made.engine.cut_off()
        assert ended.phase is Phase.ROLLED_BACK
        record = made.store.rollouts.records[name]
        record.rollout = replace(ended, ended_at=(ended.ended_at or 0.0) + 5)
        made.store.wipe()
        made.store.leases.steal("bot-2", 600.0)
        made.store.down = False
        await made.play(2)
        made.store.rollouts.records[name] = record
        await made.play(20)
        assert told(made, name) == []


@pytest.mark.parametrize("known", [False, True])
async def test_the_mark_of_a_lost_rollout_keeps_no_other_from_0(known: bool) -> None:
    """A raise of a rollout that the store has forgotten arrives while another one runs on that route: a person sends
    the canary to 0 by the one that runs. A rollout that the store still knows is not written over."""
    async with stage() as made:
        name = await at_ten(made)
        mark = Mark("payments-lost", 3, 20, Phase.PROGRESSING.value)
        made.mesh.edit("payments", canary_weight=20, by="canary-bot", mark=mark)
        if known:
            record = made.store.rollouts.records[name]
            made.store.rollouts.records["payments-lost"] = replace(
                record, rollout=replace(record.rollout, id="payments-lost", phase=Phase.ROLLED_BACK)
            )
        await made.play(3)
        await put(made.desk, "rollback", name, ADA, reason="I say so")
        await made.play(10)
        rollout = await made.rollout(name)
        assert (rollout.phase, made.mesh.weights("payments")[1]) == (
            (Phase.ROLLING_BACK, 20) if known else (Phase.ROLLED_BACK, 0)
        )
