"""What happens to workloads and nodes: pods that stop being ready, crash, restart or are replaced; node conditions.

It plays the kubelet and the controllers on the stored objects, whatever seeded them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bot.sandbox.kube import status, world
from bot.sandbox.kube.status import Json
from bot.sandbox.kube.store import Author, Store, Stored, now, random_id

_KUBELET = Author("kubelet", "kubelet/v1.34.0 (linux/amd64)", "system:node")
_CONTROLLER = Author(
    "kube-controller-manager", "kube-controller-manager/v1.34.0 (linux/amd64)", "system:kube-controller-manager"
)
_NODE_CONDITIONS = frozenset(world.HEALTHY)
_KEYS = frozenset(("replicas", "ready", "crash_loop", "restarts", "image"))


def _change(store: Store, stored: Stored, change: Callable[[Json], Json], author: Author, subresource: str) -> Stored:
    version = stored.resource.versions[0]
    return store.update(stored, change(stored.manifest), version, author, subresource=subresource)


def _pods(store: Store, deployment: Stored) -> list[Stored]:
    wanted: dict[str, str] = deployment.manifest["spec"]["selector"].get("matchLabels", {})
    namespace = deployment.key[0]

    def matches(manifest: Json) -> bool:
        labels = manifest["metadata"].get("labels") or {}
        return all(labels.get(key) == value for key, value in wanted.items())

    return list(store.at("", "pods").select(namespace, matches))


def _app_container(pod: Json) -> int:
    containers = pod["spec"]["containers"]
    return next((index for index, item in enumerate(containers) if item["name"] != "istio-proxy"), 0)


def _is_ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def _crashes(pod: Json) -> bool:
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return any("waiting" in item.get("state", {}) for item in statuses)


def _restarts(pod: Json) -> int:
    return max(
        (item.get("restartCount", 0) for item in pod.get("status", {}).get("containerStatuses") or ()), default=0
    )


def _deployment(store: Store, namespace: str, name: str) -> Stored:
    return store.get(store.at("apps", "deployments").resource, (namespace, name))


def workload(store: Store, namespace: str, name: str) -> Json:
    """The state of a Deployment's pods: replicas, ready, crash_loop, restarts, image, pods."""
    deployment = _deployment(store, namespace, name)
    pods = [stored.manifest for stored in _pods(store, deployment)]
    template = deployment.manifest["spec"]["template"]
    return {
        "namespace": namespace,
        "name": name,
        "replicas": len(pods),
        "ready": sum(map(_is_ready, pods)),
        "crash_loop": any(map(_crashes, pods)),
        "restarts": max(map(_restarts, pods), default=0),
        "image": template["spec"]["containers"][_app_container(template)]["image"],
        "pods": [pod["metadata"]["name"] for pod in pods],
    }


def put_workload(store: Store, namespace: str, name: str, body: Any) -> Json:
    """Change a Deployment's pods and return `workload`.

    `image` replaces all pods under a new pod-template-hash (the same image again counts as a restart of the rollout),
    `replicas` adds or removes pods, `ready` is how many of them are ready, `restarts` sets the restart count,
    `crash_loop` makes those that are not ready wait in CrashLoopBackOff (all of them unless `ready` is given).
    """
    if not isinstance(body, dict) or body.keys() - _KEYS:
        raise status.bad_request(f"a workload is an object with the keys {', '.join(sorted(_KEYS))}")
    deployment = _deployment(store, namespace, name)
    if "image" in body or "replicas" in body:
        deployment = _redeploy(store, deployment, body.get("image"), body.get("replicas"))
    pods = _pods(store, deployment)
    crash_loop = body.get("crash_loop", any(_crashes(stored.manifest) for stored in pods))
    ready = body.get("ready")
    if ready is None:
        if "crash_loop" in body or "image" in body or "replicas" in body:
            ready = 0 if crash_loop else len(pods)
        else:
            ready = sum(_is_ready(stored.manifest) for stored in pods)
    for index, stored in enumerate(pods):
        up = index < ready
        _change(store, stored, _pod_state(up, crash_loop and not up, body.get("restarts")), _KUBELET, "status")
    _settle(store, deployment)
    return workload(store, namespace, name)


def _pod_state(ready: bool, crashing: bool, restarts: int | None) -> Callable[[Json], Json]:
    def change(pod: Json) -> Json:
        before = pod.get("status", {})
        conditions = [_ready_condition(condition, ready) for condition in before.get("conditions") or ()]
        app = pod["spec"]["containers"][_app_container(pod)]["name"]
        statuses = [
            _container_state(item, ready, crashing, restarts) if item["name"] == app else item
            for item in before.get("containerStatuses") or ()
        ]
        return {**pod, "status": {**before, "conditions": conditions, "containerStatuses": statuses}}

    return change


def _ready_condition(before: Json, ready: bool) -> Json:
    wanted = "True" if ready else "False"
    if before["type"] not in ("Ready", "ContainersReady") or before["status"] == wanted:
        return before
    after = {**before, "status": wanted, "lastTransitionTime": now()}
    after.pop("reason", None)
    return after if ready else {**after, "reason": "ContainersNotReady"}


def _container_state(before: Json, ready: bool, crashing: bool, restarts: int | None) -> Json:
    count = before.get("restartCount", 0)
    running = before.get("state", {}).get("running") or {"startedAt": now()}
    after = {**before, "ready": ready, "started": not crashing, "state": {"running": running}}
    if crashing:
        waiting = {
            "reason": "CrashLoopBackOff",
            "message": f"back-off 5m0s restarting failed container={before['name']}",
        }
        ended = {"exitCode": 1, "reason": "Error", "startedAt": now(), "finishedAt": now()}
        after |= {"state": {"waiting": waiting}, "lastState": {"terminated": ended}}
        if "waiting" not in before.get("state", {}):
            count += 1
    return {**after, "restartCount": count if restarts is None else restarts}


def _redeploy(store: Store, deployment: Stored, image: str | None, replicas: int | None) -> Stored:
    spec = deployment.manifest["spec"]
    wanted = spec.get("replicas", 1) if replicas is None else replicas
    old_pods = _pods(store, deployment)
    if not old_pods:
        raise status.bad_request("the workload has no pod to take as the pattern for new ones")
    pattern = old_pods[0].manifest
    hashed = pattern["metadata"]["labels"].get("pod-template-hash", "")
    if image is not None:
        template = spec["template"]
        containers = list(template["spec"]["containers"])
        index = _app_container(template)
        containers[index] = {**containers[index], "image": image}
        spec = {**spec, "template": {**template, "spec": {**template["spec"], "containers": containers}}}
        fresh = world.template_hash(deployment.key[1], image)
        hashed = random_id(10) if fresh == hashed else fresh
    spec = {**spec, "replicas": wanted}
    deployment = _change(
        store, deployment, lambda manifest: {**manifest, "spec": spec}, Author("kubectl", "kubectl/v1.34.0", "ops"), ""
    )
    if image is not None:
        _new_replica_set(store, deployment, hashed)
    kept = old_pods[:wanted] if image is None else []
    for stored in old_pods:
        if stored not in kept:
            store.delete(stored, _CONTROLLER)
    nodes = [stored.manifest["spec"].get("nodeName") for stored in old_pods]
    for number in range(len(kept), wanted):
        _new_pod(store, pattern, deployment.key[1], hashed, image, nodes[number % len(nodes)])
    return _deployment(store, *deployment.key)


def _new_replica_set(store: Store, deployment: Stored, hashed: str) -> None:
    sets = store.at("apps", "replicasets")
    name = deployment.key[1]
    owned = [
        stored
        for stored in sets.select(deployment.key[0], None)
        if any(owner["name"] == name for owner in stored.manifest["metadata"].get("ownerReferences") or ())
    ]
    for stored in owned:
        scaled = _change(
            store,
            stored,
            lambda manifest: {**manifest, "spec": {**manifest["spec"], "replicas": 0}},
            _CONTROLLER,
            "",
        )
        _change(store, scaled, lambda manifest: {**manifest, "status": {"replicas": 0}}, _CONTROLLER, "status")
    spec = deployment.manifest["spec"]
    labels = {**spec["template"]["metadata"]["labels"], "pod-template-hash": hashed}
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "namespace": deployment.key[0],
            "name": f"{name}-{hashed}",
            "labels": labels,
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "name": name,
                    "uid": deployment.manifest["metadata"]["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {
            "replicas": spec["replicas"],
            "selector": {"matchLabels": labels},
            "template": {**spec["template"], "metadata": {"labels": labels}},
        },
        "status": {"replicas": spec["replicas"], "readyReplicas": spec["replicas"]},
    }
    store.load(sets.resource, manifest, _CONTROLLER)


def _new_pod(store: Store, pattern: Json, name: str, hashed: str, image: str | None, node: str | None) -> None:
    pods = store.at("", "pods")
    metadata = pattern["metadata"]
    owner = f"{name}-{hashed}"
    containers = list(pattern["spec"]["containers"])
    if image is not None:
        index = _app_container(pattern)
        containers[index] = {**containers[index], "image": image}
    taken = {stored.manifest.get("status", {}).get("podIP") for stored in pods.objects.values()}
    base = pattern["status"]["podIP"].rpartition(".")[0]
    if node in world.NODES:
        base = f"10.244.{world.NODES.index(node) + 1}"
    address = next(ip for ip in (f"{base}.{last}" for last in range(10, 255)) if ip not in taken)
    owners = [
        {**item, "name": owner} if item["kind"] == "ReplicaSet" else item
        for item in metadata.get("ownerReferences") or ()
    ]
    for item in owners:
        found = store.at("apps", "replicasets").objects.get((metadata["namespace"], item["name"]))
        if found is not None:
            item["uid"] = found.manifest["metadata"]["uid"]
    manifest = {
        **pattern,
        "metadata": {
            "namespace": metadata["namespace"],
            "name": f"{owner}-{random_id(5)}",
            "generateName": f"{owner}-",
            "labels": {**metadata["labels"], "pod-template-hash": hashed},
            "annotations": metadata.get("annotations") or {},
            "ownerReferences": owners,
        },
        "spec": {**pattern["spec"], "containers": containers, "nodeName": node},
        "status": {
            **pattern["status"],
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": now(),
            "containerStatuses": [world.container_status(item, ready=True, restarts=0) for item in containers],
        },
    }
    store.load(pods.resource, manifest, _CONTROLLER)


def _settle(store: Store, deployment: Stored) -> None:
    """Bring the counts of the Deployment and its ReplicaSet and the EndpointSlices in line with the pods."""
    namespace = deployment.key[0]
    pods = [stored.manifest for stored in _pods(store, deployment)]
    ready = sum(map(_is_ready, pods))
    counts = {"replicas": len(pods), "readyReplicas": ready, "availableReplicas": ready}

    def counted(manifest: Json) -> Json:
        return {
            **manifest,
            "status": {
                **manifest.get("status", {}),
                **counts,
                "observedGeneration": manifest["metadata"].get("generation", 1),
            },
        }

    _change(store, deployment, counted, _CONTROLLER, "status")
    owners = {owner["name"] for pod in pods for owner in pod["metadata"].get("ownerReferences") or ()}
    for stored in list(store.at("apps", "replicasets").select(namespace, None)):
        if stored.key[1] in owners:
            _change(store, stored, counted, _CONTROLLER, "status")
    _settle_endpoints(store, namespace)


def _settle_endpoints(store: Store, namespace: str) -> None:
    services = store.at("", "services").objects
    pods = store.at("", "pods")
    for stored in list(store.at("discovery.k8s.io", "endpointslices").select(namespace, None)):
        labels = stored.manifest["metadata"].get("labels") or {}
        service = services.get((namespace, labels.get("kubernetes.io/service-name", "")))
        selector = service.manifest["spec"].get("selector") if service is not None else None
        if not selector:
            continue
        endpoints = [
            world.endpoint(pod.manifest)
            for pod in pods.select(namespace, None)
            if selector.items() <= (pod.manifest["metadata"].get("labels") or {}).items()
            and pod.manifest.get("status", {}).get("podIP")
        ]
        _change(store, stored, _with_endpoints(endpoints), _CONTROLLER, "")


def _with_endpoints(endpoints: list[Json]) -> Callable[[Json], Json]:
    return lambda manifest: {**manifest, "endpoints": endpoints}


def node(store: Store, name: str) -> dict[str, str]:
    """The conditions of a node, by type."""
    stored = store.get(store.at("", "nodes").resource, ("", name))
    return {item["type"]: item["status"] for item in stored.manifest.get("status", {}).get("conditions") or ()}


def put_node(store: Store, name: str, body: Any) -> dict[str, str]:
    """Set conditions of a node (`True`, `False`, `Unknown` by type) and return all of them."""
    known = isinstance(body, dict) and not body.keys() - _NODE_CONDITIONS
    if not known or not all(value in ("True", "False", "Unknown") for value in body.values()):
        raise status.bad_request(
            f"node conditions are an object of {', '.join(sorted(_NODE_CONDITIONS))} to True, False or Unknown"
        )
    stored = store.get(store.at("", "nodes").resource, ("", name))

    def change(manifest: Json) -> Json:
        conditions = {item["type"]: item for item in manifest.get("status", {}).get("conditions") or ()}
        for kind, state in body.items():
            if conditions.get(kind, {}).get("status") != state:
                conditions[kind] = _condition(kind, state)
        return {**manifest, "status": {**manifest.get("status", {}), "conditions": list(conditions.values())}}

    _change(store, stored, change, _KUBELET, "status")
    return node(store, name)


def _condition(kind: str, state: str) -> Json:
    healthy, reason, message = world.HEALTHY[kind]
    if state == "Unknown":
        reason, message = "NodeStatusUnknown", "Kubelet stopped posting node status."
    elif state != healthy:
        if kind == "Ready":
            reason, message = "KubeletNotReady", "container runtime is down"
        else:
            reason, message = f"KubeletHas{kind}", f"kubelet has {kind}"
    moment = now()
    return {
        "type": kind,
        "status": state,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": moment,
        "lastTransitionTime": moment,
    }
