"""One suite over every mesh: the fake the engine is tested with, and the Istio router at an API server.

The API server is the sandbox's, and a real one as well when `KUBECONFIG_TEST` names one (with Istio's
CustomResourceDefinitions): it gets a namespace of its own, which is deleted at the end.
"""

import asyncio
import copy
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

import pytest
import pytest_asyncio
from kubernetes.aio import client

from bot.adapters.kubernetes import Kube, path
from bot.adapters.mesh import ROUTERS, annotation
from bot.errors import Conflict, NotFound, Transient
from bot.ports.mesh import Mesh, Wanted
from bot.rollout.effects import SetWeight
from bot.rollout.model import Direction, RouteRef, Target
from bot.rollout.route import Mark
from bot.sandbox.kube.world import manifests
from tests.fakes.mesh import FakeMesh
from tests.fixtures.kube import KubeServer

pytestmark = pytest.mark.usefixtures("patient")


class World:
    """A mesh with `payments` (v1 100, v2 0) and `checkout` (v1 alone), and somebody else's hands on it."""

    mesh: Mesh

    async def manifest(self, service: str) -> dict[str, Any]:
        """The VirtualService as it stands."""
        raise NotImplementedError

    async def edit(self, service: str, canary_weight: int) -> None:
        """Somebody sets the weights by hand."""
        raise NotImplementedError

    async def delete(self, service: str) -> None:
        """Somebody deletes the object."""
        raise NotImplementedError

    async def lose_next_reply(self) -> None:
        """The next patch is applied, its answer is lost."""
        raise NotImplementedError

    async def refuse_next(self) -> None:
        """The API server is away for the next patch."""
        raise NotImplementedError

    namespace = "shop"

    async def target(self, service: str) -> Target:
        """What a start of the service would steer."""
        survey = await self.mesh.survey(Wanted(service, self.namespace), 5)
        assert survey.target is not None, survey.findings
        return survey.target


class FakeWorld(World):
    def __init__(self) -> None:
        self.fake = FakeMesh()
        self.mesh = self.fake
        self.fake.add("payments")
        self.fake.add("checkout", missing=True)

    async def manifest(self, service: str) -> dict[str, Any]:
        return self.fake.manifest(service)

    async def edit(self, service: str, canary_weight: int) -> None:
        self.fake.edit(service, canary_weight=canary_weight, by="kubectl-edit")

    async def delete(self, service: str) -> None:
        self.fake.delete(service)

    async def lose_next_reply(self) -> None:
        self.fake.fail("late")

    async def refuse_next(self) -> None:
        self.fake.fail("transient")


class LossyKube(Kube):
    """The client with a network that fails when it is told to."""

    failing = ""

    async def patch(self, path: str, operations: Sequence[Mapping[str, Any]], **kwargs: Any) -> dict[str, Any]:
        failing, self.failing = self.failing, ""
        if failing == "refused":
            raise Transient("the API server is away")
        done = await super().patch(path, operations, **kwargs)
        if failing == "lost":
            raise Transient("the reply was lost")
        return done


class IstioWorld(World):
    def __init__(self, kube: LossyKube, namespace: str) -> None:
        self.kube, self.namespace = kube, namespace
        self.mesh = ROUTERS["istio"].make(kube, (namespace,))

    async def manifest(self, service: str) -> dict[str, Any]:
        return await self.kube.get(self._path(service))

    async def edit(self, service: str, canary_weight: int) -> None:
        manifest = await self.manifest(service)
        for route, found in enumerate(manifest["spec"]["http"]):
            if len(found["route"]) == 2:
                weights = ((0, 100 - canary_weight), (1, canary_weight))
                edits = [
                    {"op": "replace", "path": f"/spec/http/{route}/route/{index}/weight", "value": weight}
                    for index, weight in weights
                ]
                await self.kube.patch(self._path(service), edits, field_manager="kubectl-edit")

    async def delete(self, service: str) -> None:
        await self.kube._ask("DELETE", self._path(service), timeout_s=5.0)

    async def lose_next_reply(self) -> None:
        self.kube.failing = "lost"

    async def refuse_next(self) -> None:
        self.kube.failing = "refused"

    def _path(self, service: str) -> str:
        return path("networking.istio.io", "v1", "virtualservices", self.namespace, service)


async def seeded(kube: Kube) -> str:
    """A new namespace with the objects of the sandbox's world that a router reads."""
    made = await _post(kube, path("", "v1", "namespaces"), {"metadata": {"generateName": "canary-test-"}})
    namespace = str(made["metadata"]["name"])
    resources = {
        "Service": path("", "v1", "services", namespace),
        "VirtualService": path("networking.istio.io", "v1", "virtualservices", namespace),
        "DestinationRule": path("networking.istio.io", "v1", "destinationrules", namespace),
    }
    for manifest in manifests():
        if manifest["kind"] not in resources:
            continue
        text = json.dumps(manifest["spec"]).replace(".shop.svc.", f".{namespace}.svc.")
        spec = {key: value for key, value in json.loads(text).items() if not key.startswith("clusterIP")}
        body = {
            "apiVersion": manifest["apiVersion"],
            "kind": manifest["kind"],
            "metadata": {"name": manifest["metadata"]["name"], "labels": manifest["metadata"].get("labels") or {}},
            "spec": spec,
        }
        await _post(kube, resources[manifest["kind"]], body)
    return namespace


async def _post(kube: Kube, where: str, body: dict[str, Any]) -> dict[str, Any]:
    return await kube._ask("POST", where, body=body, timeout_s=10.0)


@pytest_asyncio.fixture(params=["fake", "istio", *(["real"] if os.environ.get("KUBECONFIG_TEST") else [])])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    if request.param == "istio":
        server: KubeServer = request.getfixturevalue("kube_server")
        server.reset()
        kube = LossyKube(client.ApiClient(server.configuration()))
        yield IstioWorld(kube, "shop")
    else:
        kube = await LossyKube.connect(os.environ["KUBECONFIG_TEST"])
        namespace = await seeded(kube)
        yield IstioWorld(kube, namespace)
        await kube._ask("DELETE", path("", "v1", "namespaces", "", namespace), timeout_s=10.0)
    await kube.close()


def raising(to: int, revision: int, was: int, expected: int | None) -> SetWeight:
    return SetWeight(Direction.RAISE, to, Mark("r-1", revision, to, "Progressing"), was, expected)


def zero(revision: int, *, remove: bool = False) -> SetWeight:
    return SetWeight(Direction.ZERO, 0, Mark("r-1", revision, 0, "RolledBack"), remove_canary=remove)


@pytest.mark.parametrize("service", ["payments", "checkout"])
async def test_a_whole_rollback_leaves_the_object_as_it_was_but_for_the_mark(world: World, service: str) -> None:
    """Two steps up and down again: the spec is what it was before, only our annotation has come."""
    before = copy.deepcopy(await world.manifest(service))
    target = await world.target(service)
    state = await world.mesh.write(target, raising(5, 1, 0, None))
    assert (state.stable_weight, state.canary_weight) == (95, 5)
    state = await world.mesh.write(target, raising(25, 2, 5, 1))
    assert (state.stable_weight, state.canary_weight) == (75, 25)
    assert state.mark is not None
    assert (state.mark.rollout, state.mark.revision, state.mark.weight_percent) == ("r-1", 2, 25)
    state = await world.mesh.write(target, zero(3, remove=target.canary_inserted))
    assert state.stable_weight == 100
    assert state.canary_weight in (0, None)
    after = await world.manifest(service)
    assert after["spec"] == before["spec"]
    assert set(after["metadata"]["annotations"]) == {annotation.KEY} | set(before["metadata"].get("annotations") or {})


async def test_the_same_write_again_changes_nothing(world: World) -> None:
    """A write whose outcome was lost may be sent again: the object is not touched a second time."""
    target = await world.target("payments")
    first = await world.mesh.write(target, raising(5, 1, 0, None))
    again = await world.mesh.write(target, raising(5, 1, 0, None))
    assert again.resource_version == first.resource_version


async def test_a_lost_reply_is_success_when_the_object_shows_the_write(world: World) -> None:
    """The patch was applied and the connection cut: reading back finds our mark and says so."""
    target = await world.target("payments")
    await world.lose_next_reply()
    state = await world.mesh.write(target, raising(5, 1, 0, None))
    assert (state.canary_weight, state.mark and state.mark.revision) == (5, 1)


async def test_an_absent_api_server_is_transient_and_nothing_is_written(world: World) -> None:
    """503: the caller may come again; the weights are what they were."""
    target = await world.target("payments")
    await world.refuse_next()
    with pytest.raises(Transient):
        await world.mesh.write(target, raising(5, 1, 0, None))
    assert (await world.mesh.read(target)).canary_weight == 0


@pytest.mark.parametrize("weight", [5, 60, 100])
async def test_a_target_read_from_a_mark_is_resolved_as_a_start_resolves_it(world: World, weight: int) -> None:
    """Sides, pods' labels and fingerprint are those of the start, whichever of the two has more weight by now."""
    target = await world.target("payments")
    change = raising(weight, 1, 0, None)
    mark = replace(
        change.mark, service="payments", stable=target.stable.destination.text,
        canary=target.canary.destination.text, route=target.route.route,
    )  # fmt: skip
    await world.mesh.write(target, replace(change, mark=mark))
    (steered,) = await world.mesh.steered((world.namespace,))
    assert await world.mesh.resolved(steered.target) == target
    await world.delete("payments")
    with pytest.raises(NotFound):
        await world.mesh.resolved(steered.target)


async def test_drift_makes_a_raise_a_conflict_and_names_who(world: World) -> None:
    """Weights edited by hand: the raise changes nothing, and the reading names the last manager of the list."""
    target = await world.target("payments")
    await world.mesh.write(target, raising(5, 1, 0, None))
    await world.edit("payments", 40)
    with pytest.raises(Conflict, match="not 95 and 5"):
        await world.mesh.write(target, raising(25, 2, 5, 1))
    state = await world.mesh.read(target)
    assert (state.stable_weight, state.canary_weight, state.last_manager) == (60, 40, "kubectl-edit")


async def test_drift_does_not_stop_going_to_zero(world: World) -> None:
    """What the canary has goes to stable, whoever gave it."""
    target = await world.target("payments")
    await world.mesh.write(target, raising(5, 1, 0, None))
    await world.edit("payments", 40)
    state = await world.mesh.write(target, zero(2))
    assert (state.stable_weight, state.canary_weight) == (100, 0)


async def test_a_stale_holders_raise_is_a_conflict(world: World) -> None:
    """After a new holder's MARK the old one's expectation of the revision no longer holds."""
    target = await world.target("payments")
    await world.mesh.write(target, raising(5, 1, 0, None))
    fenced = await world.mesh.write(target, SetWeight(Direction.MARK, 5, Mark("r-1", 2, 5, "Progressing"), 5, 1))
    assert (fenced.canary_weight, fenced.mark and fenced.mark.revision) == (5, 2)
    with pytest.raises(Conflict, match="revision 2"):
        await world.mesh.write(target, raising(25, 2, 5, 1))


async def test_a_deleted_object_is_not_found(world: World) -> None:
    """Reading and writing say that it is gone; nothing is made anew."""
    target = await world.target("payments")
    await world.delete("payments")
    with pytest.raises(NotFound):
        await world.mesh.read(target)
    with pytest.raises(NotFound):
        await world.mesh.write(target, zero(1))


async def test_steered_routes_are_found_by_their_mark_until_it_is_final(world: World) -> None:
    """Without Redis the mark gives back a target that goes to 0; a final one is left in peace."""
    for service in ("payments", "checkout"):
        target = await world.target(service)
        change = SetWeight(Direction.RAISE, 5, Mark(f"{service}-1", 1, 5, "Progressing", service=service), 0, None)
        await world.mesh.write(target, change)
    found = {one.mark.rollout: one for one in await world.mesh.steered((world.namespace,))}
    assert found.keys() == {"payments-1", "checkout-1"}
    for one in found.values():
        mark = Mark(one.mark.rollout, one.mark.revision + 1, 0, "RolledBack", service=one.target.service)
        change = SetWeight(Direction.ZERO, 0, mark, remove_canary=one.target.canary_inserted)
        assert (await world.mesh.write(one.target, change)).stable_weight == 100
    assert await world.mesh.steered((world.namespace,)) == ()


async def test_changes_tell_which_route_changed(world: World) -> None:
    """Somebody's edit is told by the object's name."""
    watching = cast("AsyncGenerator[RouteRef, None]", world.mesh.changes((world.namespace,)))
    async with aclosing(watching) as changes:
        first = asyncio.create_task(anext(changes))
        for weight in range(1, 50):
            await world.edit("payments", weight)
            done, _ = await asyncio.wait({first}, timeout=0.2)
            if done:
                break
        ref = await first
    assert (ref.mesh, ref.namespace, ref.name) == ("istio", world.namespace, "payments")


async def test_a_survey_of_an_unknown_service_names_the_known(world: World) -> None:
    """No target, one refusal, and the way on names what there is."""
    survey = await world.mesh.survey(Wanted("paymnts", world.namespace), 5)
    assert survey.target is None
    (refusal,) = survey.refusals
    assert "payments" in refusal.way_on


async def test_services_are_listed_with_their_subsets(world: World) -> None:
    """For `services` and nearest names."""
    listed = {(one.service, one.name): one.subsets for one in await world.mesh.listed((world.namespace,))}
    assert listed == {("payments", "payments"): ("v1", "v2"), ("checkout", "checkout"): ("v1", "v2")}
