"""The ports of the holder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bot.catalog import Catalog
from bot.ports.chat import Chat
from bot.ports.clock import Clock
from bot.ports.cluster import Cluster
from bot.ports.mesh import Mesh
from bot.ports.metrics import Metrics
from bot.ports.pager import Pager
from bot.ports.store import Freezes, Inbox, Leases, Outbox, Rollouts
from bot.ports.telemetry import Telemetry
from bot.ports.timeline import Timeline


@dataclass(frozen=True, slots=True)
class World:
    """What the engine may reach; `owner` names this process to the lease, `new_id` makes random ids."""

    rollouts: Rollouts
    inbox: Inbox
    leases: Leases
    outbox: Outbox
    freezes: Freezes
    meshes: Mapping[str, Mesh]
    cluster: Cluster
    metrics: Metrics
    clock: Clock
    timeline: Timeline
    chat: Chat
    pager: Pager
    telemetry: Telemetry
    catalog: Callable[[], Catalog]
    namespaces: Sequence[str]
    owner: str
    new_id: Callable[[], str]
