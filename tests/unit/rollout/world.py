"""A rollout beside a simulated route and clock: moves drawn as numbers become events, and every decision is checked."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from bot.rollout.effects import Decision, Direction, SetWeight
from bot.rollout.events import (
    Clocked,
    Due,
    Event,
    Looked,
    Remains,
    Reply,
    Request,
    RouteGone,
    TookOver,
    WriteFailed,
    Written,
)
from bot.rollout.gate import Assessment, Blame, Cause, Coverage, GateReport, Share, Verdict
from bot.rollout.invariants import violations
from bot.rollout.machine import TABLE, IllegalEvent, Kind, decide, kind_of
from bot.rollout.model import (
    Actor,
    ApprovalPolicy,
    Destination,
    Freeze,
    OnSilence,
    Phase,
    Rollout,
    RouteRef,
    Rules,
    Side,
    Source,
    Target,
)
from bot.rollout.plan import parse_steps
from bot.rollout.route import Mark, RouteState
from bot.rollout.start import scheduled

ADA = Actor(Source.PERSON, "U0ADA", "Ada", "slash")
GRACE = Actor(Source.PERSON, "U0GRACE", "Grace", "button")
LINUS = Actor(Source.PERSON, "U0LINUS", "Linus", "mention")
PEOPLE = (ADA, GRACE, LINUS)
REPLY = Reply("#deploys", "U0ADA")
START = 1_790_000_000.0
PLAN = "5%:20s, 25%:20s, 50%:30s:approve, 100%:20s"

Decide = Callable[[Rollout, Event, float], Decision]
Move = tuple[int, int, int]


class Broken(AssertionError):
    """A safety rule was broken."""


def target(*, inserted: bool = False) -> Target:
    host = "payments.shop.svc.cluster.local"
    return Target(
        service="payments",
        namespace="shop",
        host=host,
        route=RouteRef("istio", "shop", "payments", route="primary", uid="uid-1"),
        stable=Side("v1", Destination(host, "v1"), ("payments-v1",), "v1"),
        canary=Side("v2", Destination(host, "v2"), ("payments-v2",), "v2"),
        canary_inserted=inserted,
        fingerprint="print-1",
    )


def rollout(
    *,
    steps: str = PLAN,
    rules: Rules | None = None,
    start_weight: int = 0,
    inserted: bool = False,
    at: float | None = None,
) -> Rollout:
    return scheduled(
        id="payments-7f3a",
        target=target(inserted=inserted),
        plan=parse_steps(steps),
        gates=(),
        rules=rules or Rules(check_every_s=5.0, arrival_s=30.0),
        by=ADA,
        now=START,
        at=at,
        start_weight=start_weight,
    )


@dataclass
class Route:
    """The route as an API server would hold it."""

    canary: int = 0
    stable: int = 100
    mark: Mark | None = None
    manager: str = "canary-bot"
    uid: str = "uid-1"
    changed: str = ""
    stable_lost: str = ""
    canary_lost: str = ""
    gone: RouteGone | None = None

    def state(self) -> RouteState:
        return RouteState(
            self.uid, "1", self.stable, self.canary, (), self.mark, self.manager,
            self.changed, self.stable_lost, self.canary_lost,
        )  # fmt: skip

    def apply(self, change: SetWeight, uid: str = "uid-1") -> bool:
        """Write as the router would: with its tests; False for a conflict."""
        if self.gone is not None or self.uid != uid or (self.changed and change.direction is not Direction.ZERO):
            return False
        revision = self.mark.revision if self.mark is not None and self.mark.rollout == change.mark.rollout else None
        if change.direction is not Direction.ZERO and revision != change.expected:
            return False
        if change.direction is Direction.RAISE and (self.canary, self.stable) != (
            change.from_percent,
            100 - change.from_percent if change.from_stable is None else change.from_stable,
        ):
            return False
        if change.direction is Direction.ZERO:
            self.stable, self.canary = self.stable + self.canary, 0
        elif change.direction is Direction.RAISE:
            self.stable, self.canary = 100 - change.weight_percent, change.weight_percent
        self.mark = change.mark
        return True


class World:
    """One rollout, its route, its time; `step` feeds an event, checks every rule and performs the effects.

    `visits` counts (phase, kind) pairs. `conclusion` of effects: "done", "away", "conflict", "lost" (it was written,
    the answer was lost), "crash" (nothing was written, nothing comes back), "landed" (it was written and the process
    died; what was not saved before the write is forgotten).
    """

    def __init__(
        self, start: Rollout, decide: Decide = decide, visits: Counter[tuple[Phase, Kind]] | None = None
    ) -> None:
        self.rollout = start
        self.now = max(START, start.scheduled_at)
        self.route = Route(canary=start.weight_percent, stable=100 - start.weight_percent)
        self.decide = decide
        self.visits: Counter[tuple[Phase, Kind]] = Counter() if visits is None else visits
        self.freezes: tuple[Freeze, ...] = ()
        self.decisions: list[Decision] = []
        self.requests = 0

    def step(self, event: Event, conclusion: str = "done") -> Decision:
        before = self.rollout
        pair = (before.phase, kind_of(event))
        decision = self.decide(before, event, self.now)
        self.visits[pair] += 1
        broken = violations(before, event, decision, self.now)
        if broken:
            raise Broken(f"{pair}: {broken}")
        self.rollout = decision.rollout
        self.decisions.append(decision)
        for effect in decision.effects:
            if isinstance(effect, SetWeight):
                self._perform(effect, conclusion)
                if conclusion == "landed" and effect.direction is Direction.ZERO:
                    self.rollout = before
        return decision

    def _perform(self, change: SetWeight, conclusion: str) -> None:
        uid = self.rollout.target.route.uid
        if conclusion == "crash" or (conclusion == "landed" and self.route.apply(change, uid)):
            return
        if self.route.gone is not None:
            self.step(self.route.gone)
        elif conclusion == "away":
            self.step(WriteFailed(change.mark.revision, "transient", "the API server does not answer"))
        elif conclusion == "conflict" or not self.route.apply(change, uid):
            self.step(WriteFailed(change.mark.revision, "conflict", "a test failed", self.route.state()))
        elif conclusion == "lost":
            self.step(WriteFailed(change.mark.revision, "transient", "no answer in 5 s"))
        else:
            self.step(Written(change.mark.revision, change.weight_percent, self.route.state()))

    def report(self, verdict: Verdict = Verdict.PASS, **changes: object) -> GateReport:
        report = GateReport(
            "error-rate",
            verdict,
            "0.2% of 200 requests failed, limit 1%.",
            weight_percent=self.rollout.weight_percent,
            step=self.rollout.step,
            newest_sample_at=self.now,
        )
        return replace(report, **changes)  # type: ignore[arg-type]

    def look(self, *reports: GateReport, **changes: object) -> Looked:
        """A look at the present step: passing, arrived, covered, with ready pods, unless told otherwise."""
        covered_until = self.rollout.bake.covered_until
        assessment = Assessment(
            at=self.now,
            step=self.rollout.step,
            weight_percent=self.rollout.weight_percent,
            reports=reports or (self.report(),),
            share=Share(float(self.rollout.weight_percent), 500, True),
            coverage=Coverage(self.now, max(0.0, self.now - covered_until)),
            stable_ready=2,
            canary_ready=2,
            canary_fingerprint=self.rollout.target.fingerprint,
        )
        seen = replace(assessment, **changes)  # type: ignore[arg-type]
        if self.route.gone is not None:
            return Looked(seen, self.freezes, gone=self.route.gone)
        return Looked(seen, self.freezes, self.route.state())

    def request(self, verb: str, by: Actor = GRACE, **changes: object) -> Request:
        self.requests += 1
        request = Request(f"r{self.requests}", self.rollout.id, verb, by, self.now, reply=REPLY)
        return replace(request, **changes)  # type: ignore[arg-type]

    def ask(self, verb: str, by: Actor = GRACE, **changes: object) -> Decision:
        return self.step(self.request(verb, by, **changes))

    def pass_time(self, seconds: float, every_s: float = 5.0) -> None:
        """Let time pass with looks that pass."""
        until = self.now + seconds
        while self.now < until and not self.rollout.phase.final:
            self.now += every_s
            self.step(self.look())

    def until(self, phase: Phase) -> None:
        """Pass time until a phase is reached, at most 200 looks."""
        for _ in range(200):
            if self.rollout.phase is phase:
                return
            self.now += 5.0
            self.step(self.look())
        raise AssertionError(f"{phase} was never reached")

    def texts(self) -> list[str]:
        """Everything said so far, cards left out."""
        return [message.text for decision in self.decisions for message in decision.messages if message.kind != "card"]


def scenes() -> Sequence[str]:
    """Where a walk may begin; those that are left soon come up more often."""
    return (
        *("scheduled",) * 7, *("awaiting",) * 6, *("quorum",) * 3, *("going-back",) * 7, *("promoted",) * 3,
        *("first",) * 3, *("baking",) * 3, *("drifted",) * 2,
        "asked-first", "held", "rolled-back", "cancelled", "adopted", "last", "pending", "frozen",
    )  # fmt: skip


def rules_of(pick: int) -> Rules:
    """One of a few sets of rules."""
    return Rules(
        check_every_s=5.0,
        arrival_s=30.0,
        no_data_after_s=(0.0, 20.0)[pick % 2],
        on_no_data=(OnSilence.HOLD, OnSilence.ROLL_BACK)[pick // 2 % 2],
        on_machine=(OnSilence.ROLL_BACK, OnSilence.HOLD)[pick // 4 % 2],
        approval=ApprovalPolicy(
            quorum=1,
            four_eyes=pick % 3 > 0,
            expires_s=600.0,
            on_expiry=(OnSilence.ROLL_BACK, OnSilence.HOLD)[pick // 8 % 2],
        ),
    )


def stage(scene: str, rules: Rules, decide: Decide, visits: Counter[tuple[Phase, Kind]]) -> World:
    """A world led to a scene by events."""
    if scene == "quorum":
        rules = replace(rules, approval=replace(rules.approval, quorum=2))
    steps = PLAN.replace("5%:20s", "5%:20s:approve") if scene == "asked-first" else PLAN
    world = World(
        rollout(steps=steps, rules=rules, start_weight=10 if scene == "adopted" else 0, inserted=scene == "baking"),
        decide,
        visits,
    )
    if scene == "scheduled":
        return world
    if scene == "cancelled":
        world.ask("cancel")
        return world
    world.step(Due())
    if scene in ("first", "adopted"):
        return world
    if scene == "frozen":
        world.freezes = (Freeze("f1", "payments", "audit", GRACE, world.now, world.now + 600),)
    world.step(world.look(), "crash" if scene == "pending" else "done")
    match scene:
        case "awaiting" | "quorum":
            world.until(Phase.AWAITING_APPROVAL)
        case "held":
            world.ask("hold", reason="lunch")
        case "drifted":
            world.route.canary, world.route.stable, world.route.manager = 30, 70, "kubectl-edit"
            world.step(world.look())
        case "going-back":
            world.step(world.look(world.report(Verdict.FAIL, deciding=True)), "away")
        case "rolled-back":
            world.ask("rollback", reason="no")
        case "promoted" | "last":
            world.until(Phase.AWAITING_APPROVAL)
            world.ask("approve", LINUS)
            world.step(world.look())
            while world.rollout.weight_percent < 100:
                world.pass_time(5)
            if scene == "promoted":
                world.until(Phase.PROMOTED)
        case _:
            pass
    return world


_KINDS = (*Kind, Kind.LOOKED, Kind.LOOKED, Kind.CLOCKED, Kind.TOOK_OVER, Kind.TOOK_OVER)
KINDS = len(_KINDS) + 1
_PAUSES_S = (0.0, 1.0, 5.0, 5.0, 5.0, 30.0, 70.0, 700.0)
_CONCLUSIONS = ("done", "done", "done", "done", "away", "conflict", "lost", "crash", "landed")


def walk(world: World, moves: Sequence[Move]) -> None:
    """Play moves: each either changes the world or feeds an event; illegal ones have to raise and change nothing."""
    for kind_pick, a, b in moves:
        world.now += _PAUSES_S[b % 8]
        if kind_pick >= len(_KINDS):
            _meddle(world, kind_pick + a)
            continue
        kind = _KINDS[kind_pick]
        phase = world.rollout.phase
        if kind in (Kind.WRITTEN, Kind.WRITE_FAILED):
            _answer_pending(world, kind)
            continue
        event = _event(world, kind, a, b)
        if (phase, kind) in TABLE:
            conclusions = _CONCLUSIONS[3:] if phase is Phase.ROLLING_BACK else _CONCLUSIONS
            world.step(event, conclusions[a // 8 % len(conclusions)])
        else:
            _expect_illegal(world, event)


def _expect_illegal(world: World, event: Event) -> None:
    before = world.rollout
    try:
        world.decide(before, event, world.now)
    except IllegalEvent:
        assert world.rollout is before
    else:
        raise AssertionError(f"{event!r} was taken in {before.phase}")


def _answer_pending(world: World, kind: Kind) -> None:
    """Answer a write that a crash left open, late; without one the event is illegal."""
    write = world.rollout.write
    if write is None:
        _expect_illegal(world, Written(world.rollout.revision, 0, world.route.state()))
        return
    if kind is Kind.WRITE_FAILED:
        world.step(WriteFailed(write.revision, "transient", "late", None))
        return
    world.route.canary, world.route.stable = write.weight_percent, 100 - write.weight_percent
    world.route.mark = Mark(world.rollout.id, write.revision, write.weight_percent, "Progressing")
    world.step(Written(write.revision, write.weight_percent, world.route.state()))


def _meddle(world: World, pick: int) -> None:
    """Something changes outside: weights by hand, our mark, a freeze, the object, what stands behind it."""
    route = world.route
    match pick % 12:
        case 5:
            world.route.canary, world.route.stable = (world.rollout.weight_percent, 37)[pick % 2], 80
        case 6:
            route.uid, route.mark = ("uid-1", "uid-2")[pick // 12 % 2], None
        case 7:
            route.changed = ("", "the match of route primary is not what it was")[pick // 12 % 2]
        case 8:
            route.stable_lost = ("", "no DestinationRule has the subset v1")[pick // 12 % 2]
        case 9:
            route.canary_lost = ("", "no DestinationRule has the subset v2")[pick // 12 % 2]
        case 10:
            remains = (*Remains,)[pick % 3]
            route.gone = (None, RouteGone("the route is gone", remains))[pick // 12 % 2]
        case 11:
            route.uid, route.changed, route.stable_lost, route.canary_lost, route.gone = "uid-1", "", "", "", None
        case 0:
            world.route.canary, world.route.stable, world.route.manager = 37, 63, "kubectl-edit"
        case 1:
            world.route.mark = None
        case 2:
            world.freezes = (Freeze("f1", "all", "audit", GRACE, world.now, world.now + 600),)
        case 3:
            weight = world.rollout.weight_percent
            world.route.canary, world.route.stable = weight, 100 - weight
        case _:
            world.freezes = ()


def _event(world: World, kind: Kind, a: int, b: int) -> Event:
    match kind:
        case Kind.DUE:
            return Due(("the route is gone",) if a % 4 == 0 else ())
        case Kind.TOOK_OVER:
            return TookOver(None if a % 4 == 0 or world.route.gone else world.route.state())
        case Kind.LOOKED:
            return _drawn_look(world, a, b)
        case Kind.CLOCKED:
            unread = a % 4 == 0 or world.route.gone is not None
            return Clocked(world.freezes, None if unread else world.route.state(), (None, 2, 0)[b % 3])
        case Kind.ROUTE_GONE:
            return RouteGone("VirtualService payments was deleted", (*Remains,)[a % 3])
        case Kind.WRITTEN | Kind.WRITE_FAILED:
            raise AssertionError("answered elsewhere")
        case _:
            return _drawn_request(world, kind.value, a, b)


def _drawn_look(world: World, a: int, b: int) -> Looked:
    verdicts = (Verdict.PASS, Verdict.PASS, Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ERROR)
    first = world.report(
        verdicts[a % 6], deciding=b % 4 == 3, stable_fails=a // 6 % 3 == 0, newest_sample_at=world.now - (a % 2) * 12
    )
    second = world.report(verdicts[b % 6] if a % 5 == 0 else Verdict.PASS, gate="p99")
    changes: dict[str, object] = {}
    match (a * 7 + b) % 20:
        case 0:
            changes["stable_ready"] = 0
        case 1:
            changes["canary_ready"] = None
        case 2:
            changes["canary_fingerprint"] = "print-2"
        case 3:
            changes["nodes_critical"] = ("node-2",)
        case 4:
            changes["share"] = Share(1.0, 400, False)
        case 5 | 6:
            changes["share"] = Share(None, 4, None)
        case 7:
            changes["step"] = world.rollout.step + 1
        case 8:
            blame = (Blame.MACHINE, Blame.MACHINE, Blame.RELEASE, Blame.UNKNOWN)[a % 4]
            changes["cause"] = Cause(blame, "Steal on node-2 is 14%.", ("error-rate", "p99")[: 1 + b % 2])
        case _:
            pass
    look = world.look(first, second, **changes)
    return replace(look, route=None) if b % 7 == 0 else look


def _drawn_request(world: World, verb: str, a: int, b: int) -> Request:
    options = {
        "promote": ("", "full", "override"), "drift": ("adopt", "reapply", "?"),
        "extend": ("30", "60", "soon"), "resume": ("", "", "recovered"),
    }  # fmt: skip
    approval = world.rollout.approval
    bound: dict[str, object] = {}
    if a % 3 == 0:
        step = approval.step if approval and verb in ("approve", "reject") else world.rollout.step
        bound = {"revision": world.rollout.revision - (b % 4 == 0) * 2, "step": step - (b % 5 == 0)}
    if b % 11 == 0 and world.rollout.heard:
        bound["id"] = world.rollout.heard[-1]
    return world.request(
        verb,
        PEOPLE[b % 3],
        option=options.get(verb, ("",) * 3)[a % 3 if verb == "drift" else b % 3],
        reason="" if a % 4 == 0 else "because",
        **bound,
    )


def legal_pairs() -> Iterator[tuple[Phase, Kind]]:
    yield from TABLE
