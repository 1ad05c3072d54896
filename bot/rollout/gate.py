"""Gates and what they report: the values that pass between the judge and the state machine."""

import math
import re
from collections.abc import Iterable
from enum import StrEnum

from bot.errors import UserError
from bot.values import dataclass

MIN_REQUESTS = {"error-rate": 50, "p99": 500}
SEQUENTIAL = "sequential"
THRESHOLD = "threshold"
STABLE = "stable"
YESTERDAY = "yesterday"
_WITHOUT_LIMIT = ("pods", "missing-responses", "nodes")
_GATE = re.compile(r"\s*([a-zA-Z][a-zA-Z0-9_-]*)\s*(<=?)\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(%|[a-zA-Z]*)\s*")


class Verdict(StrEnum):
    """Outcome of one gate at one look; only FAIL counts against the release."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"


class Blame(StrEnum):
    """What a slow canary is put down to."""

    MACHINE = "likely the machine"
    RELEASE = "likely the release"
    UNKNOWN = "cannot tell"


class Relation(StrEnum):
    """What a limit is compared with: itself, or a multiple of stable's value."""

    ABSOLUTE = "absolute"
    RELATIVE = "relative"


@dataclass(frozen=True, slots=True)
class GateSpec:
    """One gate as fixed at the start of a rollout; a later reload of the catalog does not change it.

    `limit` is a fraction (0.01 is 1%) for `error-rate`, milliseconds for an absolute `p99`, a factor for relative
    limits, and in `unit` for custom gates. `query` is the PromQL template of a custom gate. `judge` is "sequential" (a
    test on counts, for error-rate and p99) or "threshold" (a point against the limit, `fail_after` times). `against` is
    what a relative limit multiplies: "stable" or "yesterday" (the service at the same time yesterday).
    """

    name: str
    kind: str
    limit: float = 0.0
    relation: Relation = Relation.ABSOLUTE
    unit: str = ""
    min_requests: int = 0
    fail_after: int = 2
    fail_total: int = 4
    query: str = ""
    judge: str = THRESHOLD
    against: str = STABLE

    @property
    def sequential(self) -> bool:
        """Judged by evidence that is carried from look to look."""
        return self.judge == SEQUENTIAL


@dataclass(frozen=True, slots=True)
class GateReport:
    """Everything one gate can say about one look; the same numbers reach card, thread, audit and log.

    `deciding` marks a FAIL that must not wait for `fail_after` (overwhelming evidence, no ready pod).
    `stable_fails` says that stable breaks the same limit: then it is not the release.
    `newest_sample_at` is on Prometheus' clock, epoch seconds; a verdict counts only when it has moved on.
    `holds` marks a FAIL that speaks against what runs underneath: nothing goes up, and nothing goes back for it.
    Of a sequential test: `alpha` is its part of the error rate over the whole rollout, `smallest_visible` the smallest
    bad fraction that the requests so far could be expected to show.
    """

    gate: str
    verdict: Verdict
    detail: str
    value: float | None = None
    stable_value: float | None = None
    limit: float | None = None
    unit: str = ""
    samples: int | None = None
    stable_samples: int | None = None
    needed_samples: int | None = None
    window_s: float = 0.0
    weight_percent: int = 0
    step: int = 0
    query: str = ""
    newest_sample_at: float | None = None
    deciding: bool = False
    stable_fails: bool = False
    fail_after: int = 2
    fail_total: int = 4
    holds: bool = False
    alpha: float | None = None
    smallest_visible: float | None = None


@dataclass(frozen=True, slots=True)
class Odds:
    """A sequential test as it stands: logarithms per alternative (bot.analysis.statistics).

    `whole` for failures since the first request, `late` for those that began at some later moment (each () before the
    first interval), `spent` the part of the late share given to moments gone by, `waiting` the interval with too few
    requests yet to be judged, as its five numbers.
    """

    whole: tuple[float, ...] = ()
    late: tuple[float, ...] = ()
    spent: float = 0.0
    waiting: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Scatter:
    """How stable's bad requests are spread over intervals (bot.analysis.statistics): sums, older ones fading.

    `squares` is the sum of bad squared over requests.
    """

    intervals: float = 0.0
    requests: float = 0.0
    bad: float = 0.0
    squares: float = 0.0


@dataclass(frozen=True, slots=True)
class GateEvidence:
    """What one gate's sequential tests have seen at one reporter since the first weight; carried from look to look.

    All requests up to `until` (epoch seconds, Prometheus' clock) are in it, over `elapsed_s` seconds: the canary's
    `requests` and how many were `bad`, and those it was compared with. `limit` is the test against the limit itself,
    `stable` the one against stable. `scatter` tells how many requests fail together, `boundary_ms` is the latency above
    which the next requests count as slow in a relative p99, `unnamed_until` the moment up to which requests without a
    side have been given to the canary.
    """

    gate: str
    reporter: str
    until: float
    elapsed_s: float = 0.0
    requests: float = 0.0
    bad: float = 0.0
    stable_requests: float = 0.0
    stable_bad: float = 0.0
    limit: Odds = Odds()
    stable: Odds = Odds()
    scatter: Scatter = Scatter()
    boundary_ms: float = 0.0
    unnamed_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Coverage:
    """Bake time that samples cover: `added_s` newly covered seconds, all before `until` (Prometheus' clock)."""

    until: float
    added_s: float


@dataclass(frozen=True, slots=True)
class Share:
    """Share of the route's requests that reached the canary since the weight was written.

    `arrived` None means that it cannot be told; `note` says in a sentence why, or why it may not have arrived.
    """

    percent: float | None
    requests: int
    arrived: bool | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Cause:
    """What failing latency gates are put down to: a verdict, a sentence with the evidence, and the gates' names."""

    verdict: Blame
    sentence: str
    gates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Assessment:
    """One look at a rollout: all gates, and the facts beside them that decide whether weight may rise.

    `at` is the moment of the look (our clock), `step` and `weight_percent` what it was made for; a look made for
    another step is void. `stable_ready` and `canary_ready` count ready pods, None when the cluster cannot say.
    `canary_fingerprint` is the canary's pod template and images, "" when unknown.
    `nodes_critical` names critical nodes under the canary. `cause` is None while no latency gate fails. `stable_lost`
    says why stable's destination can take no traffic, whatever pods it has.
    """

    at: float
    step: int
    weight_percent: int
    reports: tuple[GateReport, ...]
    share: Share
    coverage: Coverage | None = None
    stable_ready: int | None = None
    canary_ready: int | None = None
    canary_fingerprint: str = ""
    nodes_critical: tuple[str, ...] = ()
    cause: Cause | None = None
    evidence: tuple[GateEvidence, ...] = ()
    stable_lost: str = ""

    @property
    def likely_machine(self) -> str:
        """The cause's sentence when it is likely the machine, else ""."""
        return self.cause.sentence if self.cause is not None and self.cause.verdict is Blame.MACHINE else ""

    def machine_explains(self, reports: Iterable[GateReport]) -> bool:
        """Every one of these reports is of a gate whose failure is likely the machine's."""
        return (
            self.cause is not None
            and self.cause.verdict is Blame.MACHINE
            and all(report.gate in self.cause.gates for report in reports)
        )

    @property
    def passed(self) -> bool:
        """Every gate says PASS."""
        return bool(self.reports) and all(report.verdict is Verdict.PASS for report in self.reports)

    @property
    def newest_sample_at(self) -> float | None:
        """Newest sample that every measuring gate has seen, epoch seconds on Prometheus' clock."""
        times = [report.newest_sample_at for report in self.reports if report.newest_sample_at is not None]
        return min(times) if times else None


def parse_gate(text: str) -> GateSpec:
    """A gate from `error-rate<1%`, `error-rate<2x`, `p99<250ms`, `p99<1.2s`, `p99<1.2x` or `name<=0.5`.

    Any other name is a `custom` gate whose query the catalog has to give. `<` and `<=` mean the same: the limit
    itself still passes. Raises UserError with what was expected and an example.
    """
    example = "For example `error-rate<1%`, `p99<250ms` or `p99<1.2x`."
    parts = _GATE.fullmatch(text)
    if parts is None:
        raise UserError(f"`{text.strip()}` is not a gate: expected name, `<`, and a limit with its unit.", example)
    name, number, unit = parts[1].lower(), float(parts[3]), parts[4].lower()
    if name in _WITHOUT_LIMIT:
        raise UserError(f"`{name}` is always judged and takes no limit.", example)
    if number <= 0 or not math.isfinite(number):
        raise UserError(f"`{text.strip()}`: the limit has to be above 0.", example)
    if unit == "x":
        return GateSpec(
            name,
            _kind(name),
            limit=number,
            relation=Relation.RELATIVE,
            min_requests=MIN_REQUESTS.get(name, 0),
            judge=_judge(name),
        )
    match _kind(name), unit:
        case "error-rate", "%" if number <= 100:
            return GateSpec(
                name, "error-rate", limit=number / 100, min_requests=MIN_REQUESTS["error-rate"], judge=SEQUENTIAL
            )
        case "p99", "ms" | "s":
            limit_ms = number * (1000 if unit == "s" else 1)
            return GateSpec(name, "p99", limit=limit_ms, min_requests=MIN_REQUESTS["p99"], judge=SEQUENTIAL)
        case "error-rate", _:
            raise UserError(f"`{text.strip()}`: an error rate is limited in percent (up to 100%) or x.", example)
        case "p99", _:
            raise UserError(f"`{text.strip()}`: p99 is limited in ms, s or x.", example)
        case _:
            return GateSpec(name, "custom", limit=number, unit=parts[4])


def _judge(name: str) -> str:
    return SEQUENTIAL if name in MIN_REQUESTS else THRESHOLD


def _kind(name: str) -> str:
    return name if name in MIN_REQUESTS else "custom"
