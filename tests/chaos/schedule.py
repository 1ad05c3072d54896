"""What befalls one run: drawn from its seed and from nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random

SERVICES = ("cart", "orders", "search")
PLANS = {
    "short": "20%:2s, 50%:2s, 100%:2s",
    "asked": "20%:2s, 50%:2s:approve, 100%:2s",
    "two": "30%:3s, 100%:3s",
}
BOTS = ("a", "b")
LINKS = ("redis", "kube", "prometheus", "slack")
STORM_S = 13.0


class Release(StrEnum):
    """How good a release is."""

    GOOD = "good"
    BAD = "bad"
    SPOILED = "bad in mid-way"


@dataclass(frozen=True, slots=True)
class Start:
    """A rollout that a person starts; `spoiled_at` is when a release goes bad in mid-way. Seconds since the start."""

    at: float
    service: str
    plan: str
    release: Release
    spoiled_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Ask:
    """What a person asks for, of whichever rollout of the service runs then."""

    at: float
    user: str
    verb: str
    service: str


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `bot` is the one it befalls where it befalls one, `to` the other end of a link, `how` its variant."""

    at: float
    lasts_s: float
    kind: str
    bot: str = ""
    to: str = ""
    how: str = ""

    def __str__(self) -> str:
        words = (self.kind, self.how, self.bot, self.to and f"to {self.to}", f"{self.lasts_s:.1f} s")
        return f"{self.at:5.1f} " + " ".join(word for word in words if word)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything that is done to one run."""

    seed: int
    starts: tuple[Start, ...]
    asks: tuple[Ask, ...]
    faults: tuple[Fault, ...]


HOLDER = "holder"
"""Whichever process holds the lease when the fault comes."""
KINDS = (
    *("patch kill",) * 4, *("patch held",) * 3, *("bot kill",) * 4,
    *("bot stop",) * 3, *("bot term",) * 2, "bot memory", *("bot clock",) * 2,
    *("redis kill",) * 3, *("redis stop",) * 2, *("redis disk",) * 2, *("redis tail",) * 2, "redis wiped",
    *("link",) * 6,
    "kube 409", "kube 429", *("kube 500",) * 2, "kube hang", "kube slow", *("kube lost",) * 2, "kube watch",
    "prometheus down", "prometheus slow", "prometheus wrong", "scrape gap",
    "slack 429", "slack 500", "slack lost", "slack twice", "slack disconnect", "slack offline", "slack slow",
    *("edit",) * 2, "redeploy", "pods", "route late",
)  # fmt: skip
VERBS = (
    *("approve",) * 4, *("hold",) * 2, *("resume",) * 2, *("promote",) * 2, "promote --full", "rollback", "rollback",
    "rollback all", "reject", "cancel", "freeze", "unfreeze", "undo", "status", "pending", "start",
)  # fmt: skip
STARTER = "U0ADA"
APPROVERS = ("U0GRACE", "U0LINUS")


def draw(seed: int, *, clocks: bool = True, memory: bool = True) -> Schedule:
    """The schedule of a seed.

    `clocks` and `memory` say whether this machine can step one process' clock and run one out of memory; where it
    cannot, those faults are left out and nothing else is drawn differently.
    """
    random = Random(seed)
    starts: list[Start] = []
    for service in random.sample(SERVICES, random.choice((1, 1, 2, 2, 3))):
        release = random.choice((Release.GOOD, Release.GOOD, Release.BAD, Release.SPOILED))
        at = random.uniform(0.0, 2.0)
        starts.append(Start(at, service, random.choice(tuple(PLANS)), release, at + random.uniform(3.0, 8.0)))
    services = [start.service for start in starts]
    asks = [
        Ask(random.uniform(2.5, STORM_S), random.choice((STARTER, *APPROVERS)), random.choice(VERBS), service)
        for service in services
        for _ in range(random.choice((0, 1, 1, 2, 3)))
    ]
    faults = [_fault(random, services) for _ in range(random.choice((0, 1, 2, 2, 3, 3, 4, 5)))]
    able = [one for one in faults if (clocks or one.kind != "bot clock") and (memory or one.kind != "bot memory")]
    return Schedule(seed, tuple(starts), tuple(sorted(asks, key=_when)), tuple(sorted(able, key=_when)))


def _when(one: Ask | Fault) -> float:
    return one.at


def _fault(random: Random, services: list[str]) -> Fault:
    at = random.uniform(0.5, STORM_S - 1.0)
    kind = random.choice(KINDS)
    bot = random.choice((*BOTS, HOLDER, HOLDER, HOLDER))
    lasts_s = random.uniform(0.5, 6.0)
    service = random.choice(services)
    match kind:
        case "bot stop" | "redis stop":
            return Fault(at, random.choice((1.0, 2.5, 3.5, 6.0, 10.0)), kind, bot=bot if kind == "bot stop" else "")
        case "bot clock":
            step_s = random.choice((-60.0, -4.0, -1.0, 1.0, 4.0, 60.0))
            return Fault(at, lasts_s, kind, bot=bot, how=f"{step_s:+g}s")
        case "patch kill":
            return Fault(at, lasts_s, kind, bot=HOLDER, how=random.choice(("before", "after")))
        case "patch held":
            return Fault(at, random.choice((2.0, 5.0, 8.0)), kind, bot=HOLDER, how=random.choice(("frozen", "awake")))
        case "link":
            to = random.choice(LINKS)
            how = random.choice(("cut", "cut", "clogged", "one-way", "slow"))
            return Fault(
                at, random.uniform(0.5, 8.0), kind, bot=random.choice((*BOTS, HOLDER, HOLDER, "")), to=to, how=how
            )
        case "prometheus wrong":
            return Fault(at, lasts_s, kind, how=random.choice(("html", "nan", "empty", "cut")))
        case "edit":
            return Fault(at, 0.0, kind, to=service, how=random.choice(("0", "3", "50", "100")))
        case "redeploy":
            return Fault(at, 0.0, kind, to=service)
        case "pods":
            return Fault(at, lasts_s, kind, to=service, how=random.choice(("v2", "v2", "v1")))
    named = kind.startswith("bot ")
    return Fault(at, lasts_s, kind, bot=bot if named else "")
