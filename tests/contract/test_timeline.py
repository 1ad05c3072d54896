"""What every timeline promises: the fake that the engine is tested on, and APScheduler."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo

import pytest

from bot.adapters.clock import SystemClock
from bot.adapters.timeline import SchedulerTimeline
from bot.ports.clock import Clock
from tests.fakes.clock import FakeClock
from tests.fakes.timeline import FakeTimeline


@dataclass(slots=True)
class World:
    """A timeline, its clock, what it rang, and a way to let time pass."""

    timeline: FakeTimeline | SchedulerTimeline
    clock: Clock
    wait: Callable[[float], Awaitable[None]]
    rung: list[str] = field(default_factory=list)

    async def until(self, count: int) -> None:
        """Let time pass until there were so many rings, and a moment more for one too many."""
        async with asyncio.timeout(30):
            while len(self.rung) < count:
                await self.wait(0.02)
        await self.wait(0.05)

    async def ring(self, key: str) -> None:
        self.rung.append(key)

    def at(self, key: str, in_s: float) -> None:
        self.timeline.at(key, self.clock.now() + in_s)


@pytest.fixture(params=["fake", "apscheduler"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "fake":
        clock = FakeClock()
        fake = FakeTimeline(clock)
        yield World(fake, clock, fake.advance)
        return
    real = SchedulerTimeline(SystemClock())
    yield World(real, SystemClock(), asyncio.sleep)
    await real.stop()


async def test_each_key_rings_once_in_order(world: World) -> None:
    """Keys ring at their moments, earliest first, and not again."""
    await world.timeline.start(world.ring)
    for key, in_s in (("c", 0.15), ("a", 0.05), ("b", 0.1)):
        world.at(key, in_s)
    await world.until(3)
    assert world.rung == ["a", "b", "c"]


async def test_nothing_rings_early(world: World) -> None:
    """A moment that lies ahead is silent."""
    await world.timeline.start(world.ring)
    world.at("a", 60)
    await world.wait(0.1)
    assert world.rung == []


async def test_setting_again_moves(world: World) -> None:
    """The last moment of a key counts, whether earlier or later than the one before."""
    await world.timeline.start(world.ring)
    world.at("later", 0.05)
    world.at("later", 60)
    world.at("sooner", 60)
    world.at("sooner", 0.05)
    await world.until(1)
    assert world.rung == ["sooner"]


async def test_moving_a_key_that_is_about_to_ring(world: World) -> None:
    """At whatever moment a due key is moved, it does not ring any more before its new moment."""
    await world.timeline.start(world.ring)
    for turns in range(8):
        world.at("a", -1)
        for _ in range(turns):
            await asyncio.sleep(0)
        before = len(world.rung)
        world.at("a", 60)
        await world.wait(0.02)
        assert len(world.rung) == before


async def test_cancelled_keys_are_silent(world: World) -> None:
    """A cancelled key does not ring; cancelling an unknown one is fine."""
    await world.timeline.start(world.ring)
    world.at("a", 0.05)
    world.timeline.cancel("a")
    world.timeline.cancel("nobody")
    await world.wait(0.2)
    assert world.rung == []


async def test_the_past_rings_at_once(world: World) -> None:
    """A moment long gone is not dropped as late."""
    await world.timeline.start(world.ring)
    world.at("a", -86_400)
    await world.until(1)
    assert world.rung == ["a"]


async def test_keys_set_before_the_start_ring(world: World) -> None:
    """What was set before the start comes due after it."""
    world.at("a", -1)
    await world.wait(0.05)
    assert world.rung == []
    await world.timeline.start(world.ring)
    await world.until(1)
    assert world.rung == ["a"]


async def test_nothing_rings_after_stop(world: World) -> None:
    """Keys still set at the stop never ring; stopping twice is fine."""
    await world.timeline.start(world.ring)
    world.at("a", 0.5)
    await world.timeline.stop()
    await world.timeline.stop()
    await world.wait(0.7)
    assert world.rung == []


async def test_a_ring_may_set_its_own_key_again(world: World) -> None:
    """The usual life of a worker: rung, and set for the next time, also at once."""

    async def again(key: str) -> None:
        world.rung.append(key)
        if len(world.rung) < 50:
            world.at(key, 0.0)

    await world.timeline.start(again)
    world.at("a", 0.0)
    await world.until(50)
    assert world.rung == ["a"] * 50


async def test_many_keys_at_one_moment_all_ring(world: World) -> None:
    """Five hundred rollouts due together are all rung."""
    await world.timeline.start(world.ring)
    for number in range(500):
        world.at(f"r-{number}", 0.05)
    await world.until(500)
    assert sorted(world.rung) == sorted(f"r-{number}" for number in range(500))


class _JumpingClock(SystemClock):
    """A system clock that somebody sets; APScheduler's own view of it is set as well."""

    offset_s = 0.0

    def now(self) -> float:
        return super().now() + self.offset_s

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / 20)


@pytest.fixture
async def jumping(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[SchedulerTimeline, _JumpingClock]]:
    clock = _JumpingClock()

    class Datetime(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(seconds=clock.offset_s)

    monkeypatch.setattr("apscheduler.schedulers.base.datetime", Datetime)
    timeline = SchedulerTimeline(clock)
    yield timeline, clock
    await timeline.stop()


async def test_a_clock_set_back_delays_nothing(jumping: tuple[SchedulerTimeline, _JumpingClock]) -> None:
    """An hour back, and the wake-up still comes after the time that was asked for."""
    timeline, clock = jumping
    rung = asyncio.Event()

    async def ring(key: str) -> None:
        rung.set()

    await timeline.start(ring)
    timeline.at("a", clock.now() + 0.3)
    await asyncio.sleep(0.05)
    clock.offset_s = -3600.0
    async with asyncio.timeout(20):
        await rung.wait()


async def test_a_clock_set_forward_rings_what_is_past(jumping: tuple[SchedulerTimeline, _JumpingClock]) -> None:
    """An hour forward, and what was to ring in ten minutes rings now; what is to ring tomorrow does not."""
    timeline, clock = jumping
    rung: list[str] = []
    first = asyncio.Event()

    async def ring(key: str) -> None:
        rung.append(key)
        first.set()

    await timeline.start(ring)
    timeline.at("soon", clock.now() + 600)
    timeline.at("tomorrow", clock.now() + 86_400)
    await asyncio.sleep(0.05)
    clock.offset_s = 3600.0
    async with asyncio.timeout(20):
        await first.wait()
    await asyncio.sleep(0.1)
    assert rung == ["soon"]


async def test_a_failing_ring_is_logged_and_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    """An error in one ring does not silence the timeline."""
    timeline = SchedulerTimeline(SystemClock())
    rung: list[str] = []

    async def ring(key: str) -> None:
        rung.append(key)
        if key == "bad":
            raise RuntimeError("no")

    await timeline.start(ring)
    with caplog.at_level(logging.ERROR):
        timeline.at("bad", 0.0)
        timeline.at("good", 0.0)
        while len(rung) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
    await timeline.stop()
    assert set(rung) == {"good", "bad"}
    assert "ringing bad failed" in caplog.text


async def test_the_fake_tells_the_moment_of_each_ring() -> None:
    """During `advance` the clock shows exactly the moment that rings, and sleepers wake in between."""
    clock = FakeClock(1_800_000_000.0)
    timeline = FakeTimeline(clock)
    seen: list[tuple[str, float]] = []

    async def ring(key: str) -> None:
        seen.append((key, clock.now()))

    async def sleeper() -> None:
        await clock.sleep(7.5)
        seen.append(("slept", clock.now()))

    await timeline.start(ring)
    sleeping = asyncio.create_task(sleeper())
    timeline.at("b", 1_800_000_010.3)
    timeline.at("a", 1_800_000_005.1)
    await timeline.advance(20)
    await sleeping
    assert seen == [("a", 1_800_000_005.1), ("slept", 1_800_000_007.5), ("b", 1_800_000_010.3)]
    assert clock.now() == 1_800_000_020.0
