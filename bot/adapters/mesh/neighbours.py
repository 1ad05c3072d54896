"""Who else has a hand in the route or its pods: controllers, GitOps, mTLS policies; read for preflight."""

from collections.abc import Sequence
from typing import Any

from bot.adapters.kubernetes import Forbidden, Kube, path
from bot.adapters.mesh import ownership, preflight
from bot.adapters.mesh.choosing import Sides, Steerable
from bot.adapters.mesh.resolving import Pods
from bot.errors import NotFound
from bot.ports.mesh import Finding, Severity
from bot.rollout.model import Target

ROOT_NAMESPACE = "istio-system"
_FLUX_KUSTOMIZE_VERSIONS = ("v1", "v1beta2")
_FLUX_HELM_VERSIONS = ("v2", "v2beta2")
_SECURITY_VERSIONS = ("v1", "v1beta1")


class Neighbours:
    """Reads what may be absent (404) or forbidden (403), and says which."""

    def __init__(self, kube: Kube, field_manager: str) -> None:
        self._kube = kube
        self._field_manager = field_manager

    async def owner(self, found: Steerable, target: Target) -> Finding:
        """Whether Flagger or Argo Rollouts owns the route."""
        namespace = target.route.namespace
        unknown: list[str] = []
        canaries = await self._listed("flagger.app", ("v1beta1",), "canaries", namespace, unknown, "Flagger Canaries")
        rollouts = await self._listed("argoproj.io", ("v1alpha1",), "rollouts", namespace, unknown, "Argo Rollouts")
        workloads = (*target.stable.workloads, *target.canary.workloads)
        return ownership.owned_by_controller(found.manifest, target.service, workloads, canaries, rollouts, unknown)

    async def gitops(self, found: Steerable, sides: Sides) -> Finding | None:
        """Whether Argo CD or Flux would put the weights back."""
        manifest = found.manifest
        labels = manifest["metadata"].get("labels") or {}
        kustomization = await self._flux(labels, ownership.FLUX_KUSTOMIZE, _FLUX_KUSTOMIZE_VERSIONS, "kustomizations")
        release = await self._flux(labels, ownership.FLUX_HELM, _FLUX_HELM_VERSIONS, "helmreleases")
        flux = ownership.reverted_by_flux(manifest, kustomization, release)
        if flux is not None and flux.severity is Severity.REFUSE:
            return flux
        belongs = ownership.argo_application(manifest)
        if belongs is None:
            return flux or Finding("gitops", Severity.OK, "no GitOps owner is named on the object")
        namespace, name, certain = belongs
        application = await self._application(namespace, name)
        if application is None and not certain:
            return flux or Finding("gitops", Severity.OK, "no GitOps owner is named on the object")
        return ownership.reverted_by_argo(
            manifest,
            application,
            name,
            protocol=found.place.protocol,
            index=found.place.index,
            inserted=sides.inserted,
            field_manager=self._field_manager,
        )

    async def mtls(self, namespace: str, stable: Pods, canary: Pods, target: Target) -> Finding:
        """The effective mTLS mode of both sides."""
        policies: list[dict[str, Any]] = []
        known = True
        for where in dict.fromkeys((namespace, ROOT_NAMESPACE)):
            unknown: list[str] = []
            policies += await self._listed(
                "security.istio.io", _SECURITY_VERSIONS, "peerauthentications", where, unknown, where
            )
            if unknown and where == ROOT_NAMESPACE:
                known = False
            elif unknown:
                return Finding(
                    "mtls",
                    Severity.WARN,
                    f"could not look at the PeerAuthentications of {namespace}",
                    "give the bot's role `list` on them",
                )
        sides = [
            (side.label, dict(pods.manifests[0]["metadata"].get("labels") or {}), _ports(pods.manifests[0]))
            for side, pods in ((target.stable, stable), (target.canary, canary))
            if pods.manifests
        ]
        return preflight.strict_mtls(policies, namespace, sides, root_namespace=ROOT_NAMESPACE, root_known=known)

    async def _listed(
        self, group: str, versions: Sequence[str], resource: str, namespace: str, unknown: list[str], called: str
    ) -> list[dict[str, Any]]:
        for version in versions:
            try:
                return await self._kube.all(path(group, version, resource, namespace))
            except NotFound:
                continue
            except Forbidden:
                unknown.append(called)
                return []
        return []

    async def _application(self, namespace: str, name: str) -> dict[str, Any] | None:
        """The Argo CD application of that name, None when there is none that may be read."""
        for where in dict.fromkeys((namespace or "argocd", "")):
            try:
                applications = await self._kube.all(path("argoproj.io", "v1alpha1", "applications", where))
            except (NotFound, Forbidden):
                continue
            for application in applications:
                if application["metadata"]["name"] == name:
                    return application
        return None

    async def _flux(
        self, labels: dict[str, str], prefix: str, versions: Sequence[str], resource: str
    ) -> dict[str, Any] | None:
        name, namespace = labels.get(f"{prefix}/name"), labels.get(f"{prefix}/namespace")
        if not name or not namespace:
            return None
        for version in versions:
            try:
                return await self._kube.get(path(prefix, version, resource, namespace, name))
            except (NotFound, Forbidden):
                continue
        return None


def _ports(pod: dict[str, Any]) -> tuple[int, ...]:
    return tuple(
        int(port["containerPort"])
        for container in pod["spec"].get("containers") or ()
        if container.get("name") != "istio-proxy"
        for port in container.get("ports") or ()
        if port.get("containerPort")
    )
