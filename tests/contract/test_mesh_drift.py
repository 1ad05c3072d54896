"""What others do to a steered route, at an API server: deleted, made again, taken apart, without its subsets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import pytest_asyncio
from kubernetes.aio import client

from bot.adapters.kubernetes import Kube, path
from bot.adapters.mesh.istio import IstioMesh
from bot.errors import Conflict, NotFound
from bot.ports.mesh import Misplaced, RouteMissing, Wanted
from bot.rollout.effects import SetWeight
from bot.rollout.model import Direction, RouteRef, Target
from bot.rollout.route import Mark, RouteState
from tests.fixtures.kube import KubeServer

pytestmark = pytest.mark.usefixtures("patient")
WHERE = path("networking.istio.io", "v1", "virtualservices", "shop", "payments")
RULE = path("networking.istio.io", "v1", "destinationrules", "shop", "payments")
LISTENS_WITHIN_S = 20.0


class Hands:
    """Somebody with kubectl, and the router beside them with `payments` at 5%."""

    def __init__(self, kube: Kube, mesh: IstioMesh, target: Target) -> None:
        self.kube, self.mesh, self.target = kube, mesh, target

    async def edit(self, *operations: dict[str, Any], where: str = WHERE) -> None:
        await self.kube.patch(where, list(operations), field_manager="kubectl-edit")

    async def delete(self, where: str = WHERE) -> dict[str, Any]:
        manifest = await self.kube.get(where)
        await self.kube._ask("DELETE", where, timeout_s=5.0)
        return manifest

    async def make_again(self, manifest: dict[str, Any]) -> None:
        metadata = {name: manifest["metadata"][name] for name in ("name", "namespace")}
        body = {**{name: manifest[name] for name in ("apiVersion", "kind", "spec")}, "metadata": metadata}
        await self.kube._ask("POST", WHERE.rpartition("/")[0], body=body, timeout_s=5.0)

    async def at(self) -> int:
        """Where `primary` stands in the list."""
        routes = (await self.kube.get(WHERE))["spec"]["http"]
        return [route.get("name") for route in routes].index("primary")

    async def zero(self) -> RouteState:
        return await self.mesh.write(self.target, SetWeight(Direction.ZERO, 0, Mark("r-1", 2, 0, "RolledBack")))


@pytest_asyncio.fixture
async def hands(kube_server: KubeServer) -> AsyncIterator[Hands]:
    kube_server.reset()
    kube = Kube(client.ApiClient(kube_server.configuration()))
    mesh = IstioMesh(kube, ("shop",))
    survey = await mesh.survey(Wanted("payments"), 5)
    assert survey.target is not None, survey.findings
    raised = SetWeight(Direction.RAISE, 5, Mark("r-1", 1, 5, "Progressing"), 0, None)
    await mesh.write(survey.target, raised)
    yield Hands(kube, mesh, survey.target)
    await kube.close()


async def _renamed(hands: Hands) -> None:
    await hands.edit({"op": "replace", "path": f"/spec/http/{await hands.at()}/name", "value": "main"})


async def _removed(hands: Hands) -> None:
    await hands.edit({"op": "remove", "path": f"/spec/http/{await hands.at()}"})


async def _deleted(hands: Hands) -> None:
    await hands.delete()


@pytest.mark.parametrize(
    ("meddle", "error", "words"),
    [
        (_deleted, NotFound, "payments"),
        (_removed, RouteMissing, "no http route named primary now, and nothing in it sends to v2"),
        (_renamed, Misplaced, "its route main sends 5% to v2"),
    ],
)
async def test_a_route_that_is_gone_says_what_the_canary_still_gets(
    hands: Hands, meddle: Callable[[Hands], Awaitable[None]], error: type[Exception], words: str
) -> None:
    """Three endings that ask for different things of people; going to 0 writes to none of them."""
    await meddle(hands)
    before = None if error is NotFound else await hands.kube.get(WHERE)
    with pytest.raises(error, match=words):
        await hands.mesh.read(hands.target)
    with pytest.raises((NotFound, Conflict)):
        await hands.zero()
    if before is not None:
        assert await hands.kube.get(WHERE) == before


async def test_an_object_that_was_made_again_is_read_and_not_written(hands: Hands) -> None:
    """Its uid tells; the same words in it do not make it ours, until the target says so."""
    await hands.make_again(await hands.delete())
    state = await hands.mesh.read(hands.target)
    assert state.uid != hands.target.route.uid
    assert (state.canary_weight, state.mark) == (5, None)
    with pytest.raises(Conflict, match="deleted and made again"):
        await hands.zero()
    assert (await hands.mesh.read(hands.target)).canary_weight == 5


async def test_an_edited_match_is_seen_and_does_not_stop_going_to_0(hands: Hands) -> None:
    """The route is named as before and takes other requests now: no raise, and 0 all the same."""
    match = [{"headers": {"x-team": {"exact": "blue"}}}]
    await hands.edit({"op": "add", "path": f"/spec/http/{await hands.at()}/match", "value": match})
    assert (await hands.mesh.read(hands.target)).changed == "the match of route primary is not what it was"
    with pytest.raises(Conflict, match="match"):
        await hands.mesh.write(
            hands.target, SetWeight(Direction.RAISE, 25, Mark("r-1", 2, 25, "Progressing"), 5, 1)
        )  # fmt: skip
    assert (await hands.zero()).canary_weight == 0


@pytest.mark.parametrize(("side", "index"), [("stable", 0), ("canary", 1)])
async def test_a_destination_that_was_taken_out_of_the_route_is_seen(hands: Hands, side: str, index: int) -> None:
    """Without stable's there is nothing to go back to; without the canary's there is nothing to take."""
    await hands.edit({"op": "remove", "path": f"/spec/http/{await hands.at()}/route/{index}"})
    state = await hands.mesh.read(hands.target)
    if side == "stable":
        assert (state.stable_lost, state.last_manager) == (
            "v1 is no longer a destination of the route", "kubectl-edit",
        )  # fmt: skip
        with pytest.raises(Conflict, match="nothing can take the traffic"):
            await hands.zero()
    else:
        assert (state.canary_weight, state.stable_lost) == (None, "")
        assert (await hands.zero()).canary_weight is None


@asynccontextmanager
async def _listening(hands: Hands) -> AsyncIterator[asyncio.Queue[RouteRef]]:
    """The changes that are told, from when both watches show what happens."""
    told: asyncio.Queue[RouteRef] = asyncio.Queue()

    async def listen() -> None:
        async for ref in hands.mesh.changes(("shop",)):
            told.put_nowait(ref)

    listening = asyncio.create_task(listen())
    extra = {"name": "v9", "labels": {"version": "v9"}}
    try:
        await hands.mesh.read(hands.target)
        async with asyncio.timeout(LISTENS_WITHIN_S):
            while told.empty():
                await hands.edit({"op": "add", "path": "/spec/subsets/-", "value": extra}, where=RULE)
                with suppress(TimeoutError):
                    await asyncio.wait_for(_first(told), 0.2)
                await hands.edit({"op": "remove", "path": "/spec/subsets/2"}, where=RULE)
        yield told
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def _first(told: asyncio.Queue[RouteRef]) -> None:
    ref = await told.get()
    assert (ref.namespace, ref.name) == ("shop", "payments")
    told.put_nowait(ref)


async def _until(hands: Hands, told: asyncio.Queue[RouteRef], good: Callable[[RouteState], bool]) -> RouteState:
    """The first reading that is good, made each time that the route is told to have changed."""
    async with asyncio.timeout(LISTENS_WITHIN_S):
        while not good(state := await hands.mesh.read(hands.target)):
            ref = await told.get()
            assert (ref.namespace, ref.name) == ("shop", "payments")
    return state


@pytest.mark.parametrize(("side", "index"), [("stable", 0), ("canary", 1)])
async def test_a_subset_that_no_rule_has_any_more_is_told_and_named(hands: Hands, side: str, index: int) -> None:
    """The watch of DestinationRules tells the routes that send there; the reading says which side has lost its pods and
    who wrote the rule; put back, all is well."""
    async with _listening(hands) as told:
        subset = (await hands.kube.get(RULE))["spec"]["subsets"][index]
        await hands.edit({"op": "remove", "path": f"/spec/subsets/{index}"}, where=RULE)
        state = await _until(hands, told, lambda state: bool(state.stable_lost or state.canary_lost))
        lost, kept = (state.stable_lost, state.canary_lost)[:: 1 if side == "stable" else -1]
        assert f"has the subset {subset['name']} any more" in lost
        assert "shop/payments, last changed by `kubectl-edit`" in lost
        assert kept == ""
        await hands.edit({"op": "add", "path": f"/spec/subsets/{index}", "value": subset}, where=RULE)
        await _until(hands, told, lambda state: not (state.stable_lost or state.canary_lost))
        await hands.delete(RULE)
        state = await _until(hands, told, lambda state: bool(state.stable_lost and state.canary_lost))
        assert "DestinationRule shop/payments was deleted" in state.canary_lost
