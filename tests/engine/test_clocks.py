"""Somebody sets the wall clock of the bot's machine while a rollout bakes; Prometheus' clock goes on as it was."""

from typing import Any

import pytest

from bot.rollout.model import HoldReason, Phase, Rollout
from bot.usecases.requests import put
from tests.engine.stage import ADA, HOST, Stage, stage
from tests.engine.test_stories import started

HOUR = 3600.0


def set_wall_clock(made: Stage, seconds: float) -> None:
    """As `SchedulerTimeline` sees it: wake-ups keep their delay where their moment would come later."""
    apart = made.clock.now() - made.clock.monotonic()
    if made.metrics.now == made.clock.now:
        made.metrics.now = lambda: made.clock.monotonic() + apart
    made.clock.step_wall(seconds)
    for key, moment in made.timeline.moments.items():
        made.timeline.at(key, min(moment, moment + seconds))


async def set_back_at_a_save(made: Stage, phase: Phase) -> None:
    """Play until a record in this phase is saved, and set the clock back by an hour at that moment."""
    save, left = made.store.rollouts.save, [-HOUR]

    async def saved(rollout: Rollout, *rest: Any, **more: Any) -> None:
        if left and rollout.phase is phase:
            set_wall_clock(made, left.pop())
        await save(rollout, *rest, **more)

    made.store.rollouts.save = saved  # type: ignore[method-assign]
    await made.play(20, until=lambda: not left)
    assert not left


@pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["forward", "back"])
async def test_a_clock_that_is_wrong_for_a_minute_holds_and_then_goes_on(seconds: float) -> None:
    """While it is an hour apart from Prometheus nothing goes up or back; set right, it is promoted within the plan."""
    async with stage() as made:
        name = await started(made, "10%:8s, 50%:4s, 100%:4s")
        await made.play(12, until=lambda: made.weights() == [10])
        await made.play(3)
        set_wall_clock(made, seconds)
        await made.play(60)
        rollout = await made.rollout(name)
        assert (made.weights(), rollout.phase.final) == ([10], False)
        if seconds > 0:
            assert HoldReason.CANNOT_MEASURE in rollout.hold_reasons
        set_wall_clock(made, -seconds)
        await made.play(60, until=lambda: made.store.rollouts.records[name].rollout.phase.final)
        assert ((await made.rollout(name)).phase, made.weights()) == (Phase.PROMOTED, [10, 50, 100])


@pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["forward", "back"])
async def test_gates_are_asked_at_their_pace_whatever_the_clock_says(seconds: float) -> None:
    """A look that was made in what is now the future is no reason not to look for an hour."""
    async with stage() as made:
        await started(made, "10%:60s, 100%:4s")
        await made.play(12, until=lambda: made.weights() == [10])
        set_wall_clock(made, seconds)
        await made.play(5)
        made.metrics.asked.clear()
        await made.play(10)
        looks = sum(query.promql.startswith("istio_requests_total") for query in made.metrics.asked)
        assert looks >= 8, looks


async def test_a_clock_that_is_set_back_in_the_middle_of_a_wake_up_puts_off_no_look() -> None:
    """Between a look and the setting of the next one, when no wake-up is set that the timeline could set anew."""
    async with stage() as made:
        await started(made, "10%:60s, 100%:4s")
        await made.play(12, until=lambda: made.weights() == [10])
        made.cluster.change("payments-v2", template="hash-2", images=("sha256:2",))
        await set_back_at_a_save(made, Phase.HOLDING)
        made.metrics.asked.clear()
        await made.play(10)
        looks = sum(query.promql.startswith("istio_requests_total") for query in made.metrics.asked)
        assert looks >= 8, looks


async def test_a_clock_that_is_set_back_in_the_middle_of_a_wake_up_puts_off_no_way_to_0() -> None:
    """The API server refused the first try, and the clock was an hour ahead then: the next ones come at their pace."""
    async with stage() as made:
        await started(made, "10%:600s, 100%:4s")
        await made.play(12, until=lambda: made.weights() == [10])
        await made.play(5)
        made.mesh.fail("transient", on="write")
        made.metrics.behave(HOST, "v2", fail=0.5)
        await set_back_at_a_save(made, Phase.ROLLING_BACK)
        await made.play(10)
        assert made.mesh.weights("payments") == (100, 0)


async def test_a_canary_that_fails_after_the_clock_was_set_right_goes_back_at_once() -> None:
    """An hour ahead and back again: the next looks judge, and the failing canary is at 0 within seconds."""
    async with stage() as made:
        await started(made, "10%:600s, 100%:4s")
        await made.play(12, until=lambda: made.weights() == [10])
        set_wall_clock(made, HOUR)
        await made.play(20)
        set_wall_clock(made, -HOUR)
        made.metrics.behave(HOST, "v2", fail=0.5)
        await made.play(15)
        assert made.mesh.weights("payments") == (100, 0)


async def test_a_person_is_answered_and_obeyed_with_a_wrong_clock() -> None:
    """Rolling back needs no right clock."""
    async with stage() as made:
        name = await started(made, "10%:60s, 100%:4s")
        await made.play(12, until=lambda: made.weights() == [10])
        await made.play(5)
        set_wall_clock(made, -HOUR)
        await put(made.desk, "rollback", name, ADA)
        await made.play(5)
        assert (await made.rollout(name)).phase is Phase.ROLLED_BACK
        assert any("Rolling back from 10%" in said.text for said in made.chat.whispers), made.chat.whispers


async def test_messages_flow_after_the_clock_was_set_back() -> None:
    """The allowance of the chat does not stand still until the old hour comes round again."""
    async with stage() as made:
        name = await started(made, "10%:600s, 100%:4s")
        await made.play(12, until=lambda: made.weights() == [10])
        await made.play(5)
        set_wall_clock(made, -HOUR)
        for verb in ("hold", "resume", "hold", "resume"):
            await put(made.desk, verb, name, ADA)
            await made.play(3)
        await made.play(60)
        notes = [text for text in made.chat.texts if "holds it" in text or "resumed it" in text]
        assert len(notes) == 4, made.chat.texts
