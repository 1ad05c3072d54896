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
        self._read: dict[str, tuple[float, RouteState]] = {}
        self._changes = 0

    async def state(self, mesh: Mesh, target: Target) -> RouteState | None:
        """The route as it is, None when it cannot be read now; raises NotFound when it is gone."""
        key = target.route.key
        now = self._clock.monotonic()
        known = self._read.get(key)
        if known is not None and now - known[0] < READ_AT_LEAST_EVERY_S:
            return known[1]
        changes = self._changes
        state = await mesh.read(target)
        if changes == self._changes:
            self._read[key] = (now, state)
        return state

    def put(self, target: Target, state: RouteState) -> None:
        """A reading made elsewhere, such as after a write."""
        self._read[target.route.key] = (self._clock.monotonic(), state)

    def changed(self, route: RouteRef) -> None:
        """Read this object's routes again at the next look."""
        self._changes += 1
        stale = f"{route.mesh}/{route.namespace}/{route.name}/"
        for key in [key for key in self._read if key.startswith(stale)]:
            del self._read[key]

    def forget(self, target: Target) -> None:
        self._read.pop(target.route.key, None)

    def clear(self) -> None:
        self._read.clear()
