"""What only the Istio router at an API server can show: versions, refusals, races, deadlines."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import pytest
import pytest_asyncio
from kubernetes.aio import client

from bot.adapters.kubernetes import Kube, path
from bot.adapters.mesh import ROUTERS, istio, virtualservice
from bot.adapters.mesh.istio import RBAC_RULES, IstioMesh
from bot.engine.wake import PATCH_TAKES_S
from bot.errors import Conflict, Overwritten, Permanent, Transient
from bot.ports.mesh import Wanted
from bot.rollout.effects import SetWeight
from bot.rollout.model import Direction, Target
from bot.rollout.route import Mark
from tests.fixtures.kube import KubeServer

pytestmark = pytest.mark.usefixtures("patient")
GROUP = "networking.istio.io"


@pytest_asyncio.fixture
async def kube(kube_server: KubeServer) -> AsyncIterator[Kube]:
    kube_server.reset()
    connected = Kube(client.ApiClient(kube_server.configuration()))
    yield connected
    await connected.close()


@pytest.fixture
def mesh(kube: Kube) -> IstioMesh:
    return IstioMesh(kube, ("shop",))


async def target_of(mesh: IstioMesh, service: str = "payments") -> Target:
    survey = await mesh.survey(Wanted(service), 5)
    assert survey.target is not None, survey.findings
    return survey.target


def raising(to: int, revision: int, was: int, expected: int | None) -> SetWeight:
    return SetWeight(Direction.RAISE, to, Mark("r-1", revision, to, "Progressing"), was, expected)


def zero(revision: int) -> SetWeight:
    return SetWeight(Direction.ZERO, 0, Mark("r-1", revision, 0, "RolledBack"))


def patch_fault(server: KubeServer, **what: object) -> None:
    server.faults(requests=[{"verbs": ["patch"], "resource": "virtualservices", **what}])


@pytest.mark.parametrize("served", [["v1", "v1beta1", "v1alpha3"], ["v1beta1", "v1alpha3"], ["v1alpha3"]])
async def test_whichever_version_the_cluster_serves_is_used(
    kube_server: KubeServer, mesh: IstioMesh, served: list[str]
) -> None:
    """A cluster that serves older versions only is steered all the same."""
    kube_server.faults(serve={GROUP: served})
    target = await target_of(mesh)
    assert (await mesh.write(target, raising(5, 1, 0, None))).canary_weight == 5


async def test_a_version_that_goes_away_is_found_out(kube_server: KubeServer, mesh: IstioMesh) -> None:
    """An upgrade of the CRDs under a running bot: the next read looks for the served version again."""
    kube_server.faults(serve={GROUP: ["v1alpha3"]})
    target = await target_of(mesh)
    kube_server.faults(serve={GROUP: ["v1"]})
    assert (await mesh.write(target, raising(5, 1, 0, None))).canary_weight == 5


async def test_a_cluster_without_istio_says_so(kube_server: KubeServer, mesh: IstioMesh) -> None:
    """No VirtualServices at all is a finding, not a crash."""
    kube_server.faults(without=[GROUP])
    survey = await mesh.survey(Wanted("payments"), 5)
    assert "Istio is not installed" in survey.refusals[0].text


async def test_a_refusal_that_is_no_moved_object_is_permanent(kube_server: KubeServer, mesh: IstioMesh) -> None:
    """422 while the object has not moved: the schema or a webhook refuses, trying again is useless."""
    target = await target_of(mesh)
    patch_fault(kube_server, status=422, message="spec.http[1] is invalid")
    with pytest.raises(Permanent, match="is invalid"):
        await mesh.write(target, raising(5, 1, 0, None))


async def test_an_admission_webhook_that_denies_is_permanent(kube_server: KubeServer, mesh: IstioMesh) -> None:
    """400 from a webhook is told in its own words."""
    target = await target_of(mesh)
    patch_fault(kube_server, status=400, message='admission webhook "validation.istio.io" denied the request')
    with pytest.raises(Permanent, match=r"validation\.istio\.io"):
        await mesh.write(target, raising(5, 1, 0, None))


@pytest.mark.parametrize("change", [raising(5, 1, 0, None), zero(1)])
async def test_one_conflict_is_read_again(kube_server: KubeServer, mesh: IstioMesh, change: SetWeight) -> None:
    """409 once: what the change was decided upon still holds, so it goes through."""
    target = await target_of(mesh)
    patch_fault(kube_server, status=409, times=1)
    assert (await mesh.write(target, change)).mark is not None


async def test_conflicts_without_end_are_a_conflict_for_a_raise_and_transient_for_zero(
    kube_server: KubeServer, mesh: IstioMesh
) -> None:
    """A raise is decided again; going to 0 is to be tried for ever."""
    target = await target_of(mesh)
    patch_fault(kube_server, status=409)
    with pytest.raises(Conflict):
        await mesh.write(target, raising(5, 1, 0, None))
    with pytest.raises(Transient):
        await mesh.write(target, zero(2))


async def test_tests_that_never_hold_do_not_stop_going_to_zero(kube_server: KubeServer, mesh: IstioMesh) -> None:
    """422 again and again: in the end only object and destinations are tested."""
    target = await target_of(mesh)
    await mesh.write(target, raising(5, 1, 0, None))
    patch_fault(kube_server, status=422, times=3)
    assert (await mesh.write(target, zero(2))).canary_weight == 0


async def test_retry_after_is_passed_on(kube_server: KubeServer, mesh: IstioMesh) -> None:
    """429 with Retry-After is Transient with that delay."""
    target = await target_of(mesh)
    patch_fault(kube_server, status=429, retry_after_s=7)
    with pytest.raises(Transient) as raised:
        await mesh.write(target, raising(5, 1, 0, None))
    assert raised.value.delay_s == 7.0


async def test_a_hanging_api_server_is_given_up_in_time(
    kube_server: KubeServer, mesh: IstioMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A patch that is never answered ends as Transient, before the lease could."""
    monkeypatch.setattr(istio, "RAISE_WITHIN_S", PATCH_TAKES_S)
    target = await target_of(mesh)
    patch_fault(kube_server, hang=True)
    try:
        async with asyncio.timeout(10):
            with pytest.raises(Transient):
                await mesh.write(target, raising(5, 1, 0, None))
    finally:
        kube_server.clear_faults()


async def test_going_to_zero_survives_a_lost_reply(kube_server: KubeServer, mesh: IstioMesh) -> None:
    """The connection is cut after the write: the object tells that it happened."""
    target = await target_of(mesh)
    await mesh.write(target, raising(5, 1, 0, None))
    patch_fault(kube_server, lose_reply=True, times=1)
    assert (await mesh.write(target, zero(2))).canary_weight == 0


async def test_a_slow_api_server_does_not_keep_a_canary_from_zero(kube_server: KubeServer, mesh: IstioMesh) -> None:
    """Each reading takes longer than a raise would wait for one: the way to 0 waits longer."""
    target = await target_of(mesh)
    await mesh.write(target, raising(5, 1, 0, None))
    kube_server.faults(requests=[{"verbs": ["get"], "resource": "virtualservices", "delay_s": 1.2}])
    assert (await mesh.write(target, zero(2))).canary_weight == 0


async def test_every_write_names_the_same_manager_and_touches_nothing_else(
    kube_server: KubeServer, mesh: IstioMesh
) -> None:
    """The server's own history: our field manager, and differences in weights and our annotation only."""
    target = await target_of(mesh)
    for change in (raising(5, 1, 0, None), raising(25, 2, 5, 1), zero(3)):
        await mesh.write(target, change)
    writes = [one for one in kube_server.history(resource="virtualservices") if one["verb"] == "patch"]
    assert len(writes) == 3
    for write in writes:
        assert write["field_manager"] == "canary-bot"
        for difference in write["diff"]:
            assert difference["path"].startswith(
                ("/spec/http/1/route/0/weight", "/spec/http/1/route/1/weight", "/metadata/annotations")
            ), difference


async def test_a_dry_run_changes_nothing(kube_server: KubeServer, mesh: IstioMesh) -> None:
    """A survey sends the first patch with dryRun and leaves no trace; its patches are what a start would send."""
    before = kube_server.history()
    survey = await mesh.survey(Wanted("checkout"), 5)
    assert kube_server.history() == before
    first, back = (json.loads(patch) for patch in survey.patches)
    assert {"op": "remove", "path": "/spec/http/0/route/1"} in back
    assert any(one["op"] == "add" and one["path"] == "/spec/http/0/route/-" for one in first)


async def test_changes_survive_a_cut_watch(kube_server: KubeServer, kube: Kube, mesh: IstioMesh) -> None:
    """Watches are cut and the history compacted: an edit made meanwhile is still told."""
    async with aclosing(mesh.changes(("shop",))) as changes:
        first = asyncio.create_task(anext(changes))
        for _ in range(50):
            await relabel(kube, "payments")
            done, _ = await asyncio.wait({first}, timeout=0.1)
            if done:
                break
        kube_server.faults(drop_watches=True, compact=True)
        await relabel(kube, "checkout")
        async with asyncio.timeout(20):
            ref = await first
            while ref.name != "checkout":
                ref = await anext(changes)
    assert (ref.namespace, ref.name) == ("shop", "checkout")


async def test_an_overwritten_raise_is_a_conflict(kube: Kube, mesh: IstioMesh) -> None:
    """Another writer puts the weights back before they are read back: the raise is not called done."""

    class Reverting(Kube):
        async def patch(self, path: str, operations: Sequence[Mapping[str, Any]], **kwargs: Any) -> dict[str, Any]:
            done = await super().patch(path, operations, **kwargs)
            back = [
                {"op": "replace", "path": "/spec/http/1/route/0/weight", "value": 100},
                {"op": "replace", "path": "/spec/http/1/route/1/weight", "value": 0},
            ]
            await super().patch(path, back, field_manager="argocd-controller")
            return done

    target = await target_of(mesh)
    contested = IstioMesh(Reverting(kube._api), ("shop",))
    with pytest.raises(Overwritten, match="overwritten at once by argocd-controller"):
        await contested.write(target, raising(5, 1, 0, None))


def test_the_router_is_in_the_table_with_what_it_needs() -> None:
    """The one writing permission is to patch VirtualServices."""
    assert ROUTERS["istio"].rbac_rules == RBAC_RULES
    writing = [(group, resource, verb) for group, resource, verbs in RBAC_RULES for verb in verbs if verb == "patch"]
    assert writing == [(GROUP, "virtualservices", "patch")]
    assert {verb for _, _, verbs in RBAC_RULES for verb in verbs} == {"get", "list", "watch", "patch"}


async def test_the_table_names_everything_that_is_asked_for(kube_server: KubeServer, mesh: IstioMesh) -> None:
    """With exactly the table's permissions a survey, a rollout and a rollback go through."""
    allow = [
        {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)} for group, resource, verbs in RBAC_RULES
    ]
    kube_server.faults(allow=allow)
    survey = await mesh.survey(Wanted("payments"), 5)
    assert survey.refusals == ()
    assert all("could not" not in finding.text for finding in survey.findings)
    target = await target_of(mesh)
    await mesh.write(target, raising(5, 1, 0, None))
    await mesh.write(target, zero(2))
    state = await mesh.read(target)
    assert (state.canary_weight, await mesh.steered(())) == (0, ())


async def relabel(kube: Kube, name: str) -> None:
    where = path(GROUP, "v1", "virtualservices", "shop", name)
    manifest = await kube.get(where)
    count = int((manifest["metadata"].get("labels") or {}).get("count", "0"))
    labels = {**(manifest["metadata"].get("labels") or {}), "count": str(count + 1)}
    await kube.patch(where, [{"op": "add", "path": "/metadata/labels", "value": labels}], field_manager="labeller")
    assert virtualservice.places(manifest)
