"""The kinds of gates. Adding one is a file here and a line in GATES."""

from collections.abc import Mapping
from types import MappingProxyType

from bot.analysis.gates.custom import Custom
from bot.analysis.gates.error_rate import ErrorRate
from bot.analysis.gates.missing_responses import MissingResponses
from bot.analysis.gates.nodes import NodesGate
from bot.analysis.gates.p99 import P99
from bot.analysis.gates.pods import PodsGate
from bot.analysis.look import Gate

GATES: Mapping[str, Gate] = MappingProxyType(
    {
        "error-rate": ErrorRate(),
        "p99": P99(),
        "custom": Custom(),
        "pods": PodsGate(),
        "missing-responses": MissingResponses(),
        "nodes": NodesGate(),
    }
)
