"""Corners that the simulation found: rare in a year, and there every day in 100,000 of them."""

from collections.abc import Sequence
from typing import Any

from bot.analysis.samples import Query
from bot.rollout.model import HoldReason, Phase
from bot.rollout.route import Mark
from bot.usecases.start import StartAsk, start
from tests.engine.stage import ADA, stage
from tests.engine.test_letters import at_ten
from tests.engine.test_stories import started


async def test_a_start_whose_route_is_gone_when_it_is_due_is_cancelled_and_no_more() -> None:
    """Nothing is asked of the route for a rollout that has just ended."""
    async with stage() as made:
        answer = await start(made.desk, StartAsk("payments", steps="10%:10s, 100%:10s", at=made.clock.now() + 300), ADA)
        assert answer.rollout is not None
        made.mesh.delete("payments")
        del made.mesh.targets["payments"]
        await made.play(310)
        assert (await made.rollout(answer.rollout.id)).phase is Phase.CANCELLED
        assert made.telemetry.failures == []


async def test_a_store_that_forgets_while_a_raise_is_decided_holds_it() -> None:
    """The wake-up began with what the store has lost since: it raises nothing, and the next one holds."""
    async with stage() as made:
        name = await started(made, "10%:3s, 100%:4s")
        ask, wiped = made.metrics.ask, False

        async def forgetting(queries: Sequence[Query]) -> Any:
            nonlocal wiped
            page = made.engine._book.page(name)
            if not wiped and page is not None and page.rollout.bake.covered_s >= 2:
                wiped = True
                made.store.wipe()
                await made.engine._holder.round()
            return await ask(queries)

        made.metrics.ask = forgetting  # type: ignore[method-assign]
        await made.play(40)
        assert wiped
        assert made.weights() == [10]
        assert HoldReason.RECOVERED in (await made.rollout(name)).hold_reasons


async def test_who_did_not_run_for_a_while_asks_for_the_lease_before_anything_else() -> None:
    """Another ended the rollout meanwhile, and somebody has set the route by hand since: that is not undone unsaid."""
    async with stage() as made:
        name = await at_ten(made)
        rollout = await made.rollout(name)
        made.store.leases.steal("another", ttl_s=60.0)
        made.clock.advance(5.0)
        mark = Mark(name, rollout.revision + 2, 0, Phase.ROLLED_BACK.value, reason="error-rate failed")
        made.mesh.edit("payments", canary_weight=50, mark=mark)
        await made.engine._wake(name)
        assert made.weights() == [10]
        assert not made.engine.leading
