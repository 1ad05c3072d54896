"""The line to 0 by hand, run by jq as people would run it: nobody wants to learn at night that it does not work."""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import replace
from typing import Any

import pytest

from bot.rollout.model import Destination, RouteRef, Side, Target
from bot.views.byhand import by_hand
from tests.fixtures.requirements import needs_binary

STABLE, CANARY = Destination("payments", "v1"), Destination("payments", "v2", 8080)
TARGET = Target(
    service="payments",
    namespace="shop",
    host="payments.shop.svc.cluster.local",
    route=RouteRef("istio", "shop", "payments", "http", "primary", "", "uid-1"),
    stable=Side("v1", STABLE),
    canary=Side("v2", CANARY),
)
TO_V1 = {"destination": {"host": "payments", "subset": "v1"}}
TO_V2 = {"destination": {"host": "payments", "subset": "v2", "port": {"number": 8080}}}
REDIRECT = {"match": [{"uri": {"exact": "/old"}}], "redirect": {"uri": "/new"}}
TESTERS = {"match": [{"headers": {"x-tester": {"exact": "yes"}}}], "route": [TO_V2]}


def split(stable: int, canary: int, **more: Any) -> dict[str, Any]:
    return {"route": [{**TO_V1, "weight": stable}, {**TO_V2, "weight": canary}], "timeout": "3s", **more}


def by_jq(target: Target, manifest: dict[str, Any]) -> dict[str, Any]:
    """What the line's jq makes of the object."""
    words = shlex.split(by_hand(target))
    program = words[words.index("jq") + 1]
    done = subprocess.run(
        [needs_binary("jq"), program],
        input=json.dumps(manifest),
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    made: dict[str, Any] = json.loads(done.stdout)
    return made


@pytest.mark.parametrize("name", ["primary", ""], ids=["named", "unnamed"])
def test_only_the_two_weights_change(name: str) -> None:
    """Beside a redirect and a route for testers, which has no weights to change, the canary goes to 0."""
    named = {"name": name} if name else {}
    manifest = {"metadata": {"resourceVersion": "7"}, "spec": {"http": [REDIRECT, TESTERS, split(75, 25, **named)]}}
    target = replace(TARGET, route=replace(TARGET.route, route=name))
    wanted = {"metadata": {"resourceVersion": "7"}, "spec": {"http": [REDIRECT, TESTERS, split(100, 0, **named)]}}
    assert by_jq(target, manifest) == wanted


def test_the_place_of_a_destination_does_not_matter() -> None:
    """A list reordered by hand, with a third party in it, gives the weight to stable all the same."""
    other = {"destination": {"host": "audit"}, "weight": 0}
    manifest = {
        "spec": {"http": [{"name": "primary", "route": [{**TO_V2, "weight": 25}, other, {**TO_V1, "weight": 75}]}]}
    }
    (route,) = by_jq(TARGET, manifest)["spec"]["http"]
    assert [one["weight"] for one in route["route"]] == [0, 0, 100]


def test_a_tcp_route() -> None:
    """The protocol's own list is changed."""
    target = replace(TARGET, route=replace(TARGET.route, protocol="tcp", route=""))
    made = by_jq(target, {"spec": {"tcp": [split(50, 50)]}})
    assert made == {"spec": {"tcp": [split(100, 0)]}}
