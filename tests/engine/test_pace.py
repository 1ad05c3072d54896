"""Looks that are near to each other come together, in time, and a new holder's first ones one after the other."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bot.analysis.samples import Query
from bot.engine.pace import AT_ONCE, FEW, MOST, WANTED, card_every_s, first_looks, in_step, shared_moment
from bot.errors import Transient
from bot.rollout.draft import BOT
from bot.rollout.events import CARD_EVERY_S
from bot.rollout.handover import may_be_in_hand
from bot.rollout.model import Bake, Direction, Freeze, Hold, HoldReason, Phase, Rollout, Write
from tests.engine.stage import stage
from tests.engine.test_stories import started
from tests.unit.rollout.world import rollout

MOMENTS = st.floats(1.7e9, 1.9e9)


@given(MOMENTS, st.sampled_from([1.0, 15.0, 60.0]), st.integers(0, 20_000))
def test_no_look_is_early_and_none_is_much_later(wake_at: float, every_s: float, active: int) -> None:
    """A look comes at its time or at most a fifteenth of the time between two looks after it."""
    at = shared_moment(wake_at, every_s, active)
    assert wake_at - 1e-4 <= at <= wake_at + MOST * every_s + 1e-6


def test_a_few_rollouts_look_at_their_own_time() -> None:
    """There is nothing to share."""
    assert shared_moment(1_800_000_000.123, 15.0, FEW - 1) == 1_800_000_000.123


@given(st.lists(st.floats(0.0, 15.0), min_size=400, max_size=400), st.integers(2000, 20_000))
def test_many_looks_come_at_few_moments(offsets: list[float], active: int) -> None:
    """However starts are spread, there are no more moments than fill a question each, or than are a second apart."""
    moments = {round(shared_moment(1_800_000_000.0 + offset, 15.0, active), 3) for offset in offsets}
    assert len(moments) <= max(1 / MOST, active / WANTED) + 2, (len(moments), active)


@given(MOMENTS, st.integers(FEW, 20_000), st.integers(1, 50))
def test_a_look_keeps_its_moment(wake_at: float, active: int, times: int) -> None:
    """Looks that are 15 s apart do not slide to later moments, however often."""
    at = first = shared_moment(wake_at, 15.0, active)
    for _ in range(times):
        at = shared_moment(at + 15.0, 15.0, active)
    assert abs(at - first - times * 15.0) < 1e-3


@given(MOMENTS, st.sampled_from([1.0, 15.0, 60.0]), st.floats(0.0, 600.0))
def test_a_late_look_leaves_the_others_where_they_are(due_at: float, every_s: float, late_s: float) -> None:
    """However long a look had to wait, the next is a whole number of looks after the moment at which it was due, and
    within the time between two."""
    following = in_step(due_at, due_at + late_s, every_s) + every_s
    assert due_at + late_s - 1e-4 <= following <= due_at + late_s + every_s + 1e-4
    assert abs((following - due_at) / every_s - round((following - due_at) / every_s)) < 1e-4


async def test_a_first_look_that_waited_for_its_turn_keeps_its_moment() -> None:
    """A wake-up that is rung 3.4 s after its time, with a look each second, is followed by one 4 s after that time."""
    async with stage() as made:
        name = await started(made, "10%:60s, 100%:60s")
        await made.play(8, until=lambda: made.weights() == [10])
        page = made.engine._book.page(name)
        assert page is not None
        await made.play(3)
        due_at = page.due_at
        assert due_at is not None
        made.timeline.cancel(name)
        made.clock.advance(due_at + 3.4 - made.clock.now())
        made.engine._workers.ring(name)
        await made.engine.idle()
        assert page.due_at is not None
        assert abs(page.due_at - due_at - 4.0) < 1e-3


def test_cards_of_many_rollouts_stay_within_what_slack_takes() -> None:
    """Few follow their numbers each half minute, all of 10,000 together at most 25 times a minute."""
    assert card_every_s(5) == CARD_EVERY_S
    assert 10_000 / card_every_s(10_000) * 60 <= 25


async def test_looks_begin_as_often_as_the_catalog_says_however_long_they_take() -> None:
    """Answers that take 0.6 s do not make a look each second one each 1.6 s."""
    async with stage() as made:
        begun: list[float] = []
        ask = made.metrics.ask

        async def slow(queries: Sequence[Query]) -> Mapping[Query, Any]:
            if queries and "istio_requests_total" in queries[0].promql:
                begun.append(made.clock.now())
                made.clock.advance(0.6)
            return await ask(queries)

        await started(made, "10%:60s, 100%:60s")
        await made.play(8, until=lambda: made.weights() == [10])
        made.metrics.ask = slow  # type: ignore[method-assign]
        await made.play(12)
        gaps = [after - before for before, after in pairwise(begun)]
        assert len(gaps) >= 10, begun
        assert max(gaps) < 1.3, gaps


async def test_freezes_are_read_once_for_all_who_look_at_one_moment() -> None:
    """Fifty looks ask the store once; when it fails that is for all of them, and the next look asks again."""
    async with stage() as made:
        await started(made, "10%:60s, 100%:60s")
        measure, asked, failing = made.engine._measure, [0], [Transient("no answer")]

        async def slow() -> tuple[Freeze, ...]:
            asked[0] += 1
            await asyncio.sleep(0)
            if failing:
                raise failing.pop()
            return ()

        made.store.freezes.all = slow  # type: ignore[method-assign]
        made.clock.advance(2)
        for expected in (1, 2):
            assert await asyncio.gather(*(measure.freezes() for _ in range(50))) == [()] * 50
            assert asked == [expected]
        await measure.freezes()
        assert asked == [2]


def _baking(number: int, now: float) -> Rollout:
    begun = rollout(steps="5%:4h, 100%:4h")
    return begun.with_(
        id=f"payments-{number:05d}",
        phase=Phase.PROGRESSING,
        step=0,
        weight_percent=5,
        marked=1,
        touched=True,
        rules=replace(begun.rules, check_every_s=15.0),
        bake=Bake(confirmed_at=now - 60, arrived_at=now - 50, seen=True),
    )


def test_a_new_holder_looks_at_everything_within_one_round_the_urgent_first() -> None:
    """10,000 are not looked at in the same moment; one on its way back and one with a raise in hand do not wait."""
    now = 1_800_000_000.0
    rollouts = [_baking(number, now) for number in range(10_000)]
    rollouts[7_000] = rollouts[7_000].with_(phase=Phase.ROLLING_BACK)
    raising = Write(100, 3, Direction.RAISE, "all gates pass", BOT, now, 1, 5)
    rollouts[8_000] = rollouts[8_000].with_(write=raising)
    at = {one.id: when for one, when in first_looks(rollouts, now)}
    assert len(at) == 10_000
    assert max(at.values()) <= now + 15 * (1 + MOST)
    assert sum(when == now for when in at.values()) == AT_ONCE
    assert at[rollouts[7_000].id] == at[rollouts[8_000].id] == now


def test_a_raise_can_be_in_hand_where_one_was_saved_or_might_follow() -> None:
    """Saved, asked for by people, with the bake over, or from before the store was lost; not in mid-bake."""
    now = 1_800_000_000.0
    baking = _baking(0, now)
    assert not may_be_in_hand(baking, now)
    raising = Write(100, 3, Direction.RAISE, "all gates pass", BOT, now, 1, 5)
    assert all(
        may_be_in_hand(baking.with_(**one), now) for one in ({"write": raising}, {"hurry": "step"}, {"override": "x"})
    )
    assert may_be_in_hand(baking, now + 4 * 3600)
    assert may_be_in_hand(baking.with_(bake=Bake()), now)
    assert may_be_in_hand(baking.with_(holds=(Hold(HoldReason.RECOVERED, now, "", BOT),)), now)
