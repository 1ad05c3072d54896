"""A new holder that finds the end of a rollout on its route, while the store takes nothing."""

from typing import Any

from bot.errors import Transient
from bot.rollout.effects import MessageKind
from bot.rollout.model import Phase
from bot.rollout.route import Mark
from tests.engine.stage import stage
from tests.engine.test_stories import started


async def test_an_end_that_cannot_be_saved_yet_is_only_saved() -> None:
    """The former holder sent the canary to 0 and died. The next one cannot read the route at first, so its fence fails;
    then it finds the end, and does nothing but save that, when it can: no event that the end does not know."""
    async with stage() as made:
        name = await started(made, "10%:20s, 100%:4s")
        await made.play(12, until=lambda: made.weights() == [10])
        await made.play(16)
        await made.engine.stop()
        before = await made.rollout(name)
        mark = Mark(name, before.revision + 2, 0, Phase.ROLLED_BACK.value, reason="error-rate failed")
        made.mesh.edit("payments", canary_weight=0, by="canary-bot", mark=mark)
        made.mesh.fail("transient", on="read")
        save, refused = made.store.rollouts.save, 0

        async def away(*args: Any, **named: Any) -> None:
            nonlocal refused
            refused += 1
            raise Transient("the store is away")

        made.store.rollouts.save = away  # type: ignore[method-assign]
        made.engine = made.new_engine("bot-2")
        await made.engine.start()
        await made.play(10)
        made.store.rollouts.save = save  # type: ignore[method-assign]
        await made.play(5)
        assert refused > 3
        assert made.telemetry.failures == []
        assert (await made.rollout(name)).phase is Phase.ROLLED_BACK
        assert len([message for _, message in made.store.said if message.kind is MessageKind.FINAL]) == 1
