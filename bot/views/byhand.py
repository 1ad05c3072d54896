"""The one line that sends a canary to 0 by hand, when nothing of the bot works."""

import json
import shlex

from bot.rollout.model import Destination, Target

_KINDS = {"istio": "virtualservices.networking.istio.io"}


def by_hand(target: Target) -> str:
    """A shell line (kubectl, jq) for an Istio route; "" for a mesh without one.

    Destinations are found by host and subset, not by their place, and `replace` carries the resourceVersion that was
    read: a list reordered or an object changed meanwhile is never overwritten. A route without a name is told by having
    both: others may lead to the canary alone, and the API server would refuse them without weight, or lead nowhere.
    """
    kind = _KINDS.get(target.route.mesh)
    if kind is None:
        return ""
    route = target.route
    canary, stable = _is(target.canary.destination), _is(target.stable.destination)
    meant = (
        f".name=={json.dumps(route.route)}" if route.route else f"any(.route[]?;{canary}) and any(.route[]?;{stable})"
    )
    program = (
        f"(.spec.{route.protocol}[]|select({meant})|.route[])|="
        f"(if {canary} then .weight=0 elif {stable} then .weight={target.total} else . end)"
    )
    read = f"kubectl -n {shlex.quote(route.namespace)} get {kind} {shlex.quote(route.name)} -o json"
    return f"{read} | jq {shlex.quote(program)} | kubectl replace -f -"


def _is(destination: Destination) -> str:
    subset = f" and .destination.subset=={json.dumps(destination.subset)}" if destination.subset else ""
    port = f" and .destination.port.number=={destination.port}" if destination.port else ""
    return f".destination.host=={json.dumps(destination.host)}{subset}{port}"
