"""`python -m tests.simulation --runs 1000`: many runs, their figures, and how to replay one that failed.

SIGTERM and SIGINT end it early, with the figures of what was played.
"""

import argparse
import gc
import json
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation.story import Outcome, run

FIGURES = ("lost", "doubled", "raised_wrongly", "late_rollbacks", "unannounced", "broken")
CHUNK = 50
TOLD_EVERY_RUNS = 500
COLLECTED_EVERY_RUNS = 10
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
    """Runs of consecutive seeds, in this process. What a run leaves behind is collected here, not in the middle of one
    that is being measured."""
    totals = Totals()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for seed in range(first, first + count):
            totals.add(run(seed))
            if seed % COLLECTED_EVERY_RUNS == 0:
                gc.collect()
    finally:
        if collecting:
            gc.enable()
    return totals


def many(first: int, runs: int, jobs: int, each: Callable[[Totals], bool] = lambda totals: True) -> Totals:
    """Runs spread over processes. `each` hears the sum so far again and again, and says whether to go on."""
    left = deque((start, min(CHUNK, first + runs - start)) for start in range(first, first + runs, CHUNK))
    totals = Totals()
    if jobs == 1:
        _begin()
        while left:
            totals.merge(chunk(*left.popleft()))
            if not each(totals):
                left.clear()
        return totals
    with ProcessPoolExecutor(jobs, initializer=_begin) as pool:
        playing: deque[Future[Totals]] = deque()
        while left or playing:
            while left and len(playing) < 2 * jobs:
                playing.append(pool.submit(chunk, *left.popleft()))
            totals.merge(playing.popleft().result())
            if not each(totals):
                left.clear()
    return totals


def _begin() -> None:
    """What is there before the first run stays, so that nobody looks through it after every run; and it is the parent
    that a signal of the terminal ends."""
    gc.collect()
    gc.freeze()
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


class Teller:
    """Says how far it is, and each seed that failed at once; `ended` when a signal has asked for the end."""

    def __init__(self, first: int, runs: int) -> None:
        self._first, self._runs = first, runs
        self._began = time.perf_counter()
        self._next = TOLD_EVERY_RUNS
        self._told: set[int] = set()
        self.ended = False

    def end(self, *signalled: object) -> None:
        """A signal handler."""
        self.ended = True

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began

    def __call__(self, totals: Totals) -> bool:
        for seed in sorted(totals.failed.keys() - self._told):
            self._told.add(seed)
            print(f"seed {seed}: python -m tests.simulation --seed {seed} --trace", flush=True)
            for text in totals.failed[seed][:5]:
                print(f"  {text}", flush=True)
        if totals.runs >= self._next or self.ended:
            self._next = totals.runs - totals.runs % TOLD_EVERY_RUNS + TOLD_EVERY_RUNS
            failed = f"failed {sorted(totals.failed)}" if totals.failed else "none failed"
            until = self._first + totals.runs
            each_ms = 1000 * self.seconds / max(1, totals.runs)
            print(
                f"{totals.runs} of {self._runs} runs (seeds {self._first} to {until - 1}), {failed}, "
                f"{self.seconds:.0f} s, {each_ms:.1f} ms per run",
                flush=True,
            )
        return not self.ended


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
        one = run(given.seed, lines=True)
        for line in one.lines if given.trace else ():
            print(line)
        for broken in one.broken:
            print(f"BROKEN {broken.figure}: {broken.text}")
        print(f"seed {one.seed}: {one.faults} faults, {dict(one.ends)}, {one.virtual_s:.1f} s, digest {one.digest}")
        return 1 if one.broken else 0
    teller = Teller(given.first, given.runs)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, teller.end)
    print(f"Seeds {given.first} to {given.first + given.runs - 1}, {given.jobs} processes", flush=True)
    totals = many(given.first, given.runs, given.jobs, teller)
    figures = report(totals, teller.seconds, given.first)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    return 1 if totals.failed else 0


if __name__ == "__main__":
    sys.exit(main())
