"""Ports that never answer: what waits for them, and what does not."""

import asyncio
from collections.abc import Sequence

import pytest

from bot.analysis.facts import PodFacts
from bot.analysis.look import Answers
from bot.analysis.samples import Query
from bot.engine import engine, measure
from bot.rollout.effects import Audit, Message, SetWeight
from bot.rollout.model import Direction, Phase, Rollout, Target
from bot.rollout.route import RouteState
from bot.usecases.requests import put
from bot.usecases.start import StartAsk, start
from tests.engine.stage import ADA, HOST, Stage, breathe, stage
from tests.engine.test_stories import started

OTHERS = "10%:3s, 100%:3s"


@pytest.fixture(autouse=True)
def short_goodbyes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine at its end waits only a moment for what hangs."""
    monkeypatch.setattr(engine, "STOP_GRACE_S", 0.02)
    monkeypatch.setattr(engine, "LAST_WORDS_S", 0.02)


async def for_ever() -> None:
    await asyncio.Event().wait()


async def checkout(made: Stage) -> str:
    """A rollout of another service."""
    await made.add_service("checkout")
    answer = await start(made.desk, StartAsk("checkout", steps=OTHERS), ADA)
    assert answer.rollout is not None
    return answer.rollout.id


@pytest.mark.parametrize("hangs", ["pods", "route", "freezes"])
async def test_a_deciding_failure_does_not_wait_for_what_is_asked_beside_the_metrics(
    hangs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 3: pods, route or freezes that never come are unknown a moment later, and the canary goes to 0."""
    monkeypatch.setattr(measure, "BESIDE_S", 0.02)
    async with stage() as made:
        name = await started(made, "10%:60s, 100%:10s")
        await made.play(8, until=lambda: made.weights() == [10])

        async def hang(*_: object) -> None:
            await for_ever()

        match hangs:
            case "pods":
                made.cluster.pods = hang  # type: ignore[method-assign, assignment]
            case "route":
                made.mesh.read = hang  # type: ignore[method-assign, assignment]
                made.engine._routes.clear()
            case _:
                made.store.freezes.all = hang  # type: ignore[method-assign, assignment]
        made.metrics.behave(HOST, "v2", fail=0.5)
        async with asyncio.timeout(30):
            await made.play(20, until=lambda: made.mesh.weights("payments") == (100, 0))
            await made.play(1)
        assert made.mesh.weights("payments") == (100, 0)
        assert (await made.rollout(name)).phase is Phase.ROLLED_BACK


async def test_nothing_goes_up_while_nobody_tells_the_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 2 wants ready pods on both sides: a list that never comes is no leave, and one that comes again is."""
    monkeypatch.setattr(measure, "BESIDE_S", 0.01)
    async with stage() as made:
        await started(made, "10%:5s, 100%:5s")
        await made.play(8, until=lambda: made.weights() == [10])
        listed = made.cluster.pods

        async def hang(namespace: str, selector: Sequence[tuple[str, str]]) -> tuple[PodFacts, ...]:
            await for_ever()
            return ()

        made.cluster.pods = hang  # type: ignore[method-assign]
        await made.play(25)
        assert made.weights() == [10]
        made.cluster.pods = listed  # type: ignore[method-assign]
        await made.play(25, until=lambda: made.weights() == [10, 100])
        assert made.weights() == [10, 100]


async def test_what_watches_have_told_is_not_asked_for() -> None:
    """With pods and route known a look waits for the metrics only: it goes up while every other reading hangs."""
    async with stage() as made:
        made.cluster.watched = True
        await started(made, "10%:5s, 100%:5s")
        await made.play(8, until=lambda: made.weights() == [10])

        async def hang(*_: object) -> None:
            await for_ever()

        made.cluster.pods = hang  # type: ignore[method-assign, assignment]
        made.mesh.read = hang  # type: ignore[method-assign, assignment]
        await made.play(25, until=lambda: made.weights() == [10, 100])
        assert made.weights() == [10, 100]


@pytest.mark.parametrize("port", ["write", "ask", "save"])
async def test_a_call_that_hangs_for_one_rollout_delays_no_other(port: str) -> None:
    """One worker per rollout: while a patch, a question or a save of payments never returns, checkout is promoted."""
    async with stage() as made:
        name = await started(made, "10%:5s, 100%:5s")
        await made.play(8, until=lambda: made.weights() == [10])
        other = await checkout(made)
        write, ask, save = made.mesh.write, made.metrics.ask, made.store.rollouts.save

        async def writing(target: Target, change: SetWeight) -> RouteState:
            if target.service == "payments":
                await for_ever()
            return await write(target, change)

        async def asking(queries: Sequence[Query]) -> Answers:
            if any(HOST in query.promql for query in queries):
                await for_ever()
            return await ask(queries)

        async def saving(
            rollout: Rollout,
            wake_at: float | None,
            messages: Sequence[Message],
            audit: Sequence[Audit],
            *,
            token: int,
            save_id: str,
        ) -> None:
            if rollout.id == name:
                await for_ever()
            await save(rollout, wake_at, messages, audit, token=token, save_id=save_id)

        match port:
            case "write":
                made.mesh.write = writing  # type: ignore[method-assign]
            case "ask":
                made.metrics.ask = asking  # type: ignore[method-assign]
            case _:
                made.store.rollouts.save = saving  # type: ignore[method-assign]
        made.timeline.settle = breathe
        await made.play(40, until=lambda: made.store.rollouts.records[other].rollout.phase.final)
        assert (await made.rollout(other)).phase is Phase.PROMOTED
        assert made.mesh.weights("payments") == (90, 10)
        if port == "save":
            made.store.rollouts.save = save  # type: ignore[method-assign]


async def test_a_chat_that_hangs_holds_up_no_rollout() -> None:
    """Messages are off the control path: weights go up and down while no call of the chat returns."""
    async with stage() as made:

        async def hang(*_: object, **__: object) -> tuple[str, str]:
            await for_ever()
            return "", ""

        made.chat.post = hang  # type: ignore[method-assign]
        name = await started(made, "10%:5s, 50%:60s, 100%:5s")
        await made.play(25, until=lambda: made.weights() == [10, 50])
        await put(made.desk, "rollback", name, ADA)
        await made.play(3)
        assert made.mesh.weights("payments") == (100, 0)
        assert (await made.rollout(name)).phase is Phase.ROLLED_BACK
        assert [change.direction for change in made.mesh.writes][-1] is Direction.ZERO
