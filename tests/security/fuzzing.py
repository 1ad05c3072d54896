"""Cases that follow from a seed and a number, tried until the time is over; one that fails can be tried alone."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field

Try = Callable[[random.Random], Awaitable[str]]
"""Tries one case; "" when all was well, else what was not foreseen."""


@dataclass(slots=True)
class Tally:
    """What came of it: `unhandled` holds the first twenty, with the numbers of their cases."""

    target: str
    seed: int
    tries: int = 0
    seconds: float = 0.0
    failed: int = 0
    unhandled: list[tuple[int, str]] = field(default_factory=list)


def dice(seed: int, case: int) -> random.Random:
    """The dice of one case."""
    return random.Random(f"{seed}:{case}")


async def fuzz(
    target: str,
    made: AbstractAsyncContextManager[Try],
    seed: int,
    *,
    cases: range,
    seconds: float = float("inf"),
    each: int = 1,
) -> Tally:
    """Try cases, of `each` tries, until they or the seconds run out."""
    tally, begun = Tally(target, seed), time.monotonic()
    async with made as attempt:
        for case in cases:
            if time.monotonic() - begun > seconds:
                break
            wrong = await attempt(dice(seed, case))
            tally.tries += each
            if wrong:
                tally.failed += 1
                tally.unhandled = [*tally.unhandled, (case, wrong[:2000])][:20]
    tally.seconds = round(time.monotonic() - begun, 1)
    return tally


def main(target: str, make: Callable[[], AbstractAsyncContextManager[Try]], each: int = 1) -> int:
    """The command line; prints one JSON object. 1 when something was not foreseen."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.security.fuzz_{target}")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--case", type=int, help="try this case alone")
    given = parser.parse_args()
    cases = range(10**12) if given.case is None else range(given.case, given.case + 1)
    tally = asyncio.run(fuzz(target, make(), given.seed, cases=cases, seconds=given.minutes * 60, each=each))
    print(json.dumps(asdict(tally)))
    return 1 if tally.failed else 0
