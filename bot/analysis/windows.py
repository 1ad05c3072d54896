"""The ladder of windows: few different texts, so that rollouts can share questions, and a bounded number of points."""

from bot.values import dataclass


@dataclass(frozen=True, slots=True)
class Rung:
    """One window; `resolution_s` 0 asks for raw samples, otherwise for one point per resolution (a subquery)."""

    window_s: int
    resolution_s: int = 0


RAW = (Rung(120), Rung(300), Rung(600), Rung(1200))
LONG = (
    Rung(2400, 20),
    Rung(3600, 30),
    Rung(7200, 60),
    Rung(14400, 120),
    Rung(28800, 240),
    Rung(86400, 600),
    Rung(604800, 4800),
)
LADDER = RAW + LONG
RECENT = Rung(300)
RECENT_S = 120.0
LEAD_S = 60.0
RATE_WINDOWS_S = (5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)


def reaching(seconds: float) -> Rung:
    """The smallest rung that reaches back this far, the longest of all when none does."""
    return next((rung for rung in LADDER if rung.window_s >= seconds), LADDER[-1])


def within(seconds: float) -> int | None:
    """The longest rate window not longer than this, None when even the shortest is longer."""
    return next((window for window in reversed(RATE_WINDOWS_S) if window <= seconds), None)
