"""Translation of Istio's objects to Envoy's, and of Envoy's log lines to Istio's labels: the pure parts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bot.sandbox.mesh.ledger import Ledger, quantile_ms
from bot.sandbox.mesh.nodes import Nodes
from bot.sandbox.mesh.routes import ClusterOf, World, seconds, translation
from bot.sandbox.mesh.workloads import PodOf, pod_of

HOST = "payments.shop.svc.cluster.local"
V1, V2 = f"outbound|80|v1|{HOST}", f"outbound|80|v2|{HOST}"
POD = PodOf("shop", "payments-v2-h-1", "payments-v2", "payments", "v2", "node-2", "payments")


def named(name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "shop", "name": name, **metadata}, "spec": spec}


def pod(version: str, ready: str = "True", **metadata: Any) -> dict[str, Any]:
    owner = {"kind": "ReplicaSet", "name": f"payments-{version}-abc"}
    labels = {"app": "payments", "version": version, "pod-template-hash": "abc"}
    manifest = named(f"payments-{version}-abc-1", {"nodeName": "node-2"}, labels=labels, ownerReferences=[owner])
    return {**manifest, "status": {"conditions": [{"type": "Ready", "status": ready}]}, "metadata": {
        **manifest["metadata"], **metadata}}  # fmt: skip


def to(subset: str, **more: Any) -> dict[str, Any]:
    return {"destination": {"host": "payments", "subset": subset}, **more}


def world(http: list[dict[str, Any]], pods: list[dict[str, Any]] | None = None, **spec: Any) -> World:
    subsets = [{"name": name, "labels": {"version": name}} for name in ("v1", "v2")]
    return World(
        [named("payments", {"hosts": ["payments"], "http": http, **spec})],
        [named("payments", {"host": "payments", "subsets": subsets})],
        [named("payments", {"selector": {"app": "payments"}, "ports": [{"port": 80}]})],
        pods if pods is not None else [pod("v1"), pod("v2")],
    )


def routes(given: World) -> list[dict[str, Any]]:
    hosts = translation(given, lambda _pod: ("127.0.0.1", 1)).virtual_hosts
    assert [host["domains"][0] for host in hosts] == [HOST]
    return hosts[0]["routes"]


def test_weights_become_weighted_clusters() -> None:
    """Each weighted destination is a cluster named as istiod names it, with its weight."""
    (route,) = routes(world([{"route": [to("v1", weight=95), to("v2", weight=5)]}]))
    assert route["route"]["weighted_clusters"] == {"clusters": [{"name": V1, "weight": 95}, {"name": V2, "weight": 5}]}


def test_a_single_destination_needs_no_weight() -> None:
    """One destination without a weight gets everything; so does one with weight 0, as in Istio."""
    for single in (to("v1"), to("v1", weight=0)):
        (route,) = routes(world([{"route": [single]}]))
        assert route["route"]["cluster"] == V1


def test_timeouts_and_retries_are_istios() -> None:
    """A route's own timeout and retries count; without them there is no timeout, and two retries of connections."""
    retries = {"attempts": 3, "perTryTimeout": "250ms", "retryOn": "5xx,503"}
    own, default, none = routes(
        world(
            [
                {"route": [to("v1")], "timeout": "1.5s", "retries": retries},
                {"route": [to("v1")]},
                {"route": [to("v1")], "retries": {"attempts": 0}},
            ]
        )
    )
    assert own["route"]["timeout"] == "1.5s"
    assert own["route"]["retry_policy"] == {
        "num_retries": 3,
        "per_try_timeout": "0.25s",
        "retry_on": "5xx,retriable-status-codes",
        "retriable_status_codes": [503],
    }
    assert default["route"]["timeout"] == "0s"
    assert default["route"]["retry_policy"]["num_retries"] == 2
    assert "retry_policy" not in none["route"]


def test_matches_are_translated() -> None:
    """Every kind of match that is honoured has Envoy's form; one for other clients or gateways is left out."""
    match = [
        {"uri": {"prefix": "/a"}, "headers": {"x-team": {"exact": "blue"}}, "method": {"exact": "GET"}},
        {"uri": {"regex": "/b/.*"}, "withoutHeaders": {"x-old": {}}, "queryParams": {"q": {"exact": "1"}}},
        {"sourceLabels": {"app": "somebody-else"}},
        {"gateways": ["istio-system/public"]},
        {"port": 8443},
    ]
    first, second = routes(world([{"match": match, "route": [to("v1")]}]))
    assert first["match"] == {
        "prefix": "/a",
        "headers": [
            {"name": ":method", "string_match": {"exact": "GET"}},
            {"name": "x-team", "string_match": {"exact": "blue"}},
        ],
    }
    assert second["match"] == {
        "safe_regex": {"regex": "/b/.*"},
        "headers": [{"name": "x-old", "present_match": True, "invert_match": True}],
        "query_parameters": [{"name": "q", "string_match": {"exact": "1"}}],
    }


def test_a_delegate_brings_its_routes_under_the_parents_match() -> None:
    """A delegated route has the delegate's destinations and both matches."""
    parent = {"match": [{"uri": {"prefix": "/p"}}], "delegate": {"name": "inner", "namespace": "shop"}}
    given = world([parent])
    inner = named("inner", {"http": [{"match": [{"method": {"exact": "PUT"}}], "route": [to("v2")]}]})
    (route,) = routes(World([*given.virtual_services, inner], given.destination_rules, given.services, given.pods))
    assert route["match"]["prefix"] == "/p"
    assert route["match"]["headers"] == [{"name": ":method", "string_match": {"exact": "PUT"}}]
    assert route["route"]["cluster"] == V2


def test_a_virtual_service_of_a_gateway_is_not_for_sidecars() -> None:
    """Without the `mesh` gateway the client's sidecar uses the service itself."""
    (route,) = routes(world([{"route": [to("v2")]}], gateways=["public"]))
    assert route["route"]["cluster"] == f"outbound|80||{HOST}"


def test_only_ready_pods_of_the_subset_are_endpoints() -> None:
    """A cluster's endpoints are the ready pods with its labels that are not being deleted."""
    pods = [pod("v1"), pod("v2", ready="False"), pod("v1", name="gone", deletionTimestamp="2026-01-01T00:00:00Z")]
    result = translation(world([], pods), lambda item: ("127.0.0.1", 1 + len(item["metadata"]["name"])))
    endpoints = {
        cluster["name"]: len(cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]) for cluster in result.clusters
    }
    assert endpoints == {f"outbound|80||{HOST}": 1, V1: 1, V2: 0}
    assert result.meaning[V2] == ClusterOf(HOST, "payments", "shop", "v2", {"version": "v2"})


@pytest.mark.parametrize(
    ("text", "expected"), [("10s", 10), ("1m30s", 90), ("250ms", 0.25), ("1h", 3600), ("1.5s", 1.5)]
)
def test_durations_are_read(text: str, expected: float) -> None:
    """Durations as Istio writes them, in seconds."""
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "10", "s", "10s!", "-1s"])
def test_a_wrong_duration_is_refused(text: str) -> None:
    """What is not a duration raises and names it."""
    with pytest.raises(ValueError, match="not a duration"):
        seconds(text)


def test_a_pods_workload_is_its_deployment() -> None:
    """The template hash is cut off the ReplicaSet's name; a bare pod is its own workload."""
    assert pod_of(pod("v2")).workload == "payments-v2"
    assert pod_of(named("alone", {})).workload == "alone"


def line(**changes: Any) -> bytes:
    entry = {
        "side": "source", "code": 200, "flags": "-", "cluster": V2, "host": "127.0.0.1:9", "authority": HOST,
        "content_type": None, "grpc": None, "start_s": "100.0", "duration_us": 4000, "duration_ms": 4,
    }  # fmt: skip
    return json.dumps({**entry, **changes}).encode()


def ledger(*lines: bytes) -> Ledger:
    meaning = {V2: ClusterOf(HOST, "payments", "shop", "v2", {"version": "v2"})}
    book = Ledger(meaning, {("127.0.0.1", 9): POD}.get)
    for item in lines:
        book.feed(item)
    book.drain()
    return book


def only(book: Ledger) -> dict[str, str]:
    (key,) = book.series()
    return dict(key)


def test_a_retried_connection_failure_keeps_both_flags() -> None:
    """Flags are a list as Envoy writes it; the workload is known, the version is not, but the truth knows it."""
    book = ledger(line(code=503, flags="URX,UF"))
    labels = only(book)
    assert labels["response_flags"] == "URX,UF"
    assert (labels["destination_workload"], labels["destination_version"]) == ("payments-v2", "unknown")
    assert book.totals() == {"payments": {"v2": {"total": 1, "codes": {"503": 1}}}}


def test_an_attempt_that_never_connected_is_not_at_the_destination() -> None:
    """The server's proxy has no series for a refused connection."""
    assert not ledger(line(side="destination", code=0, flags="UF", duration_us=None)).series()


def test_a_server_that_hangs_up_is_a_503_uc_at_its_proxy() -> None:
    """A connection closed by the program, before an answer, is the program's fault on the destination side too."""
    labels = only(ledger(line(side="destination", code=0, flags="UC", duration_us=None)))
    assert (labels["response_code"], labels["response_flags"]) == ("503", "UC")


def test_grpc_has_its_own_status() -> None:
    """A gRPC request on HTTP 200 carries its status and protocol; a plain one has an empty status."""
    labels = only(ledger(line(content_type="application/grpc+proto", grpc=14)))
    assert (labels["request_protocol"], labels["grpc_response_status"], labels["response_code"]) == (
        "grpc",
        "14",
        "200",
    )
    labels = only(ledger(line()))
    assert (labels["request_protocol"], labels["grpc_response_status"]) == ("http", "")


def test_only_the_destination_side_knows_the_policy() -> None:
    """connection_security_policy is `mutual_tls` at the destination and `unknown` at the source."""
    assert only(ledger(line()))["connection_security_policy"] == "unknown"
    assert only(ledger(line(side="destination")))["connection_security_policy"] == "mutual_tls"


def test_requests_are_found_by_when_they_finished() -> None:
    """Bounds are on the finish, after exclusive and before inclusive, or on the start when asked; codes by class."""
    book = ledger(
        line(start_s="100.0", duration_us=1_000_000, code=500),
        line(start_s="100.5", duration_us=1_000_000, code=503),
        line(start_s="102.0", duration_us=1_000_000),
    )
    assert [item.code for item in book.requests(after_s=101.0)] == [503, 200]
    assert [item.code for item in book.requests(before_s=101.5)] == [500, 503]
    assert [item.code for item in book.requests(after_s=101.0, by_start=True)] == [200]
    assert [item.code for item in book.requests(code="5xx", version="v2", service="payments")] == [500, 503]
    assert book.requests(code="500", version="v1") == []


def test_an_unreadable_line_is_counted_not_swallowed() -> None:
    """A line that is not JSON changes no count but is known of."""
    book = ledger(b"what?\n")
    assert not book.series()
    assert book.unreadable_lines == 1


def test_quantiles_are_by_nearest_rank() -> None:
    """The exact quantile is an observed duration, and none without requests."""
    found = ledger(*(line(duration_us=1000 * number) for number in range(1, 101))).requests()
    assert quantile_ms(found, 0.5) == 50
    assert quantile_ms(found, 0.99) == 99
    assert quantile_ms([], 0.5) is None


def test_cpu_time_adds_up() -> None:
    """On every CPU all modes together grow by the time that passed, and steal by its share."""
    import random

    nodes = Nodes(0.0, random.Random(1))
    nodes.advance_to(1000.0, {}, {})
    nodes.advance_to(1100.0, {"node-2": 0.5}, {"node-2": 0.9})

    def cpu_s(node: str) -> dict[str, float]:
        page = nodes.text(node)
        assert page is not None
        rows = [row for row in page.splitlines() if row.startswith('node_cpu_seconds_total{cpu="0"')]
        return {row.split('mode="')[1].split('"', maxsplit=1)[0]: float(row.rpartition(" ")[2]) for row in rows}

    for name in ("node-1", "node-2"):
        assert sum(cpu_s(name).values()) == pytest.approx(100.0)
    assert cpu_s("node-2")["steal"] == pytest.approx(50.0, abs=0.5)
    assert cpu_s("node-1")["steal"] < 0.5
