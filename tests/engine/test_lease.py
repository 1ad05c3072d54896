"""The lease moves: nothing holds it up, and nobody waits for it longer than needed."""

import asyncio

import pytest

from bot.engine.holder import LEASE_S, Holder
from tests.engine.stage import stage
from tests.engine.test_stories import started
from tests.fakes.clock import FakeClock
from tests.fakes.store import FakeStore
from tests.fakes.telemetry import FakeTelemetry


async def test_a_lease_that_is_given_back_is_taken_at_once() -> None:
    """The one who waits hears it; no time has to pass."""
    async with stage() as made:
        other = made.new_engine("bot-2")
        await other.start()
        await made.timeline.advance(1.5)
        engines = (made.engine, other)
        assert [engine.leading for engine in engines] == [True, False]
        await made.engine.stop()
        for _ in range(50):
            await asyncio.sleep(0)
        assert [engine.leading for engine in engines] == [False, True]
        await other.stop()


class Moved:
    """Remembers what a holder was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def gained(self) -> None:
        self.told.append("gained")

    async def lost(self) -> None:
        self.told.append("lost")

    async def wiped(self) -> None:
        self.told.append("wiped")


async def test_after_an_outage_the_former_holder_goes_first() -> None:
    """Its lease has run out, and it alone knows what was decided meanwhile: who asks before it waits one round."""
    clock = FakeClock()
    store, moves = FakeStore(clock), (Moved(), Moved())
    former, other = (
        Holder(store.leases, clock, FakeTelemetry(), name, moved, lambda page: None)
        for name, moved in zip(("former", "other"), moves, strict=True)
    )
    await former.round()
    await other.round()
    store.down = True
    clock.advance(LEASE_S + 1)
    await former.round()
    await other.round()
    store.down = False
    await other.round()
    await former.round()
    await other.round()
    assert [former.leading, other.leading] == [True, False]
    assert [moved.told for moved in moves] == [["gained"], []]


class Loading(Moved):
    """Takes as long to load as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded = asyncio.Event()

    async def gained(self) -> None:
        self.told.append("loading")
        await self.loaded.wait()
        self.told.append("gained")


async def test_the_lease_is_kept_while_its_rollouts_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand records take longer to read than a lease lasts: it is renewed meanwhile, and nobody else gets it."""
    monkeypatch.setattr("bot.engine.holder.RENEW_EVERY_S", 0.01)
    clock = FakeClock()
    store, moves = FakeStore(clock), Loading()
    slow = Holder(store.leases, clock, FakeTelemetry(), "slow", moves, lambda page: None)
    other = Holder(store.leases, clock, FakeTelemetry(), "other", Moved(), lambda page: None)
    for _ in range(10):
        await slow.round()
        await other.round()
        clock.advance(1.0)
    assert (slow.holds, slow.leading, other.holds) == (True, False, False)
    moves.loaded.set()
    await slow.round()
    assert slow.leading
    assert moves.told == ["loading", "gained"]


async def test_a_lease_that_is_lost_while_loading_ends_the_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read belongs to another now."""
    monkeypatch.setattr("bot.engine.holder.RENEW_EVERY_S", 0.01)
    clock = FakeClock()
    store, moves = FakeStore(clock), Loading()
    holder = Holder(store.leases, clock, FakeTelemetry(), "slow", moves, lambda page: None)
    await holder.round()
    store.leases.expire()
    store.leases.steal()
    await holder.round()
    moves.loaded.set()
    await holder.round()
    assert (holder.holds, holder.leading, moves.told) == (False, False, ["loading"])


async def test_one_of_several_takes_a_free_lease_only_when_it_is_told_to() -> None:
    """Others share the shards with it; what it holds it renews by itself."""
    clock = FakeClock()
    store = FakeStore(clock)
    holder = Holder(store.leases, clock, FakeTelemetry(), "one", Moved(), lambda page: None, alone=False)
    await holder.round()
    assert not holder.holds
    assert await holder.take()
    clock.advance(2.0)
    await holder.round()
    clock.advance(2.0)
    assert holder.holds_for(0.5)
    await holder.release()
    await holder.round()
    assert not holder.holds


async def test_a_task_that_swallows_its_cancellation_does_not_hold_up_the_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A time-out that runs out in the moment of a cancellation can swallow it: it is cancelled again."""
    monkeypatch.setattr("bot.engine.engine.CANCEL_WAITS_S", 0.02)
    async with stage() as made:
        await started(made)
        await made.play(8, until=lambda: made.weights() == [10])
        swallowed = 0

        async def stubborn() -> None:
            nonlocal swallowed
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    swallowed += 1
                    if swallowed > 1:
                        raise

        task = asyncio.create_task(stubborn(), name="stubborn")
        await asyncio.sleep(0)
        made.engine._while_leading.append(task)
        made.store.leases.expire()
        made.store.leases.steal("another", 60.0)
        async with asyncio.timeout(5):
            await made.timeline.advance(3)
            while made.engine.leading or not task.done():
                await asyncio.sleep(0.01)
        assert swallowed == 2
        assert any(line == "task-goes-on" for line, _ in made.telemetry.lines)


async def test_what_was_being_loaded_when_the_store_forgot_everything_is_loaded_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Records read before that would be taken for what the store knows, and nothing would hold them."""
    monkeypatch.setattr("bot.engine.holder.RENEW_EVERY_S", 0.01)
    clock = FakeClock()
    store, moves = FakeStore(clock), Loading()
    holder = Holder(store.leases, clock, FakeTelemetry(), "slow", moves, lambda page: None)
    await holder.round()
    store.wipe()
    await holder.round()
    moves.loaded.set()
    await holder.round()
    assert holder.leading
    assert moves.told == ["loading", "loading", "gained"]
