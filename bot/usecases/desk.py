"""The desk: the ports through which every use case works, on any replica."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bot.catalog import Catalog
from bot.ports.clock import Clock
from bot.ports.cluster import Cluster
from bot.ports.mesh import Mesh
from bot.ports.metrics import Metrics
from bot.ports.people import Directory
from bot.ports.store import Freezes, Inbox, Outbox, Rollouts


@dataclass(frozen=True, slots=True)
class Desk:
    """What a use case may reach; `catalog` is asked each time because the file can be reloaded.

    `meshes` are the routers by name, `namespaces` those the bot may steer in (empty: all), `new_id` makes the random
    part of ids. `backtesting` is held by the one backtest that may be under way.
    """

    rollouts: Rollouts
    inbox: Inbox
    outbox: Outbox
    freezes: Freezes
    directory: Directory
    meshes: Mapping[str, Mesh]
    cluster: Cluster
    metrics: Metrics
    clock: Clock
    catalog: Callable[[], Catalog]
    namespaces: Sequence[str]
    new_id: Callable[[], str]
    backtesting: asyncio.Lock = field(default_factory=asyncio.Lock)
