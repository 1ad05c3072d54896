"""Hosts, mTLS levels, shadowing, and the settings of GitOps that leave weights alone."""

from typing import Any

import pytest

from bot.adapters.mesh import ownership, preflight
from bot.adapters.mesh.choosing import Steerable, chosen_object, nearest
from bot.adapters.mesh.hosts import covers, fqdn, service_of
from bot.adapters.mesh.virtualservice import places
from bot.ports.mesh import Finding, Severity, Wanted

Manifest = dict[str, Any]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("payments", "payments.shop.svc.cluster.local"),
        ("payments.bank", "payments.bank"),
        ("payments.bank.svc.cluster.local", "payments.bank.svc.cluster.local"),
        ("*", "*"),
        ("", ""),
    ],
)
def test_only_names_without_a_dot_are_short(host: str, expected: str) -> None:
    """Istio reads `payments.bank` as it stands."""
    assert fqdn(host, "shop") == expected


@pytest.mark.parametrize(
    ("pattern", "host", "expected"),
    [
        ("*", "a.b", True),
        ("a.b", "a.b", True),
        ("*.b", "a.b", True),
        ("*.b", "*.a.b", True),
        ("*.b", "b", False),
        ("*.b", "a.bb", False),
        ("a.b", "*.b", False),
    ],
)
def test_wildcards_cover_narrower_hosts(pattern: str, host: str, expected: bool) -> None:
    """A wildcard covers names below it, not its own stem."""
    assert covers(pattern, host) is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("payments.shop.svc.cluster.local", ("payments", "shop")),
        ("payments.shop", None),
        ("api.example.com", None),
        ("a.b.shop.svc.cluster.local", None),
    ],
)
def test_only_names_of_the_cluster_are_services(host: str, expected: tuple[str, str] | None) -> None:
    """Other hosts have no pods that could be weighed."""
    assert service_of(host) == expected


def policy(
    mode: str, *, namespace: str = "shop", labels: Manifest | None = None, ports: Manifest | None = None
) -> Manifest:
    spec: Manifest = {"mtls": {"mode": mode}} if mode else {}
    if labels:
        spec["selector"] = {"matchLabels": labels}
    if ports:
        spec["portLevelMtls"] = {port: {"mode": value} for port, value in ports.items()}
    return {"metadata": {"name": "p", "namespace": namespace}, "spec": spec}


V2 = {"app": "payments", "version": "v2"}


@pytest.mark.parametrize(
    ("policies", "port", "expected"),
    [
        ([], None, "PERMISSIVE"),
        ([policy("STRICT", namespace="istio-system")], None, "STRICT"),
        ([policy("STRICT", namespace="istio-system"), policy("DISABLE")], None, "DISABLE"),
        ([policy("STRICT", namespace="istio-system"), policy("UNSET")], None, "STRICT"),
        ([policy("STRICT"), policy("PERMISSIVE", labels={"version": "v2"})], None, "PERMISSIVE"),
        ([policy("STRICT"), policy("PERMISSIVE", labels={"version": "v1"})], None, "STRICT"),
        ([policy("STRICT"), policy("", labels={"version": "v2"}, ports={"8080": "DISABLE"})], 8080, "DISABLE"),
        ([policy("STRICT"), policy("", labels={"version": "v2"}, ports={"8080": "DISABLE"})], 9090, "STRICT"),
        ([policy("STRICT", namespace="istio-system", labels={"app": "payments"})], None, "PERMISSIVE"),
        ([policy("STRICT", namespace="bank")], None, "PERMISSIVE"),
    ],
)
def test_the_narrowest_mtls_setting_wins(policies: list[Manifest], port: int | None, expected: str) -> None:
    """Port over workload over namespace over mesh; UNSET inherits; a selector in the root namespace binds that only."""
    assert preflight.mtls_mode(policies, "shop", V2, port, "istio-system") == expected


@pytest.mark.parametrize(
    ("earlier", "later", "shadowed"),
    [
        (None, None, True),
        (None, [{"uri": {"prefix": "/api"}}], True),
        ([{"uri": {"prefix": "/"}}], [{"headers": {"x": {"exact": "1"}}}], True),
        ([{"uri": {"prefix": "/api"}}], [{"uri": {"prefix": "/api/v2"}}], True),
        ([{"uri": {"prefix": "/api"}}], [{"uri": {"exact": "/api/pay"}, "method": {"exact": "GET"}}], True),
        ([{"uri": {"prefix": "/api"}}], [{"uri": {"prefix": "/api"}}, {"uri": {"prefix": "/web"}}], False),
        ([{"uri": {"prefix": "/api"}}], None, False),
        ([{"headers": {"x": {"exact": "1"}}}], None, False),
        ([{"headers": {"x": {"exact": "1"}}}], [{"headers": {"x": {"exact": "1"}, "y": {"exact": "2"}}}], True),
        ([{"headers": {"x": {"exact": "1"}}}], [{"headers": {"x": {"regex": ".*"}}}], False),
        ([{"uri": {"regex": "/a.*"}}], [{"uri": {"prefix": "/api"}}], False),
        ([{"port": 80}], [{"port": 80, "uri": {"prefix": "/"}}], True),
        ([{"name": "label-only"}], [{"port": 80}], True),
    ],
)
def test_a_route_is_shadowed_when_an_earlier_one_takes_all_it_is_for(
    earlier: list[Manifest] | None, later: list[Manifest] | None, shadowed: bool
) -> None:
    """Certain shadowing is refused; where it cannot be told, the route counts as reached."""
    routes: list[Manifest] = []
    for match in (earlier, later):
        route: Manifest = {"route": [{"destination": {"host": "payments"}}]}
        routes.append({**route, "match": match} if match is not None else route)
    manifest = {"metadata": {"name": "vs", "namespace": "shop"}, "spec": {"http": routes}}
    finding = preflight.unshadowed(Steerable(manifest, places(manifest)[1], manifest))
    assert (finding.severity is Severity.REFUSE) is shadowed


def argo_verdict(ignore: Manifest, *, inserted: bool = False) -> Severity:
    """How the start fares with one entry of ignoreDifferences and RespectIgnoreDifferences."""
    entry = {"group": "networking.istio.io", "kind": "VirtualService", **ignore}
    application = {
        "spec": {
            "ignoreDifferences": [entry],
            "syncPolicy": {"syncOptions": ["CreateNamespace=true", "RespectIgnoreDifferences=true"]},
        }
    }
    manifest = {"metadata": {"name": "payments", "namespace": "shop"}}
    return ownership.reverted_by_argo(
        manifest, application, "app", protocol="http", index=1, inserted=inserted, field_manager="canary-bot"
    ).severity


@pytest.mark.parametrize(
    ("ignore", "fine", "fine_inserted"),
    [
        ({"jsonPointers": ["/spec/http"]}, True, True),
        ({"jsonPointers": ["/spec"]}, True, True),
        ({"jsonPointers": ["/spec/http/1/route"]}, True, True),
        ({"jsonPointers": ["/spec/http/0/route"]}, False, False),
        ({"jsonPointers": ["/spec/http/1/route/0/weight", "/spec/http/1/route/1/weight"]}, True, False),
        ({"jsonPointers": ["/spec/http/1/route/0/weight"]}, False, False),
        ({"jsonPointers": ["/spec/tcp"]}, False, False),
        ({"jsonPointers": ["/metadata/labels"]}, False, False),
        ({"jqPathExpressions": [".spec.http[].route[].weight"]}, True, False),
        ({"jqPathExpressions": [".spec.http[]?.route[]?.weight"]}, True, False),
        ({"jqPathExpressions": ['.spec.http[] | select(.name == "primary") | .route[].weight']}, True, False),
        ({"jqPathExpressions": [".spec.http[].route"]}, True, True),
        ({"jqPathExpressions": [".spec.http[0].route[].weight"]}, False, False),
        ({"jqPathExpressions": [".spec.http[].route[0].weight"]}, False, False),
        ({"jqPathExpressions": [".spec.http[].timeout"]}, False, False),
        ({"managedFieldsManagers": ["canary-bot"]}, True, True),
        ({"managedFieldsManagers": ["flagger"]}, False, False),
        ({"jsonPointers": ["/spec/http"], "name": "checkout"}, False, False),
        ({"jsonPointers": ["/spec/http"], "name": "payments", "namespace": "shop"}, True, True),
        ({"jsonPointers": ["/spec/http"], "namespace": "bank"}, False, False),
        ({"jsonPointers": ["/spec/http"], "group": "*", "kind": "*"}, True, True),
        ({"jsonPointers": ["/spec/http"], "kind": "DestinationRule"}, False, False),
    ],
)
def test_what_argo_must_ignore(ignore: Manifest, fine: bool, fine_inserted: bool) -> None:
    """Both weights of the steered route; the whole list of destinations where ours is put in."""
    assert (argo_verdict(ignore) is Severity.OK) is fine
    assert (argo_verdict(ignore, inserted=True) is Severity.OK) is fine_inserted


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (
            {"annotations": {ownership.ARGO_TRACKING: "app:networking.istio.io/VirtualService:shop/x"}},
            ("", "app", True),
        ),
        ({"annotations": {ownership.ARGO_TRACKING: "team_app:g/K:shop/x"}}, ("team", "app", True)),
        ({"labels": {"argocd.argoproj.io/instance": "app"}}, ("", "app", True)),
        ({"labels": {"app.kubernetes.io/instance": "app"}}, ("", "app", False)),
        ({}, None),
    ],
)
def test_how_argo_marks_what_it_owns(metadata: Manifest, expected: tuple[str, str, bool] | None) -> None:
    """Tracking by annotation (with the application's namespace) or by label."""
    assert ownership.argo_application({"metadata": metadata}) == expected


HELM = {"helm.toolkit.fluxcd.io/name": "shop", "helm.toolkit.fluxcd.io/namespace": "flux"}
KUSTOMIZE = {"kustomize.toolkit.fluxcd.io/name": "shop"}


@pytest.mark.parametrize(
    ("labels", "annotations", "kustomization", "release", "expected"),
    [
        ({}, {}, None, None, None),
        (KUSTOMIZE, {}, None, None, Severity.REFUSE),
        (KUSTOMIZE, {"kustomize.toolkit.fluxcd.io/reconcile": "disabled"}, None, None, Severity.OK),
        (KUSTOMIZE, {"kustomize.toolkit.fluxcd.io/ssa": "IfNotPresent"}, None, None, Severity.OK),
        (KUSTOMIZE, {"kustomize.toolkit.fluxcd.io/ssa": "Merge"}, None, None, Severity.REFUSE),
        (KUSTOMIZE, {}, {"spec": {"suspend": True}}, None, Severity.WARN),
        (HELM, {}, None, None, Severity.WARN),
        (HELM, {}, None, {"spec": {}}, Severity.OK),
        (HELM, {}, None, {"spec": {"driftDetection": {"mode": "warn"}}}, Severity.OK),
        (HELM, {}, None, {"spec": {"driftDetection": {"mode": "enabled"}}}, Severity.REFUSE),
        (
            HELM,
            {"helm.toolkit.fluxcd.io/driftDetection": "disabled"},
            None,
            {"spec": {"driftDetection": {"mode": "enabled"}}},
            Severity.OK,
        ),
    ],
)
def test_what_flux_would_revert(
    labels: Manifest,
    annotations: Manifest,
    kustomization: Manifest | None,
    release: Manifest | None,
    expected: Severity | None,
) -> None:
    """A Kustomization reverts unless the object opts out; a HelmRelease only when it corrects drift."""
    manifest = {"metadata": {"name": "payments", "labels": labels, "annotations": annotations}}
    finding = ownership.reverted_by_flux(manifest, kustomization, release)
    assert (finding.severity if finding else None) == expected


def test_a_service_in_two_namespaces_must_be_told_apart() -> None:
    """The way on names the word to add."""
    manifests = [
        {"metadata": {"name": "payments", "namespace": namespace, "uid": namespace}, "spec": {}}
        for namespace in ("bank", "shop")
    ]
    finding = chosen_object(manifests, Wanted("payments"))
    assert isinstance(finding, Finding)
    assert "`in <namespace>`" in finding.way_on
    assert chosen_object(manifests, Wanted("payments", namespace="shop")) is manifests[1]


def test_a_service_is_found_by_the_hosts_of_its_virtualservice() -> None:
    """The object need not have the service's name."""
    manifest = {"metadata": {"name": "routes", "namespace": "shop"}, "spec": {"hosts": ["payments"]}}
    assert chosen_object([manifest], Wanted("payments")) is manifest


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("v22", ["v1", "v2"], "did you mean v2?"),
        ("zzz", ["alpha", "beta"], "there is alpha and beta"),
        ("zzz", [], ""),
    ],
)
def test_nearest_names_are_offered_else_all(name: str, known: list[str], expected: str) -> None:
    """Never an empty question."""
    assert nearest(name, known) == expected
