"""A store that has lost its last second while the holder lives on."""

from bot.rollout.effects import Message, MessageKind
from bot.rollout.model import Freeze, HoldReason, Rollout
from bot.usecases.requests import put
from tests.engine.stage import ADA, stage
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
