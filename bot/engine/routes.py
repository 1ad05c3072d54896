"""The routes of active rollouts as last read: a watch says when to read again."""

from bot.ports.clock import Clock
from bot.ports.mesh import Mesh
from bot.rollout.model import RouteRef, Target
from bot.rollout.route import RouteState

READ_AT_LEAST_EVERY_S = 60.0


class Routes:
    """Readings by route; a watch that has silently died costs a minute, and every raise is tested by the API server."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._read: dict[tuple[str, str, str], dict[str, tuple[float, RouteState]]] = {}
        self._changes: dict[tuple[str, str, str], int] = {}

    async def state(self, mesh: Mesh, target: Target) -> RouteState | None:
        """The route as it is, None when it cannot be read now; raises NotFound when it is gone."""
        now, where = self._clock.monotonic(), _object(target.route)
        known = self._read.get(where, {}).get(target.route.key)
        if known is not None and now - known[0] < READ_AT_LEAST_EVERY_S:
            return known[1]
        changes = self._changes.get(where, 0)
        state = await mesh.read(target)
        if changes == self._changes.get(where, 0):
            self._keep(target, now, state)
        return state

    def put(self, target: Target, state: RouteState) -> None:
        """A reading made elsewhere, such as after a write."""
        self._keep(target, self._clock.monotonic(), state)

    def changed(self, route: RouteRef) -> None:
        """Read this object's routes again at the next look."""
        where = _object(route)
        self._changes[where] = self._changes.get(where, 0) + 1
        self._read.pop(where, None)

    def forget(self, target: Target) -> None:
        self._read.get(_object(target.route), {}).pop(target.route.key, None)

    def clear(self) -> None:
        self._read.clear()
        self._changes.clear()

    def _keep(self, target: Target, at: float, state: RouteState) -> None:
        self._read.setdefault(_object(target.route), {})[target.route.key] = (at, state)


def _object(route: RouteRef) -> tuple[str, str, str]:
    return route.mesh, route.namespace, route.name
