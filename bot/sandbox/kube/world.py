"""The world's manifests: three nodes, and in namespace `shop` the services `payments` and `checkout`.

`payments` has a good second version and a route with several http routes; `checkout` has a bad one and a route that
does not know its canary yet.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from bot.sandbox.kube.status import Json

NAMESPACE = "shop"
NODES = ("node-1", "node-2", "node-3")
_ID_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SINCE = "2026-01-12T08:00:00Z"
_PROXY_IMAGE = "docker.io/istio/proxyv2:1.28.0"
HEALTHY = {
    "MemoryPressure": ("False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    "DiskPressure": ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    "PIDPressure": ("False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    "NetworkUnavailable": ("False", "RouteCreated", "the network plugin is ready"),
    "Ready": ("True", "KubeletReady", "kubelet is posting ready status"),
}
"""Node conditions as (status, reason, message)."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One version of a service: a Deployment, its ReplicaSet and its pods, pod i on `nodes[i % len(nodes)]`."""

    app: str
    version: str
    nodes: tuple[str, ...]
    replicas: int = 2

    @property
    def name(self) -> str:
        """Name of the Deployment, and of the workload in metrics."""
        return f"{self.app}-{self.version}"

    @property
    def image(self) -> str:
        """The image its first pods run."""
        return f"registry.example/shop/{self.app}:{self.version}.0.0"


WORKLOADS = (
    Workload("payments", "v1", ("node-1", "node-3")),
    Workload("payments", "v2", ("node-2",)),
    Workload("checkout", "v1", ("node-3", "node-1")),
    Workload("checkout", "v2", ("node-2",)),
)


def spelled(seed: str, length: int) -> str:
    """A stable identifier in the letters Kubernetes uses for names."""
    digest = hashlib.sha256(seed.encode()).digest()
    return "".join(_ID_LETTERS[byte % len(_ID_LETTERS)] for byte in digest[:length])


def template_hash(name: str, image: str) -> str:
    """The pod-template-hash of a workload that runs this image."""
    return spelled(f"{name} {image}", 10)


def image_id(image: str) -> str:
    """The digest a node reports for an image."""
    repository = image.rpartition(":")[0]
    return f"{repository}@sha256:{hashlib.sha256(image.encode()).hexdigest()}"


def _uid(*names: str) -> str:
    digest = hashlib.sha256("/".join(names).encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}"


def _meta(kind: str, name: str, labels: dict[str, str] | None = None, namespace: str = NAMESPACE) -> Json:
    metadata: Json = {"name": name, "uid": _uid(kind, namespace, name), "creationTimestamp": _SINCE}
    if namespace:
        metadata["namespace"] = namespace
    if labels:
        metadata["labels"] = labels
    return metadata


def _owner(api_version: str, kind: str, name: str) -> list[Json]:
    return [
        {
            "apiVersion": api_version,
            "kind": kind,
            "name": name,
            "uid": _uid(kind, NAMESPACE, name),
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]


def node(name: str, index: int) -> Json:
    """A healthy node."""
    conditions = [
        {
            "type": kind,
            "status": state,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": _SINCE,
            "lastTransitionTime": _SINCE,
        }
        for kind, (state, reason, message) in HEALTHY.items()
    ]
    labels = {
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "topology.kubernetes.io/region": "one",
        "topology.kubernetes.io/zone": f"one-{'abc'[index]}",
    }
    amounts = {"cpu": "2", "memory": "8Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": _meta("Node", name, labels, namespace=""),
        "spec": {"podCIDR": f"10.244.{index + 1}.0/24", "providerID": f"sandbox:///one/{name}"},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": f"10.0.0.{11 + index}"},
                {"type": "Hostname", "address": name},
            ],
            "allocatable": amounts,
            "capacity": amounts,
            "conditions": conditions,
            "nodeInfo": {
                "architecture": "amd64",
                "bootID": _uid("boot", name),
                "containerRuntimeVersion": "containerd://2.1.4",
                "kernelVersion": "6.12.0",
                "kubeProxyVersion": "",
                "kubeletVersion": "v1.34.0",
                "machineID": _uid("machine", name).replace("-", ""),
                "operatingSystem": "linux",
                "osImage": "Debian GNU/Linux 13 (trixie)",
                "systemUUID": _uid("system", name),
            },
        },
    }


def _namespace(name: str, labels: dict[str, str] | None = None) -> Json:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": _meta("Namespace", name, labels, namespace="")}


def _template(workload: Workload, image: str) -> Json:
    labels = {
        "app": workload.app,
        "version": workload.version,
        "pod-template-hash": template_hash(workload.name, image),
    }
    container = {
        "name": workload.app,
        "image": image,
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 5},
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
    }
    proxy = {
        "name": "istio-proxy",
        "image": _PROXY_IMAGE,
        "args": ["proxy", "sidecar", "--domain", "$(POD_NAMESPACE).svc.cluster.local"],
        "ports": [{"name": "http-envoy-prom", "containerPort": 15090, "protocol": "TCP"}],
    }
    return {"metadata": {"labels": labels}, "spec": {"containers": [container, proxy]}}


def container_status(container: Json, *, ready: bool, restarts: int) -> Json:
    """What the kubelet says of a running container."""
    name = container["name"]
    return {
        "name": name,
        "image": container["image"],
        "imageID": image_id(container["image"]),
        "containerID": f"containerd://{hashlib.sha256(name.encode()).hexdigest()}",
        "ready": ready,
        "started": True,
        "restartCount": restarts,
        "state": {"running": {"startedAt": _SINCE}},
        "lastState": {},
    }


def pod(workload: Workload, index: int) -> Json:
    """A ready pod with its sidecar."""
    hashed = template_hash(workload.name, workload.image)
    owner = f"{workload.name}-{hashed}"
    name = f"{owner}-{spelled(f'{owner} {index}', 5)}"
    template = _template(workload, workload.image)
    on_node = workload.nodes[index % len(workload.nodes)]
    address = f"10.244.{NODES.index(on_node) + 1}.{10 + 10 * WORKLOADS.index(workload) + index}"
    metadata = _meta("Pod", name, {**template["metadata"]["labels"], "security.istio.io/tlsMode": "istio"})
    metadata |= {
        "generateName": f"{owner}-",
        "annotations": {"sidecar.istio.io/status": '{"containers":["istio-proxy"],"revision":"default"}'},
        "ownerReferences": _owner("apps/v1", "ReplicaSet", owner),
    }
    conditions = [
        {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": _SINCE}
        for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    ]
    containers = template["spec"]["containers"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            **template["spec"],
            "nodeName": on_node,
            "restartPolicy": "Always",
            "serviceAccountName": workload.app,
        },
        "status": {
            "phase": "Running",
            "hostIP": f"10.0.0.{11 + NODES.index(on_node)}",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "qosClass": "Burstable",
            "startTime": _SINCE,
            "conditions": conditions,
            "containerStatuses": [container_status(container, ready=True, restarts=0) for container in containers],
        },
    }


def _counts(workload: Workload) -> Json:
    counts = dict.fromkeys(("replicas", "readyReplicas", "availableReplicas"), workload.replicas)
    return {**counts, "observedGeneration": 1}


def _owners(workload: Workload) -> list[Json]:
    template = _template(workload, workload.image)
    own = dict(template["metadata"]["labels"])
    hashed = own.pop("pod-template-hash")
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            **_meta("Deployment", workload.name, own),
            "annotations": {"deployment.kubernetes.io/revision": "1"},
        },
        "spec": {
            "replicas": workload.replicas,
            "selector": {"matchLabels": own},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {**template, "metadata": {"labels": own}},
        },
        "status": {
            **_counts(workload),
            "updatedReplicas": workload.replicas,
            "conditions": [
                {
                    "type": "Available",
                    "status": "True",
                    "reason": "MinimumReplicasAvailable",
                    "message": "Deployment has minimum availability.",
                    "lastUpdateTime": _SINCE,
                    "lastTransitionTime": _SINCE,
                }
            ],
        },
    }
    replica_set = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            **_meta("ReplicaSet", f"{workload.name}-{hashed}", template["metadata"]["labels"]),
            "annotations": {"deployment.kubernetes.io/revision": "1"},
            "ownerReferences": _owner("apps/v1", "Deployment", workload.name),
        },
        "spec": {
            "replicas": workload.replicas,
            "selector": {"matchLabels": template["metadata"]["labels"]},
            "template": template,
        },
        "status": {**_counts(workload), "fullyLabeledReplicas": workload.replicas},
    }
    return [deployment, replica_set]


def endpoint(manifest: Json) -> Json:
    """The endpoint of a pod in an EndpointSlice."""
    status = manifest["status"]
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))
    return {
        "addresses": [status["podIP"]],
        "conditions": {"ready": ready, "serving": ready, "terminating": False},
        "nodeName": manifest["spec"]["nodeName"],
        "targetRef": {
            "kind": "Pod",
            "namespace": manifest["metadata"]["namespace"],
            "name": manifest["metadata"]["name"],
            "uid": manifest["metadata"]["uid"],
        },
    }


def _service(app: str, index: int, pods: list[Json]) -> list[Json]:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta("Service", app, {"app": app}),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": f"10.96.0.{20 + index}",
            "clusterIPs": [f"10.96.0.{20 + index}"],
            "selector": {"app": app},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
            "sessionAffinity": "None",
        },
        "status": {"loadBalancer": {}},
    }
    labels = {
        "app": app,
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "kubernetes.io/service-name": app,
    }
    name = f"{app}-{spelled(app, 5)}"
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**_meta("EndpointSlice", name, labels), "ownerReferences": _owner("v1", "Service", app)},
        "addressType": "IPv4",
        "endpoints": [endpoint(manifest) for manifest in pods],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }
    return [service, endpoints]


def host(app: str) -> str:
    """The name clients call a service by."""
    return f"{app}.{NAMESPACE}.svc.cluster.local"


def _destination(app: str, subset: str) -> Json:
    return {"host": host(app), "subset": subset}


def _istio(kind: str, app: str, spec: Json) -> Json:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": kind,
        "metadata": _meta(kind, app, {"app": app}),
        "spec": spec,
    }


def _destination_rule(app: str, traffic_policy: Json) -> Json:
    subsets = [{"name": version, "labels": {"version": version}} for version in ("v1", "v2")]
    return _istio("DestinationRule", app, {"host": host(app), "trafficPolicy": traffic_policy, "subsets": subsets})


def _routes() -> list[Json]:
    payments = {
        "hosts": [host("payments")],
        "http": [
            {
                "name": "legacy",
                "match": [{"headers": {"x-client": {"exact": "legacy"}}}],
                "route": [{"destination": _destination("payments", "v1")}],
                "timeout": "10s",
            },
            {
                "name": "primary",
                "route": [
                    {
                        "destination": _destination("payments", "v1"),
                        "weight": 100,
                        "headers": {"response": {"set": {"x-served-by": "payments"}}},
                    },
                    {"destination": _destination("payments", "v2"), "weight": 0},
                ],
                "retries": {"attempts": 2, "perTryTimeout": "2s", "retryOn": "connect-failure,refused-stream"},
                "timeout": "5s",
            },
        ],
    }
    checkout = {
        "hosts": [host("checkout")],
        "http": [{"route": [{"destination": _destination("checkout", "v1")}]}],
    }
    return [
        _istio("VirtualService", "payments", payments),
        _istio("VirtualService", "checkout", checkout),
        _destination_rule("payments", {"connectionPool": {"http": {"http2MaxRequests": 1000}}}),
        _destination_rule("checkout", {"loadBalancer": {"simple": "LEAST_REQUEST"}}),
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": _meta("PeerAuthentication", "default"),
            "spec": {"mtls": {"mode": "STRICT"}},
        },
    ]


def empty() -> list[Json]:
    """What a cluster has before anyone uses it."""
    return [_namespace(name) for name in ("default", "kube-system", "kube-public", "kube-node-lease")]


def manifests() -> list[Json]:
    """The whole world."""
    world = [*empty(), _namespace("istio-system"), _namespace(NAMESPACE, {"istio-injection": "enabled"})]
    world += [node(name, index) for index, name in enumerate(NODES)]
    for index, app in enumerate(("payments", "checkout")):
        pods: list[Json] = []
        for workload in WORKLOADS:
            if workload.app == app:
                world += _owners(workload)
                pods += [pod(workload, number) for number in range(workload.replicas)]
        world += [*pods, *_service(app, index, pods)]
    return world + _routes()
