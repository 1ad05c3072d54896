"""`python -m tests.simulation --runs 1000`: many runs, their figures, and how to replay one that failed."""

import argparse
import gc
import json
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation.story import Outcome, run

FIGURES = ("lost", "doubled", "raised_wrongly", "late_rollbacks", "unannounced", "broken")
CHUNK = 50
REPORT = Path("build/simulation.json")


@dataclass(slots=True)
class Totals:
    """The sum of many runs; `failed` are the seeds that broke a rule, with what they broke."""

    runs: int = 0
    faults: int = 0
    repeated_messages: int = 0
    raises: int = 0
    virtual_s: float = 0.0
    figures: Counter[str] = field(default_factory=Counter)
    fates: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    failed: dict[int, list[str]] = field(default_factory=dict)

    def add(self, one: Outcome) -> None:
        """Count one run."""
        self.runs += 1
        self.faults += one.faults
        self.repeated_messages += one.repeated
        self.raises += one.raises
        self.virtual_s += one.virtual_s
        self.fates += one.fates
        self.ends += one.ends
        self.figures.update(broken.figure for broken in one.broken)
        if one.broken:
            self.failed[one.seed] = [f"{broken.figure}: {broken.text}" for broken in one.broken]

    def merge(self, other: "Totals") -> None:
        """Add the sum of other runs."""
        self.runs += other.runs
        self.faults += other.faults
        self.repeated_messages += other.repeated_messages
        self.raises += other.raises
        self.virtual_s += other.virtual_s
        self.fates += other.fates
        self.ends += other.ends
        self.figures += other.figures
        self.failed |= other.failed


def chunk(first: int, count: int) -> Totals:
    """Runs of consecutive seeds, in this process."""
    totals = Totals()
    for seed in range(first, first + count):
        totals.add(run(seed))
    gc.collect()
    return totals


def many(first: int, runs: int, jobs: int, *, told: bool = False) -> Totals:
    """Runs spread over processes."""
    starts = range(first, first + runs, CHUNK)
    sizes = [min(CHUNK, first + runs - start) for start in starts]
    totals = Totals()
    if jobs == 1:
        for start, size in zip(starts, sizes, strict=True):
            totals.merge(chunk(start, size))
        return totals
    with ProcessPoolExecutor(jobs) as pool:
        for done in pool.map(chunk, starts, sizes):
            totals.merge(done)
            if told and totals.runs % 1000 == 0:
                print(f"{totals.runs} runs, {len(totals.failed)} failed {sorted(totals.failed)[:10]}", flush=True)
    return totals


def report(totals: Totals, seconds: float, first: int) -> dict[str, object]:
    """The figures as they are published."""
    return {
        "runs": totals.runs,
        "faults": totals.faults,
        **{name: totals.figures.get(name, 0) for name in FIGURES},
        "repeated_messages": totals.repeated_messages,
        "raises": totals.raises,
        "ends": dict(sorted(totals.ends.items())),
        "fates": dict(sorted(totals.fates.items())),
        "virtual_hours": round(totals.virtual_s / 3600, 1),
        "first_seed": first,
        "failed_seeds": sorted(totals.failed),
        "seconds": round(seconds, 1),
        "ms_per_run": round(1000 * seconds / max(1, totals.runs), 1),
    }


def main() -> int:
    """The command line; 1 when a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--seed", type=int, help="replay this one only")
    parser.add_argument("--trace", action="store_true", help="print everything that happened")
    given = parser.parse_args()
    if given.seed is not None:
        one = run(given.seed, lines=given.trace)
        for line in one.lines:
            print(line)
        for broken in one.broken:
            print(f"BROKEN {broken.figure}: {broken.text}")
        print(f"seed {one.seed}: {one.faults} faults, {dict(one.ends)}, {one.virtual_s:.1f} s, digest {one.digest}")
        return 1 if one.broken else 0
    began = time.perf_counter()
    totals = many(given.first, given.runs, given.jobs, told=True)
    figures = report(totals, time.perf_counter() - began, given.first)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    for seed, texts in sorted(totals.failed.items())[:20]:
        print(f"\nseed {seed}: python -m tests.simulation --seed {seed} --trace")
        for text in texts[:5]:
            print(f"  {text}")
    return 1 if totals.failed else 0


if __name__ == "__main__":
    sys.exit(main())
