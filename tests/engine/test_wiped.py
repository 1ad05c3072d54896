"""The store forgets everything under its holder, which may die at any moment of noticing that."""

from bot.rollout.model import HoldReason, Rollout
from bot.usecases.requests import put
from tests.engine.stage import ADA, Stage, stage
from tests.engine.test_letters import at_ten


def saves(made: Stage) -> list[Rollout]:
    """Every record that the store takes from now on."""
    save, taken = made.store.rollouts.save, []

    async def remembers(rollout: Rollout, *rest: object, **more: object) -> None:
        await save(rollout, *rest, **more)  # type: ignore[arg-type]
        taken.append(rollout)

    made.store.rollouts.save = remembers  # type: ignore[method-assign]
    return taken


async def test_a_save_of_before_is_not_repeated_to_a_store_that_has_forgotten_everything() -> None:
    """Nobody knows whether the last save arrived when the store forgot all: whoever reads what is saved after that,
    should this process die, finds it held."""
    async with stage() as made:
        name = await at_ten(made)
        await put(made.desk, "hold", name, ADA)
        taken = saves(made)
        made.store.lost_replies = 1
        await made.play(0.5, until=lambda: bool(taken) or made.store.lost_replies == 0)
        page = made.engine._book.page(name)
        assert page is not None
        assert page.unsure is not None
        made.store.wipe()
        taken.clear()
        await made.engine._holder.round()
        await made.play(5)
        assert taken
        assert all(HoldReason.RECOVERED in rollout.hold_reasons for rollout in taken)
        assert HoldReason.PERSON in taken[-1].hold_reasons


async def test_a_wake_up_that_is_under_way_when_the_store_forgets_everything_saves_a_hold() -> None:
    """A person's word was being heard when the holder noticed that the store had forgotten all: what is saved of it
    is held already, and the person is answered."""
    async with stage() as made:
        name = await at_ten(made)
        taken, take = saves(made), made.store.inbox.take

        async def forgetting(rollout_id: str) -> object:
            requests = await take(rollout_id)
            if requests and not made.store.leases.known > 1:
                made.store.wipe()
                await made.engine._holder.round()
            return requests

        made.store.inbox.take = forgetting  # type: ignore[assignment, method-assign]
        await put(made.desk, "extend", name, ADA, option="30")
        await made.play(5)
        assert made.store.leases.known > 1
        assert taken
        assert all(HoldReason.RECOVERED in rollout.hold_reasons for rollout in taken)
        assert any("Extended" in message.text for _, message in made.store.said)


async def test_a_record_that_was_read_before_the_store_forgot_everything_is_not_taken_up() -> None:
    """Its reply came after the holder had noticed that: it is rebuilt from its mark, and held."""
    async with stage() as made:
        name = await at_ten(made)
        load, forgot = made.store.rollouts.load, False

        async def forgetting(rollout_id: str) -> Rollout:
            nonlocal forgot
            rollout = await load(rollout_id)
            if not forgot:
                forgot = True
                made.store.wipe()
                await made.engine._holder.round()
            return rollout

        made.store.rollouts.load = forgetting  # type: ignore[method-assign]
        made.engine._book.drop(name)
        taken = saves(made)
        await made.engine._wake(name)
        await made.play(15)
        assert forgot
        assert taken
        assert all(HoldReason.RECOVERED in rollout.hold_reasons for rollout in taken)
        assert HoldReason.RECOVERED in (await made.rollout(name)).hold_reasons
