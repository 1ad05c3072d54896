"""The permissions that the chart gives are the ones that the code uses, no more and no fewer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.chart.rendering import CHART, NAMESPACE, template

Rules = set[tuple[str, str, str]]

NODES: Rules = {("", "nodes", verb) for verb in ("get", "list", "watch")}
"""What the node watch reads; it is not a router's and so not in its table."""


def flat(rules: list[dict[str, Any]]) -> Rules:
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def router_rules() -> Rules:
    from bot.adapters.mesh import istio

    return {(group, resource, verb) for group, resource, verbs in istio.RBAC_RULES for verb in verbs}


def roles(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [item for item in objects if item["kind"] == kind]


def test_without_namespaces_the_cluster_role_is_the_routers_table_and_says_why(tmp_path: Path) -> None:
    """All cluster roles together grant exactly the router's table and the reading of nodes, each with its reason."""
    objects = template(CHART / "ci" / "default-values.yaml", home=tmp_path)
    granted = roles(objects, "ClusterRole")
    assert set().union(*(flat(role["rules"]) for role in granted)) == router_rules() | NODES
    assert all(role["metadata"]["annotations"]["canary-bot/reason"] for role in granted)
    assert roles(objects, "Role") == []


def test_with_namespaces_each_gets_the_routers_table_and_nothing_is_cluster_wide_but_nodes(tmp_path: Path) -> None:
    """Steered namespaces get the whole table, the mesh's and GitOps' namespaces only reading."""
    objects = template(CHART / "ci" / "namespaces-values.yaml", home=tmp_path)
    granted = {role["metadata"]["namespace"]: flat(role["rules"]) for role in roles(objects, "Role")}
    assert granted.keys() == {"shop", "search", "istio-system", "argocd"}
    assert granted["shop"] == granted["search"] == router_rules()
    read_only = granted["istio-system"] | granted["argocd"]
    assert read_only < router_rules()
    assert {verb for _, _, verb in read_only} == {"get", "list"}
    (cluster_role,) = roles(objects, "ClusterRole")
    assert flat(cluster_role["rules"]) == NODES


def test_weights_are_the_only_thing_that_may_be_written(tmp_path: Path) -> None:
    """Patch on VirtualServices is the one writing verb, and no wildcard or Secret is anywhere."""
    objects = template(CHART / "ci" / "default-values.yaml", home=tmp_path)
    granted = set().union(*(flat(role["rules"]) for role in roles(objects, "ClusterRole")))
    writing = {rule for rule in granted if rule[2] not in ("get", "list", "watch")}
    assert writing == {("networking.istio.io", "virtualservices", "patch")}
    assert all("*" not in rule and rule[1] != "secrets" for rule in granted)


def test_every_binding_binds_a_role_that_is_there_to_the_bots_account(tmp_path: Path) -> None:
    """No binding points at a missing role, and every role is bound to the account the pods run as."""
    for values in ("default-values.yaml", "namespaces-values.yaml"):
        objects = template(CHART / "ci" / values, home=tmp_path)
        (account,) = roles(objects, "ServiceAccount")
        made = {
            (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"])
            for item in objects
            if item["kind"] in ("Role", "ClusterRole")
        }
        bound = set()
        for binding in roles(objects, "RoleBinding") + roles(objects, "ClusterRoleBinding"):
            reference = binding["roleRef"]
            bound.add((reference["kind"], binding["metadata"].get("namespace"), reference["name"]))
            (subject,) = binding["subjects"]
            assert (subject["name"], subject["namespace"]) == (account["metadata"]["name"], NAMESPACE)
        assert bound == made
