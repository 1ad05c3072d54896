"""One run in a city: the schedule is played, then everything is mended, and every rollout has to come to its end."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from random import Random

from bot.adapters.mesh import annotation
from bot.errors import CanaryError, Unreadable
from bot.rollout.events import Request
from bot.rollout.model import Actor, HoldReason, Phase, Rollout, Source
from tests.chaos.city import City, lines_since
from tests.chaos.link import Way
from tests.chaos.record import HELPED, MACHINE, Asked, Json, Record, Trouble, Write
from tests.chaos.schedule import APPROVERS, HOLDER, SERVICES, STARTER, Ask, Fault, Release, Schedule, Start

ANSWER_S = 8.0
FAIL_PERCENT = 80.0
SETTLED_EVERY_S = 1.5
PATIENCE_S = 22.0
GIVEN_UP_S = 60.0
CALL_S = 2.0
STARTS_TRIED_S = 25.0
PATCH_AWAITED_S = 6.0
PULSE_S = 0.25
STALLED_S = 0.4
HELPING = Actor(Source.PERSON, APPROVERS[0], "Grace Hopper", "slash")


class Storm:
    """Plays one schedule and gives the record of what happened."""

    def __init__(self, city: City, schedule: Schedule, *, told: Callable[[str], None] = lambda text: None) -> None:
        self._city = city
        self._schedule = schedule
        self._told = told
        self._random = Random(schedule.seed)
        self._typing: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._open: dict[int, Trouble] = {}
        self._begun = 0
        self._ids: set[str] = set()
        self._record = Record(schedule, time.time())
        self._tasks: list[asyncio.Future[None]] = []
        self._one_redis = asyncio.Lock()
        self._befall: dict[str, Callable[[Fault], Awaitable[None]]] = {
            "bot kill": self._kill,
            "bot term": self._term,
            "bot stop": self._stop,
            "bot memory": self._memory,
            "bot clock": self._clock,
            "patch kill": self._patch_kill,
            "patch held": self._patch_held,
            "redis kill": self._redis_kill,
            "redis stop": self._redis_stop,
            "redis disk": self._redis_disk,
            "redis tail": self._redis_tail,
            "redis wiped": self._redis_wiped,
            "link": self._link,
            "kube 409": lambda fault: self._kube(fault, status=409, verbs=["patch"]),
            "kube 429": lambda fault: self._kube(fault, status=429, retry_after_s=1),
            "kube 500": lambda fault: self._kube(fault, status=500),
            "kube hang": lambda fault: self._kube(fault, hang=True, verbs=["patch", "get", "list"]),
            "kube slow": lambda fault: self._kube(fault, delay_s=1.5, verbs=["patch", "get", "list"]),
            "kube lost": lambda fault: self._kube(fault, lose_reply=True, verbs=["patch"]),
            "kube watch": self._watch,
            "prometheus down": lambda fault: self._part(fault, "prometheus", {"down": True}, {"down": False}),
            "prometheus slow": lambda fault: self._part(fault, "prometheus", {"slow_s": 3.0}, {"slow_s": 0.0}),
            "prometheus wrong": lambda fault: self._part(fault, "prometheus", {"wrong": fault.how}, {"wrong": None}),
            "scrape gap": lambda fault: self._part(
                fault, "mesh", {"exporter_gone": ["istio-mesh"]}, {"exporter_gone": []}
            ),
            "route late": lambda fault: self._part(fault, "mesh", {"push_delay_s": 2.0}, {"push_delay_s": 0.0}),
            "slack 429": lambda fault: self._part(fault, "slack", {"rate_limited": -1}, {"rate_limited": 0}),
            "slack 500": lambda fault: self._part(fault, "slack", {"errors": -1}, {"errors": 0}),
            "slack lost": lambda fault: self._part(fault, "slack", {"lose_reply": -1}, {"lose_reply": 0}),
            "slack twice": lambda fault: self._part(fault, "slack", {"duplicate": "all"}, {"duplicate": False}),
            "slack slow": lambda fault: self._part(fault, "slack", {"slow_s": 1.5}, {"slow_s": 0.0}),
            "slack offline": lambda fault: self._part(fault, "slack", {"offline": True}, {"offline": False}),
            "slack disconnect": lambda fault: self._part(fault, "slack", {"disconnect": True}, {"disconnect": False}),
            "edit": self._edit,
            "redeploy": self._redeploy,
            "pods": self._pods,
        }

    async def play(self) -> Record:
        """The storm, then the quiet."""
        await self._prepare()
        pulse = asyncio.create_task(self._pulse())
        try:
            return await self._played()
        finally:
            pulse.cancel()

    async def _pulse(self) -> None:
        """Note when the bench's own machine has no time for its processes: a call past all faults takes long, or a
        process waits for a processor for a good part of a second."""
        city, waited = self._city, deque([self._city.waited_s()], maxlen=round(1.0 / PULSE_S))
        while True:
            begun = time.time()
            await city.kube("GET", "faults")
            await asyncio.sleep(PULSE_S)
            now, before = city.waited_s(), waited[0]
            waited.append(now)
            longest_s = max((wait_s - before.get(pid, 0.0) for pid, wait_s in now.items()), default=0.0)
            if time.time() - begun > PULSE_S + STALLED_S or longest_s > STALLED_S:
                self._record.troubles.append(Trouble(begun - 1.0, time.time(), MACHINE))

    async def _played(self) -> Record:
        record, begun = self._record, time.time()
        moments: list[tuple[float, Callable[[], Awaitable[None]]]] = []
        for start in self._schedule.starts:
            moments.append((start.at, self._starts(start)))
            if start.release is Release.SPOILED:
                moments.append((start.spoiled_at, self._spoils(start.service)))
        moments += [(ask.at, self._asks(ask)) for ask in self._schedule.asks]
        moments += [(fault.at, self._befalls(fault)) for fault in self._schedule.faults]
        for at, act in sorted(moments, key=lambda moment: moment[0]):
            await asyncio.sleep(max(0.0, begun + at - time.time()))
            self._spawn(act())
        await asyncio.gather(*self._tasks)
        await self._calm()
        record.ended_at = time.time()
        await self._collect()
        return record

    async def _prepare(self) -> None:
        city = self._city
        used = {start.service for start in self._schedule.starts}
        await city.clients.fault("mesh", traffic={name: {"rate": None if name in used else 0} for name in SERVICES})
        await city.clients.fault("mesh", workloads={f"{name}-v2": None for name in SERVICES})
        for service in used:
            await city.restore(service)
        async with city.session.delete(f"{city.clients.slack}/_sandbox/state") as answer:
            assert answer.status == 200
        for start in self._schedule.starts:
            if start.release is Release.BAD:
                await self._spoil(start.service)
        self._record.began = time.time()

    def _spawn(self, work: Awaitable[None]) -> None:
        self._tasks.append(asyncio.ensure_future(work))

    def _befalls(self, fault: Fault) -> Callable[[], Awaitable[None]]:
        async def befall() -> None:
            self._told(str(fault))
            bot = await self._city.holder() if fault.bot == HOLDER else fault.bot
            async with self._one_redis if fault.kind.startswith("redis ") else nullcontext():
                await self._befall[fault.kind](replace(fault, bot=bot))

        return befall

    def _begins(self, fault: Fault, bot: str = "") -> int:
        self._begun += 1
        self._open[self._begun] = Trouble(time.time(), 0.0, fault.kind, bot, f"{fault.how} {fault.to}".strip())
        return self._begun

    def _ends(self, number: int) -> None:
        one = self._open.pop(number, None)
        if one is not None:
            self._record.troubles.append(Trouble(one.begin, time.time(), one.kind, one.bot, one.text))

    async def _kill(self, fault: Fault) -> None:
        bot, number = self._city.bots[fault.bot], self._begins(fault, fault.bot)
        await bot.kill()
        await asyncio.sleep(fault.lasts_s)
        await self._again(fault.bot, number)

    async def _term(self, fault: Fault) -> None:
        bot, number = self._city.bots[fault.bot], self._begins(fault, fault.bot)
        await bot.end(12.0)
        await asyncio.sleep(min(fault.lasts_s, 2.0))
        await self._again(fault.bot, number)

    async def _memory(self, fault: Fault) -> None:
        bot, number = self._city.bots[fault.bot], self._begins(fault, fault.bot)
        if bot.runs:
            by_kernel = await bot.run_out_of_memory(4.0)
            self._told(f"      out of memory: {'killed by the kernel' if by_kernel else 'killed by hand'}")
        await asyncio.sleep(min(fault.lasts_s, 2.0))
        await self._again(fault.bot, number)

    async def _again(self, name: str, number: int) -> None:
        """Start a bot again; the trouble lasts until it holds a lease or could."""
        bot = self._city.bots[name]
        if not bot.runs:
            bot.start()
        self._ends(number)

    async def _patch_kill(self, fault: Fault) -> None:
        """kill -9 just before or just after a patch has gone to the API server."""
        bot = self._city.bots[fault.bot]
        link, done = bot.links["kube"], asyncio.Event()
        number = 0

        async def kill() -> None:
            nonlocal number
            number = self._begins(fault, fault.bot)
            await bot.kill()
            done.set()

        async def trap() -> bool:
            if fault.how == "after":
                link.sprung = kill
                return True
            await kill()
            return False

        link.trap = trap
        try:
            async with asyncio.timeout(PATCH_AWAITED_S):
                await done.wait()
        except TimeoutError:
            link.trap = None
            return
        finally:
            link.sprung = None
        await asyncio.sleep(fault.lasts_s)
        await self._again(fault.bot, number)

    async def _patch_held(self, fault: Fault) -> None:
        """A patch stays on its way for long; who sent it sleeps meanwhile (`frozen`) or goes on."""
        bot = self._city.bots[fault.bot]
        link, done = bot.links["kube"], asyncio.Event()

        async def trap() -> bool:
            number = self._begins(fault, fault.bot)
            if fault.how == "frozen":
                bot.signal(signal.SIGSTOP)
            await asyncio.sleep(fault.lasts_s)
            bot.signal(signal.SIGCONT)
            self._ends(number)
            done.set()
            return True

        link.trap = trap
        try:
            async with asyncio.timeout(PATCH_AWAITED_S + fault.lasts_s):
                await done.wait()
        except TimeoutError:
            link.trap = None

    async def _stop(self, fault: Fault) -> None:
        bot, number = self._city.bots[fault.bot], self._begins(fault, fault.bot)
        bot.signal(signal.SIGSTOP)
        await asyncio.sleep(fault.lasts_s)
        bot.signal(signal.SIGCONT)
        self._ends(number)

    async def _clock(self, fault: Fault) -> None:
        bot, number = self._city.bots[fault.bot], self._begins(fault, fault.bot)
        bot.step_clock(fault.how)
        await asyncio.sleep(fault.lasts_s)
        bot.step_clock("+0s")
        await asyncio.sleep(1.0)
        self._ends(number)

    async def _redis_kill(self, fault: Fault) -> None:
        number = self._begins(fault)
        await self._city.redis.kill()
        await asyncio.sleep(fault.lasts_s)
        self._city.redis.start()
        self._ends(number)

    async def _redis_stop(self, fault: Fault) -> None:
        number = self._begins(fault)
        self._city.redis.signal(signal.SIGSTOP)
        await asyncio.sleep(fault.lasts_s)
        self._city.redis.signal(signal.SIGCONT)
        self._ends(number)

    async def _redis_disk(self, fault: Fault) -> None:
        number = self._begins(fault)
        self._city.redis.disk_is_full(True)
        await asyncio.sleep(fault.lasts_s)
        self._city.redis.disk_is_full(False)
        self._ends(number)

    async def _redis_tail(self, fault: Fault) -> None:
        redis, number = self._city.redis, self._begins(fault)
        size = redis.size()
        await asyncio.sleep(1.0)
        await redis.kill()
        redis.cut_tail(size)
        self._record.store_lost_at.append(time.time())
        await asyncio.sleep(min(fault.lasts_s, 2.0))
        redis.start()
        self._ends(number)

    async def _redis_wiped(self, fault: Fault) -> None:
        redis, number = self._city.redis, self._begins(fault)
        await redis.kill()
        redis.wipe()
        self._record.store_lost_at.append(time.time())
        await asyncio.sleep(min(fault.lasts_s, 2.0))
        redis.start()
        self._ends(number)

    async def _link(self, fault: Fault) -> None:
        number = self._begins(fault, fault.bot)
        links = [bot.links[fault.to] for bot in self._city.bots.values() if fault.bot in ("", bot.name)]
        for link in links:
            link.put(Way(fault.how))
        await asyncio.sleep(fault.lasts_s)
        for link in links:
            link.put(Way.OPEN)
        self._ends(number)

    async def _kube(self, fault: Fault, **stated: object) -> None:
        number = self._begins(fault)
        self._city.kube_faults[number] = {"user_agent": "canary-bot", **stated}
        await self._city.kube_requests()
        await asyncio.sleep(fault.lasts_s)
        del self._city.kube_faults[number]
        await self._city.kube_requests()
        self._ends(number)

    async def _watch(self, fault: Fault) -> None:
        number = self._begins(fault)
        for _ in range(3):
            await self._city.kube("PUT", "faults", {"drop_watches": True, "compact": self._random.random() < 0.5})
            await asyncio.sleep(fault.lasts_s / 3)
        self._ends(number)

    async def _part(self, fault: Fault, part: str, on: Json, off: Json) -> None:
        number = self._begins(fault)
        await self._city.clients.fault(part, **on)
        await asyncio.sleep(fault.lasts_s)
        await self._city.clients.fault(part, **off)
        self._ends(number)

    async def _edit(self, fault: Fault) -> None:
        await self._city.edit(fault.to, int(fault.how), "kubectl-edit")

    async def _redeploy(self, fault: Fault) -> None:
        image = f"registry.example/shop/{fault.to}:v2.0.{self._schedule.seed}"
        await self._city.kube("PUT", f"workloads/shop/{fault.to}-v2", {"image": image})

    async def _pods(self, fault: Fault) -> None:
        number = self._begins(fault)
        workload = f"workloads/shop/{fault.to}-{fault.how}"
        await self._city.kube("PUT", workload, {"ready": 0})
        await asyncio.sleep(fault.lasts_s)
        await self._city.kube("PUT", workload, {"ready": 2})
        self._ends(number)

    def _spoils(self, service: str) -> Callable[[], Awaitable[None]]:
        return lambda: self._spoil(service)

    async def _spoil(self, service: str) -> None:
        self._record.spoiled[service] = time.time()
        await self._city.clients.fault("mesh", workloads={f"{service}-v2": {"fail_percent": FAIL_PERCENT}})

    def _starts(self, start: Start) -> Callable[[], Awaitable[None]]:
        async def starts() -> None:
            deadline = time.time() + STARTS_TRIED_S
            while time.time() < deadline:
                asked = await self._say(STARTER, f"start {start.service} v2 plan {start.plan}")
                if asked.acknowledged and re.search(rf"`{start.service}-[0-9a-f]+`", asked.answer):
                    return
                await asyncio.sleep(0.7)

        return starts

    def _asks(self, ask: Ask) -> Callable[[], Awaitable[None]]:
        async def asks() -> None:
            text = await self._spelled(ask)
            if text:
                await self._say(ask.user, text)

        return asks

    async def _spelled(self, ask: Ask) -> str:
        match ask.verb:
            case "rollback all":
                return "rollback all enough"
            case "freeze":
                return f"freeze {ask.service} for 4s audit"
            case "unfreeze" | "undo":
                return f"{ask.verb} {ask.service}"
            case "start":
                return f"start {ask.service} v2 plan short"
            case "pending" | "status":
                return ask.verb
        name = next(iter(sorted(one for one in self._ids if one.startswith(f"{ask.service}-"))), "")
        if not name:
            return ""
        verb, _, option = ask.verb.partition(" ")
        reason = " because" if verb in ("hold", "reject", "rollback") else ""
        return f"{verb} {name} {option}{reason}".strip()

    async def _say(self, user: str, text: str) -> Asked:
        """Type `/canary <text>`; people do one thing after the other."""
        async with self._typing[user]:
            at = time.time()
            outcome = await self._city.clients.act(
                "command", user=user, channel="C0DEPLOYS", text=f"/canary {text}", wait_s=ANSWER_S
            )
            said = "\n".join(_spelled(message) for message in outcome["ephemeral"])
            self._ids.update(re.findall(r"`([a-z]+-[0-9a-f]{4})`", said))
            asked = Asked(at, time.time(), user, text, bool(outcome["ok"]), said)
            self._record.asked.append(asked)
            self._told(f"      {user} {text} -> {said.splitlines()[0][:90] if said else outcome}")
            return asked

    async def _calm(self) -> None:
        """No more faults: everything has to end, and everything has to be said."""
        city = self._city
        for bot in city.bots.values():
            bot.heal()
            bot.step_clock("+0s")
        await city.kube("PUT", "faults", {"requests": []})
        await city.clients.fault("slack", offline=False)
        for service in SERVICES:
            for version in ("v1", "v2"):
                await city.kube("PUT", f"workloads/shop/{service}-{version}", {"ready": 2})
        await city.ready()
        self._told("      quiet")
        self._record.quiet_at = begun = time.time()
        await city.store_answers()
        for scope in (*SERVICES, "all"):
            at = time.time()
            if await city.store.freezes.remove(scope):
                self._record.asked.append(Asked(at, time.time(), HELPING.id, f"unfreeze {scope}", True, HELPED))
        while time.time() - begun < GIVEN_UP_S:
            await asyncio.sleep(SETTLED_EVERY_S)
            try:
                if await self._settled(time.time() - begun > PATIENCE_S):
                    return
            except CanaryError as error:
                self._told(f"      {error}")

    async def _settled(self, impatient: bool) -> bool:
        store = self._city.store
        active = await store.rollouts.active()
        for rollout, _ in active.rollouts:
            self._ids.add(rollout.id)
            await self._help(rollout, impatient)
        self._record.letters_left = await store.outbox.depth()
        waiting = await store.inbox.waiting()
        return not active.rollouts and not active.quarantined and not self._record.letters_left and not waiting

    async def _help(self, rollout: Rollout, impatient: bool) -> None:
        """Bring a rollout to its end as reasonable people would."""
        reasons = rollout.hold_reasons
        if rollout.phase in (Phase.ROLLING_BACK, Phase.SCHEDULED):
            return
        if impatient or reasons & {HoldReason.NO_DATA, HoldReason.STABLE_UNHEALTHY}:
            await self._put(rollout, "rollback")
        elif HoldReason.REDEPLOYED in reasons:
            await self._put(rollout, "restart", "restart")
        elif HoldReason.DRIFT in reasons:
            await self._put(rollout, "drift", self._random.choice(("adopt", "reapply")))
        elif reasons & {HoldReason.PERSON, HoldReason.RECOVERED}:
            await self._put(rollout, "resume")
        elif rollout.phase is Phase.AWAITING_APPROVAL:
            await self._put(rollout, "approve")

    async def _put(self, rollout: Rollout, verb: str, option: str = "") -> None:
        """Put a request into the inbox, as a replica does that has taken it from Slack."""
        now = time.time()
        self._told(f"      helped: {verb} {option} {rollout.id}")
        self._record.asked.append(Asked(now, now, HELPING.id, f"{verb} {rollout.id} {option}", True, HELPED))
        await self._city.store.inbox.put(
            Request(f"{verb}-{now}", rollout.id, verb, HELPING, now, reason="because", option=option)
        )

    async def _collect(self) -> None:
        """Read what everyone knows."""
        city, record = self._city, self._record
        for number in list(self._open):
            self._ends(number)
        for start in self._schedule.starts:
            for write in await city.clients.route_writes(start.service):
                one = _read(start.service, write)
                if one is not None and one.at >= record.began:
                    record.writes.append(one)
        record.writes.sort(key=lambda one: one.at)
        record.lines = lines_since(city.lines, record.began)
        record.messages = await city.clients.messages()
        self._ids |= {one.rollout for one in record.writes if one.rollout}
        for name in sorted(self._ids):
            try:
                rollout = await city.store.rollouts.load(name)
            except (Unreadable, CanaryError):
                continue
            if rollout.created_at >= record.began - 120.0:
                record.rollouts[name] = rollout
                record.audit += await city.store.rollouts.audited(name)


def _read(service: str, write: Json) -> Write | None:
    """A write of a route as it is judged; None for one that created it or took it away."""
    before, after = write["before"], write["after"]
    if before is None or after is None:
        return None
    mark = annotation.mark_of(after)
    user = str(write["user"])
    ours = write["field_manager"] == "canary-bot"
    return Write(
        datetime.fromisoformat(write["time"]).timestamp(),
        user.removeprefix("bot-") if ours else str(write["field_manager"]),
        ours,
        service,
        weight_of(before),
        weight_of(after),
        mark.rollout if mark and ours else "",
        mark.revision if mark else 0,
        mark.phase if mark else "",
        before,
        after,
    )


def weight_of(manifest: Json) -> int:
    """The canary's weight in a route of the bench."""
    entries = manifest["spec"]["http"][0]["route"]
    return sum(int(entry.get("weight", 0)) for entry in entries if entry["destination"].get("subset") == "v2")


def _spelled(message: Json) -> str:
    return f"{message['text']}\n{json.dumps(message['blocks'])}" if message["blocks"] else str(message["text"])
