"""The switches of the page: what each one changes in which part, and how to see that it is on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Json = dict[str, Any]
Part = Literal["mesh", "kube", "node", "prometheus", "slack"]

SLOW_MS = 300
STEAL_SHARE = 0.15
BAD_NODE = "node-2"


@dataclass(frozen=True, slots=True)
class Switch:
    """One fault to turn on and off.

    `change(state, on)` is the body of the PUT to the part's faults, given the part's present state; `is_on(state)`
    reads that state. A `push` switch happens once and is never on.
    """

    id: str
    group: str
    label: str
    part: Part
    change: Callable[[Json, bool], Json]
    is_on: Callable[[Json], bool]
    push: bool = False


def _workload(id_: str, label: str, workload: str, name: str, value: float) -> Switch:
    def change(state: Json, on: bool) -> Json:
        return {"workloads": {workload: {name: value if on else 0}}}

    def is_on(state: Json) -> bool:
        return bool(state.get("workloads", {}).get(workload, {}).get(name))

    return Switch(id_, "Releases", label, "mesh", change, is_on)


def _no_traffic(service: str) -> Switch:
    def change(state: Json, on: bool) -> Json:
        return {"traffic": {service: {"rate": 0 if on else None}}}

    def is_on(state: Json) -> bool:
        return bool(state.get("traffic", {}).get(service, {}).get("rate") == 0)

    return Switch(f"no-traffic-{service}", "Releases", f"{service}: no traffic", "mesh", change, is_on)


def _patch_status(status: int) -> Switch:
    def mine(rule: Json) -> bool:
        return rule.get("status") == status and rule.get("verbs") == ["patch"]

    def change(state: Json, on: bool) -> Json:
        others = [rule for rule in state.get("requests", []) if not mine(rule)]
        rule = {"verbs": ["patch"], "resource": "virtualservices", "status": status}
        return {"requests": [*others, *([rule] if on else [])]}

    def is_on(state: Json) -> bool:
        return any(map(mine, state.get("requests", [])))

    return Switch(f"kube-{status}", "API server", f"{status} on patches", "kube", change, is_on)


def _slack(id_: str, label: str, name: str, value: Any, off: Any, push: bool = False) -> Switch:
    return Switch(
        f"slack-{id_}",
        "Slack",
        label,
        "slack",
        lambda state, on: {name: value if on else off},
        lambda state: bool(state.get(name)),
        push,
    )


SWITCHES: dict[str, Switch] = {
    switch.id: switch
    for switch in (
        *(
            _workload(f"fail-{name}", f"{name} v2 fails 5%", f"{name}-v2", "fail_percent", 5)
            for name in ("payments", "checkout")
        ),
        *(
            _workload(f"slow-{name}", f"{name} v2 +{SLOW_MS} ms", f"{name}-v2", "slow_ms", SLOW_MS)
            for name in ("payments", "checkout")
        ),
        _no_traffic("payments"),
        _no_traffic("checkout"),
        Switch(
            "steal",
            "Machines",
            f"{BAD_NODE}: CPU steal {STEAL_SHARE:.0%}",
            "mesh",
            lambda state, on: {"steal": {BAD_NODE: STEAL_SHARE if on else 0}},
            lambda state: bool(state.get("steal", {}).get(BAD_NODE)),
        ),
        Switch(
            "not-ready",
            "Machines",
            f"{BAD_NODE}: NotReady",
            "node",
            lambda state, on: {"Ready": "False" if on else "True"},
            lambda state: state.get("nodes", {}).get(BAD_NODE, {}).get("Ready", "True") != "True",
        ),
        Switch(
            "prometheus-down",
            "Measuring",
            "Prometheus down",
            "prometheus",
            lambda state, on: {"down": on},
            lambda state: bool(state.get("down")),
        ),
        _patch_status(409),
        _patch_status(500),
        _slack("429", "429 on all calls", "rate_limited", -1, 0),
        _slack("slow", "slow (2 s a call)", "slow_s", 2.0, 0.0),
        _slack("duplicate", "everything twice", "duplicate", True, False),
        _slack("disconnect", "disconnect sockets", "disconnect", True, False, push=True),
    )
}
