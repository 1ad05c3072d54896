"""`python -m tests.chaos --runs 20 --jobs 2`: many runs, their figures, and how to replay one that failed."""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import selectors
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.city import City, clocks_can_be_stepped, memory_can_run_out
from tests.chaos.judge import FIGURES, Judgement, judge, titled
from tests.chaos.record import MACHINE, Record
from tests.chaos.schedule import draw
from tests.chaos.storm import Storm

REPORT = Path("build/chaos.json")
STORIES = Path("build/chaos")
RUNS, JOBS = 8, 2
Json = dict[str, Any]


@dataclass(slots=True)
class Totals:
    """The sum of many runs; `failed` are the seeds that broke a rule, with what they broke."""

    runs: int = 0
    faults: int = 0
    figures: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    raises: int = 0
    stalled_s: float = 0.0
    seconds: float = 0.0
    failed: dict[int, list[str]] = field(default_factory=dict)

    def add(self, one: Json) -> None:
        """Count one run, as a worker tells it."""
        self.runs += 1
        self.faults += one["faults"]
        self.raises += one["raises"]
        self.stalled_s += one["stalled_s"]
        self.seconds += one["seconds"]
        self.figures.update(one["figures"])
        self.kinds.update(one["kinds"])
        self.ends.update(one["ends"])
        if one["broken"]:
            self.failed[one["seed"]] = one["broken"]

    def report(self) -> Json:
        """What is published."""
        return {
            "runs": self.runs,
            "faults": self.faults,
            **{name: self.figures[name] for name in FIGURES},
            "failed_seeds": sorted(self.failed),
            "commit": _commit(),
        }


def outcome(record: Record, judgement: Judgement) -> Json:
    """A run as a worker tells it."""
    return {
        "seed": record.schedule.seed,
        "faults": len(record.schedule.faults),
        "kinds": dict(Counter(one.kind for one in record.schedule.faults)),
        "raises": sum(one.ours and one.weight > one.was for one in record.writes),
        "figures": {name: judgement.count(name) for name in FIGURES},
        "ends": dict(Counter(one.phase.value for one in record.rollouts.values())),
        "broken": [str(one) for one in judgement.broken],
        "stalled_s": round(stalled_s(record), 1),
        "seconds": round(record.ended_at - record.began, 1),
    }


async def play(seeds: list[int], *, trace: bool = False) -> list[Json]:
    """Play seeds one after the other in one city; after a run that broke a rule the next has a city of its own."""
    outcomes: list[Json] = []
    city: City | None = None
    try:
        for seed in seeds:
            if city is None:
                city = City()
                await city.open()
            schedule = draw(seed, clocks=clocks_can_be_stepped(), memory=memory_can_run_out())
            try:
                record = await Storm(city, schedule, told=print if trace else lambda text: None).play()
                told = outcome(record, judge(record))
                if told["broken"]:
                    STORIES.mkdir(parents=True, exist_ok=True)
                    (STORIES / f"{seed}.txt").write_text("\n".join([*told["broken"], story(record)]) + "\n")
                if trace:
                    print(story(record))
            except Exception as error:
                told = {"seed": seed, "faults": len(schedule.faults), "kinds": {}, "raises": 0, "figures": {"lost": 1}}
                told |= {
                    "ends": {},
                    "seconds": 0.0,
                    "stalled_s": 0.0,
                    "broken": [f"lost: the run broke off: {error!r}"],
                }
            outcomes.append(told)
            print(json.dumps(told), flush=True)
            if told["broken"]:
                await city.close()
                city = None
    finally:
        if city is not None:
            await city.close()
    return outcomes


def stalled_s(record: Record) -> float:
    """For how long the machine had no time for the processes of a run."""
    moments = sorted((one.begin, one.end) for one in record.troubles if one.kind == MACHINE)
    total, until = 0.0, 0.0
    for begin, end in moments:
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def story(record: Record) -> str:
    """Everything that is known of a run, in order."""
    events = [(one.begin, f"FAULT {one}") for one in record.troubles]
    for one in record.writes:
        change = f"{one.service} {one.was}% -> {one.weight}%"
        events.append((one.at, f"ROUTE {change} by {one.by} {one.rollout} r{one.revision} {one.phase}"))
    for line in record.lines:
        fields = {name: value for name, value in line.fields.items() if name not in ("timestamp", "level", "event")}
        events.append((line.at, f"LOG {line.bot} {line.event} {json.dumps(fields)[:1500]}"))
    events += [(one.at, f"ASKED {one.user} {one.text} -> {one.answer[:100]!r}") for one in record.asked]
    said = zip(record.messages, titled(record.messages), strict=True)
    events += [(float(message["ts"]), f"SAID {line}") for message, line in said]
    return "\n".join(f"{at - record.began:8.3f} {text}" for at, text in sorted(events))


def many(first: int, runs: int, jobs: int) -> Totals:
    """Runs spread over worker processes, each with a city of its own; their progress is printed."""
    seeds = range(first, first + runs)
    totals = Totals()
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.chaos", "--worker", ",".join(map(str, seeds[number::jobs]))],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(min(jobs, runs))
    ]
    began = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            assert worker.stdout is not None
            selector.register(worker.stdout, selectors.EVENT_READ, worker)
        while selector.get_map():
            for key, _ in selector.select():
                line = key.data.stdout.readline()
                if not line:
                    selector.unregister(key.fileobj)
                    key.data.wait()
                elif line.startswith("{"):
                    told = json.loads(line)
                    totals.add(told)
                    state = "; ".join(told["broken"]) or "ok"
                    at = f"{totals.runs}/{runs} {time.monotonic() - began:.0f} s"
                    came = f"seed {told['seed']}, {told['faults']} faults, {told['ends']}, {told['seconds']} s"
                    print(f"{at}: {came}: {state}", flush=True)
    if totals.runs < runs:
        raise SystemExit(f"workers ended early: {totals.runs} of {runs} runs were played")
    return totals


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def main() -> int:
    """The command line; 1 when a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=JOBS, help="worlds at once")
    parser.add_argument("--seed", type=int, help="replay this one only, and print everything that happened")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        asyncio.run(play([int(seed) for seed in given.worker.split(",")]))
        return 0
    if given.seed is not None:
        (one,) = asyncio.run(play([given.seed], trace=True))
        for text in one["broken"]:
            print(f"BROKEN {text}")
        return 1 if one["broken"] else 0
    if not clocks_can_be_stepped():
        print("without libfaketime: no clock is stepped")
    if not memory_can_run_out():
        print("without memory groups: nothing runs out of memory")
    began = time.monotonic()
    totals = many(given.first, given.runs, given.jobs)
    seconds = time.monotonic() - began
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(totals.report(), indent=2) + "\n")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps(totals.report(), indent=2))
    print(f"{totals.raises} raises; ends {dict(totals.ends)}; faults {dict(sorted(totals.kinds.items()))}")
    print(f"{seconds:.0f} s, {(used.ru_utime + used.ru_stime) / totals.runs:.1f} s of processor time for each run")
    print(f"no time for the processes in {totals.stalled_s:.0f} of {totals.seconds:.0f} s of runs")
    for seed, texts in sorted(totals.failed.items()):
        print(f"\nseed {seed}: python -m tests.chaos --seed {seed}")
        for text in texts[:5]:
            print(f"  {text}")
    return 1 if totals.failed else 0


if __name__ == "__main__":
    sys.exit(main())
