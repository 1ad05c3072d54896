"""VirtualServices as people write them: many routes, matches, mirrors, faults, delegates, fields we do not know."""

import copy
from typing import Any

from hypothesis import strategies as st

from bot.adapters.mesh import virtualservice
from bot.rollout.model import Destination, RouteRef, Side, Target

NAMESPACE = "shop"
HOST = "payments.shop.svc.cluster.local"
Manifest = dict[str, Any]

texts = st.text(st.characters(codec="utf-8"), max_size=12)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
matches = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "uri": st.fixed_dictionaries({"prefix": texts}),
            "headers": st.dictionaries(texts, st.fixed_dictionaries({"regex": texts}), max_size=2),
            "port": st.integers(1, 65535),
        },
    ),
    min_size=1,
    max_size=3,
)
extras = st.fixed_dictionaries(
    {},
    optional={
        "retries": st.fixed_dictionaries({"attempts": st.integers(0, 5), "retryOn": texts}),
        "fault": st.fixed_dictionaries({"abort": st.fixed_dictionaries({"httpStatus": st.just(500)})}),
        "mirror": st.just({"host": "audit"}),
        "mirrorPercentage": st.just({"value": 0.1}),
        "timeout": st.just("5s"),
        "x-unknown": plain,
    },
)
other_routes = st.one_of(
    st.builds(
        lambda extra, match, weights: {
            **extra,
            "match": match,
            "route": [
                {"destination": {"host": "other", "subset": f"s{index}"}, "weight": weight}
                for index, weight in enumerate(weights)
            ],
        },
        extras,
        matches,
        st.sampled_from([(100,), (50, 50), (10, 20, 70)]),
    ),
    st.builds(lambda match: {"match": match, "delegate": {"name": "team-a", "namespace": "a"}}, matches),
    st.just({"match": [{"uri": {"prefix": "/old"}}], "redirect": {"uri": "/new"}}),
)


@st.composite
def steered(draw: st.DrawFn) -> tuple[Manifest, Target]:
    """A VirtualService and the target in it: all weight at stable, the canary at 0, bare or missing."""
    stable: Manifest = {"destination": {"host": draw(st.sampled_from([HOST, "payments"])), "subset": "v1"}}
    canary: Manifest = {"destination": {"host": HOST, "subset": "v2"}}
    missing = draw(st.booleans())
    third = [{"destination": {"host": "payments-old"}, "weight": 0}] if draw(st.booleans()) else []
    if not missing or third or draw(st.booleans()):
        stable["weight"] = 100
    if draw(st.booleans()):
        stable["headers"] = {"request": {"set": {"x-<side>&": "é"}}}
    if draw(st.booleans()):
        canary["weight"] = 0
    entries = draw(st.permutations([stable, *([] if missing else [canary]), *third]))
    route: Manifest = {**draw(extras), "route": list(entries)}
    name = draw(st.sampled_from(["", "primary", "a/b~c"]))
    if name:
        route["name"] = name
    if draw(st.booleans()):
        route["match"] = draw(matches)
    before, after = draw(st.lists(other_routes, max_size=3)), draw(st.lists(other_routes, max_size=3))
    annotations = draw(st.none() | st.just({}) | st.dictionaries(texts, texts, max_size=2))
    metadata: Manifest = {"name": "payments", "namespace": NAMESPACE, "uid": "u-1", "resourceVersion": "7"}
    if annotations is not None:
        metadata["annotations"] = annotations
    manifest = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": metadata,
        "spec": {"hosts": [HOST], "http": [*before, route, *after], "x-unknown": draw(plain)},
        "status": draw(plain),
    }
    return copy.deepcopy(manifest), target_for(route, missing=missing)


def target_for(route: Manifest, *, missing: bool = False, protocol: str = "http") -> Target:
    """The target that steers v1 and v2 in a route."""
    return Target(
        service="payments",
        namespace=NAMESPACE,
        host=HOST,
        route=RouteRef(
            mesh="istio",
            namespace=NAMESPACE,
            name="payments",
            protocol=protocol,
            route=str(route.get("name") or ""),
            match=virtualservice.match_digest(route),
            uid="u-1",
        ),
        stable=Side("v1", Destination(HOST, "v1")),
        canary=Side("v2", Destination(HOST, "v2")),
        canary_inserted=missing,
    )
