"""A store that has lost its last second while the holder lives on."""

from bot.rollout.effects import Message, MessageKind
from bot.usecases.requests import put
from tests.engine.stage import ADA, stage
from tests.engine.test_letters import at_ten
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
