"""Readings of routes are kept until a watch tells of a change, each object for itself."""

import asyncio

from bot.engine.routes import READ_AT_LEAST_EVERY_S, Routes
from bot.rollout.model import RouteRef, Target
from bot.rollout.route import RouteState
from tests.fakes.clock import FakeClock
from tests.fakes.mesh import FakeMesh


class Counting(FakeMesh):
    """Counts readings; `gate` holds them back."""

    def __init__(self) -> None:
        super().__init__()
        self.readings = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, target: Target) -> RouteState:
        self.readings += 1
        await self.gate.wait()
        return await super().read(target)


def _changed(target: Target) -> RouteRef:
    return RouteRef(target.route.mesh, target.route.namespace, target.route.name)


async def test_a_change_makes_only_this_object_be_read_again() -> None:
    """Ten thousand routes are not read again because one of them has changed."""
    mesh, routes = Counting(), Routes(FakeClock())
    one, other = mesh.add("payments"), mesh.add("checkout")
    for target in (one, other, one, other):
        await routes.state(mesh, target)
    assert mesh.readings == 2
    routes.changed(_changed(one))
    for target in (one, other):
        await routes.state(mesh, target)
    assert mesh.readings == 3


async def test_a_reading_during_which_the_object_changed_is_not_kept() -> None:
    """It may be older than the change; a change of another object does not matter."""
    mesh, routes = Counting(), Routes(FakeClock())
    one, other = mesh.add("payments"), mesh.add("checkout")
    for changed, again in ((one, 1), (other, 0)):
        routes.clear()
        mesh.gate.clear()
        reading = asyncio.create_task(routes.state(mesh, one))
        await asyncio.sleep(0)
        routes.changed(_changed(changed))
        mesh.gate.set()
        await reading
        before = mesh.readings
        await routes.state(mesh, one)
        assert mesh.readings == before + again


async def test_what_is_known_is_what_was_read_until_it_has_changed_or_is_old() -> None:
    """Nothing before the first reading, after a change, and a minute later: a watch may have died in silence."""
    clock = FakeClock()
    mesh, routes = Counting(), Routes(clock)
    one = mesh.add("payments")
    assert routes.known(one) is None
    state = await routes.state(mesh, one)
    assert routes.known(one) is state
    routes.changed(_changed(one))
    assert routes.known(one) is None
    await routes.state(mesh, one)
    clock.advance(READ_AT_LEAST_EVERY_S - 1)
    assert routes.known(one) is not None
    clock.advance(1)
    assert routes.known(one) is None
    await routes.state(mesh, one)
    assert mesh.readings == 3
