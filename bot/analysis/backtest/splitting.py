"""Who stands in the canary's place, and which gates can be tried so."""

from collections.abc import Sequence
from enum import StrEnum

from bot.analysis.history import History
from bot.analysis.promql import uses
from bot.rollout.gate import YESTERDAY, GateSpec, Relation

UNRECORDED = {
    "pods": "how pods were in the past is not recorded",
    "nodes": "how nodes were in the past is not judged again",
}


class Split(StrEnum):
    """Who stands in the canary's place."""

    BY_WEIGHT = "by weight"
    BY_PODS = "by pods"


def split_of(gate: GateSpec) -> Split:
    """By pods what compares the two sides, by weight what has a limit of its own."""
    return Split.BY_PODS if gate.kind == "missing-responses" or _beside_stable(gate) else Split.BY_WEIGHT


def judged_together(gates: Sequence[GateSpec], split: Split) -> tuple[GateSpec, ...]:
    """The gates to judge in the runs of a split: its own, and with a sequential one all others that share its alpha."""
    own = tuple(gate for gate in gates if split_of(gate) is split)
    if not any(gate.sequential for gate in own):
        return own
    return tuple(gate for gate in gates if gate in own or gate.sequential)


def untried(gate: GateSpec, history: History, stable: str) -> str:
    """Why a gate cannot be tried on this history, a sentence without its end; "" when it can."""
    if gate.kind in UNRECORDED:
        return UNRECORDED[gate.kind]
    if gate.kind == "custom" and (gate.relation is Relation.RELATIVE and uses(gate.query, "canary")):
        return "its query would compare stable with itself"
    if split_of(gate) is Split.BY_PODS and not history.pods:
        return f"cannot be tried without two pods of {stable} whose own proxies report (label `pod` or `instance`)"
    return ""


def _beside_stable(gate: GateSpec) -> bool:
    return gate.relation is Relation.RELATIVE and gate.kind != "custom" and gate.against != YESTERDAY
