"""How often each judge flags a release, good or bad, over whole rollouts of the same simulated traffic.

Rows are `scenario, method, effect, flagged, median_requests, runs`: the fraction of runs that were flagged, and the
canary's requests until then. A rollout is five steps (5, 25, 50, 75, 100%) of ten minutes each, looked at every five
seconds; the traffic in a row's name is the canary's at the first step. The limit is 1%, stable's ratio 1.
"""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console
from rich.table import Table as RichTable

from bot.analysis import statistics
from bot.analysis.statistics import Interval
from tests.bench import methods
from tests.bench.methods import NEVER, Hits
from tests.bench.table import Row, Table
from tests.bench.traffic import (
    LOOK_S,
    MINUTE,
    Chance,
    Random,
    Split,
    Traffic,
    beside,
    changing,
    drifting,
    outbursts,
    rollout,
    same,
    simulate,
    tails,
)

SEED = 20_261_120
LIMIT = 0.01
ALPHA = statistics.ALPHA
SPLIT_ALPHA = ALPHA / 4
"""Two gates at two reporters each."""

LIMIT_ALONE, LIMIT_SPLIT = "limit, alpha 1%", "limit, alpha 0.25%"
STABLE_ALONE, STABLE_SPLIT = "stable, alpha 1%", "stable, alpha 0.25%"
POINTS, RANKS = "2 points", "rank test"
UNTHINNED_LIMIT, UNTHINNED_STABLE = "limit 1%, not thinned", "stable 1%, not thinned"
FISHER, BINOMIAL = "fixed size, Fisher", "fixed size, binomial"
OURS_LIMIT, OURS_STABLE = (LIMIT_ALONE, LIMIT_SPLIT), (STABLE_ALONE, STABLE_SPLIT)
COLUMNS = (*OURS_LIMIT, *OURS_STABLE, POINTS, RANKS)
NOTHING = "none"
BATCH = 500
RUNS = {True: {True: 500, False: 10_000}, False: {True: 100, False: 2000}}
"""Is a small fraction measured? Is it the quick run?"""
FALSE_ALARMS = 0.01
KNOWN_LOOKS = MINUTE * 3 // 2
"""What the first look's window shows of stable before the weight was set."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table.

    `together` is how many requests fail at once, `known_looks` for how long stable has been looked at before the start,
    `harmless` are our methods for whose question nothing is wrong, `fixed` asks for the best tests of fixed size too.
    """

    name: str
    effect: str
    split: Split
    stable: Chance
    canary: Chance | float = 1.0
    together: int = 1
    known_looks: int = 0
    harmless: tuple[str, ...] = ()
    fixed: bool = False
    at_least: dict[str, float] = field(default_factory=dict)


async def judge(quick: bool) -> Table:
    """False alarms, power and requests until the call: ours, two points over a threshold, Kayenta's rank test."""
    table = JudgeTable(f"the judges on the same traffic (seed {SEED}, limit 1%)")
    apart = methods.differs(np.random.default_rng(SEED))
    if apart > 1e-6:
        table.failures.append(f"the arrays differ from bot.analysis.statistics by {apart:.1e}")
    jobs = [("scenario", index) for index in range(len(scenarios()))]
    jobs += [("late", index) for index in range(len(LATE))] + [("slow", index) for index in range(len(SLOW))]
    jobs.sort(key=lambda job: job[0] != "late")
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        done = dict(zip(jobs, pool.map(_job, jobs, [quick] * len(jobs)), strict=True))
    for job in sorted(done, key=lambda job: (("scenario", "slow", "late").index(job[0]), job[1])):
        rows, failures = done[job]
        table.rows += rows
        table.failures += failures
    rows, failures = _gross()
    table.rows += rows
    table.failures += failures
    if not quick:
        from tests.bench.picture import draw

        draw(table.rows)
    return table


def scenarios() -> list[Scenario]:
    """All rows of a rollout, and those that measure power beside the best test of fixed size."""
    both, relative = (*OURS_LIMIT, *OURS_STABLE), OURS_STABLE
    rows = [
        Scenario(f"{_rate(per_s)}, {base:.2%}", NOTHING, rollout(per_s), same(base), harmless=both)
        for per_s, bases in (
            (0.1, (0.0005, 0.005, 0.01)),
            (1.0, (0.0005, 0.005, 0.01)),
            (10.0, (0.0005, 0.005, 0.01)),
            (1000.0, (0.0005, 0.01)),
        )
        for base in bases
    ]
    for per_s in (1.0, 10.0, 1000.0):
        drift = drifting(0.005)
        rows.append(Scenario(f"{_rate(per_s)}, 0.50% drifting", NOTHING, rollout(per_s), drift, harmless=relative))
        capped = drifting(0.01, at_most=LIMIT)
        rows.append(Scenario(f"{_rate(per_s)}, drifting to 1%", NOTHING, rollout(per_s), capped, harmless=both))
    for per_s in (0.1, 1.0, 10.0):
        burst = outbursts(0.005)
        rows.append(Scenario(f"{_rate(per_s)}, outbursts of 30%", NOTHING, rollout(per_s), burst, harmless=relative))
    for per_s in (0.1, 1.0, 10.0):
        rows.append(Scenario(f"{_rate(per_s)} bursty, 1.00%", NOTHING, rollout(per_s, 0.5), same(0.01), harmless=both))
    both_bursty = rollout(1.0, 0.5)
    rows.append(Scenario("60/min bursty, outbursts", NOTHING, both_bursty, outbursts(0.005), harmless=relative))
    rows.append(Scenario("60/min, each drifting for itself", NOTHING, rollout(1.0), drifting(0.005), drifting(0.005)))
    clumped = LIMIT / (3 - 2 * LIMIT)
    for per_s in (0.1, 1.0, 10.0):
        name = f"{_rate(per_s)}, 1% in threes"
        rows.append(Scenario(name, NOTHING, rollout(per_s), same(clumped), together=3))
        rows.append(
            Scenario(
                f"{name}, known",
                NOTHING,
                rollout(per_s),
                same(clumped),
                together=3,
                known_looks=KNOWN_LOOKS,
                harmless=(LIMIT_SPLIT, STABLE_SPLIT) if per_s >= 1 else (),
            )
        )
    for per_s in (0.1, 1.0, 10.0, 1000.0):
        for effect, bad in (("x2", 0.01), ("x5", 0.025), ("+1 point", 0.015), ("+5 points", 0.055)):
            harmless = OURS_LIMIT if bad <= LIMIT else ()
            rows.append(
                Scenario(f"{_rate(per_s)}, 0.50%", effect, rollout(per_s), same(0.005), same(bad), harmless=harmless)
            )
    for effect, bad in (("x2", 0.001), ("x5", 0.0025), ("+1 point", 0.0105), ("+5 points", 0.0505)):
        harmless = OURS_LIMIT if bad <= LIMIT else ()
        rows.append(Scenario("60/min, 0.05%", effect, rollout(1.0), same(0.0005), same(bad), harmless=harmless))
    for effect, bad in (("x2", 0.02), ("x5", 0.05)):
        rows.append(Scenario("60/min, 1.00%", effect, rollout(1.0), same(0.01), same(bad)))
    rows += [
        Scenario("60/min, 0.50% drifting", "x5", rollout(1.0), drifting(0.005), 5.0),
        Scenario("60/min, outbursts of 30%", "x5", rollout(1.0), outbursts(0.005), 5.0),
        Scenario("60/min bursty, 1.00%", "x5", rollout(1.0, 0.5), same(0.01), same(0.05)),
        Scenario(
            "60/min, 1% in threes, known",
            "x5",
            rollout(1.0),
            same(clumped),
            same(5 * clumped),
            together=3,
            known_looks=KNOWN_LOOKS,
        ),
        Scenario(
            "6 beside 114/min, 30 min, 0.50%",
            "+4.5 points",
            beside(0.1, 1.9, 30),
            same(0.005),
            same(0.05),
            fixed=True,
            at_least={STABLE_ALONE: 0.85, STABLE_SPLIT: 0.75},
        ),
        Scenario(
            "60 beside 1,140/min, 30 min, 0.50%",
            "+1.5 points",
            beside(1.0, 19.0, 30),
            same(0.005),
            same(0.02),
            fixed=True,
            at_least={STABLE_ALONE: 0.99},
        ),
        Scenario(
            "60 beside 60/min, 30 min, 0.50%", "+1.5 points", beside(1, 1, 30), same(0.005), same(0.02), fixed=True
        ),
    ]
    return rows


def measure(scenario: Scenario, runs: int, ranked: int, random: Random) -> dict[str, tuple[float, float | None, int]]:
    """Method -> fraction flagged, median requests until then, runs; the rank test over `ranked` runs at the most."""
    hits: dict[str, list[Hits]] = {}
    requests: dict[str, list[np.ndarray]] = {}
    fixed: dict[str, list[float]] = {}
    left = runs
    while left > 0:
        batch = min(BATCH, left)
        done, left = runs - left, left - batch
        traffic = simulate(random, batch, scenario.split, scenario.stable, scenario.canary, scenario.together)
        known = None
        if scenario.known_looks:
            alone = Split(np.zeros(scenario.known_looks), scenario.split.per_s)
            known = simulate(random, batch, alone, scenario.stable, together=scenario.together)
        found = called(traffic, known, unthinned=scenario.together > 1)
        if done < ranked:
            canary, stable = methods.rates(traffic)
            found[RANKS] = methods.rank_test(canary[: ranked - done], stable[: ranked - done])
        for method, looks in found.items():
            hits.setdefault(method, []).append(looks)
            requests.setdefault(method, []).append(methods.requests_at(_some(traffic, looks.size), looks))
        if scenario.fixed:
            for alpha, text in ((ALPHA, "1%"), (SPLIT_ALPHA, "0.25%")):
                fixed.setdefault(f"{FISHER}, alpha {text}", []).append(methods.fisher(traffic, alpha))
                fixed.setdefault(f"{BINOMIAL}, alpha {text}", []).append(methods.binomial(traffic, LIMIT, alpha))
    measured: dict[str, tuple[float, float | None, int]] = {}
    for method, parts in hits.items():
        looks, until = np.concatenate(parts), np.concatenate(requests[method])
        median = float(np.median(until)) if until.size else None
        measured[method] = (float((looks != NEVER).mean()), median, int(looks.size))
    for method, flagged in fixed.items():
        measured[method] = (float(np.mean(flagged)), None, runs)
    return measured


def called(traffic: Traffic, known: Traffic | None = None, unthinned: bool = False) -> dict[str, Hits]:
    """Where our tests and the threshold call, per method; `known` is traffic before the start."""
    horizon_s = traffic.looks * LOOK_S
    judged = methods.thinned(traffic, known)
    limit = methods.limit_log_e(judged, LIMIT, horizon_s)
    stable = methods.stable_log_e(judged, 1.0, horizon_s)
    found = {
        LIMIT_ALONE: methods.first(limit, ALPHA),
        LIMIT_SPLIT: methods.first(limit, SPLIT_ALPHA),
        STABLE_ALONE: methods.first(stable, ALPHA),
        STABLE_SPLIT: methods.first(stable, SPLIT_ALPHA),
        POINTS: methods.threshold(traffic, LIMIT),
    }
    if unthinned:
        found[UNTHINNED_LIMIT] = methods.first(methods.limit_log_e(traffic, LIMIT, horizon_s), ALPHA)
        found[UNTHINNED_STABLE] = methods.first(methods.stable_log_e(traffic, 1.0, horizon_s), ALPHA)
    return found


class JudgeTable(Table):
    """One line per scenario and effect, the methods beside each other."""

    def show(self, console: Console) -> None:
        """Print it."""
        shown = RichTable(title=self.title, title_justify="left", caption="flagged, median requests until then")
        shown.add_column("scenario", max_width=24)
        shown.add_column("effect", max_width=12)
        for column in COLUMNS:
            shown.add_column(column, justify="right")
        lines: dict[tuple[str, str], dict[str, Row]] = {}
        for row in self.rows:
            lines.setdefault((row["scenario"], row["effect"]), {})[row["method"]] = row
        for (scenario, effect), cells in lines.items():
            if any(column in cells for column in COLUMNS):
                shown.add_row(scenario, effect, *(_cell(cells.get(column)) for column in COLUMNS))
        console.print(shown)
        others = RichTable(title="beside these", title_justify="left")
        for column in ("scenario", "effect", "method", "flagged"):
            others.add_column(column)
        for (scenario, effect), cells in lines.items():
            for method, row in cells.items():
                if method not in COLUMNS:
                    others.add_row(scenario, effect, method, _cell(row))
        console.print(others)
        for failure in self.failures:
            console.print(f"NOT MET: {failure}", style="red")


HEALTHY_LOOKS = 8 * 60 * MINUTE
AFTER_LOOKS = 20 * MINUTE
LATE: tuple[tuple[str, float, float], ...] = (
    ("8 h at 0.50%, planned", 0.005, (HEALTHY_LOOKS + 30 * MINUTE) * LOOK_S),
    ("8 h at 0.50%, held", 0.005, 3000.0),
    ("8 h at 1.00%, planned", 0.01, (HEALTHY_LOOKS + 30 * MINUTE) * LOOK_S),
)
WITHIN_S = 300
SLOW = ((NOTHING, 0.008), ("tail x3", 0.03), ("tail x6", 0.06))


def _job(job: tuple[str, int], quick: bool) -> tuple[list[Row], list[str]]:
    kind, index = job
    random = np.random.default_rng((SEED, ("scenario", "late", "slow").index(kind), index))
    work: dict[str, Callable[[int, bool, Random], tuple[list[Row], list[str]]]] = {
        "scenario": _scenario,
        "late": _late,
        "slow": _slow,
    }
    return work[kind](index, quick, random)


def _scenario(index: int, quick: bool, random: Random) -> tuple[list[Row], list[str]]:
    one = scenarios()[index]
    runs = RUNS[one.effect == NOTHING or one.fixed][quick]
    measured = measure(one, runs, 50 if quick else 1000, random)
    rows = [_row(one.name, method, one.effect, *cell) for method, cell in measured.items()]
    failures = [
        f"{one.name}, {one.effect}: {method} flags {measured[method][0]:.2%}, at most {FALSE_ALARMS:.0%} wanted"
        for method in one.harmless
        if measured[method][0] > FALSE_ALARMS + _noise(FALSE_ALARMS, runs, quick)
    ]
    failures += [
        f"{one.name}, {one.effect}: {method} flags {measured[method][0]:.1%}, at least {least:.0%} wanted"
        for method, least in one.at_least.items()
        if measured[method][0] < least - _noise(least, runs, quick)
    ]
    return rows, failures


def _late(index: int, quick: bool, random: Random) -> tuple[list[Row], list[str]]:
    """Healthy for eight hours at 60 requests/min beside 1,140, then 5 points more: called within five minutes?"""
    name, base, horizon_s = LATE[index]
    runs, batch = (50, 50) if quick else (2000, 50)
    split = beside(1.0, 19.0, (HEALTHY_LOOKS + AFTER_LOOKS) / MINUTE)
    canary = changing(base, base + 0.05, HEALTHY_LOOKS)
    hits: dict[str, list[Hits]] = {}
    requests: dict[str, list[np.ndarray]] = {}
    for done in range(0, runs, batch):
        traffic = simulate(random, batch, split, same(base), canary)
        judged = methods.thinned(traffic)
        limit = methods.limit_log_e(judged, LIMIT, horizon_s)
        stable = methods.stable_log_e(judged, 1.0, horizon_s)
        found = {
            LIMIT_ALONE: methods.first(limit, ALPHA),
            LIMIT_SPLIT: methods.first(limit, SPLIT_ALPHA),
            STABLE_ALONE: methods.first(stable, ALPHA),
            STABLE_SPLIT: methods.first(stable, SPLIT_ALPHA),
            POINTS: methods.threshold(traffic, LIMIT),
        }
        if done == 0:
            few = 10
            series = methods.rates(_some(traffic, few))
            at = HEALTHY_LOOKS // MINUTE + WITHIN_S // 60
            found[RANKS] = methods.rank_test(series[0][:, :at], series[1][:, :at], since=at)
        for method, looks in found.items():
            hits.setdefault(method, []).append(looks)
            requests.setdefault(method, []).append(
                methods.requests_at(_some(traffic, looks.size), looks, HEALTHY_LOOKS)
            )
    rows, failures = [], []
    for method, parts in hits.items():
        looks, until = np.concatenate(parts), np.concatenate(requests[method])
        early = float(((looks != NEVER) & (looks < HEALTHY_LOOKS)).mean())
        called_ = looks[looks >= HEALTHY_LOOKS]
        within = float((called_ < HEALTHY_LOOKS + WITHIN_S / LOOK_S).sum() / looks.size)
        median = float(np.median(until)) if until.size else None
        rows.append(_row(name, method, "+5 points, within 5 min", within, median, looks.size))
        rows.append(_row(name, method, "before it turned bad", early, None, looks.size))
        if method in (*OURS_LIMIT, *OURS_STABLE):
            minutes = np.where(looks >= HEALTHY_LOOKS, (looks - HEALTHY_LOOKS + 1) * LOOK_S / 60, np.inf)
            later = np.sort(minutes[(looks == NEVER) | (looks >= HEALTHY_LOOKS)])
            half, most = (float(later[int(part * (later.size - 1))]) for part in (0.5, 0.9))
            rows.append(_row(name, f"{method}: minutes, half of the runs", "+5 points", half, None, looks.size))
            rows.append(_row(name, f"{method}: minutes, 90% of the runs", "+5 points", most, None, looks.size))
            if early > FALSE_ALARMS + _noise(FALSE_ALARMS, looks.size, quick):
                failures.append(f"{name}: {method} flags {early:.2%} before anything was wrong")
    return rows, failures


def _slow(index: int, quick: bool, random: Random) -> tuple[list[Row], list[str]]:
    """p99 under 250 ms: the tail above it grows while p50 stays; canary and stable at 60 requests/min, 50 min."""
    effect, fraction = SLOW[index]
    per_look, minutes, batch = 5, 50, 100
    name = "60 beside 60/min, tail 0.8%"
    hits: dict[str, list[Hits]] = {}
    requests: dict[str, list[np.ndarray]] = {}
    for _ in range(0, 200 if quick else 2000, batch):
        canary = tails(random, batch, minutes, per_look, fraction)
        stable = tails(random, batch, minutes, per_look, SLOW[0][1])
        whole = np.full(canary.shape[:2], float(per_look))
        traffic = Traffic(
            whole, (canary > 250).sum(axis=2).astype(np.float64), whole, (stable > 250).sum(axis=2).astype(np.float64)
        )
        found = called(traffic)
        by_minute = [side.reshape(batch, minutes, -1) for side in (canary, stable)]
        p50, p99 = ([np.quantile(side, part, axis=2) for side in by_minute] for part in (0.5, 0.99))
        found[POINTS] = methods.threshold_of_values(p99[0], 250.0)
        found[RANKS] = methods.rank_test(p99[0], p99[1])
        found["rank test on p50"] = methods.rank_test(p50[0], p50[1])
        for method, looks in found.items():
            hits.setdefault(method, []).append(looks)
            requests.setdefault(method, []).append(methods.requests_at(traffic, looks))
    rows, failures = [], []
    for method, parts in hits.items():
        looks, until = np.concatenate(parts), np.concatenate(requests[method])
        flagged = float((looks != NEVER).mean())
        rows.append(_row(name, method, effect, flagged, float(np.median(until)) if until.size else None, looks.size))
        at_most = FALSE_ALARMS + _noise(FALSE_ALARMS, looks.size, quick)
        if effect == NOTHING and method in (*OURS_LIMIT, *OURS_STABLE) and flagged > at_most:
            failures.append(f"{name}: {method} flags {flagged:.2%} of runs in which nothing is wrong")
    return rows, failures


def _gross() -> tuple[list[Row], list[str]]:
    """Every request of the canary fails, stable (19 times as much) is well: after how many is it called?"""
    rows, failures = [], []
    for method, alpha in (
        (LIMIT_ALONE, ALPHA),
        (LIMIT_SPLIT, SPLIT_ALPHA),
        (STABLE_ALONE, ALPHA),
        (STABLE_SPLIT, SPLIT_ALPHA),
    ):
        evidence, requests = statistics.NONE, 0
        while not evidence.fails(alpha) and requests < 100:
            interval, at_s = [Interval(10.0, 1.0, 1.0, 19.0, 0.0)], 10.0 * requests
            requests += 1
            if method in OURS_LIMIT:
                evidence = statistics.against_limit(evidence, interval, LIMIT, 3000.0, at_s)
            else:
                evidence = statistics.against_stable(evidence, interval, 1.0, 3000.0, at_s)
        rows.append(_row("6 beside 114/min, 0.00%", method, "all fail", 1.0, float(requests), 1))
        if method in OURS_LIMIT and requests > 5:
            failures.append(f"all requests fail: {method} calls after {requests}, 5 wanted")
    return rows, failures


def _noise(wanted: float, runs: int, quick: bool) -> float:
    """Three standard errors, which the few runs of a quick bench are forgiven; the full one is not."""
    return 3 * float(np.sqrt(wanted * (1 - wanted) / runs)) if quick else 0.0


def _row(scenario: str, method: str, effect: str, flagged: float, median: float | None, runs: int) -> Row:
    return {
        "scenario": scenario,
        "method": method,
        "effect": effect,
        "flagged": flagged,
        "median_requests": median,
        "runs": runs,
    }


def _some(traffic: Traffic, runs: int) -> Traffic:
    return Traffic(
        traffic.requests[:runs], traffic.bad[:runs], traffic.stable_requests[:runs], traffic.stable_bad[:runs]
    )


def _rate(per_s: float) -> str:
    return f"{60 * per_s:.0f}/min" if per_s < 10 else f"{per_s:,.0f}/s"


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if "minutes" in row["method"]:
        return f"{row['flagged']:.1f} min"
    flagged = f"{row['flagged']:.1%}" if row["flagged"] < 1 else "100%"
    return f"{flagged} {_short(row['median_requests'])}" if row["median_requests"] is not None else flagged


def _short(requests: float) -> str:
    return f"{requests:.0f}" if requests < 10_000 else f"{requests / 1000:,.0f}k"
