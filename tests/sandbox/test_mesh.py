"""The sandbox's mesh end to end: a route in the API server becomes Envoy's traffic and Istio's series."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.fixtures.mesh import VIRTUAL_SERVICES, MeshWorld

LABELS = {
    "reporter", "source_workload", "source_workload_namespace", "source_principal", "source_app", "source_version",
    "source_cluster", "destination_workload", "destination_workload_namespace", "destination_principal",
    "destination_app", "destination_version", "destination_service", "destination_service_name",
    "destination_service_namespace", "destination_cluster", "request_protocol", "response_code",
    "grpc_response_status", "response_flags", "connection_security_policy", "source_canonical_service",
    "source_canonical_revision", "destination_canonical_service", "destination_canonical_revision",
}  # fmt: skip
BUCKETS = [
    "0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000", "10000", "30000", "60000",
    "300000", "600000", "1800000", "3600000", "+Inf",
]  # fmt: skip


async def test_requests_are_split_as_the_weights_say(mesh_world: MeshWorld) -> None:
    """A patched weight is what Envoy does: the canary's share is within five standard errors of it."""
    await mesh_world.split("payments", 25)
    since = mesh_world.truth()["at"]
    told = await mesh_world.served("payments", "v2", 150, since)
    versions = told["services"]["payments"]
    total = versions["v1"]["total"] + versions["v2"]["total"]
    share = versions["v2"]["total"] / total
    assert abs(share - 0.25) < 5 * math.sqrt(0.25 * 0.75 / total)


async def test_a_subset_without_weight_gets_nothing(mesh_world: MeshWorld) -> None:
    """At the start no request goes to the canaries, neither with weight 0 nor when they are not in the route."""
    since = mesh_world.truth()["at"]
    for service in ("payments", "checkout"):
        told = await mesh_world.served(service, "v1", 100, since)
        assert told["services"][service]["v1"]["total"] >= 100
        assert mesh_world.requests(service=service, version="v2", after=since, by="start")["count"] == 0


async def test_the_exporter_says_what_envoy_counted(mesh_world: MeshWorld) -> None:
    """Every workload's destination-side total equals Envoy's own counter of completed requests of its cluster."""
    await mesh_world.split("payments", 40)
    since = mesh_world.truth()["at"]
    await mesh_world.served("payments", "v2", 50, since)
    mesh_world.faults(traffic={"payments": {"rate": 0}, "checkout": {"rate": 0}})
    admin = mesh_world.mesh.ready["envoy_admin"]

    def agree() -> bool:
        with urllib.request.urlopen(f"{admin}/stats?format=json&filter=upstream_rq_completed$") as answer:
            stats = {item["name"]: item["value"] for item in json.load(answer)["stats"] if "name" in item}
        for version in ("v1", "v2"):
            host = "payments.shop.svc.cluster.local"
            counted = stats[f"cluster.outbound|80|{version}|{host}.upstream_rq_completed"]
            labels = {"reporter": "destination", "destination_workload": f"payments-{version}"}
            if counted != sum(value for _, value in mesh_world.counts(**labels)):
                return False
        return True

    assert await mesh_world.eventually(agree)


async def test_series_have_exactly_istios_labels_and_buckets(mesh_world: MeshWorld) -> None:
    """A series has Istio's labels, no more and no fewer, and a histogram has Istio's bounds."""
    await mesh_world.eventually(lambda: mesh_world.counts(reporter="destination"))
    bounds: dict[Any, list[str]] = {}
    for name, labels, _ in mesh_world.metrics():
        if name == "istio_requests_total":
            assert set(labels) == LABELS
        elif name == "istio_request_duration_milliseconds_bucket":
            key = tuple(sorted((label, text) for label, text in labels.items() if label != "le"))
            bounds.setdefault(key, []).append(labels["le"])
    assert bounds
    assert all(found == BUCKETS for found in bounds.values())


async def test_buckets_hold_the_durations_that_envoy_logged(mesh_world: MeshWorld) -> None:
    """The source side's buckets are those of the exact durations, request by request, a slow version included."""
    await mesh_world.split("checkout", 50)
    mesh_world.faults(workloads={"checkout-v2": {"slow_ms": 120}})
    await mesh_world.served("checkout", "v2", 40, mesh_world.truth()["at"])
    mesh_world.faults(traffic={"payments": {"rate": 0}, "checkout": {"rate": 0}})

    def agree() -> bool:
        listed = mesh_world.requests(service="checkout", version="v2", code="200", details="1")["requests"]
        exact = {bound: sum(item["duration_ms"] <= float(bound) for item in listed) for bound in BUCKETS}
        told: dict[str, float] = dict.fromkeys(BUCKETS, 0.0)
        for name, labels, value in mesh_world.metrics():
            mine = labels.get("destination_workload") == "checkout-v2" and labels.get("reporter") == "source"
            if name == "istio_request_duration_milliseconds_bucket" and mine and labels["response_code"] == "200":
                told[labels["le"]] += value
        return len(listed) > 40 and told == exact

    assert await mesh_world.eventually(agree)


async def test_errors_are_born_with_their_first_count(mesh_world: MeshWorld) -> None:
    """A code's series does not exist before its first request, and both reporters then count the same errors."""
    await mesh_world.split("checkout", 50)
    await mesh_world.served("checkout", "v2", 20, mesh_world.truth()["at"])
    failing = {"destination_workload": "checkout-v2", "response_code": "418"}
    assert mesh_world.counts(**failing) == []
    mesh_world.faults(workloads={"checkout-v2": {"fail_percent": 50, "fail_code": 418}})
    first = await mesh_world.eventually(lambda: mesh_world.counts(**failing))
    assert all(value >= 1 for _, value in first)
    mesh_world.faults(traffic={"checkout": {"rate": 0}})

    def both_same() -> bool:
        by_reporter = {labels["reporter"]: value for labels, value in mesh_world.counts(**failing)}
        exact = mesh_world.requests(service="checkout", version="v2", code="418")["count"]
        return by_reporter == {"source": exact, "destination": exact}

    assert await mesh_world.eventually(both_same)


async def test_refused_connections_are_seen_by_the_source_only(mesh_world: MeshWorld) -> None:
    """A request that failed to connect keeps its workload, has version `unknown`, and never reached the other side."""
    mesh_world.faults(workloads={"payments-v2": {"refuse": True}})
    await mesh_world.split("payments", 50)
    refused = await mesh_world.eventually(
        lambda: [
            labels
            for labels, _ in mesh_world.counts(destination_workload="payments-v2", response_code="503")
            if "UF" in labels["response_flags"].split(",")
        ]
    )
    assert {labels["reporter"] for labels in refused} == {"source"}
    assert {labels["destination_version"] for labels in refused} == {"unknown"}
    assert {labels["destination_service_name"] for labels in refused} == {"payments"}
    mesh_world.faults(workloads={"payments-v2": None})
    await mesh_world.served("payments", "v2", 20, mesh_world.truth()["at"])
    after = mesh_world.truth()["at"]
    await mesh_world.served("payments", "v2", 20, after)
    assert mesh_world.requests(service="payments", version="v2", code="5xx", after=after, by="start")["count"] == 0


async def test_no_ready_pod_leaves_the_workload_unknown(mesh_world: MeshWorld) -> None:
    """Without a ready pod Envoy chooses no host: flag UH, and only the service is known."""
    await mesh_world.split("payments", 50)
    mesh_world.call("PUT", f"{mesh_world.kube.url}/_sandbox/workloads/shop/payments-v2", {"ready": 0})
    found = await mesh_world.eventually(lambda: mesh_world.counts(response_flags="UH"))
    for labels, _ in found:
        assert labels["reporter"] == "source"
        assert labels["destination_service"] == "payments.shop.svc.cluster.local"
        for name in ("destination_workload", "destination_workload_namespace", "destination_version"):
            assert labels[name] == "unknown"


async def test_hanging_requests_count_when_the_client_gives_up(mesh_world: MeshWorld) -> None:
    """A request without an answer is a 504 UT for the source and code 0 DC for the destination's proxy."""
    await mesh_world.split("payments", 50)
    mesh_world.faults(workloads={"payments-v2": {"hang_percent": 100}})
    source = await mesh_world.eventually(
        lambda: mesh_world.counts(reporter="source", destination_version="v2", response_flags="UT")
    )
    assert {labels["response_code"] for labels, _ in source} == {"504"}
    destination = await mesh_world.eventually(
        lambda: mesh_world.counts(reporter="destination", destination_version="v2", response_code="0")
    )
    assert {labels["response_flags"] for labels, _ in destination} == {"DC"}


async def test_an_unknown_subset_answers_503(mesh_world: MeshWorld) -> None:
    """Weight on a subset that no DestinationRule has is a 503 of Envoy's, with flag NC and no workload."""
    route = [
        {"destination": {"host": "checkout", "subset": "v1"}, "weight": 50},
        {"destination": {"host": "checkout", "subset": "v9"}, "weight": 50},
    ]
    await mesh_world.http("checkout", [{"route": route}])
    found = await mesh_world.eventually(lambda: mesh_world.counts(response_flags="NC"))
    assert {(labels["response_code"], labels["destination_workload"]) for labels, _ in found} == {("503", "unknown")}
    assert {labels["destination_service_name"] for labels, _ in found} == {"checkout"}


async def test_other_routes_of_the_same_service_keep_their_way(mesh_world: MeshWorld) -> None:
    """With all weight on v2, requests that match the legacy route still go to v1."""
    weights = [
        {"op": "replace", "path": "/spec/http/1/route/0/weight", "value": 0},
        {"op": "replace", "path": "/spec/http/1/route/1/weight", "value": 100},
    ]
    await mesh_world.patch("payments", weights, "json-patch")
    since = mesh_world.truth()["at"]
    await mesh_world.served("payments", "v2", 30, since)
    mesh_world.faults(traffic={"payments": {"headers": {"x-client": "legacy"}}})
    await mesh_world.served("payments", "v1", 60, mesh_world.truth()["at"])
    later = mesh_world.truth()["at"]
    await mesh_world.served("payments", "v1", 30, later)
    assert mesh_world.requests(service="payments", version="v2", after=later, by="start")["count"] == 0


async def test_steal_slows_a_few_requests_on_its_node_only(mesh_world: MeshWorld) -> None:
    """Steal on node-2 delays some requests of the pods there, few enough to leave the median, and none elsewhere."""
    await mesh_world.split("payments", 50)
    mesh_world.faults(steal={"node-2": 0.3})
    since = mesh_world.truth()["at"]
    told = await mesh_world.served("payments", "v2", 200, since)
    on_node_2, elsewhere = told["services"]["payments"]["v2"], told["services"]["payments"]["v1"]
    assert on_node_2["p99_ms"] > 60
    assert on_node_2["p50_ms"] < on_node_2["p99_ms"] / 3
    assert elsewhere["p50_ms"] < on_node_2["p99_ms"] / 3

    def steal_s(node: str) -> float:
        text: str = mesh_world.call("GET", mesh_world.mesh.ready["nodes"][node])
        return float(text.split('node_cpu_seconds_total{cpu="0",mode="steal"} ')[1].split(maxsplit=1)[0])

    assert steal_s("node-2") > 5 * steal_s("node-1")


async def test_a_gone_exporter_does_not_answer(mesh_world: MeshWorld) -> None:
    """`exporter_gone` cuts the connection of that node's exporter and of no other."""
    mesh_world.faults(exporter_gone=["node-2"])
    nodes = mesh_world.mesh.ready["nodes"]
    with pytest.raises((urllib.error.URLError, ConnectionError, OSError)):
        mesh_world.call("GET", nodes["node-2"])
    for mode in ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"):
        assert f'node_cpu_seconds_total{{cpu="1",mode="{mode}"}}' in mesh_world.call("GET", nodes["node-1"])


async def test_series_of_a_workload_vanish_with_its_pods(mesh_world: MeshWorld) -> None:
    """When a workload has no pod left, what its proxies counted is gone; what the client counted stays."""
    await mesh_world.split("payments", 50)
    await mesh_world.served("payments", "v2", 20, mesh_world.truth()["at"])
    await mesh_world.split("payments", 0)
    mesh_world.call("PUT", f"{mesh_world.kube.url}/_sandbox/workloads/shop/payments-v2", {"replicas": 0})
    mine = {"destination_workload": "payments-v2", "response_code": "200"}
    await mesh_world.eventually(lambda: not mesh_world.counts(reporter="destination", **mine))
    assert mesh_world.counts(reporter="source", **mine)


async def test_convergence_is_measured(mesh_world: MeshWorld) -> None:
    """Each change of routes that Envoy took is one observation of pilot_proxy_convergence_time."""

    def observed() -> float:
        return next(value for name, _, value in mesh_world.metrics() if name == "pilot_proxy_convergence_time_count")

    before = observed()
    await mesh_world.split("checkout", 10)
    await mesh_world.eventually(lambda: observed() > before)


async def test_a_wrong_fault_is_refused_and_changes_nothing(mesh_world: MeshWorld) -> None:
    """An unknown fault or a wrong value is a 400 that names it."""
    before = mesh_world.call("GET", f"{mesh_world.mesh.url}/_sandbox/faults")
    for change, named in (
        ({"workload": {}}, "workload"),
        ({"workloads": {"x": {"fail": 5}}}, "fail_percent"),
        ({"workloads": {"x": {"fail_percent": 500}}}, "workloads.x.fail_percent"),
        ({"steal": {"node-1": "much"}}, "steal.node-1"),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            mesh_world.faults(**change)
        assert refused.value.code == 400
        assert named in refused.value.read().decode()
        refused.value.close()
    assert mesh_world.call("GET", f"{mesh_world.mesh.url}/_sandbox/faults") == before


async def test_lost_watches_are_taken_up_again(mesh_world: MeshWorld) -> None:
    """After the API server cut all watches, the next change of weights still arrives."""
    mesh_world.call("PUT", f"{mesh_world.kube.url}/_sandbox/faults", {"drop_watches": True})
    mesh_world.call("DELETE", f"{mesh_world.kube.url}/_sandbox/faults")
    await mesh_world.split("checkout", 30)
    await mesh_world.served("checkout", "v2", 10, mesh_world.truth()["at"])


async def test_held_back_routes_leave_the_old_split(mesh_world: MeshWorld) -> None:
    """With `push_delay_s` the API server has the new weight and Envoy does not, as with slow proxies."""
    mesh_world.faults(push_delay_s=600)
    before = mesh_world.in_force("payments")
    path = f"{mesh_world.kube.url}{VIRTUAL_SERVICES}/payments"
    weights = [
        {"op": "replace", "path": "/spec/http/1/route/0/weight", "value": 0},
        {"op": "replace", "path": "/spec/http/1/route/1/weight", "value": 100},
    ]
    told = mesh_world.call("PATCH", path, weights, "application/json-patch+json")
    assert told["spec"]["http"][1]["route"][1]["weight"] == 100
    since = mesh_world.truth()["at"]
    await mesh_world.served("payments", "v1", 60, since)
    assert mesh_world.in_force("payments") == before
    assert mesh_world.requests(service="payments", version="v2", after=since, by="start")["count"] == 0
