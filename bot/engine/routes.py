"""The routes of active rollouts as last read: a watch says when to read again."""

from dataclasses import dataclass

from bot.ports.clock import Clock
from bot.ports.mesh import Mesh
from bot.rollout.model import RouteRef, Target
from bot.rollout.route import RouteState

READ_AT_LEAST_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class _Reading:
    """A route as it was at a moment (monotonic seconds), after so many changes of its object."""

    state: RouteState
    at: float
    changes: int


class Routes:
    """Readings by route; a watch that has silently died costs a minute, and every raise is tested by the API server."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._read: dict[RouteRef, _Reading] = {}
        self._changes: dict[tuple[str, str, str], int] = {}

    async def state(self, mesh: Mesh, target: Target) -> RouteState | None:
        """The route as it is, None when it cannot be read now; raises NotFound when it is gone."""
        known = self.known(target)
        if known is not None:
            return known
        now, where = self._clock.monotonic(), _object(target.route)
        changes = self._changes.get(where, 0)
        state = await mesh.read(target)
        if changes == self._changes.get(where, 0):
            self._read[target.route] = _Reading(state, now, changes)
        return state

    def known(self, target: Target) -> RouteState | None:
        """The last reading where it still holds, None when the route has to be read."""
        read = self._read.get(target.route)
        if read is None or read.changes != self._changes.get(_object(target.route), 0):
            return None
        return read.state if self._clock.monotonic() - read.at < READ_AT_LEAST_EVERY_S else None

    def put(self, target: Target, state: RouteState) -> None:
        """A reading made elsewhere, such as after a write."""
        changes = self._changes.get(_object(target.route), 0)
        self._read[target.route] = _Reading(state, self._clock.monotonic(), changes)

    def changed(self, route: RouteRef) -> None:
        """Read this object's routes again at the next look."""
        where = _object(route)
        self._changes[where] = self._changes.get(where, 0) + 1

    def forget(self, target: Target) -> None:
        self._read.pop(target.route, None)

    def clear(self) -> None:
        self._read.clear()
        self._changes.clear()


def _object(route: RouteRef) -> tuple[str, str, str]:
    return route.mesh, route.namespace, route.name
