"""Facts about what runs underneath: pods and nodes."""

import hashlib
from collections.abc import Sequence

from bot.values import dataclass


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


def fingerprint(pods: Sequence[PodFacts]) -> str:
    """What runs in these pods, as one word: their pod templates and a digest of their images; "" without pods.

    A pod that has not started yet has no image ids and changes nothing, so scaling up is not a new release.
    """
    templates = sorted({pod.template for pod in pods if pod.template})
    images = sorted({image for pod in pods for image in pod.images})
    if not templates and not images:
        return ""
    digest = hashlib.sha256("\n".join(images).encode()).hexdigest()[:12]
    return f"{','.join(templates)}/{digest}"
