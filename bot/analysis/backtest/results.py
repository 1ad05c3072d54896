"""What a backtest finds: how each gate fared in each imagined rollout, and over all of them."""

from dataclasses import dataclass
from enum import StrEnum
from math import ceil

from bot.analysis.backtest.splitting import Split
from bot.rollout.gate import GateSpec
from bot.rollout.plan import Plan


class Outcome(StrEnum):
    """How one gate fared in one imagined rollout. WAITED: some step ended without enough requests for a verdict."""

    PASSED = "passed"
    FAILED = "failed"
    WAITED = "waited"
    UNMEASURED = "unmeasured"


@dataclass(frozen=True, slots=True)
class GateRun:
    """One gate in one imagined rollout, begun at `begin` (epoch seconds).

    `failed_at` is the look that would have ended it. `value` is the worst that was judged, in the gate's unit, as a
    multiple of stable's for relative limits; None when nothing was. `seen` are the values (epoch seconds, value) at
    the ends of the steps, `detail` the sentence of the verdict that counts.
    """

    begin: float
    outcome: Outcome
    detail: str = ""
    failed_at: float | None = None
    value: float | None = None
    samples: int | None = None
    needed_samples: int | None = None
    seen: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class GateResult:
    """One gate over all imagined rollouts; `untried` says why there are none. `advice` is what it teaches, in words."""

    gate: GateSpec
    split: Split
    runs: tuple[GateRun, ...] = ()
    untried: str = ""
    advice: str = ""

    def count(self, outcome: Outcome) -> int:
        """Runs that fared so."""
        return sum(run.outcome is outcome for run in self.runs)

    @property
    def failed_share(self) -> float:
        """Failed runs as a fraction of all, 0 without runs."""
        return self.count(Outcome.FAILED) / len(self.runs) if self.runs else 0.0

    @property
    def values(self) -> tuple[float, ...]:
        """The worst judged value of every run that has one, ascending."""
        return tuple(sorted(run.value for run in self.runs if run.value is not None))

    def quantile(self, fraction: float) -> float | None:
        """The value that `fraction` of the runs do not exceed (nearest rank); None without values."""
        values = self.values
        return values[min(len(values) - 1, max(0, ceil(fraction * len(values)) - 1))] if values else None


@dataclass(frozen=True, slots=True)
class Backtest:
    """What came of it. Times are epoch seconds; `notes` are sentences about what limits the result."""

    service: str
    stable: str
    plan: Plan
    begin: float
    end: float
    every_s: float
    look_every_s: float
    runs: int
    requests: float
    gates: tuple[GateResult, ...]
    notes: tuple[str, ...] = ()
