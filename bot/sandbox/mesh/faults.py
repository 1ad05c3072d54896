"""What can be made to go wrong in the mesh, as one value that PUT /_sandbox/faults merges into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeVar


@dataclass(frozen=True, slots=True)
class WorkloadFault:
    """How the pods of one workload behave.

    `fail_percent` of requests get `fail_code`; `slow_percent` of requests take `slow_ms` longer; `hang_percent` are
    never answered; `refuse` closes the ports, so that connections are refused.
    """

    fail_percent: float = 0.0
    fail_code: int = 500
    slow_ms: float = 0.0
    slow_percent: float = 100.0
    hang_percent: float = 0.0
    refuse: bool = False


@dataclass(frozen=True, slots=True)
class TrafficFault:
    """The traffic of one service: requests per second (None: as started) and extra request headers."""

    rate: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Faults:
    """All faults; `workloads` by name, `traffic` by service, `steal` and `iowait` as CPU share (0 to 1) by node.

    `exporter_gone` names nodes whose exporter does not answer (`istio-mesh`: that of the mesh); `push_delay_s` holds
    new routes back from Envoy.
    """

    workloads: Mapping[str, WorkloadFault] = field(default_factory=dict)
    traffic: Mapping[str, TrafficFault] = field(default_factory=dict)
    steal: Mapping[str, float] = field(default_factory=dict)
    iowait: Mapping[str, float] = field(default_factory=dict)
    exporter_gone: tuple[str, ...] = ()
    push_delay_s: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the faults as JSON-ready values."""
        return asdict(self)

    def merged(self, change: object) -> Faults:
        """Return the faults after a PUT: entries replace fields of entries of the same name, null takes one away.

        Raises:
            ValueError: an unknown key or a value of the wrong type; the text names it.
        """
        if not isinstance(change, dict):
            raise ValueError("faults are a JSON object")
        unknown = sorted(set(change) - {item.name for item in fields(self)})
        if unknown:
            raise ValueError(f"unknown faults {unknown}; known: {sorted(item.name for item in fields(self))}")
        result = self
        if "workloads" in change:
            workloads = _merged_entries(self.workloads, change["workloads"], WorkloadFault(), "workloads")
            result = replace(result, workloads=workloads)
        if "traffic" in change:
            result = replace(
                result, traffic=_merged_entries(self.traffic, change["traffic"], TrafficFault(), "traffic")
            )
        if "steal" in change:
            result = replace(result, steal=_merged_shares(self.steal, change["steal"], "steal"))
        if "iowait" in change:
            result = replace(result, iowait=_merged_shares(self.iowait, change["iowait"], "iowait"))
        if "exporter_gone" in change:
            names = change["exporter_gone"] or []
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError("exporter_gone is a list of node names")
            result = replace(result, exporter_gone=tuple(names))
        if "push_delay_s" in change:
            result = replace(result, push_delay_s=_number(change["push_delay_s"] or 0, "push_delay_s", 0, 600))
        return result


_LIMITS = {
    "fail_percent": (0, 100),
    "slow_percent": (0, 100),
    "hang_percent": (0, 100),
    "slow_ms": (0, 600_000),
    "rate": (0, 5_000),
    "fail_code": (400, 599),
}


_Entry = TypeVar("_Entry", WorkloadFault, TrafficFault)


def _merged_entries(present: Mapping[str, _Entry], change: object, blank: _Entry, where: str) -> dict[str, _Entry]:
    result = dict(present)
    known = {item.name for item in fields(blank)}
    for name, value in _entries(change, where).items():
        if value is None:
            result.pop(name, None)
            continue
        settings = _entries(value, f"{where}.{name}")
        unknown = sorted(set(settings) - known)
        if unknown:
            raise ValueError(f"{where}.{name} has unknown settings {unknown}; known: {sorted(known)}")
        checked = {key: _setting(key, given, f"{where}.{name}.{key}") for key, given in settings.items()}
        result[name] = replace(result.get(name, blank), **checked)
    return result


def _setting(key: str, value: Any, where: str) -> Any:
    if key == "refuse":
        if not isinstance(value, bool):
            raise ValueError(f"{where} is true or false, not {value!r}")
        return value
    if key == "headers":
        return {str(name): str(text) for name, text in _entries(value, where).items()}
    if key == "rate" and value is None:
        return None
    number = _number(value, where, *_LIMITS[key])
    return int(number) if key == "fail_code" else number


def _merged_shares(present: Mapping[str, float], change: object, where: str) -> dict[str, float]:
    result = dict(present)
    for name, value in _entries(change, where).items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _number(value, f"{where}.{name}", 0, 0.95)
    return result


def _entries(change: object, where: str) -> dict[str, Any]:
    if not isinstance(change, dict):
        raise ValueError(f"{where} is a JSON object by name")
    return change


def _number(value: object, where: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{where} is a number from {low:g} to {high:g}, not {value!r}")
    return float(value)
