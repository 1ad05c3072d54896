"""Requests by side, reporter and outcome, from `istio_requests_total` and its oddities."""

from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from math import sqrt
from typing import NamedTuple

from bot.analysis.columns import Columns, Counters, Layout, layout
from bot.analysis.counts import Counted
from bot.rollout.model import Side, Target
from bot.values import dataclass

SERVER_FAULTS = frozenset({"2", "4", "8", "12", "13", "14", "15"})
"""gRPC statuses that mean a server fault: UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL,
UNAVAILABLE, DATA_LOSS."""

CLIENT_WENT_AWAY = "1"
REPORTERS = ("source", "destination", "waypoint")


class Outcome(StrEnum):
    """ABORTED: the client went away before there was an answer; says nothing about the server either way."""

    OK = "ok"
    ERROR = "error"
    ABORTED = "aborted"


class Whose(StrEnum):
    """Which side a series belongs to. UNKNOWN: it names no workload and no version. OTHER: a third one."""

    CANARY = "canary"
    STABLE = "stable"
    UNKNOWN = "unknown"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Tally:
    """Requests completed in a window, by outcome."""

    ok: float = 0.0
    errors: float = 0.0
    aborted: float = 0.0

    @property
    def judged(self) -> int:
        """Requests that say something about the server."""
        return round(self.ok + self.errors)

    @property
    def all(self) -> float:
        """Every request, also those whose client left."""
        return self.ok + self.errors + self.aborted

    @property
    def error_rate(self) -> float:
        """Errors as a fraction of the judged requests, 0 when there are none."""
        return self.errors / (self.ok + self.errors) if self.judged else 0.0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.ok + other.ok, self.errors + other.errors, self.aborted + other.aborted)


NOTHING = Tally()


class Line(NamedTuple):
    """What one column of requests counts."""

    reporter: str
    whose: Whose
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Traffic:
    """All counted requests of a service, to be cut into windows; `layout` says which column counts what."""

    layout: Layout[Line]
    columns: Columns
    counted: Counted

    @property
    def lines(self) -> tuple[Line, ...]:
        """What there are requests of."""
        return self.layout.kinds

    @property
    def reporters(self) -> tuple[str, ...]:
        """Those that saw requests which may be of one of the two sides."""
        return _reporters(self.layout)

    def tally(self, begin: float, end: float, reporter: str) -> dict[Whose, Tally]:
        """Requests after `begin` up to `end` as one reporter saw them, by side."""
        sides, places, numbers = _sides(self.layout, reporter)
        sums = [0.0] * (3 * len(sides))
        for number, more in zip(numbers, self.columns.increases(places, begin, end), strict=True):
            sums[number] += more
        return {side: Tally(*sums[3 * index : 3 * index + 3]) for index, side in enumerate(sides)}

    def names(self, reporter: str, *sides: Whose) -> bool:
        """There are series of these sides at a reporter."""
        return bool(_places(self.layout, reporter, sides))

    def newest(self, reporter: str, *sides: Whose) -> float | None:
        """Newest sample of these sides' series at a reporter, epoch seconds on Prometheus' clock."""
        return self.columns.newest(_places(self.layout, reporter, sides))


@lru_cache(maxsize=4096)
def _sides(layout: Layout[Line], reporter: str) -> tuple[tuple[Whose, ...], tuple[int, ...], tuple[int, ...]]:
    """The sides that a reporter saw, the places of its columns, and for each of these its number among the outcomes of
    all sides."""
    seen = [(place, line) for place, line in enumerate(layout.kinds) if line.reporter == reporter]
    sides = tuple(side for side in Whose if any(line.whose is side for _, line in seen))
    outcomes = tuple(Outcome)
    numbers = tuple(3 * sides.index(line.whose) + outcomes.index(line.outcome) for _, line in seen)
    return sides, tuple(place for place, _ in seen), numbers


@lru_cache(maxsize=4096)
def _reporters(layout: Layout[Line]) -> tuple[str, ...]:
    seen = {line.reporter for line in layout.kinds if line.whose is not Whose.OTHER}
    return tuple(reporter for reporter in REPORTERS if reporter in seen)


@lru_cache(maxsize=4096)
def _places(layout: Layout[Line], reporter: str, sides: tuple[Whose, ...]) -> tuple[int, ...]:
    return tuple(place for place, line in enumerate(layout.kinds) if line.reporter == reporter and line.whose in sides)


def outcome(labels: Mapping[str, str]) -> Outcome:
    """Sort one series by its code, flags and gRPC status."""
    code = labels.get("response_code", "")
    flags = labels.get("response_flags", "").split(",")
    status = labels.get("grpc_response_status", "")
    if code in ("", "0"):
        return Outcome.ABORTED if "DC" in flags else Outcome.ERROR
    if len(code) == 3 and code.startswith("5"):
        return Outcome.ERROR
    if labels.get("request_protocol") == "grpc":
        if status in SERVER_FAULTS:
            return Outcome.ERROR
        if status == CLIENT_WENT_AWAY:
            return Outcome.ABORTED
    return Outcome.OK


def hosts(target: Target) -> tuple[str, ...]:
    """FQDNs under which the metrics know the two sides: one for subsets, two when each side is a host of its own."""
    stable, canary = target.stable.destination.host, target.canary.destination.host
    if stable == canary == target.host:
        return (target.host,)
    return tuple(dict.fromkeys((target.host, side_host(target, target.stable), side_host(target, target.canary))))


def side_host(target: Target, side: Side) -> str:
    """The FQDN of one side's host; a short name is completed as the service's own is."""
    host = side.destination.host
    if not host:
        return target.host
    if "." in host:
        return host
    _, dot, rest = target.host.partition(".")
    return f"{host}{dot}{rest}"


def whose(target: Target, labels: Mapping[str, str]) -> Whose:
    """Which side a series belongs to: by host where the sides have different ones, else by workload, else by version.

    The workload goes first because a failed connection knows the endpoint's workload and not its version, and because
    a subset may select on other labels than `version`.
    """
    stable, canary = target.stable, target.canary
    host = labels.get("destination_service", "")
    stable_host, canary_host = side_host(target, stable), side_host(target, canary)
    if stable_host != canary_host and host in (stable_host, canary_host):
        return Whose.CANARY if host == canary_host else Whose.STABLE
    workload = labels.get("destination_workload", "unknown") or "unknown"
    version = labels.get("destination_version", "unknown") or "unknown"
    if workload != "unknown" and separated_by_workload(target):
        if workload in canary.workloads:
            return Whose.CANARY
        return Whose.STABLE if workload in stable.workloads else Whose.OTHER
    if version != "unknown" and stable.version != canary.version:
        if canary.version and version == canary.version:
            return Whose.CANARY
        if stable.version and version == stable.version:
            return Whose.STABLE
        return Whose.OTHER
    return Whose.UNKNOWN


def separated_by_workload(target: Target) -> bool:
    """True when every workload belongs to one side only."""
    stable, canary = set(target.stable.workloads), set(target.canary.workloads)
    return bool(stable) and bool(canary) and not stable & canary


def separable(target: Target) -> bool:
    """True when metrics can tell the two sides apart at all."""
    return (
        target.stable.version != target.canary.version
        or side_host(target, target.stable) != side_host(target, target.canary)
        or separated_by_workload(target)
    )


def sort(target: Target, counted: Counted) -> Traffic:
    """Sort counted series by reporter, side and outcome."""
    lines = tuple(
        Line(counter.labels.get("reporter", ""), whose(target, counter.labels), outcome(counter.labels))
        for counter in counted.counters
    )
    return Traffic(layout(lines), Counters(counted.counters), counted)


def tolerance(requests: float, share: float) -> float:
    """Requests by which a side may miss its share of `requests`: 3.3 binomial standard errors plus half a point."""
    return 3.3 * sqrt(requests * share * (1.0 - share)) + 0.005 * requests


def attribute(tallies: Mapping[Whose, Tally], share: float) -> tuple[Mapping[Whose, Tally], float]:
    """Give requests that name no side to the canary when only that explains the numbers.

    A request that fails on connecting, or before a host was chosen, may name neither workload nor version. They are
    the canary's when its own requests miss its share (`share` is a fraction) by more than chance allows, and with them
    hit it. Otherwise they stay a line of their own. Returns the tallies and how many requests were given.
    """
    unknown = tallies.get(Whose.UNKNOWN)
    if unknown is None or unknown.all <= 0 or share <= 0:
        return tallies, 0.0
    canary = tallies.get(Whose.CANARY, NOTHING)
    requests = canary.all + tallies.get(Whose.STABLE, NOTHING).all + unknown.all
    allowed = tolerance(requests, share)
    missing = share * requests - canary.all
    if share >= 1 or (missing > allowed and abs(missing - unknown.all) <= allowed):
        given = dict(tallies)
        given[Whose.CANARY] = canary + unknown
        del given[Whose.UNKNOWN]
        return given, unknown.all
    return tallies, 0.0
