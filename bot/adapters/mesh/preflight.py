"""Preflight judged over manifests: shadowing, other writers of the same host, paths that stay unsteered, pods, mTLS."""

from collections.abc import Mapping, Sequence
from typing import Any

from bot.adapters.mesh.annotation import is_final, mark_of
from bot.adapters.mesh.choosing import Steerable, refused
from bot.adapters.mesh.hosts import covers, fqdn
from bot.adapters.mesh.virtualservice import Manifest, match_digest, places
from bot.analysis.facts import PodFacts
from bot.ports.mesh import Finding, Severity
from bot.rollout.model import Side

MESH_GATEWAY = "mesh"
_ANY_URI = (
    {"prefix": "/"}, {"prefix": ""}, *({"regex": one} for one in (".*", "/.*", "^/.*", "^.*$", "^/.*$", "/?.*")),
)  # fmt: skip


def unmarked(manifest: Manifest) -> Finding:
    """No other rollout is under way on the object."""
    mark = mark_of(manifest)
    if mark is not None and not is_final(mark.phase):
        return refused(
            "rollout",
            f"the route is marked by rollout {mark.rollout}, which is {mark.phase} at {mark.weight_percent}%",
            f"wait for it, or end it with `rollback {mark.rollout}`",
        )
    return Finding("rollout", Severity.OK, "no rollout is under way on the route")


def unshadowed(found: Steerable) -> Finding:
    """Requests reach the route: no earlier one takes all of them."""
    place = found.place
    before = (found.manifest["spec"].get(place.protocol) or ())[: place.index]
    for index, route in enumerate(before):
        if _takes_all(route, place.route):
            name = route.get("name") or f"{place.protocol}[{index}]"
            return refused(
                "shadowing",
                f"the earlier route {name} takes every request that {found.label} is for",
                f"move {found.label} before it, or narrow its match",
            )
    return Finding("shadowing", Severity.OK, f"no earlier route takes what {found.label} is for")


def alone_on_host(found: Steerable, manifests: Sequence[Manifest]) -> Finding:
    """No other VirtualService steers the same host for the same gateway."""
    hosts, gateways = _hosts(found.root), _gateways(found.root)
    for other in manifests:
        if _same_object(other, found.root) or _same_object(other, found.manifest):
            continue
        shared_gateways = gateways & _gateways(other)
        shared = sorted(
            mine for mine in hosts for theirs in _hosts(other) if covers(theirs, mine) or covers(mine, theirs)
        )
        if not shared or not shared_gateways:
            continue
        how = (
            "only one of them is used inside the mesh"
            if MESH_GATEWAY in shared_gateways
            else "their order is undefined"
        )
        return refused(
            "hosts",
            f"VirtualService {_called(other)} steers {shared[0]} as well, and {how}",
            "merge the two, or give one of them another host",
        )
    return Finding("hosts", Severity.OK, f"no other VirtualService steers {', '.join(sorted(hosts)) or 'this host'}")


def other_ways(found: Steerable, manifests: Sequence[Manifest], host: str) -> tuple[str, ...]:
    """The ways to the service that do not go through the route, each in words."""
    ways: list[str] = []
    for place in places(found.manifest):
        if (place.protocol, place.index) != (found.place.protocol, found.place.index) and _sends_to(
            place.destinations, found.manifest, host
        ):
            ways.append(f"route {place.name or f'{place.protocol}[{place.index}]'} of the same VirtualService")
    for other in manifests:
        if _same_object(other, found.manifest) or _same_object(other, found.root):
            continue
        if any(_sends_to(place.destinations, other, host) for place in places(other)):
            gateways = sorted(_gateways(other))
            ways.append(f"VirtualService {_called(other)} (for {', '.join(gateways)})")
    if MESH_GATEWAY not in _gateways(found.root):
        ways.append("calls from inside the mesh, for the VirtualService is bound to gateways only")
    return tuple(ways)


def mirrored(found: Steerable, manifests: Sequence[Manifest], host: str) -> tuple[str, ...]:
    """Routes that send copies of requests to the service, each in words: they count in its metrics like any other."""
    return tuple(
        f"mirrored requests of {_called(one)}"
        for one in {_called(one): one for one in (found.manifest, *manifests)}.values()
        if any(_mirrors_to(route, one, host) for route in (one.get("spec") or {}).get("http") or ())
    )


def _mirrors_to(route: Manifest, manifest: Manifest, host: str) -> bool:
    namespace = str(manifest["metadata"].get("namespace", ""))
    copies = [route.get("mirror"), *(entry.get("destination") for entry in route.get("mirrors") or ())]
    return any(copy and fqdn(str(copy.get("host") or ""), namespace) == host for copy in copies)


def unsteered(ways: Sequence[str], host: str) -> Finding:
    """Lists the ways to the service that do not go through the route."""
    if not ways:
        return Finding("paths", Severity.OK, "every known way to the service goes through the route")
    return Finding(
        "paths",
        Severity.WARN,
        f"some requests reach {host} by other ways and stay as they are: {'; '.join(ways)}",
        "the canary's share is that of the steered route only",
    )


def disjoint(stable: Side, canary: Side, stable_pods: Sequence[PodFacts], canary_pods: Sequence[PodFacts]) -> Finding:
    """The two sides are different pods."""
    shared = {pod.name for pod in stable_pods} & {pod.name for pod in canary_pods}
    if shared or set(stable.selector) <= set(canary.selector):
        what = (
            f"the whole host {stable.destination.host}" if not stable.destination.subset else f"subset {stable.label}"
        )
        return refused(
            "destinations",
            f"stable is {what}, which includes the canary's pods",
            f"send stable's share to a subset that leaves {canary.label} out",
        )
    if set(canary.selector) <= set(stable.selector):
        return refused(
            "destinations",
            f"the canary {canary.label} includes stable's pods",
            f"narrow the labels of subset {canary.label}",
        )
    return Finding("destinations", Severity.OK, f"{stable.label} and {canary.label} are different pods")


def ready(stable: Side, canary: Side, stable_pods: Sequence[PodFacts], canary_pods: Sequence[PodFacts]) -> Finding:
    """Both sides have a ready pod."""
    texts = []
    for side, pods in ((stable, stable_pods), (canary, canary_pods)):
        count = sum(pod.ready for pod in pods)
        if not count:
            labels = ",".join(f"{key}={value}" for key, value in side.selector)
            why = f"none of its {len(pods)} pods is ready" if pods else f"no pod carries {labels}"
            return refused(
                "pods", f"{side.label} cannot serve: {why}", f"deploy {side.label} and wait until it is ready"
            )
        texts.append(f"{side.label} has {count} ready {'pod' if count == 1 else 'pods'}")
    return Finding("pods", Severity.OK, ", ".join(texts))


def injected(pods: Sequence[PodFacts]) -> Finding:
    """Every pod is in the mesh; the metrics of the others would be missing."""
    bare = sorted(pod.name for pod in pods if not pod.sidecar)
    if bare:
        return Finding(
            "sidecars",
            Severity.WARN,
            f"{len(bare)} of {len(pods)} pods have no sidecar, as {bare[0]}: their side of the metrics is missing",
            "label the namespace istio-injection=enabled and restart them",
        )
    return Finding("sidecars", Severity.OK, f"all {len(pods)} pods are in the mesh")


def strict_mtls(
    policies: Sequence[Manifest],
    namespace: str,
    sides: Sequence[tuple[str, Mapping[str, str], Sequence[int]]],
    *,
    root_namespace: str,
    root_known: bool,
) -> Finding:
    """The effective mTLS mode of every side is STRICT, on all its ports.

    `sides` are (label, pod labels, container ports). Levels as Istio has them: port, workload, namespace, mesh; UNSET
    takes the next wider one, and PERMISSIVE is the default.
    """
    weak: list[str] = []
    for label, labels, ports in sides:
        asked: list[int | None] = [None, *ports]
        for port in asked:
            mode = mtls_mode(policies, namespace, labels, port, root_namespace)
            if mode != "STRICT":
                weak.append(f"{mode} for {label}" + (f" on port {port}" if port is not None else ""))
    if not weak:
        return Finding("mtls", Severity.OK, "effective mTLS mode is STRICT")
    unknown = "" if root_known else f" (the mesh's own policy in {root_namespace} could not be read)"
    return Finding(
        "mtls",
        Severity.WARN,
        f"effective mTLS mode is {'; '.join(dict.fromkeys(weak))}{unknown}: plain-text requests are accepted",
        f"a PeerAuthentication with mode STRICT in namespace {namespace}",
    )


def mtls_mode(
    policies: Sequence[Manifest], namespace: str, labels: Mapping[str, str], port: int | None, root_namespace: str
) -> str:
    """The effective mTLS mode of a pod on one port (None: any port without a setting of its own)."""
    mode = "PERMISSIVE"
    mesh_wide = [one for one in policies if _namespace(one) == root_namespace and not _selector(one)]
    own = [one for one in policies if _namespace(one) == namespace]
    namespace_wide = [one for one in own if not _selector(one)] if namespace != root_namespace else []
    workload = [one for one in own if _selector(one) and _selector(one).items() <= labels.items()]
    for level in (mesh_wide, namespace_wide, workload):
        for policy in sorted(level, key=lambda one: str(one["metadata"].get("creationTimestamp", "")), reverse=True):
            mode = _mode((policy.get("spec") or {}).get("mtls")) or mode
    for policy in workload:
        ports = (policy.get("spec") or {}).get("portLevelMtls") or {}
        if port is not None:
            mode = _mode(ports.get(str(port)) or ports.get(port)) or mode
    return mode


def _mode(mtls: Mapping[str, Any] | None) -> str:
    mode = str((mtls or {}).get("mode") or "UNSET")
    return "" if mode == "UNSET" else mode


def _selector(policy: Manifest) -> Mapping[str, str]:
    found: Mapping[str, str] = ((policy.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    return found


def _takes_all(earlier: Manifest, later: Manifest) -> bool:
    """True when every request the later route is for is taken by the earlier one."""
    if not earlier.get("match") or match_digest(earlier) == match_digest(later):
        return True
    wide = earlier["match"]
    if any(_is_catch_all(condition) for condition in wide):
        return True
    narrow = later.get("match") or [{}]
    return all(any(_wider(one, other) for one in wide) for other in narrow)


def _is_catch_all(condition: Mapping[str, Any]) -> bool:
    """True for a condition that every request meets; empty parts of it ask for nothing."""
    return not {
        key
        for key, asked in condition.items()
        if asked and key not in ("name", "statPrefix") and not (key == "uri" and asked in _ANY_URI)
    }


def _wider(wide: Mapping[str, Any], narrow: Mapping[str, Any]) -> bool:
    """True when a match condition holds wherever a narrower one does; when in doubt, False."""
    for key, value in wide.items():
        if key in ("name", "statPrefix"):
            continue
        other = narrow.get(key)
        if key == "uri" and isinstance(value, Mapping) and "prefix" in value and isinstance(other, Mapping):
            path = other.get("prefix") or other.get("exact")
            if isinstance(path, str) and path.startswith(str(value["prefix"])):
                continue
            return False
        if key in ("headers", "queryParams", "withoutHeaders") and isinstance(other, Mapping):
            if all(other.get(name) == condition for name, condition in value.items()):
                continue
            return False
        if other != value:
            return False
    return True


def _sends_to(destinations: Sequence[Any], manifest: Manifest, host: str) -> bool:
    return any(fqdn(one.destination.host, _namespace(manifest)) == host for one in destinations)


def _hosts(manifest: Manifest) -> set[str]:
    return {fqdn(str(host), _namespace(manifest)) for host in (manifest.get("spec") or {}).get("hosts") or ()}


def _gateways(manifest: Manifest) -> set[str]:
    """The gateways an object is bound to, with their namespace; without any it is for the mesh."""
    names = (manifest.get("spec") or {}).get("gateways") or (MESH_GATEWAY,)
    namespace = _namespace(manifest)
    return {str(name) if name == MESH_GATEWAY or "/" in str(name) else f"{namespace}/{name}" for name in names}


def _same_object(one: Manifest, other: Manifest) -> bool:
    return _called(one) == _called(other)


def _called(manifest: Manifest) -> str:
    return f"{_namespace(manifest)}/{manifest['metadata']['name']}"


def _namespace(manifest: Manifest) -> str:
    return str(manifest["metadata"].get("namespace", ""))
