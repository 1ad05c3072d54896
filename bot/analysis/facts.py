"""Facts about what runs underneath: pods and nodes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PodFacts:
    """One pod: readiness, restarts over its containers, whether one of them crash-loops, where it runs, and what.

    `template` is the pod-template-hash label, `images` the image ids (digests) of its containers, sorted.
    """

    name: str
    namespace: str
    ready: bool
    restarts: int
    crash_looping: bool
    node: str
    template: str = ""
    images: tuple[str, ...] = ()
    workload: str = ""
    sidecar: bool = True


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node: its conditions (type -> status, since epoch seconds) and addresses by which metrics may name it."""

    name: str
    conditions: tuple[tuple[str, str, float], ...]
    addresses: tuple[str, ...] = ()
    region: str = ""
    zone: str = ""
