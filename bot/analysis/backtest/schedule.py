"""When imagined rollouts begin, how long they take, and when their gates are looked at."""

from collections.abc import Iterator
from math import floor

from bot.rollout.model import Bake, Rollout
from bot.rollout.plan import Plan


def duration_s(plan: Plan, interval_s: float) -> float:
    """Seconds an imagined rollout takes: its bakes, and one scrape more for each step."""
    return sum(step.bake_s + 2 * interval_s for step in plan.steps)


def begins(begin: float, end: float, plan: Plan, every_s: float, interval_s: float) -> tuple[float, ...]:
    """When imagined rollouts begin, so that each ends within the history."""
    room_s = end - begin - duration_s(plan, interval_s)
    return tuple(begin + index * every_s for index in range(floor(room_s / every_s + 1e-9) + 1)) if room_s >= 0 else ()


def look_spacing(plan: Plan, check_every_s: float, interval_s: float, runs: int, looks_max: int) -> float:
    """Seconds between looks: as the rollout would, but not under the scrape interval, nor more looks than `looks_max`.

    At least three looks a step, so that a row of failures can be one.
    """
    wanted_s = max(check_every_s, interval_s)
    in_budget_s = max(1, runs) * duration_s(plan, interval_s) / looks_max
    shortest_s = min(step.bake_s for step in plan.steps)
    return max(wanted_s, min(in_budget_s, max(wanted_s, shortest_s / 3)))


def looks_of(
    rollout: Rollout, begin: float, look_every_s: float, interval_s: float
) -> Iterator[tuple[Rollout, tuple[float, ...]]]:
    """Each step's rollout and the moments of its looks, the last one at its end."""
    at = begin
    for index, step in enumerate(rollout.plan.steps):
        long_s = step.bake_s + 2 * interval_s
        looks = max(1, floor(long_s / look_every_s + 1e-9))
        moments = [at + number * look_every_s for number in range(1, looks + 1)]
        if moments[-1] < at + long_s - 0.5 * look_every_s or looks == 1:
            moments.append(at + long_s)
        moments[-1] = at + long_s
        baking = rollout.with_(
            step=index,
            weight_percent=step.weight_percent,
            started_at=begin,
            bake=Bake(confirmed_at=at, arrived_at=at, covered_until=at, seen=True),
        )
        yield baking, tuple(dict.fromkeys(moments))
        at += long_s
