"""Preflight at an API server: every item is told with the way on, and only what must stop a start refuses it."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from kubernetes.aio import client

from bot.adapters.kubernetes import Kube, path
from bot.adapters.mesh.istio import IstioMesh
from bot.ports.mesh import Finding, Severity, Survey, Wanted
from tests.fixtures.kube import KubeServer

HOST = "payments.shop.svc.cluster.local"
Manifest = dict[str, Any]


class Cluster:
    """The sandbox's world and hands to change it."""

    def __init__(self, server: KubeServer, kube: Kube) -> None:
        self.server, self.kube = server, kube
        self.mesh = IstioMesh(kube, ("shop",))

    async def change(self, kind: str, name: str, change: Callable[[Manifest], Any]) -> None:
        """Load an object as it would be after `change`."""
        group, version, resource = KINDS[kind]
        manifest = await self.kube.get(path(group, version, resource, "shop", name))
        change(manifest)
        self.server.load([manifest])

    async def survey(self, wanted: Wanted | None = None, first: int = 5) -> Survey:
        """Survey payments, or what is wanted."""
        return await self.mesh.survey(wanted or Wanted("payments"), first)


KINDS = {
    "VirtualService": ("networking.istio.io", "v1", "virtualservices"),
    "DestinationRule": ("networking.istio.io", "v1", "destinationrules"),
    "Service": ("", "v1", "services"),
}


@pytest_asyncio.fixture
async def cluster(kube_server: KubeServer) -> AsyncIterator[Cluster]:
    kube_server.reset()
    kube = Kube(client.ApiClient(kube_server.configuration()))
    yield Cluster(kube_server, kube)
    await kube.close()


def item(survey: Survey, name: str) -> Finding:
    """The finding of one item; a worse one first."""
    order = (Severity.REFUSE, Severity.WARN, Severity.OK)
    found = sorted((one for one in survey.findings if one.item == name), key=lambda one: order.index(one.severity))
    assert found, [one.item for one in survey.findings]
    return found[0]


def refusal(survey: Survey, name: str) -> str:
    """Text and way on of a refused item."""
    finding = item(survey, name)
    assert finding.severity is Severity.REFUSE, finding
    assert finding.way_on
    return f"{finding.text} | {finding.way_on}"


def warning(survey: Survey, name: str) -> str:
    """Text and way on of an item that warns; nothing is refused."""
    finding = item(survey, name)
    assert finding.severity is Severity.WARN, finding
    assert survey.refusals == ()
    return f"{finding.text} | {finding.way_on}"


def primary(manifest: Manifest) -> Manifest:
    found: Manifest = manifest["spec"]["http"][1]
    return found


def object_of(
    kind: str, name: str, spec: Manifest, *, api: str = "networking.istio.io/v1", **metadata: Any
) -> Manifest:
    namespace = metadata.pop("namespace", "shop")
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": spec,
    }


async def test_everything_in_order_fills_the_target(cluster: Cluster) -> None:
    """The world as seeded: nothing refused, both sides with workload, version and selector, the canary pinned."""
    survey = await cluster.survey()
    assert survey.refusals == ()
    assert {finding.item for finding in survey.findings} == {
        "route", "rollout", "weights", "destinations", "pods", "shadowing", "hosts", "paths", "owner", "gitops",
        "permission", "mtls", "sidecars", "dry-run",
    }  # fmt: skip
    target = survey.target
    assert target is not None
    assert (target.host, target.route.route, target.canary_inserted, survey.start_weight) == (HOST, "primary", False, 0)
    assert (target.stable.label, target.stable.workloads, target.stable.version) == ("v1", ("payments-v1",), "v1")
    assert target.canary.selector == (("app", "payments"), ("version", "v2"))
    assert "/" in target.fingerprint


async def test_the_fingerprint_changes_with_a_redeployment_only(cluster: Cluster) -> None:
    """Scaling the canary keeps it, another image changes it."""
    first = (await cluster.survey()).target
    cluster.server.put_workload("shop", "payments-v2", replicas=3)
    scaled = (await cluster.survey()).target
    cluster.server.put_workload("shop", "payments-v2", image="registry.example/shop/payments:v2.0.1")
    redeployed = (await cluster.survey()).target
    assert first is not None
    assert scaled is not None
    assert redeployed is not None
    assert first.fingerprint == scaled.fingerprint != redeployed.fingerprint


async def test_the_other_routes_of_the_service_are_listed_as_unsteered(cluster: Cluster) -> None:
    """The legacy route of the same VirtualService goes on as it is, and that is said."""
    survey = await cluster.survey()
    assert "route legacy" in warning(survey, "paths")
    assert survey.target is not None
    assert survey.target.other_ways == ("route legacy of the same VirtualService",)


async def test_mirrored_requests_blur_the_share(cluster: Cluster) -> None:
    """Copies of requests count at the host like any other, so the target knows of them."""

    def copied(manifest: Manifest) -> None:
        primary(manifest)["mirror"] = {"host": "payments", "subset": "v2"}

    await cluster.change("VirtualService", "payments", copied)
    target = (await cluster.survey()).target
    assert target is not None
    assert "mirrored requests of shop/payments" in target.other_ways


async def test_roles_swap_when_the_canary_side_holds_all_the_weight(cluster: Cluster) -> None:
    """After a promotion v2 is stable: which one is stable is read from the weights."""

    def promoted(manifest: Manifest) -> None:
        for entry in primary(manifest)["route"]:
            entry["weight"] = 100 - entry["weight"]

    await cluster.change("VirtualService", "payments", promoted)
    target = (await cluster.survey()).target
    assert target is not None
    assert (target.stable.label, target.canary.label) == ("v2", "v1")
    assert "v2 already has all the traffic" in refusal(await cluster.survey(Wanted("payments", canary="v2")), "weights")


async def test_a_wrong_subset_names_the_nearest(cluster: Cluster) -> None:
    """`v22` is answered with v2."""
    assert "did you mean v2?" in refusal(await cluster.survey(Wanted("payments", canary="v22")), "destinations")


async def test_several_possible_canaries_must_be_told_apart(cluster: Cluster) -> None:
    """Three subsets and none named: say which; the catalog's pair settles it."""
    await cluster.change(
        "DestinationRule",
        "payments",
        lambda rule: rule["spec"]["subsets"].append({"name": "v3", "labels": {"version": "v3"}}),
    )
    assert "v2 and v3 could be the canary" in refusal(await cluster.survey(), "destinations")
    assert (await cluster.survey(Wanted("payments", subsets=("v1", "v2")))).target is not None


async def test_a_wrong_route_name_names_the_nearest(cluster: Cluster) -> None:
    """The catalog's route no longer exists under that name."""
    assert "did you mean primary?" in refusal(await cluster.survey(Wanted("payments", route="primry")), "route")


async def test_routes_that_cannot_be_told_apart_are_refused(cluster: Cluster) -> None:
    """Two catch-alls with both versions: a name is needed."""

    def doubled(manifest: Manifest) -> None:
        manifest["spec"]["http"].append({**primary(manifest), "name": "second"})

    await cluster.change("VirtualService", "payments", doubled)
    assert "primary and second" in refusal(await cluster.survey(), "route")


async def test_a_split_route_is_refused_with_adopt_as_the_way_on(cluster: Cluster) -> None:
    """90/10: refused; with --adopt the larger is stable and the present weight is the start."""

    def split(manifest: Manifest) -> None:
        primary(manifest)["route"][0]["weight"], primary(manifest)["route"][1]["weight"] = 90, 10

    await cluster.change("VirtualService", "payments", split)
    assert "`--adopt` takes v1 as stable" in refusal(await cluster.survey(), "weights")
    adopted = await cluster.survey(Wanted("payments", adopt=True), first=25)
    assert adopted.refusals == ()
    assert adopted.target is not None
    assert (adopted.target.stable.label, adopted.start_weight) == ("v1", 10)
    larger = await cluster.survey(Wanted("payments", canary="v1", adopt=True), first=25)
    assert "not the smaller side" in refusal(larger, "weights")


async def test_weights_that_do_not_sum_to_100_are_refused(cluster: Cluster) -> None:
    """Istio takes 90 as well; shares in percent would be wrong."""
    await cluster.change("VirtualService", "payments", lambda m: primary(m)["route"][0].update(weight=90))
    assert "sum to 90" in refusal(await cluster.survey(), "weights")


async def test_a_third_destination_with_weight_is_refused(cluster: Cluster) -> None:
    """Nobody's share is taken without asking."""

    def third(manifest: Manifest) -> None:
        route = primary(manifest)["route"]
        route[0]["weight"], route[1]["weight"] = 80, 10
        route.append({"destination": {"host": "payments-old"}, "weight": 10})

    await cluster.change("VirtualService", "payments", third)
    assert "third destination has weight" in refusal(await cluster.survey(), "destinations")


async def test_a_bare_host_that_includes_the_canary_is_refused(cluster: Cluster) -> None:
    """Stable as the whole Service would send stable's share to the canary as well."""
    await cluster.change("VirtualService", "payments", lambda m: primary(m)["route"][0]["destination"].pop("subset"))
    assert "includes the canary's pods" in refusal(
        await cluster.survey(Wanted("payments", canary="v2")), "destinations"
    )


async def test_a_subset_without_rule_is_refused(cluster: Cluster) -> None:
    """A subset that no DestinationRule knows would answer 503."""
    await cluster.change("DestinationRule", "payments", lambda rule: rule["spec"]["subsets"].pop())
    assert "no DestinationRule" in refusal(await cluster.survey(), "destinations")


async def test_a_host_that_is_no_service_is_refused(cluster: Cluster) -> None:
    """`payments.shop` is not short for anything in Istio."""

    def half(manifest: Manifest) -> None:
        for entry in primary(manifest)["route"]:
            entry["destination"] = {"host": "payments.shop", "subset": entry["destination"]["subset"]}

    await cluster.change("VirtualService", "payments", half)
    assert "write the full name" in refusal(await cluster.survey(Wanted("payments", route="primary")), "destinations")


async def test_a_side_without_ready_pods_is_refused(cluster: Cluster) -> None:
    """No weight for a canary that cannot serve."""
    cluster.server.put_workload("shop", "payments-v2", ready=0)
    assert "v2 cannot serve: none of its 2 pods is ready" in refusal(await cluster.survey(), "pods")


async def test_an_earlier_route_that_takes_everything_is_refused(cluster: Cluster) -> None:
    """A catch-all before the route: the weights would never be used."""
    await cluster.change("VirtualService", "payments", lambda m: m["spec"]["http"][0].pop("match"))
    survey = await cluster.survey(Wanted("payments", route="primary"))
    assert "the earlier route legacy takes every request" in refusal(survey, "shadowing")


async def test_another_virtualservice_for_the_same_host_is_refused(cluster: Cluster) -> None:
    """Inside the mesh two do not merge: one of them is simply not used."""
    route = {"route": [{"destination": {"host": HOST, "subset": "v1"}}]}
    cluster.server.load([object_of("VirtualService", "other", {"hosts": ["payments"], "http": [route]})])
    assert "VirtualService shop/other steers" in refusal(await cluster.survey(), "hosts")


async def test_another_gateways_way_to_the_service_is_listed(cluster: Cluster) -> None:
    """An ingress that routes to the service by itself stays as it is."""
    route = {"route": [{"destination": {"host": HOST}}]}
    spec = {"hosts": ["pay.example.com"], "gateways": ["ingress"], "http": [route]}
    cluster.server.load([object_of("VirtualService", "edge", spec)])
    assert "VirtualService shop/edge (for shop/ingress)" in warning(await cluster.survey(), "paths")


async def test_a_delegate_is_resolved_to_its_root(cluster: Cluster) -> None:
    """The route stands in the VirtualService that the service's own one delegates to."""

    def delegating(manifest: Manifest) -> None:
        team = object_of("VirtualService", "payments-team", {"http": [dict(primary(manifest))]})
        manifest["spec"]["http"] = [{"match": [{"uri": {"prefix": "/"}}], "delegate": {"name": "payments-team"}}]
        cluster.server.load([team])

    await cluster.change("VirtualService", "payments", delegating)
    for wanted in (Wanted("payments"), Wanted("payments", name="payments-team")):
        survey = await cluster.survey(wanted)
        assert survey.refusals == ()
        assert survey.target is not None
        assert survey.target.route.name == "payments-team"
        assert "delegated to by payments" in item(survey, "route").text


async def test_a_running_rollouts_mark_is_refused(cluster: Cluster) -> None:
    """The object says that somebody is at work, whatever the store knows."""
    mark = '{"rollout":"payments-1","revision":3,"weight":25,"phase":"Progressing"}'
    annotations = {"canary-bot.dev/rollout": mark}
    await cluster.change("VirtualService", "payments", lambda m: m["metadata"].update(annotations=annotations))
    assert "`rollback payments-1`" in refusal(await cluster.survey(), "rollout")


async def test_flagger_and_argo_rollouts_keep_what_is_theirs(cluster: Cluster) -> None:
    """A route that a controller rewrites is not ours to steer."""
    canary = object_of("Canary", "payments", {"targetRef": {"name": "payments-v1"}}, api="flagger.app/v1beta1")
    cluster.server.load([canary])
    assert "Flagger Canary payments owns" in refusal(await cluster.survey(), "owner")
    cluster.server.reset()
    istio = {"virtualService": {"name": "payments", "routes": ["primary"]}}
    spec = {"strategy": {"canary": {"trafficRouting": {"istio": istio}}}}
    cluster.server.load([object_of("Rollout", "payments", spec, api="argoproj.io/v1alpha1")])
    assert "Argo Rollout payments sets the weights" in refusal(await cluster.survey(), "owner")


async def test_controllers_that_are_not_installed_are_no_trouble(cluster: Cluster) -> None:
    """Missing CustomResourceDefinitions answer 404, and that is fine."""
    groups = ["flagger.app", "argoproj.io", "kustomize.toolkit.fluxcd.io", "helm.toolkit.fluxcd.io"]
    cluster.server.faults(without=groups)
    survey = await cluster.survey()
    assert survey.refusals == ()
    assert item(survey, "owner").severity is Severity.OK


async def test_controllers_that_may_not_be_looked_at_are_told(cluster: Cluster) -> None:
    """403 on a list is no proof of absence."""
    cluster.server.faults(deny=[{"group": "flagger.app"}])
    assert "could not look for Flagger Canaries" in item(await cluster.survey(), "owner").text


async def test_without_permission_to_patch_nothing_starts(cluster: Cluster) -> None:
    """Known before the first step, by SelfSubjectAccessReview."""
    cluster.server.faults(deny=[{"verb": "patch", "resource": "virtualservices"}])
    assert "may not patch VirtualServices" in refusal(await cluster.survey(), "permission")


@pytest.mark.parametrize("resource", ["virtualservices", "destinationrules", "services", "pods"])
async def test_without_permission_to_look_the_refusal_says_so(cluster: Cluster, resource: str) -> None:
    """A 403 in mid-survey is a finding, not a crash."""
    cluster.server.faults(deny=[{"resource": resource}])
    assert resource in refusal(await cluster.survey(), "permission")


async def test_a_namespace_that_is_not_ours_is_refused(cluster: Cluster) -> None:
    """Nothing outside the configured namespaces is even looked at."""
    assert "namespace bank" in refusal(await cluster.survey(Wanted("payments", namespace="bank")), "permission")


async def test_a_first_change_that_is_not_admitted_is_refused(cluster: Cluster) -> None:
    """The dry run finds the webhook's objection before anything is announced."""
    fault = {"verbs": ["patch"], "resource": "virtualservices", "dry_run": True, "status": 400, "message": "no Fridays"}
    cluster.server.faults(requests=[fault])
    survey = await cluster.survey()
    finding = item(survey, "dry-run")
    assert (finding.severity, "no Fridays" in finding.text, survey.patches) == (Severity.REFUSE, True, ())


async def test_pods_without_sidecar_are_warned_about(cluster: Cluster) -> None:
    """Their side of the metrics would be missing."""
    pods = await cluster.kube.all(path("", "v1", "pods", "shop"), selector="app=payments,version=v2")
    for pod in pods:
        pod["spec"]["containers"] = [one for one in pod["spec"]["containers"] if one["name"] != "istio-proxy"]
    cluster.server.load(pods)
    assert "2 of 4 pods have no sidecar" in warning(await cluster.survey(), "sidecars")


async def test_mtls_that_is_not_strict_is_warned_about(cluster: Cluster) -> None:
    """A port of the canary that takes plain text is found behind a STRICT namespace."""
    spec = {"selector": {"matchLabels": {"version": "v2"}}, "portLevelMtls": {"8080": {"mode": "PERMISSIVE"}}}
    cluster.server.load([object_of("PeerAuthentication", "hole", spec, api="security.istio.io/v1")])
    text = warning(await cluster.survey(), "mtls")
    assert "PERMISSIVE for v2 on port 8080" in text
    assert "v1" not in text.split("|")[0]


def argo(spec: Manifest) -> Manifest:
    return object_of("Application", "shop-apps", spec, api="argoproj.io/v1alpha1", namespace="argocd")


async def tracked(cluster: Cluster) -> None:
    tracking = "shop-apps:networking.istio.io/VirtualService:shop/payments"
    annotations = {"argocd.argoproj.io/tracking-id": tracking}
    await cluster.change("VirtualService", "payments", lambda m: m["metadata"].update(annotations=annotations))


async def test_an_argo_application_that_would_revert_is_refused_with_the_setting(cluster: Cluster) -> None:
    """The refusal carries the exact lines to add."""
    await tracked(cluster)
    cluster.server.load([argo({"syncPolicy": {"automated": {"selfHeal": True}}})])
    text = refusal(await cluster.survey(), "gitops")
    assert "its next automatic sync" in text
    assert "RespectIgnoreDifferences=true" in text
    assert "jsonPointers: [/spec/http]" in text


async def test_an_argo_application_that_ignores_the_weights_is_fine(cluster: Cluster) -> None:
    """ignoreDifferences alone only hides the diff; with RespectIgnoreDifferences the sync keeps the weights."""
    await tracked(cluster)
    ignore = [{"group": "networking.istio.io", "kind": "VirtualService", "jsonPointers": ["/spec/http"]}]
    cluster.server.load([argo({"ignoreDifferences": ignore})])
    assert "not when it syncs" in refusal(await cluster.survey(), "gitops")
    sync = {"syncOptions": ["RespectIgnoreDifferences=true"]}
    cluster.server.load([argo({"ignoreDifferences": ignore, "syncPolicy": sync})])
    assert (await cluster.survey()).refusals == ()


async def test_an_argo_application_that_cannot_be_read_is_warned_about(cluster: Cluster) -> None:
    """It may live in another cluster: the setting is named, the start goes on."""
    await tracked(cluster)
    assert "could not be read" in warning(await cluster.survey(), "gitops")


async def test_helms_instance_label_alone_is_no_argo(cluster: Cluster) -> None:
    """`app.kubernetes.io/instance` without such an application is Helm's."""
    labels = {"app.kubernetes.io/instance": "payments"}
    await cluster.change("VirtualService", "payments", lambda m: m["metadata"].update(labels=labels))
    assert (await cluster.survey()).refusals == ()
    assert item(await cluster.survey(), "gitops").severity is Severity.OK


async def test_a_flux_kustomization_is_refused_until_the_object_opts_out(cluster: Cluster) -> None:
    """The annotation that the refusal names is the one that lets the start through."""
    owner = {"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "shop"}
    await cluster.change("VirtualService", "payments", lambda m: m["metadata"].update(labels=owner))
    assert "kustomize.toolkit.fluxcd.io/ssa: IfNotPresent" in refusal(await cluster.survey(), "gitops")
    opted_out = {"kustomize.toolkit.fluxcd.io/ssa": "IfNotPresent"}
    await cluster.change("VirtualService", "payments", lambda m: m["metadata"].update(annotations=opted_out))
    assert (await cluster.survey()).refusals == ()
