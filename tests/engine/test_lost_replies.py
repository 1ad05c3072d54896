"""Replies that are lost, conflicts, and a lease that moves in the middle: nothing twice, nothing forgotten."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from bot.errors import Transient
from bot.ports.store import Lease
from bot.rollout.effects import Audit, Message, MessageKind, SetWeight
from bot.rollout.model import Direction, Phase, Rollout, Target
from bot.rollout.route import RouteState
from bot.usecases.requests import put
from tests.engine.stage import ADA, Stage, breathe, stage
from tests.engine.test_stories import started
from tests.fakes.timeline import FakeTimeline

STEPS = "10%:4s, 50%:4s, 100%:4s"


def raised(made: Stage) -> list[int]:
    """Weights of all raises that reached the object."""
    return [change.weight_percent for change in made.mesh.writes if change.direction is Direction.RAISE]


async def ended(made: Stage, name: str) -> Rollout:
    """The rollout after it has ended, or after two minutes."""
    await made.play(120, until=lambda: made.store.rollouts.records[name].rollout.phase.final)
    await made.play(5)
    return await made.rollout(name)


def said_once(made: Stage) -> list[str]:
    """Texts of notes and finals that were queued more than once."""
    texts = Counter(
        message.text for _, message in made.store.said if message.kind in (MessageKind.FINAL, MessageKind.ALERT)
    )
    return [text for text, count in texts.items() if count > 1]


async def test_a_save_whose_reply_is_lost_before_a_raise_leads_to_one_raise() -> None:
    """The decision is in the store, its reply is not: it is not acted upon, but decided again and written once."""
    async with stage() as made:
        name = await started(made, STEPS)
        save = made.store.rollouts.save
        lost = []

        async def saving(
            rollout: Rollout,
            wake_at: float | None,
            messages: Sequence[Message],
            audit: Sequence[Audit],
            *,
            token: int,
            save_id: str,
        ) -> None:
            await save(rollout, wake_at, messages, audit, token=token, save_id=save_id)
            if rollout.write is not None and rollout.write.raising and rollout.write.weight_percent not in lost:
                lost.append(rollout.write.weight_percent)
                raise Transient("reply was lost (save)")

        made.store.rollouts.save = saving  # type: ignore[method-assign]
        rollout = await ended(made, name)
        assert (rollout.phase, raised(made), lost) == (Phase.PROMOTED, [10, 50, 100], [10, 50, 100])


@pytest.mark.parametrize("every", [3, 5, 7])
async def test_a_store_that_loses_every_nth_reply_costs_time_only(every: int) -> None:
    """Whatever call it is: the plan is walked in order, each weight once, and the end is told once."""
    async with stage() as made:
        calls = 0
        replied = made.store.replied

        def losing(call: str) -> None:
            nonlocal calls
            calls += 1
            if calls % every == 0 and call not in ("create", "put"):
                raise Transient(f"reply was lost ({call})")
            replied(call)

        name = await started(made, STEPS)
        made.store.replied = losing  # type: ignore[method-assign]
        rollout = await ended(made, name)
        assert (rollout.phase, raised(made), said_once(made)) == (Phase.PROMOTED, [10, 50, 100], [])


@pytest.mark.parametrize("kind", ["lost", "late"])
async def test_a_raise_whose_reply_is_lost_is_found_and_not_written_again(kind: str) -> None:
    """The route shows our mark and weight: that is success, late; its bake is whole."""
    async with stage() as made:
        name = await started(made, STEPS)
        await made.play(8, until=lambda: made.weights() == [10])
        made.mesh.fail(kind)
        rollout = await ended(made, name)
        assert (rollout.phase, raised(made)) == (Phase.PROMOTED, [10, 50, 100])
        assert not any("drift" in entry.text for entry in rollout.history)


async def test_a_roll_back_whose_reply_is_lost_three_times_is_written_once() -> None:
    """Going to 0 is tried until it is seen on the route; the object is changed once."""
    async with stage() as made:
        name = await started(made, "10%:60s, 100%:5s")
        await made.play(8, until=lambda: made.weights() == [10])
        made.mesh.fail("lost", times=3)
        await put(made.desk, "rollback", name, ADA)
        rollout = await ended(made, name)
        zeros = [change for change in made.mesh.writes if change.direction is Direction.ZERO]
        assert (rollout.phase, len(zeros), said_once(made)) == (Phase.ROLLED_BACK, 1, [])


async def test_a_conflict_on_a_raise_is_read_again_and_decided_again() -> None:
    """The route is as we left it, so the next look raises; the conflict is recorded."""
    async with stage() as made:
        name = await started(made, STEPS)
        await made.play(8, until=lambda: made.weights() == [10])
        made.mesh.fail("conflict")
        rollout = await ended(made, name)
        assert (rollout.phase, raised(made)) == (Phase.PROMOTED, [10, 50, 100])
        assert [entry.kind for entry in rollout.history].count("write-failed") == 1


async def test_a_conflict_because_somebody_else_wrote_holds_instead_of_raising() -> None:
    """The reading after the conflict shows other weights: it holds for drift and never overwrites them."""
    async with stage() as made:
        name = await started(made, STEPS)
        await made.play(8, until=lambda: made.weights() == [10])
        write = made.mesh.write

        async def overtaken(target: Target, change: SetWeight) -> RouteState:
            made.mesh.write = write  # type: ignore[method-assign]
            made.mesh.edit("payments", canary_weight=30, by="argocd")
            return await write(target, change)

        made.mesh.write = overtaken  # type: ignore[method-assign]
        await made.play(30)
        rollout = await made.rollout(name)
        assert rollout.phase is Phase.HOLDING
        assert any("argocd" in hold.detail for hold in rollout.holds), rollout.holds
        assert made.mesh.weights("payments") == (70, 30)


async def test_a_record_that_somebody_else_wrote_is_loaded_anew() -> None:
    """A save that conflicts changes nothing; the holder reads the newer record and finishes it."""
    async with stage() as made:
        name = await started(made, STEPS)
        await made.play(8, until=lambda: made.weights() == [10])
        record = made.store.rollouts.records[name]
        record.rollout = record.rollout.with_(revision=record.rollout.revision + 20)
        rollout = await ended(made, name)
        assert (rollout.phase, raised(made)) == (Phase.PROMOTED, [10, 50, 100])
        assert "record-moved" in [event for event, _ in made.telemetry.failures]


async def test_a_lease_that_runs_out_between_save_and_patch_stops_the_raise() -> None:
    """The save took so long that the lease is nearly over: nothing is patched until it has been renewed."""
    async with stage() as made:
        name = await started(made, STEPS)
        await made.play(8, until=lambda: made.weights() == [10])
        save, renew, slow = made.store.rollouts.save, made.store.leases.renew, asyncio.Event()

        async def saving(rollout: Rollout, *rest: object, **more: object) -> None:
            await save(rollout, *rest, **more)  # type: ignore[arg-type]
            if rollout.write is not None and rollout.write.raising:
                await slow.wait()

        async def unanswered(owner: str, lease: Lease, ttl_s: float) -> Lease | None:
            raise Transient("Redis does not answer")

        made.store.rollouts.save = saving  # type: ignore[method-assign]
        made.timeline.settle = breathe
        await made.play(20, until=lambda: made.store.rollouts.records[name].rollout.write is not None)
        made.store.leases.renew = unanswered  # type: ignore[method-assign]
        await made.play(2.5)
        slow.set()
        await made.play(1)
        assert raised(made) == [10]
        made.store.leases.renew = renew  # type: ignore[method-assign]
        made.timeline.settle = made.engine.idle
        rollout = await ended(made, name)
        assert (rollout.phase, raised(made)) == (Phase.PROMOTED, [10, 50, 100])


async def test_a_frozen_holder_that_wakes_is_refused_by_the_mark_and_the_new_one_finishes() -> None:
    """Its raise to 50% was on its way when another took the lease and fenced it: the late patch changes nothing."""
    async with stage() as made:
        name = await started(made, STEPS)
        await made.play(8, until=lambda: made.weights() == [10])
        write, frozen, thawed, refused = made.mesh.write, asyncio.Event(), asyncio.Event(), []

        async def writing(target: Target, change: SetWeight) -> RouteState:
            if change.direction is Direction.RAISE and not frozen.is_set():
                frozen.set()
                await thawed.wait()
                try:
                    return await write(target, change)
                except Exception as error:
                    refused.append(type(error).__name__)
                    raise
            return await write(target, change)

        made.mesh.write = writing  # type: ignore[method-assign]
        made.timeline.settle = breathe
        await made.play(20, until=frozen.is_set)
        made.store.leases.steal("bot-2")
        made.timeline = FakeTimeline(made.clock)
        second = made.new_engine("bot-2")
        await second.start()
        try:
            await made.play(3, until=lambda: second.leading and not made.engine.leading)
            assert (second.leading, made.engine.leading, raised(made)) == (True, False, [10])
            thawed.set()
            await breathe()
            assert (refused, raised(made)) == (["Conflict"], [10])
            rollout = await ended(made, name)
        finally:
            await second.stop()
        assert (rollout.phase, raised(made)) == (Phase.PROMOTED, [10, 50, 100])


async def test_a_holder_that_lost_its_lease_without_knowing_saves_nothing_and_gives_up() -> None:
    """Its next save is refused by the token; it forgets everything, and takes part again as a new holder."""
    async with stage() as made:
        name = await started(made, STEPS)
        await made.play(8, until=lambda: made.weights() == [10])
        before = made.store.rollouts.records[name].rollout
        made.store.leases.steal("bot-2", ttl_s=4.0)
        await put(made.desk, "hold", name, ADA)
        await made.play(3)
        assert not made.engine.leading
        assert made.store.rollouts.records[name].rollout == before
        rollout = await ended(made, name)
        assert rollout.phase is Phase.HOLDING
        assert [message.text for _, message in made.store.said if message.kind is MessageKind.ANSWER] == [
            "Held; gates stay on and can still roll back."
        ]
