"""After the end, and beside the others: undo, records that cannot be read."""

import pytest

from bot.errors import UserError
from bot.rollout.model import Phase
from bot.usecases import freezing, reading
from bot.usecases.start import StartAsk, start
from bot.usecases.undo import undo
from bot.views import answers
from tests.engine.stage import ADA, GRACE, Stage, stage
from tests.engine.test_nights import promoted


async def both(made: Stage) -> tuple[str, str]:
    """Rollouts of payments and checkout, both at 10%; their ids."""
    await made.add_service("checkout")
    names = []
    for service in ("payments", "checkout"):
        answer = await start(made.desk, StartAsk(service, steps="10%:20s, 100%:4s"), ADA)
        assert answer.rollout is not None
        names.append(answer.rollout.id)
    await made.play(12, until=lambda: all(made.mesh.weights(one)[1] == 10 for one in ("payments", "checkout")))
    return names[0], names[1]


@pytest.mark.parametrize("frozen", [False, True])
async def test_undo_takes_all_weight_back_also_in_a_freeze(frozen: bool) -> None:
    """After Promoted: 100 to 0 in one write, told with who did it; the promotion stays as it ended."""
    async with stage() as made:
        name = await promoted(made)
        await made.play(5)
        if frozen:
            await freezing.freeze(made.desk, "all", None, "audit", GRACE)
        back = await undo(made.desk, "payments", GRACE)
        await made.play(5)
        assert made.mesh.weights("payments") == (100, 0)
        undone = await made.rollout(back.id)
        assert undone.phase is Phase.ROLLED_BACK
        assert "undone by Grace" in undone.reason
        assert (await made.rollout(name)).phase is Phase.PROMOTED
        assert any("undone by Grace" in text for text in made.chat.texts), made.chat.texts
        with pytest.raises(UserError, match="nothing to undo"):
            await undo(made.desk, "payments", GRACE)


async def test_an_undo_that_cannot_be_written_is_tried_until_it_is_and_people_are_paged() -> None:
    """The API server is away: the undo waits in RollingBack, pages, and ends when the write goes through."""
    async with stage() as made:
        await promoted(made)
        made.mesh.fail("transient", times=4)
        back = await undo(made.desk, "payments", ADA)
        await made.play(3)
        assert (await made.rollout(back.id)).phase is Phase.ROLLING_BACK
        assert any("cannot be applied" in page.summary for page in made.pager.pages), made.pager.pages
        await made.play(20)
        assert (await made.rollout(back.id)).phase is Phase.ROLLED_BACK
        assert made.mesh.weights("payments") == (100, 0)


async def test_an_undo_outlives_the_process_that_began_it() -> None:
    """The process stops before its write went through; the next one finishes it."""
    async with stage() as made:
        await promoted(made)
        made.mesh.fail("transient", times=1000)
        back = await undo(made.desk, "payments", ADA)
        await made.play(3)
        await made.engine.stop()
        made.mesh.recover()
        made.engine = made.new_engine("bot-2")
        await made.engine.start()
        await made.play(8)
        assert (await made.rollout(back.id)).phase is Phase.ROLLED_BACK
        assert made.mesh.weights("payments") == (100, 0)


async def test_a_record_that_cannot_be_read_is_shown_and_paged_and_the_others_go_on() -> None:
    """A new process finds one record broken: people are paged once, its route is left alone, checkout is promoted."""
    async with stage() as made:
        broken, other = await both(made)
        await made.engine.stop()
        made.store.corrupt(broken)
        made.engine = made.new_engine("bot-2")
        await made.engine.start()
        await made.play(60, until=lambda: made.store.rollouts.records[other].rollout.phase.final)
        assert (await made.rollout(other)).phase is Phase.PROMOTED
        assert made.mesh.weights("payments") == (90, 10)
        pages = [page for page in made.pager.pages if page.key == f"quarantined:{broken}"]
        assert [page.resolved for page in pages] == [False]
        assert "schema 99" in pages[0].detail
        assert broken in [name for name, _ in (await made.store.rollouts.active()).quarantined]
        made.store.mend(broken)
        await made.play(90, until=lambda: made.store.rollouts.records[broken].rollout.phase.final)
        assert (await made.rollout(broken)).phase is Phase.PROMOTED
        pages = [page for page in made.pager.pages if page.key == f"quarantined:{broken}"]
        assert [page.resolved for page in pages] == [False, True]


async def test_status_shows_a_record_that_cannot_be_read_beside_the_others() -> None:
    """The others are listed as ever, and the broken one with why."""
    async with stage() as made:
        broken, other = await both(made)
        made.store.corrupt(broken)
        active = await reading.listing(made.desk)
        shown = answers.status(active.first, active.unreadable, active.count)
        words = str(shown.blocks)
        assert other in words
        assert f"`{broken}` cannot be read: schema 99" in words
