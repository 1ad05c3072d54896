"""What is to be tried, and how much of the process it may take."""

from collections.abc import Callable
from dataclasses import dataclass

from bot.analysis.look import DAY_S
from bot.errors import UserError
from bot.ports.clock import Clock
from bot.rollout.duration import spoken

LONGEST_S = 30 * DAY_S

Progress = Callable[[str, float], None]
"""Told what is being done, and how much of it is (0 to 1)."""


@dataclass(frozen=True, slots=True)
class BacktestAsk:
    """What is to be tried: "" and 0 mean as the catalog says, and often enough for some runs.

    `since_s` is how far back, `every_s` how often a rollout is imagined to begin.
    """

    service: str
    since_s: float
    namespace: str = ""
    plan: str = ""
    steps: str = ""
    every_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Means:
    """How much a backtest may take: seconds in all (0 is no limit), looks for each pass over the history, other limits
    to try for a gate, questions at the same time."""

    limit_s: float = 0.0
    looks_max: int = 40_000
    attempts: int = 3
    parallel: int = 4


PRIVATELY = Means(limit_s=60.0, looks_max=2_500, attempts=1, parallel=2)
"""Beside the rollouts that the same process watches."""


def quiet(what: str, part: float) -> None:
    """Progress that nobody sees."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """The time a backtest has: until `deadline` (monotonic seconds), `limit_s` in all (0 is no limit)."""

    clock: Clock
    limit_s: float
    deadline: float

    @classmethod
    def from_now(cls, clock: Clock, limit_s: float) -> "Allowance":
        """The allowance of a backtest that begins now."""
        return cls(clock, limit_s, clock.monotonic() + (limit_s or LONGEST_S))

    def half_used(self) -> bool:
        """More than half of a limited time is gone."""
        return self.clock.monotonic() > self.deadline - self.limit_s / 2

    def check(self) -> None:
        """UserError when the time is up."""
        if self.clock.monotonic() > self.deadline:
            raise UserError(
                f"The backtest was not done within {spoken(self.limit_s)} and was given up.",
                "Look less far back, as in `--since 6h`, or run `canary-bot simulate`, which has no such limit.",
            )
