"""Istio's VirtualServices and DestinationRules as Envoy's routes and clusters, the way istiod translates them.

Pure. Honoured: hosts, `mesh` gateway, matches (uri, headers, withoutHeaders, method, queryParams, sourceLabels, port),
weights, subsets, timeout, retries with Istio's defaults, redirect, directResponse, delegates, mirror. Not: faults,
rewrites, header operations, outlier detection, and tcp and tls routes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Manifest = Mapping[str, Any]
Address = tuple[str, int]

_TYPE = "type.googleapis.com/envoy."
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DEFAULT_RETRIES: Mapping[str, Any] = {"attempts": 2, "retryOn": "connect-failure,refused-stream,unavailable,cancelled"}
_CLIENT_LABELS = {"app": "loadgen"}
_NO_LIMIT = 4294967295


@dataclass(frozen=True, slots=True)
class World:
    """What the API server holds of the objects that make up a mesh."""

    virtual_services: Sequence[Manifest] = ()
    destination_rules: Sequence[Manifest] = ()
    services: Sequence[Manifest] = ()
    pods: Sequence[Manifest] = ()


@dataclass(frozen=True, slots=True)
class ClusterOf:
    """What an Envoy cluster stands for: a service and the labels that its subset selects on."""

    host: str
    service: str
    namespace: str
    subset: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Translation:
    """Envoy's clusters and virtual hosts, and what each cluster stands for, by its name."""

    clusters: list[dict[str, Any]]
    virtual_hosts: list[dict[str, Any]]
    meaning: Mapping[str, ClusterOf]


def is_ready(pod: Manifest) -> bool:
    """Whether a pod may get requests: its condition Ready is True and it is not being deleted."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(item.get("type") == "Ready" and item.get("status") == "True" for item in conditions)


def full_host(host: str, namespace: str) -> str:
    """Return a service's full name for a host as written in an object of `namespace`."""
    return host if "." in host else f"{host}.{namespace}.svc.cluster.local"


def seconds(duration: str) -> float:
    """Read a duration of Istio's, as in `1m30s` or `250ms`.

    Raises:
        ValueError: it is not one.
    """
    parts = _DURATION_PART.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise ValueError(f"not a duration: {duration!r}")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def translation(world: World, address_of: Callable[[Manifest], Address | None]) -> Translation:
    """Translate the world; `address_of` says where a pod listens, or None when it does not yet."""
    clusters: list[dict[str, Any]] = []
    meaning: dict[str, ClusterOf] = {}
    hosts: dict[str, list[int]] = {}
    rules = _rules_by_host(world.destination_rules)
    for service in sorted(world.services, key=_identity):
        namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
        host = full_host(name, namespace)
        ports = [int(port["port"]) for port in service["spec"].get("ports") or []]
        hosts[host] = ports
        selector = service["spec"].get("selector") or {}
        pods = [pod for pod in world.pods if pod["metadata"]["namespace"] == namespace and _has(pod, selector)]
        ready = [pod for pod in pods if selector and is_ready(pod)]
        for port in ports:
            for subset, labels in {"": {}, **rules.get(host, {})}.items():
                cluster_name = f"outbound|{port}|{subset}|{host}"
                addresses = [address for pod in ready if _has(pod, labels) and (address := address_of(pod)) is not None]
                clusters.append(_cluster(cluster_name, sorted(addresses)))
                meaning[cluster_name] = ClusterOf(host, name, namespace, subset, labels)
    return Translation(clusters, _virtual_hosts(world.virtual_services, hosts), meaning)


def _virtual_hosts(virtual_services: Sequence[Manifest], hosts: Mapping[str, list[int]]) -> list[dict[str, Any]]:
    written: dict[str, dict[str, Any]] = {}
    by_name = {_identity(item): item for item in virtual_services}
    oldest_first = sorted(
        virtual_services, key=lambda item: (item["metadata"].get("creationTimestamp", ""), *_identity(item))
    )
    for item in oldest_first:
        spec, namespace = item["spec"], item["metadata"]["namespace"]
        if "mesh" not in (spec.get("gateways") or ["mesh"]):
            continue
        for host in spec.get("hosts") or []:
            full = full_host(host, namespace)
            if full not in written:
                routes = [
                    route
                    for rule in _without_delegates(spec.get("http") or [], namespace, by_name)
                    for route in _routes(rule, hosts)
                ]
                written[full] = _virtual_host(full, routes)
    for host, ports in hosts.items():
        if host not in written and ports:
            route = {"match": {"prefix": "/"}, "route": {"cluster": f"outbound|{ports[0]}||{host}", "timeout": "0s"}}
            written[host] = _virtual_host(host, [route])
    return [written[host] for host in sorted(written)]


def _without_delegates(
    rules: Iterable[Manifest], namespace: str, by_name: Mapping[tuple[str, str], Manifest]
) -> Iterable[tuple[Manifest, str]]:
    for rule in rules:
        delegate = rule.get("delegate")
        if not delegate:
            yield rule, namespace
            continue
        place = delegate.get("namespace") or namespace
        target = by_name.get((place, delegate["name"]))
        for inner in (target["spec"].get("http") or []) if target else []:
            outer_matches, inner_matches = rule.get("match") or [{}], inner.get("match") or [{}]
            merged = [{**outer, **own} for outer in outer_matches for own in inner_matches]
            yield {**inner, "match": [match for match in merged if match]}, place


def _virtual_host(host: str, routes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": f"{host}:80",
        "domains": [host, f"{host}:*"],
        "routes": routes,
        "include_request_attempt_count": True,
    }


def _routes(rule_and_namespace: tuple[Manifest, str], hosts: Mapping[str, list[int]]) -> Iterable[dict[str, Any]]:
    rule, namespace = rule_and_namespace
    action = _action(rule, namespace, hosts)
    for match in rule.get("match") or [{}]:
        envoy_match = _match(match)
        if envoy_match is not None:
            yield {"name": rule.get("name", ""), "match": envoy_match, **action}


def _action(rule: Manifest, namespace: str, hosts: Mapping[str, list[int]]) -> dict[str, Any]:
    if direct := rule.get("directResponse"):
        return {"direct_response": {"status": direct["status"]}}
    if redirect := rule.get("redirect"):
        target: dict[str, Any] = {}
        if redirect.get("authority"):
            target["host_redirect"] = redirect["authority"]
        if redirect.get("uri"):
            target["path_redirect"] = redirect["uri"]
        return {"redirect": target}
    destinations = rule.get("route") or []
    if not destinations:
        return {"direct_response": {"status": 503}}
    timeout_s = seconds(rule["timeout"]) if rule.get("timeout") else 0.0
    route: dict[str, Any] = {"timeout": f"{timeout_s:g}s"}
    if retry := _retry_policy(rule.get("retries")):
        route["retry_policy"] = retry
    if mirror := rule.get("mirror"):
        percent = (rule.get("mirrorPercentage") or {}).get("value", 100)
        fraction = {"numerator": int(percent * 10_000), "denominator": "MILLION"}
        route["request_mirror_policies"] = [
            {"cluster": _cluster_name(mirror, namespace, hosts), "runtime_fraction": {"default_value": fraction}}
        ]
    if len(destinations) == 1:
        return {"route": {**route, "cluster": _cluster_name(destinations[0]["destination"], namespace, hosts)}}
    weights = [int(item.get("weight", 0)) for item in destinations]
    weighted = [
        {"name": _cluster_name(item["destination"], namespace, hosts), "weight": weight}
        for item, weight in zip(destinations, weights, strict=True)
    ]
    if sum(weights) == 0:
        return {"direct_response": {"status": 503}}
    return {"route": {**route, "weighted_clusters": {"clusters": weighted}}}


def _cluster_name(destination: Manifest, namespace: str, hosts: Mapping[str, list[int]]) -> str:
    host = full_host(destination["host"], namespace)
    port = (destination.get("port") or {}).get("number") or next(iter(hosts.get(host, [])), 80)
    return f"outbound|{port}|{destination.get('subset', '')}|{host}"


def _retry_policy(retries: Manifest | None) -> dict[str, Any] | None:
    wanted: dict[str, Any] = {**_DEFAULT_RETRIES, **(retries or {})}
    if int(wanted["attempts"]) == 0:
        return None
    policy: dict[str, Any] = {"num_retries": int(wanted["attempts"])}
    words = [word.strip() for word in str(wanted["retryOn"]).split(",") if word.strip()]
    codes = [int(word) for word in words if word.isdigit()]
    if codes:
        policy["retriable_status_codes"] = codes
        words.append("retriable-status-codes")
    policy["retry_on"] = ",".join(word for word in words if not word.isdigit())
    if wanted.get("perTryTimeout"):
        policy["per_try_timeout"] = f"{seconds(wanted['perTryTimeout']):g}s"
    return policy


def _match(match: Manifest) -> dict[str, Any] | None:
    """Return Envoy's match, or None when the client's sidecar would never get this one."""
    labels = match.get("sourceLabels") or {}
    if any(_CLIENT_LABELS.get(name) != value for name, value in labels.items()):
        return None
    if match.get("gateways") and "mesh" not in match["gateways"]:
        return None
    if int(match.get("port", 80)) != 80:
        return None
    envoy: dict[str, Any] = {"prefix": "/"}
    headers: list[dict[str, Any]] = []
    if uri := match.get("uri"):
        key = next(iter(uri))
        if key == "regex":
            envoy = {"safe_regex": {"regex": uri["regex"]}}
        else:
            envoy = {"path" if key == "exact" else "prefix": uri[key]}
    if method := match.get("method"):
        headers.append({"name": ":method", "string_match": _string_match(method)})
    for name, wanted in (match.get("headers") or {}).items():
        headers.append(_header(name, wanted))
    for name, wanted in (match.get("withoutHeaders") or {}).items():
        headers.append({**_header(name, wanted), "invert_match": True})
    if headers:
        envoy["headers"] = headers
    if parameters := match.get("queryParams"):
        envoy["query_parameters"] = [
            {"name": name, "string_match": _string_match(wanted)} for name, wanted in parameters.items()
        ]
    return envoy


def _header(name: str, wanted: Manifest) -> dict[str, Any]:
    return {"name": name, "string_match": _string_match(wanted)} if wanted else {"name": name, "present_match": True}


def _string_match(wanted: Manifest) -> dict[str, Any]:
    kind, value = next(iter(wanted.items()))
    return {"safe_regex": {"regex": value}} if kind == "regex" else {kind: value}


def _cluster(name: str, addresses: Sequence[Address]) -> dict[str, Any]:
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}} for host, port in addresses
    ]
    limits = {key: _NO_LIMIT for key in ("max_connections", "max_pending_requests", "max_requests", "max_retries")}
    return {
        "@type": f"{_TYPE}config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    }


def _rules_by_host(rules: Sequence[Manifest]) -> dict[str, dict[str, Mapping[str, str]]]:
    subsets: dict[str, dict[str, Mapping[str, str]]] = {}
    for rule in sorted(rules, key=_identity):
        host = full_host(rule["spec"]["host"], rule["metadata"]["namespace"])
        for subset in rule["spec"].get("subsets") or []:
            subsets.setdefault(host, {}).setdefault(subset["name"], subset.get("labels") or {})
    return subsets


def _has(pod: Manifest, labels: Mapping[str, str]) -> bool:
    own = pod["metadata"].get("labels") or {}
    return all(own.get(name) == value for name, value in labels.items())


def _identity(manifest: Manifest) -> tuple[str, str]:
    return manifest["metadata"]["namespace"], manifest["metadata"]["name"]
