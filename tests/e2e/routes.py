"""VirtualServices as teams write them, each around one route to steer, and the stories that steer it."""

from __future__ import annotations

import copy
from collections.abc import Callable

from tests.e2e.town import MARK, Json, Town

SERVER_WRITES = ("managedFields", "resourceVersion", "generation")


def _host(service: str) -> str:
    return f"{service}.shop.svc.cluster.local"


def _to(service: str, subset: str, **more: object) -> Json:
    return {"destination": {"host": _host(service), "subset": subset}, **more}


def _neighbours(service: str) -> list[Json]:
    """Routes before the steered one, none of which the load generator's requests match."""
    return [
        {
            "name": "legacy",
            "match": [{"headers": {"x-client": {"exact": "legacy"}}}, {"uri": {"prefix": "/v0/"}}],
            "route": [_to(service, "v1", weight=100)],
            "rewrite": {"uri": "/"},
        },
        {
            "name": "experiments",
            "match": [{"headers": {"x-experiment": {"regex": "a|b"}}, "withoutHeaders": {"x-never": {}}}],
            "route": [_to(service, "v1", weight=70), _to(service, "v2", weight=30)],
            "mirror": {"host": _host(service), "subset": "v1"},
            "mirrorPercentage": {"value": 0.1},
            "fault": {"delay": {"percentage": {"value": 5}, "fixedDelay": "2s"}},
        },
        {"match": [{"uri": {"exact": "/old"}}], "redirect": {"uri": "/new", "redirectCode": 308}},
        {"match": [{"uri": {"exact": "/teapot"}}], "directResponse": {"status": 418}},
    ]


def _particulars() -> Json:
    """What a steered route carries beside its destinations, with fields that no version of Istio has."""
    return {
        "retries": {"attempts": 2, "perTryTimeout": "2s", "retryOn": "connect-failure,refused-stream"},
        "timeout": "5s",
        "corsPolicy": {"allowOrigins": [{"exact": "https://shop.example"}], "maxAge": "24h"},
        "headers": {"request": {"add": {"x-routed-by": "mesh"}}},
        "fault": {"abort": {"percentage": {"value": 0}, "httpStatus": 503}},
        "x-team-note": {"owner": "shop", "since": 2019, "tags": ["a/b~c", None, 0.5]},
    }


def _shaped(manifests: list[Json], service: str, change: Callable[[Json], None]) -> list[Json]:
    for manifest in manifests:
        if manifest["kind"] == "VirtualService":
            assert manifest["metadata"]["name"] == service
            change(manifest)
    return manifests


def _parcel(manifests: list[Json]) -> list[Json]:
    """The steered route in the middle, both destinations in it, a third without weight, annotations of others."""

    def change(manifest: Json) -> None:
        manifest["metadata"]["annotations"] = {"team": "shop", "note": "é <&> /~"}
        steered = {
            "name": "primary",
            "match": [{"uri": {"prefix": "/"}}],
            "route": [
                {"destination": {"host": "parcel-old"}, "weight": 0},
                _to("parcel", "v2", weight=0, headers={"response": {"set": {"x-canary": "1"}}}),
                _to("parcel", "v1", weight=100),
            ],
            **_particulars(),
        }
        last = {"name": "unreached", "route": [_to("parcel", "v1")]}
        manifest["spec"] |= {"http": [*_neighbours("parcel"), steered, last], "x-unknown": {"kept": True}}

    return _shaped(manifests, "parcel", change)


def _atlas(manifests: list[Json]) -> list[Json]:
    """A route name that has to be escaped, a canary without a weight of its own, no annotations."""

    def change(manifest: Json) -> None:
        steered = {
            "name": "a/b~c",
            "route": [_to("atlas", "v1", weight=100), _to("atlas", "v2")],
            "mirrors": [{"destination": {"host": _host("atlas"), "subset": "v1"}, "percentage": {"value": 0}}],
            **_particulars(),
        }
        manifest["spec"] |= {"http": [*_neighbours("atlas"), steered], "exportTo": ["."], "gateways": ["mesh"]}

    return _shaped(manifests, "atlas", change)


def _ledger(manifests: list[Json]) -> list[Json]:
    """A root that delegates to the object which has the route; the canary is not in it yet."""
    delegates: list[Json] = []

    def change(manifest: Json) -> None:
        delegate = copy.deepcopy(manifest)
        delegate["metadata"] |= {"name": "ledger-routes", "uid": "5b1f2c52-0000-4000-8000-000000000001"}
        steered = {"name": "primary", "route": [_to("ledger", "v1")], **_particulars()}
        delegate["spec"] = {"http": [*_neighbours("ledger"), steered]}
        delegates.append(delegate)
        manifest["spec"]["http"] = [
            {"match": [{"uri": {"exact": "/gone"}}], "directResponse": {"status": 410}},
            {"name": "rest", "delegate": {"name": "ledger-routes", "namespace": "shop"}},
        ]

    return _shaped(manifests, "ledger", change) + delegates


LAID_OUT: dict[str, Callable[[list[Json]], list[Json]]] = {"parcel": _parcel, "atlas": _atlas, "ledger": _ledger}


async def promoted(town: Town) -> None:
    """Promoted through a route among others: every write differs from the first state in the two weights only."""
    before = await town.route("parcel")
    run = await town.start("parcel", channel="#random")
    await run.ended("Promoted")
    written = [write["after"] for write in await run.writes()]
    assert [_steered_weights(manifest, "primary") for manifest in (written[0], written[-1])] == [
        {"parcel-old": 0, "v2": 50, "v1": 50},
        {"parcel-old": 0, "v2": 100, "v1": 0},
    ]
    for manifest in (*written, await town.route("parcel")):
        assert _without_ours(manifest, "primary") == _without_ours(before, "primary")


async def rolled_back_by_gates(town: Town) -> None:
    """Rolled back by its gates: afterwards nothing but the final annotation is different from before."""
    before = await town.route("atlas")
    await town.clients.fault("mesh", workloads={"atlas-v2": {"fail_percent": 60.0}})
    run = await town.start("atlas", channel="#random")
    await run.ended("RolledBack")
    for write in await run.writes():
        assert _without_ours(write["after"], "a/b~c") == _without_ours(before, "a/b~c")
    assert await run.weights() == [50, 0]
    _only_the_mark_is_left(before, await town.route("atlas"))


async def rolled_back_by_a_person(town: Town) -> None:
    """Through a delegate, with a destination put in at the start: it is taken out again, and the root never written."""
    before, root = await town.route("ledger-routes"), await town.route("ledger")
    run = await town.start("ledger", channel="#payments", route="ledger-routes")
    await run.reaches(50)
    during = await town.route("ledger-routes")
    assert _steered_weights(during, "primary") == {"v1": 50, "v2": 50}
    answer = await town.say(f"rollback {run.id} enough seen", user="U0LINUS")
    assert "50% to 0" in answer
    await run.ended("RolledBack")
    for write in await run.writes():
        assert _without_ours(write["after"], "primary", inserted="v2") == _without_ours(before, "primary")
    _only_the_mark_is_left(before, await town.route("ledger-routes"))
    assert await town.route("ledger") == root


STORIES = (promoted, rolled_back_by_gates, rolled_back_by_a_person)


def _steered(manifest: Json, route: str) -> Json:
    found: Json = next(one for one in manifest["spec"]["http"] if one.get("name") == route)
    return found


def _side(entry: Json) -> str:
    destination = entry["destination"]
    return str(destination.get("subset") or destination["host"])


def _steered_weights(manifest: Json, route: str) -> dict[str, int]:
    return {_side(entry): entry["weight"] for entry in _steered(manifest, route)["route"]}


def _plain(manifest: Json) -> Json:
    """An object without what the API server itself writes into it."""
    copied = copy.deepcopy(manifest)
    for name in SERVER_WRITES:
        copied["metadata"].pop(name, None)
    return copied


def _without_ours(manifest: Json, route: str, inserted: str = "") -> Json:
    """An object without our annotation, the two weights of the route, and a destination that we put in."""
    copied = _plain(manifest)
    annotations = copied["metadata"].pop("annotations", {})
    copied["metadata"]["annotations"] = {key: text for key, text in annotations.items() if key != MARK}
    steered = _steered(copied, route)
    steered["route"] = [entry for entry in steered["route"] if _side(entry) != inserted]
    for entry in steered["route"]:
        if _side(entry) in ("v1", "v2"):
            entry.pop("weight", None)
    return copied


def _only_the_mark_is_left(before: Json, after: Json) -> None:
    left = _plain(after)
    mark = left["metadata"]["annotations"].pop(MARK)
    assert '"phase":"RolledBack"' in mark
    if "annotations" not in before["metadata"]:
        assert left["metadata"].pop("annotations") == {}
    assert left == _plain(before)
