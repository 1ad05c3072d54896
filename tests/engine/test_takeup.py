"""First looks under a new lease come so many at a time, and nobody is left out."""

import asyncio
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from bot.engine.takeup import TakeUp
from bot.rollout.events import Looked, RouteGone
from bot.rollout.model import Rollout
from bot.rollout.route import RouteState
from bot.usecases.rollback import rollback
from bot.usecases.start import StartAsk, start
from tests.engine.stage import ADA, breathe, stage

NAMES = tuple(f"payments-{number}" for number in range(6))


@given(st.integers(1, 3), st.lists(st.tuples(st.booleans(), st.sampled_from(NAMES)), max_size=60))
def test_all_get_their_turn_and_never_more_than_so_many_at_once(most: int, story: list[tuple[bool, str]]) -> None:
    """Whoever rings and ends in whatever order: the limit holds, and when all have ended each that rang has begun."""
    take_up, under_way, begun, rang = TakeUp(most), deque[str](), set[str](), set[str]()

    def ends(name: str) -> None:
        if name in under_way:
            under_way.remove(name)
        if following := take_up.ended(name):
            under_way.append(following)
            begun.add(following)

    for rings, name in story:
        if not rings:
            if name in under_way:
                ends(name)
            continue
        rang.add(name)
        if take_up.may_begin(name) and name not in under_way:
            under_way.append(name)
            begun.add(name)
        assert len(under_way) <= most
    while under_way:
        ends(under_way[0])
    assert begun == rang


async def test_a_new_holder_looks_at_few_at_once_but_does_at_once_what_people_ask_for() -> None:
    """Five rollouts, two first looks at a time, each of which hangs: one that waits is rolled back when somebody says
    so, and once looks are answered the others follow."""
    async with stage() as made:
        services = ("payments", "checkout", "cart", "search", "stock")
        for service in services[1:]:
            await made.add_service(service)
        for service in services:
            assert (await start(made.desk, StartAsk(service, steps="10%:600s, 100%:60s"), ADA)).rollout is not None
        await made.play(8)
        assert all(made.mesh.weights(service)[1] == 10 for service in services)
        await made.engine.stop()
        made.engine = made.new_engine("bot-2")
        made.engine._take_up = TakeUp(2)
        measure, free, looking, looked = made.engine._measure, asyncio.Event(), set[str](), list[str]()
        look = measure.look

        async def slow(rollout: Rollout) -> Looked:
            looking.add(rollout.target.service)
            looked.append(rollout.target.service)
            await free.wait()
            looking.discard(rollout.target.service)
            return await look(rollout)

        measure.look = slow  # type: ignore[method-assign]
        made.timeline.settle = breathe
        await made.engine.start()
        await made.play(2)
        assert len(looking) == 2
        bad = next(service for service in services if service not in looking)
        await rollback(made.desk, bad, ADA, "it is slow")
        await made.play(1)
        assert made.mesh.weights(bad)[1] == 0
        assert len(looking) == 2
        free.set()
        made.timeline.settle = made.engine.idle
        await made.play(2)
        assert {*looked} == {*services} - {bad}


async def test_what_is_on_its_way_back_goes_a_few_at_a_time_and_before_all_looks() -> None:
    """Four of five rollouts were being rolled back when their holder died: two at a time, beside the fifth's look, for
    thousands at once would keep each other from the API server until none answers in time."""
    async with stage() as made:
        services = ("payments", "checkout", "cart", "search", "stock")
        for service in services[1:]:
            await made.add_service(service)
        names = {}
        for service in services:
            answer = await start(made.desk, StartAsk(service, steps="10%:600s, 100%:60s"), ADA)
            assert answer.rollout is not None
            names[answer.rollout.id] = service
        await made.play(8)
        made.mesh.fail("transient", times=1000)
        for service in services[1:]:
            await rollback(made.desk, service, ADA, "it is slow")
        await made.play(2)
        await made.engine.stop()
        made.engine = made.new_engine("bot-2")
        made.engine._pressing, free, begun = TakeUp(2), asyncio.Event(), set[str]()
        measure, route = made.engine._measure, made.engine._measure.route

        async def slow(rollout: Rollout) -> RouteState | RouteGone | None:
            begun.add(names[rollout.id])
            await free.wait()
            return await route(rollout)

        measure.route = slow  # type: ignore[method-assign]
        made.timeline.settle = breathe
        await made.engine.start()
        await made.play(2)
        assert "payments" in begun
        assert len(begun) == 3
        made.mesh.recover()
        free.set()
        made.timeline.settle = made.engine.idle
        await made.play(8)
        assert all(made.mesh.weights(service)[1] == 0 for service in services[1:])
