"""What is remembered of VirtualServices that a watch has shown, and what counts as news."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from bot.adapters.kubernetes import Change, Snapshot
from bot.adapters.mesh import annotation, virtualservice
from bot.adapters.mesh.istio import IstioMesh
from bot.adapters.mesh.seen import Seen
from bot.errors import NotFound
from bot.rollout.effects import SetWeight
from bot.rollout.model import Direction, Target
from bot.rollout.route import Mark
from tests.fakes.mesh import FakeMesh


def _marked(weight: int = 5, version: int = 7) -> tuple[dict[str, Any], Target]:
    mesh = FakeMesh()
    target = mesh.add("payments", canary_weight=weight)
    mesh.edit("payments", canary_weight=weight, mark=Mark("payments-1", 3, weight, "Progressing"))
    manifest = mesh.manifest("payments")
    manifest["metadata"]["resourceVersion"] = str(version)
    manifest["spec"]["http"][0]["fault"] = {"delay": {"fixedDelay": "5s"}}
    return manifest, target


def _at(manifest: dict[str, Any], version: int) -> dict[str, Any]:
    return {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": str(version)}}


def test_what_is_kept_reads_like_the_whole_object() -> None:
    """Weights, mark, uid, version and the last writer are those of the object as it was sent."""
    manifest, target = _marked()
    seen = Seen()
    assert list(seen.listed(Snapshot((manifest,)))) == []
    kept = seen.manifest("shop", "payments")
    assert kept is not None
    assert virtualservice.state(kept, target) == virtualservice.state(manifest, target)
    assert "fault" not in kept["spec"]["http"][0]


def test_a_route_is_read_once_as_long_as_its_object_is_the_same() -> None:
    """The same reading is given again, a new one after a change and for another target, none while nothing is known."""
    manifest, target = _marked()
    seen = Seen()
    seen.listed(Snapshot((manifest,)))
    first = seen.state(target)
    assert first == virtualservice.state(manifest, target)
    assert seen.state(target) is first
    other = replace(target, route=replace(target.route, match="edited"))
    assert seen.state(other) == virtualservice.state(manifest, other) != first
    assert seen.state(target) == first
    seen.changed(Change("MODIFIED", _at(_marked(weight=20)[0], 8)))
    again = seen.state(target)
    assert again is not None
    assert (again.canary_weight, again.resource_version) == (20, "8")
    seen.broken()
    assert seen.state(target) is None


def test_nothing_is_known_before_the_last_page_nor_while_the_watch_is_broken() -> None:
    """A reading goes to the API server then."""
    manifest, _ = _marked()
    seen = Seen()
    seen.listed(Snapshot((manifest,), last=False))
    assert seen.manifest("shop", "payments") is None
    seen.listed(Snapshot((), first=False))
    assert seen.manifest("shop", "payments") is not None
    seen.broken()
    assert seen.manifest("shop", "payments") is None


def test_the_echo_of_what_was_read_is_no_news() -> None:
    """The same or an older state is silent, a newer one and a deletion are told."""
    manifest, _ = _marked()
    seen = Seen()
    seen.listed(Snapshot((manifest,)))
    seen.read(_at(manifest, 9))
    for version in (8, 9):
        assert not seen.changed(Change("MODIFIED", _at(manifest, version)))
    assert seen.changed(Change("MODIFIED", _at(manifest, 10))) == (("shop", "payments"),)
    assert seen.changed(Change("DELETED", _at(manifest, 11))) == (("shop", "payments"),)
    assert seen.manifest("shop", "payments") is None


def test_what_changed_during_a_break_is_told_by_the_next_list() -> None:
    """Changed, new and deleted objects are; a server that was set back is believed."""
    manifest, _ = _marked()
    other = {**manifest, "metadata": {**manifest["metadata"], "name": "checkout"}}
    third = {**manifest, "metadata": {**manifest["metadata"], "name": "search"}}
    seen = Seen()
    seen.listed(Snapshot((manifest, other)))
    seen.broken()
    pages = (Snapshot((_at(manifest, 2),), last=False), Snapshot((third,), first=False))
    assert sorted(key for page in pages for key in seen.listed(page)) == [
        ("shop", "checkout"), ("shop", "payments"), ("shop", "search"),
    ]  # fmt: skip
    kept = seen.manifest("shop", "payments")
    assert kept is not None
    assert kept["metadata"]["resourceVersion"] == "2"


def test_an_object_without_our_mark_is_not_kept() -> None:
    """Ten thousand routes of others cost their name and version only."""
    manifest, _ = _marked()
    del manifest["metadata"]["annotations"][annotation.KEY]
    seen = Seen()
    seen.listed(Snapshot((manifest,)))
    assert seen.manifest("shop", "payments") is None


class Deaf:
    """An API server without VirtualServices, and watches that once showed one and have died without a word since."""

    def __init__(self, manifest: dict[str, Any]) -> None:
        self._manifest = manifest

    async def get(self, path: str, *, timeout_s: float = 3.0) -> dict[str, Any]:
        if path.endswith("/payments"):
            raise NotFound("virtualservices 'payments' not found")
        return {"resources": [{"name": "virtualservices"}]}

    async def follow(self, path: str, *, selector: str = "") -> AsyncGenerator[Snapshot | Change, None]:
        if path.endswith("virtualservices"):
            other = {**self._manifest, "metadata": {**self._manifest["metadata"], "name": "checkout"}}
            yield Snapshot((self._manifest, other))
            yield Change("MODIFIED", _at(other, 99))
        await asyncio.Event().wait()


async def test_what_a_write_does_not_find_is_not_read_from_a_watch_that_has_died() -> None:
    """The deletion was not shown: once the way to 0 has found no object, readings find none either. Else the route
    would be gone and back again at each try, and people told each time."""
    manifest, target = _marked()
    mesh = IstioMesh(Deaf(manifest))  # type: ignore[arg-type]
    async with aclosing(mesh.changes(("shop",))) as changes:
        assert (await anext(changes)).name == "checkout"
        assert (await mesh.read(target)).canary_weight == 5
        with pytest.raises(NotFound):
            await mesh.write(target, SetWeight(Direction.ZERO, 0, Mark("payments-1", 4, 0, "RolledBack")))
        with pytest.raises(NotFound):
            await mesh.read(target)


def test_a_slow_watch_does_not_bring_back_what_a_reading_has_missed() -> None:
    """The echo of our own write comes after the deletion was found: no news, and the route is as unknown as before."""
    manifest, target = _marked(version=4)
    seen = Seen()
    seen.listed(Snapshot((manifest,)))
    seen.read(_at(manifest, 5))
    seen.missed("shop", "payments")
    assert list(seen.changed(Change("MODIFIED", _at(manifest, 5)))) == []
    assert seen.manifest("shop", "payments") is None
    assert seen.state(target) is None
    assert list(seen.changed(Change("ADDED", _at(manifest, 6)))) == [("shop", "payments")]
    assert seen.state(target) is not None


@pytest.mark.parametrize("how", ["read", "listed"])
def test_what_a_reading_has_missed_another_brings_back_as_it_was(how: str) -> None:
    """A server that is behind answered that there is no such object: found again in the same version, it is known again
    and not asked for at every look."""
    manifest, target = _marked(version=5)
    seen = Seen()
    seen.listed(Snapshot((manifest,)))
    seen.missed("shop", "payments")
    if how == "read":
        seen.read(manifest)
    else:
        seen.listed(Snapshot((manifest,)))
    state = seen.state(target)
    assert state is not None
    assert state.canary_weight == 5
