"""What a route looks like from outside: weights, our annotation, and who wrote last."""

from bot.values import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """Our annotation on the object: the fence against a frozen holder and the record that outlives Redis.

    `weight_percent` is the canary's weight that was written with it; `service`, `stable`, `canary`, `route` are enough
    to go to 0 when nothing but the API server is left. `inserted` says that the canary destination is ours.
    """

    rollout: str
    revision: int
    weight_percent: int
    phase: str
    service: str = ""
    stable: str = ""
    canary: str = ""
    route: str = ""
    inserted: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RouteState:
    """One reading of the route; `canary_weight` None when the destination is not in it.

    `others` are third destinations with weight. `last_manager` is the last field manager of the route list, which
    names a program and not a person. The last three are sentences without a full stop, "" when all is well: how the
    route is not the one that the rollout began with, why stable's destination can take no traffic, and why nothing
    serves what the canary's destination gets.
    """

    uid: str
    resource_version: str
    stable_weight: int
    canary_weight: int | None
    others: tuple[tuple[str, int], ...] = ()
    mark: Mark | None = None
    last_manager: str = ""
    changed: str = ""
    stable_lost: str = ""
    canary_lost: str = ""

    @property
    def essence(self) -> tuple[object, ...]:
        """What people decide upon: object, weights, and what is wrong with it."""
        weights = (self.stable_weight, self.canary_weight, self.others)
        return self.uid, *weights, self.changed, self.stable_lost, self.canary_lost
