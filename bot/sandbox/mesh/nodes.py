"""Three simulated machines: CPU time and pressure that add up over time, as a node exporter shows them."""

from __future__ import annotations

import random
from collections.abc import Mapping

from bot.sandbox.mesh.exposition import Sample, family

NODES = ("node-1", "node-2", "node-3")
CPUS = 2
_BASE = {"user": 0.18, "nice": 0.0, "system": 0.06, "iowait": 0.004, "irq": 0.0, "softirq": 0.006, "steal": 0.002}


class Node:
    """One machine; `advance` adds time to its counters, `text` shows them."""

    def __init__(self, name: str, booted_s: float, rng: random.Random) -> None:
        self.name = name
        self._booted_s = booted_s
        self._rng = rng
        self._cpu_s = [dict.fromkeys((*_BASE, "idle"), 0.0) for _ in range(CPUS)]
        self._waiting_s = 0.0
        self._io_waiting_s = 0.0
        self._memory_waiting_s = 0.0

    def advance(self, elapsed_s: float, steal: float, iowait: float) -> None:
        """Add `elapsed_s` to every CPU; `steal` and `iowait` are shares of CPU time on top of the usual ones."""
        for cpu in self._cpu_s:
            shares = {mode: share * self._rng.uniform(0.8, 1.2) for mode, share in _BASE.items()}
            shares["steal"] += steal
            shares["iowait"] += iowait
            busy = sum(shares.values())
            # What the hypervisor takes cannot be given to the programs.
            scale = min(1.0, (1 - shares["steal"]) / max(busy - shares["steal"], 1e-9))
            shares = {mode: share if mode == "steal" else share * scale for mode, share in shares.items()}
            shares["idle"] = max(0.0, 1 - sum(shares.values()))
            for mode, share in shares.items():
                cpu[mode] += share * elapsed_s
        self._waiting_s += (0.01 + 0.9 * steal) * elapsed_s
        self._io_waiting_s += (0.002 + 0.9 * iowait) * elapsed_s
        self._memory_waiting_s += 0.0005 * elapsed_s

    def text(self) -> str:
        """Return the node exporter's page."""
        cpu_samples = [
            Sample({"cpu": str(number), "mode": mode}, value)
            for number, cpu in enumerate(self._cpu_s)
            for mode, value in cpu.items()
        ]
        return "".join(
            (
                family("node_boot_time_seconds", "gauge", [Sample({}, self._booted_s)]),
                family("node_cpu_seconds_total", "counter", cpu_samples),
                family("node_pressure_cpu_waiting_seconds_total", "counter", [Sample({}, self._waiting_s)]),
                family("node_pressure_io_waiting_seconds_total", "counter", [Sample({}, self._io_waiting_s)]),
                family("node_pressure_memory_waiting_seconds_total", "counter", [Sample({}, self._memory_waiting_s)]),
                family("node_uname_info", "gauge", [Sample({"nodename": self.name, "sysname": "Linux"}, 1)]),
            )
        )


class Nodes:
    """All machines; time passes for all of them together."""

    def __init__(self, booted_s: float, rng: random.Random) -> None:
        self._nodes = {name: Node(name, booted_s, rng) for name in NODES}
        self._seen_s: float | None = None

    def advance_to(self, now_s: float, steal: Mapping[str, float], iowait: Mapping[str, float]) -> None:
        """Let time pass up to `now_s` (a monotonic clock) under the present shares."""
        elapsed_s = 0.0 if self._seen_s is None else max(0.0, now_s - self._seen_s)
        self._seen_s = now_s
        for name, node in self._nodes.items():
            node.advance(elapsed_s, steal.get(name, 0.0), iowait.get(name, 0.0))

    def text(self, name: str) -> str | None:
        """Return a node's page, None for an unknown node."""
        node = self._nodes.get(name)
        return node.text() if node is not None else None
