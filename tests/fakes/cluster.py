"""A cluster in memory: pods and nodes as the test says."""

from collections.abc import Sequence
from dataclasses import replace

from bot.analysis.facts import NodeFacts, PodFacts
from bot.errors import Transient


class FakeCluster:
    """Implements `Cluster`. Pods belong to a selector as they were added; `away` makes the API server unreachable,
    `watched` says that a watch tells the pods before anybody asks."""

    def __init__(self) -> None:
        self.away = False
        self.watched = False
        self.denied: set[tuple[str, str, str]] = set()
        self._pods: list[tuple[frozenset[tuple[str, str]], PodFacts]] = []
        self._nodes: dict[str, NodeFacts] = {}

    def add_workload(
        self,
        service: str,
        version: str,
        *,
        pods: int = 2,
        namespace: str = "shop",
        node: str = "node-1",
        template: str = "hash-1",
        images: tuple[str, ...] = ("sha256:1",),
    ) -> None:
        """Ready pods labelled app=service, version=version."""
        labels = frozenset({("app", service), ("version", version)})
        workload = f"{service}-{version}"
        for index in range(pods):
            name = f"{workload}-{template}-{index}"
            self._pods.append(
                (labels, PodFacts(name, namespace, True, 0, False, node, template, images, workload, True))
            )

    def change(self, workload: str, **changes: object) -> None:
        """Change fields of all pods of a workload, as `change("payments-v2", ready=False)`."""
        self._pods = [
            (labels, replace(pod, **changes) if pod.workload == workload else pod)  # type: ignore[arg-type]
            for labels, pod in self._pods
        ]

    def remove(self, workload: str) -> None:
        """The Deployment is deleted, or scaled to 0: its pods are gone."""
        self._pods = [one for one in self._pods if one[1].workload != workload]

    def set_node(self, name: str, *, since: float = 0.0, addresses: tuple[str, ...] = (), **conditions: str) -> None:
        """A node and its conditions, as `set_node("node-1", Ready="False")`; Ready is True unless said."""
        wanted = {"Ready": "True", **conditions}
        facts = tuple((kind, status, since) for kind, status in sorted(wanted.items()))
        self._nodes[name] = NodeFacts(name, facts, addresses or (name,))

    async def pods(self, namespace: str, selector: Sequence[tuple[str, str]]) -> tuple[PodFacts, ...]:
        self._check()
        return self._listed(namespace, selector)

    def known_pods(self, namespace: str, selector: Sequence[tuple[str, str]]) -> tuple[PodFacts, ...] | None:
        return self._listed(namespace, selector) if self.watched and not self.away else None

    async def ready_pods(self, namespace: str, selector: Sequence[tuple[str, str]]) -> int | None:
        if self.away:
            return None
        return sum(pod.ready for pod in await self.pods(namespace, selector))

    async def nodes(self) -> tuple[NodeFacts, ...]:
        self._check()
        return tuple(self._nodes.values())

    async def allowed(self, rules: Sequence[tuple[str, str, str, str]]) -> tuple[bool, ...]:
        self._check()
        return tuple((group, resource, verb) not in self.denied for group, resource, verb, _ in rules)

    async def version(self) -> str:
        self._check()
        return "v1.36.0"

    def _listed(self, namespace: str, selector: Sequence[tuple[str, str]]) -> tuple[PodFacts, ...]:
        return tuple(pod for labels, pod in self._pods if pod.namespace == namespace and labels >= frozenset(selector))

    def _check(self) -> None:
        if self.away:
            raise Transient("the API server is away")
