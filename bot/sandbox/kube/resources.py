"""The table of the kinds that are served."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind; `versions` share one storage, the first is preferred and the one it is stored in."""

    group: str
    versions: tuple[str, ...]
    plural: str
    kind: str
    namespaced: bool = True
    status: bool = True
    """Whether `/status` is a subresource of its own, so that the main resource cannot write it."""
    generation: bool = True
    custom: bool = False
    """Defined by a CustomResourceDefinition: no strategic merge, no unconditional update."""
    short: tuple[str, ...] = ()

    @property
    def singular(self) -> str:
        """The kind in lower case."""
        return self.kind.lower()


def api_version(group: str, version: str) -> str:
    """What manifests of this group and version say in `apiVersion`."""
    return f"{group}/{version}" if group else version


def _custom(
    group: str, versions: Iterable[str], plural: str, kind: str, *, status: bool = True, short: tuple[str, ...] = ()
) -> Resource:
    return Resource(group, tuple(versions), plural, kind, status=status, custom=True, short=short)


_NETWORKING = "networking.istio.io"
_NETWORKING_VERSIONS = ("v1", "v1beta1", "v1alpha3")
_SECURITY = "security.istio.io"
_GATEWAY = "gateway.networking.k8s.io"

RESOURCES: tuple[Resource, ...] = (
    Resource("", ("v1",), "namespaces", "Namespace", namespaced=False, generation=False, short=("ns",)),
    Resource("", ("v1",), "nodes", "Node", namespaced=False, generation=False, short=("no",)),
    Resource("", ("v1",), "pods", "Pod", short=("po",)),
    Resource("", ("v1",), "services", "Service", generation=False, short=("svc",)),
    Resource("", ("v1",), "configmaps", "ConfigMap", status=False, generation=False, short=("cm",)),
    Resource("", ("v1",), "events", "Event", status=False, generation=False, short=("ev",)),
    Resource("apps", ("v1",), "deployments", "Deployment", short=("deploy",)),
    Resource("apps", ("v1",), "replicasets", "ReplicaSet", short=("rs",)),
    Resource("apps", ("v1",), "statefulsets", "StatefulSet", short=("sts",)),
    Resource("apps", ("v1",), "daemonsets", "DaemonSet", short=("ds",)),
    Resource("discovery.k8s.io", ("v1",), "endpointslices", "EndpointSlice", status=False),
    _custom(_NETWORKING, _NETWORKING_VERSIONS, "virtualservices", "VirtualService", short=("vs",)),
    _custom(_NETWORKING, _NETWORKING_VERSIONS, "destinationrules", "DestinationRule", short=("dr",)),
    _custom(_NETWORKING, _NETWORKING_VERSIONS, "gateways", "Gateway", short=("gw",)),
    _custom(_NETWORKING, _NETWORKING_VERSIONS, "serviceentries", "ServiceEntry", short=("se",)),
    _custom(_NETWORKING, _NETWORKING_VERSIONS, "sidecars", "Sidecar"),
    _custom(_SECURITY, ("v1", "v1beta1"), "peerauthentications", "PeerAuthentication", short=("pa",)),
    _custom(_SECURITY, ("v1", "v1beta1"), "authorizationpolicies", "AuthorizationPolicy", short=("ap",)),
    _custom(_GATEWAY, ("v1", "v1beta1"), "gateways", "Gateway", short=("gtw",)),
    _custom(_GATEWAY, ("v1", "v1beta1"), "httproutes", "HTTPRoute"),
    _custom(_GATEWAY, ("v1",), "grpcroutes", "GRPCRoute"),
    _custom("flagger.app", ("v1beta1",), "canaries", "Canary"),
    _custom("argoproj.io", ("v1alpha1",), "rollouts", "Rollout", short=("ro",)),
    _custom("argoproj.io", ("v1alpha1",), "applications", "Application", status=False, short=("app", "apps")),
    _custom("kustomize.toolkit.fluxcd.io", ("v1",), "kustomizations", "Kustomization", short=("ks",)),
    _custom("helm.toolkit.fluxcd.io", ("v2",), "helmreleases", "HelmRelease", short=("hr",)),
    _custom("split.smi-spec.io", ("v1alpha4",), "trafficsplits", "TrafficSplit", status=False, short=("ts",)),
)

AUTHORIZATION = "authorization.k8s.io"
REVIEWS = {
    "selfsubjectaccessreviews": "SelfSubjectAccessReview",
    "selfsubjectrulesreviews": "SelfSubjectRulesReview",
}


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The kinds one server serves, with the versions of each."""

    resources: tuple[Resource, ...]
    served: dict[str, tuple[str, ...]]
    """Group to the versions it is restricted to; a group that is absent serves all of them."""
    without: frozenset[str]

    def versions(self, resource: Resource) -> tuple[str, ...]:
        """Versions this kind is served in, preferred first; empty when it is not served."""
        if resource.group in self.without:
            return ()
        only = self.served.get(resource.group)
        return resource.versions if only is None else tuple(v for v in resource.versions if v in only)

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """The kind behind a path, when it is served in that version."""
        for resource in self.resources:
            if resource.plural == plural and resource.group == group:
                return resource if version in self.versions(resource) else None
        return None

    def of_kind(self, stated: str, kind: str) -> Resource | None:
        """The kind of a manifest that states this `apiVersion` and `kind`."""
        group, _, version = stated.rpartition("/")
        for resource in self.resources:
            if resource.kind == kind and resource.group == group and version in resource.versions:
                return resource
        return None

    def groups(self) -> dict[str, tuple[str, ...]]:
        """Named groups and their versions, preferred first, in the order of the table."""
        groups: dict[str, tuple[str, ...]] = {}
        for resource in self.resources:
            if resource.group:
                before = groups.get(resource.group, ())
                groups[resource.group] = before + tuple(v for v in self.versions(resource) if v not in before)
        groups[AUTHORIZATION] = ("v1",)
        return {group: versions for group, versions in groups.items() if versions}
