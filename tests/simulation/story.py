"""One run: a pure function of its seed."""

import asyncio
import gc
from collections import Counter
from dataclasses import dataclass
from random import Random

from bot.rollout.model import Phase
from tests.simulation.history import Broken, History, Line
from tests.simulation.loop import VirtualLoop
from tests.simulation.people import ASKED, People
from tests.simulation.town import Bot, Town, watched
from tests.simulation.wire import at_once

STORM_S = 40.0
SETTLED_EVERY_S = 2.0
QUIET_ROUNDS = 2
PATIENCE_S = 45.0
GIVEN_UP_S = 200.0
BAD_FOR_S = 25.0
SERVICES = ("store", "api", "metrics", "chat")
MISHAPS = (
    *("kill",) * 4, *("blade",) * 6, *("stall",) * 5, *("stop",) * 3, *("partition",) * 4, *("step",) * 4, "store down",
    "metrics down", *("edit",) * 2, "redeploy", "pods", "stable pods", *("sigterm",) * 2, "scrape gap",
    "wiped", *("rewound",) * 2, *("route deleted",) * 2, "taken out", "canary gone", "stable gone",
)  # fmt: skip


WRITERS = ("kubectl-edit", "argocd-controller")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one run."""

    seed: int
    broken: tuple[Broken, ...]
    faults: int
    fates: Counter[str]
    repeated: int
    ends: Counter[str]
    raises: int
    virtual_s: float
    digest: str
    lines: tuple[Line, ...] = ()


def run(seed: int, *, lines: bool = False) -> Outcome:
    """Play one run."""
    random = Random(seed)
    loop = VirtualLoop(random)
    history = History(loop.time, lines=lines)
    story = Story(loop, random, history)
    collecting = gc.isenabled()
    gc.disable()
    try:
        with watched(history):
            loop.play(story.play())
    finally:
        loop.end()
        if collecting:
            gc.enable()
    town = story.town
    history.finish(story.letters_left, [bot.telemetry for bot in town.bots], loop.unexpected)
    ends = Counter(one.rollout.phase.value for one in town.store.rollouts.records.values())
    raises = sum(move.weight > move.was for move in history.moves)
    return Outcome(
        seed, tuple(history.broken), history.faults, history.fates, history.repeated, ends, raises, loop.time(),
        history.digest, tuple(history.lines),
    )  # fmt: skip


class Story:
    """A storm of faults and wishes, then quiet in which everything has to come to its end."""

    def __init__(self, loop: VirtualLoop, random: Random, history: History) -> None:
        self._loop, self._random, self._history = loop, random, history
        rate = random.choice((0.0, 0.0, 0.01, 0.03, 0.1))
        rates = {name: rate * random.choice((0.0, 1.0, 1.0, 2.0)) for name in SERVICES}
        if random.random() < 0.25:
            rates["patch"] = 0.3
        self.gates = random.choice(("threshold", "threshold", "sequential", "p99"))
        self.town = Town(loop, random, history, rates, self.gates)
        self.people = People(self.town, random)
        self.services = ["payments", "checkout"] if random.random() < 0.15 else ["payments"]
        self.letters_left = 0
        self._bad: dict[str, float] = {}
        self._bad_from_the_start: set[str] = set()
        self._flowing_since: dict[str, float] = {}
        self._skewed = random.random() < 0.4

    async def play(self) -> None:
        """The storm, then the quiet."""
        random, town = self._random, self.town
        for name in self.services:
            town.add_service(name, missing=random.random() < 0.3)
            if random.random() < 0.4:
                self._spoil(name)
                self._bad_from_the_start.add(name)
        await asyncio.sleep(30.0)
        for _ in range(random.choice((1, 2, 2, 3))):
            self._start_bot()
        begun = self._loop.time()
        moments: list[tuple[float, str, str]] = []
        for name in self.services:
            moments += [(at + random.uniform(0.0, 4.0), "start", name) for at in (1.0, 6.0, 12.0)]
            moments += [(random.uniform(5.0, STORM_S), random.choice(ASKED), name) for _ in range(random.randint(0, 7))]
        moments += [(random.uniform(2.0, STORM_S), random.choice(MISHAPS), "") for _ in range(random.randint(0, 8))]
        if random.random() < 0.2:
            moments.append((random.uniform(8.0, STORM_S), "spoil", ""))
        for at, what, name in sorted(moments):
            await asyncio.sleep(max(0.0, begun + at - self._loop.time()))
            if name:
                self.people.ask(what, name)
            else:
                self._befall(what)
            if town.quiet and town.store.rollouts.records and random.random() < 0.8:
                break
        await self._calm()

    def _start_bot(self) -> Bot:
        return self.town.start_bot(self._random.uniform(-2.0, 2.0) if self._skewed else 0.0)

    def _befall(self, what: str) -> None:
        """One mishap."""
        random, town = self._random, self.town
        alive = [bot for bot in town.bots if not bot.process.dead and not bot.stopping]
        service = random.choice(self.services)
        bot = random.choice(alive) if alive else None
        match what:
            case "edit":
                weight = random.choice((0, 3, 50, 100))
                if ("shop", service) in town.truth.objects:
                    town.truth.edit(service, canary_weight=weight, by=random.choice(WRITERS))
            case "taken out":
                if ("shop", service) in town.truth.objects:
                    town.take_out(service, random.choice(WRITERS))
            case "route deleted":
                writer = random.choice(WRITERS)
                town.delete_route(service, writer)
                if random.random() < 0.6:
                    self._loop.call_later(random.uniform(0.1, 20.0), town.restore_route, service, writer)
            case "canary gone" | "stable gone":
                version = "v2" if what == "canary gone" else "v1"
                town.remove_pods(service, version)
                self._loop.call_later(random.uniform(3.0, 20.0), town.restore_pods, service, version)
            case "wiped":
                town.wipe_store()
            case "rewound":
                town.rewind_store(random.uniform(0.05, 1.0))
            case "redeploy":
                town.cluster.change(f"{service}-v2", template="hash-2", images=("sha256:2",))
                self._history.say("world", "redeploy", service)
            case "pods" | "stable pods":
                workload = f"{service}-{'v2' if what == 'pods' else 'v1'}"
                town.cluster.change(workload, ready=False)
                self._history.say("world", "not ready", workload)
                self._later(random.uniform(3.0, 15.0), town.cluster.change, workload)
            case "scrape gap":
                now = town.clock.now()
                town.metrics.outage(now, now + random.uniform(3.0, 12.0))
                self._history.say("world", "scrape gap")
            case "metrics down" | "store down":
                for one in alive:
                    town.cut(one, {what.split(maxsplit=1)[0]})
                    self._loop.call_later(random.uniform(2.0, 15.0), town.heal, one)
            case "spoil":
                self._spoil(service)
            case _ if bot is None:
                self._start_bot()
            case "kill":
                town.kill(bot)
                self._loop.call_later(random.uniform(0.5, 8.0), self._start_bot)
            case "blade":
                town.arm(bot)
                self._loop.call_later(random.uniform(1.0, 8.0), self._replace, bot)
            case "stall":
                town.arm(bot, stops_s=random.choice((1.0, 2.5, 3.5, 6.0, 9.0)))
            case "stop":
                town.freeze(bot)
                self._loop.call_later(random.choice((1.0, 2.5, 3.5, 6.0, 12.0)), town.thaw, bot)
            case "partition":
                town.cut(bot, set(random.sample(SERVICES, random.randint(1, 3))))
                self._loop.call_later(random.uniform(1.0, 15.0), town.heal, bot)
            case "step":
                town.step_clock(bot, random.choice((-60.0, -60.0, -60.0, -4.0, -1.0, 1.0, 4.0, 60.0)))
            case "sigterm":
                bot.stopping = True
                self._history.disturb(bot.name, "told to stop", gone=True)
                self._loop.spawn(bot.process, bot.engine.stop())
                self._loop.call_later(random.uniform(0.2, 6.0), self._start_bot)

    def _replace(self, bot: Bot) -> None:
        if bot.process.dead:
            self._start_bot()

    def _later(self, delay_s: float, change: object, workload: str) -> None:
        self._loop.call_later(delay_s, lambda: self.town.cluster.change(workload, ready=True))

    def _spoil(self, service: str) -> None:
        """From now on the canary fails."""
        wrong = (
            {"slow": 0.4, "slow_ms": 2000.0} if self.gates == "p99" and self._random.random() < 0.5 else {"fail": 0.4}
        )
        self.town.metrics.behave(f"{service}.shop.svc.cluster.local", "v2", **wrong)
        self._bad[service] = self._loop.time()
        self._history.say("world", "bad release", service)

    async def _calm(self) -> None:
        """No more faults: everything has to end, and everything has to be said."""
        town, history = self.town, self._history
        town.rates.clear()
        for bot in town.bots:
            bot.wire.blade = None
            town.thaw(bot)
            town.heal(bot)
            if bot.clock.skew_s:
                town.step_clock(bot, -bot.clock.skew_s)
        for service in self.services:
            for version in ("v1", "v2"):
                town.cluster.change(f"{service}-{version}", ready=True)
                town.restore_pods(service, version)
        if not any(bot.serves for bot in town.bots):
            self._start_bot()
        town.store.freezes._freezes.clear()
        history.say("world", "quiet")
        begun = self._loop.time()
        rounds = 0
        while rounds < QUIET_ROUNDS and self._loop.time() - begun < GIVEN_UP_S:
            await asyncio.sleep(SETTLED_EVERY_S)
            rounds = rounds + 1 if town.quiet else 0
            for rollout in town.active:
                history.unwatched(rollout)
                self.people.settle(rollout, self._loop.time() - begun > PATIENCE_S)
            self._look_at_bad_ones(begun)
        self.letters_left = at_once(town.store.outbox.depth())
        for one in town.store.rollouts.records.values():
            bad = one.rollout.target.service in self._bad_from_the_start and not one.rollout.undo_of
            if bad and one.rollout.phase is Phase.PROMOTED:
                history.promoted_badly(one.rollout.id)

    def _look_at_bad_ones(self, quiet_since: float) -> None:
        """A canary that fails, with weight, while everything can be measured and written."""
        for rollout in self.town.active:
            service = rollout.target.service
            weight = self.town.weight(service)
            if service not in self._bad or weight < 5 or not rollout.touched or self.people.made_again(rollout):
                self._flowing_since.pop(service, None)
                continue
            since = max(self._flowing_since.setdefault(service, self._loop.time()), quiet_since, self._bad[service])
            if self._loop.time() - since > BAD_FOR_S:
                self._history.still_bad(rollout, weight, self._loop.time() - since)
                self._flowing_since[service] = self._loop.time()
