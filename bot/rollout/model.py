"""The rollout and its parts: frozen values in the words of the product, times in epoch seconds (UTC)."""

from dataclasses import field
from enum import StrEnum
from typing import Self

from bot.rollout.gate import Assessment, GateEvidence, GateSpec, Verdict
from bot.rollout.plan import Plan, Step
from bot.rollout.route import RouteState
from bot.values import dataclass, replace


class Phase(StrEnum):
    """Where a rollout stands; the last three are final and stay so."""

    SCHEDULED = "Scheduled"
    PROGRESSING = "Progressing"
    AWAITING_APPROVAL = "AwaitingApproval"
    HOLDING = "Holding"
    ROLLING_BACK = "RollingBack"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    CANCELLED = "Cancelled"

    @property
    def final(self) -> bool:
        """Nothing changes a rollout in this phase."""
        return self in (Phase.PROMOTED, Phase.ROLLED_BACK, Phase.CANCELLED)


class HoldReason(StrEnum):
    """Why a rollout may not advance; each reason is added and removed on its own."""

    PERSON = "person"
    DRIFT = "drift"
    NO_DATA = "no-data"
    CANNOT_MEASURE = "cannot-measure"
    FREEZE = "freeze"
    NODES = "nodes"
    STABLE_UNHEALTHY = "stable-unhealthy"
    NOT_ARRIVED = "not-arrived"
    REDEPLOYED = "redeployed"
    RECOVERED = "recovered"


class Source(StrEnum):
    """Who or what caused something."""

    PERSON = "person"
    GATES = "gates"
    CLOCK = "clock"
    BOT = "bot"


class Direction(StrEnum):
    """Which rules guard a write: RAISE the strict ones; ZERO almost none; MARK leaves the weights alone."""

    RAISE = "raise"
    ZERO = "zero"
    MARK = "mark"


class OnSilence(StrEnum):
    """What happens when nobody answers an approval in time, or when there is no data for too long."""

    ROLL_BACK = "roll_back"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who caused an event: a person or the bot.

    `id` is the Slack user id, `via` the door: slash, mention, button, cli.
    """

    source: Source
    id: str = ""
    name: str = ""
    via: str = ""


@dataclass(frozen=True, slots=True)
class Destination:
    """One weighed destination as the route names it; for Istio a host and a subset, `port` 0 when absent."""

    host: str
    subset: str = ""
    port: int = 0

    @property
    def text(self) -> str:
        """`host[:port][/subset]`, as marks carry it."""
        return self.host + (f":{self.port}" if self.port else "") + (f"/{self.subset}" if self.subset else "")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `text` back; raises ValueError for a port that is no number."""
        address, _, subset = text.partition("/")
        host, _, port = address.partition(":")
        return cls(host, subset, int(port) if port else 0)


@dataclass(frozen=True, slots=True)
class Side:
    """A destination and what runs behind it, as found at preflight.

    `workloads` are the Deployments its pods belong to, `version` their `version` label ("" when they have none or
    several), `selector` the pod labels that select them, sorted. `label` is the short name people use (`v2`).
    """

    label: str
    destination: Destination
    workloads: tuple[str, ...] = ()
    version: str = ""
    selector: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RouteRef:
    """Names one route: the object, and the http, tcp or tls route inside it.

    `route` is the route's name or "" when it is the only one; `match` a digest of its match, so that a reordered
    list is noticed. `uid` is the object's; an object deleted and made again is another object.
    """

    mesh: str
    namespace: str
    name: str
    protocol: str = "http"
    route: str = ""
    match: str = ""
    uid: str = ""

    @property
    def key(self) -> str:
        """What only one active rollout may hold."""
        return f"{self.mesh}/{self.namespace}/{self.name}/{self.protocol}/{self.route}"


@dataclass(frozen=True, slots=True)
class Target:
    """What is steered: service, route, and its two sides.

    `host` is the service's FQDN as metrics know it. `canary_inserted` says that our destination was missing and is
    taken out again on rollback. `total` is what the route's weights sum to and always will. `fingerprint` pins the
    canary's pod template and images. `other_ways` are ways to the same host that the route does not steer, each in
    words: with them the share seen at the host is not the route's alone.
    """

    service: str
    namespace: str
    host: str
    route: RouteRef
    stable: Side
    canary: Side
    canary_inserted: bool = False
    total: int = 100
    fingerprint: str = ""
    other_ways: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ApprovalPolicy:
    """Who must agree before a step that asks for it, and what silence means."""

    quorum: int = 1
    four_eyes: bool = True
    expires_s: float = 3600.0
    on_expiry: OnSilence = OnSilence.ROLL_BACK


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings of a rollout fixed at its start.

    `check_every_s` seconds between looks; `no_data_after_s` is how long INCONCLUSIVE may last before `on_no_data`,
    0 for twice the step's bake; `arrival_s` how long an unseen share is waited for; `channel` where it is announced;
    `alpha` the probability, over the whole rollout, that a sequential gate fails a release that keeps its limits.
    """

    check_every_s: float = 15.0
    no_data_after_s: float = 0.0
    on_no_data: OnSilence = OnSilence.HOLD
    on_machine: OnSilence = OnSilence.ROLL_BACK
    arrival_s: float = 60.0
    approval: ApprovalPolicy = ApprovalPolicy()
    channel: str = ""
    mention: str = ""
    alpha: float = 0.01


@dataclass(frozen=True, slots=True)
class Hold:
    """One reason to hold: since when, why in a sentence, by whom, and how often it was `said` in the channel."""

    reason: HoldReason
    since: float
    detail: str
    by: Actor
    said: int = 0


@dataclass(frozen=True, slots=True)
class Approval:
    """An open question to people: may this step be entered? Bound to rollout and step by where it is stored.

    `revision` is the rollout's when it was asked: buttons drawn since then are good, older ones are stale.
    `reminded` counts the reminders sent (half, 90%).
    """

    step: int
    asked_at: float
    expires_at: float
    approved_by: tuple[Actor, ...] = ()
    reminded: int = 0
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Tally:
    """FAIL verdicts of one gate in this step; a verdict without newer samples is not counted."""

    gate: str
    consecutive: int = 0
    total: int = 0
    last_sample_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Told:
    """The verdict over all gates that the channel was last told, and the step it was told of."""

    verdict: Verdict
    step: int


@dataclass(frozen=True, slots=True)
class Bake:
    """How far the present step has baked.

    `confirmed_at` the API server took the weight, `arrived_at` it was seen in the traffic (`seen`) or waited out,
    `covered_s` seconds covered by samples since then, `covered_until` the newest moment counted,
    `inconclusive_since` when the gates stopped having enough data (None while they have), `extra_s` seconds that
    people asked for beyond the step's own.
    """

    confirmed_at: float | None = None
    arrived_at: float | None = None
    covered_s: float = 0.0
    covered_until: float = 0.0
    inconclusive_since: float | None = None
    seen: bool = False
    extra_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Write:
    """A change of the route decided but not yet confirmed; `direction` decides which rules guard it.

    `step` is the rollout's step once it is there; `from_percent` the canary's weight it was decided upon; `promotes`
    says that its mark ends the rollout as Promoted; `repin` is the new fingerprint of a canary that starts again;
    `told` is what people were last paged is left of the route (a `Remains`), "" when not that it is gone.
    """

    weight_percent: int
    revision: int
    direction: Direction
    reason: str
    by: Actor
    decided_at: float
    step: int = -1
    from_percent: int = 0
    promotes: bool = False
    repin: str = ""
    attempts: int = 0
    told: str = ""

    @property
    def raising(self) -> bool:
        """The strict rules guard it."""
        return self.direction is Direction.RAISE


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a rollout's history: what happened, to which weight, by whom and why."""

    at: float
    kind: str
    text: str
    by: Actor
    weight_percent: int


@dataclass(frozen=True, slots=True)
class Rollout:
    """One run: the whole state that `decide` needs and the record keeps.

    `revision` rises with every change that people or the route can see; buttons and the route's annotation carry it.
    `marked` is the revision of our mark last seen on the route, None when it bears none of this rollout.
    `step` is the index of the step whose weight is or was last wanted, -1 before the first. `weight_percent` is the
    last weight confirmed on the route. `write` is the change under way. `fresh_after` is the moment after which
    samples must lie for a raise (set when a holder takes over, and after re-done steps). `override` carries a
    break-glass reason until the raise it allows; `hurry` is "step" or "full" after `promote`, `pushed_by` who asked for
    either. `touched` says that a write was ever sent, `heard` are ids of the last requests that changed something,
    `found` is the route as it was when it was found drifted, `gone` says where the route went while there is none, and
    `intrusions` counts changes by others since the last step was reached. `write_failures` counts writes that failed in
    a row, `card_at` and `paged_at` are when the card was last sent and people last paged. `evidence` is what the
    sequential tests have seen since the first weight; a canary that starts again starts without. `told` is the
    verdict that people have heard of.
    """

    id: str
    revision: int
    target: Target
    plan: Plan
    gates: tuple[GateSpec, ...]
    rules: Rules
    phase: Phase
    created_at: float
    started_by: Actor
    scheduled_at: float
    step: int = -1
    weight_percent: int = 0
    marked: int | None = None
    write: Write | None = None
    bake: Bake = Bake()
    holds: tuple[Hold, ...] = ()
    approval: Approval | None = None
    tallies: tuple[Tally, ...] = ()
    assessment: Assessment | None = None
    fresh_after: float = 0.0
    hurry: str = ""
    override: str = ""
    undo_of: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    reason: str = ""
    history: tuple[Entry, ...] = field(default=())
    touched: bool = False
    heard: tuple[str, ...] = ()
    found: RouteState | None = None
    pushed_by: Actor | None = None
    write_failures: int = 0
    card_at: float = 0.0
    paged_at: float | None = None
    evidence: tuple[GateEvidence, ...] = ()
    gone: str = ""
    intrusions: int = 0
    told: Told | None = None

    @property
    def current(self) -> Step | None:
        """The step being baked, None before the first."""
        return self.plan.steps[self.step] if 0 <= self.step < len(self.plan.steps) else None

    @property
    def next_step(self) -> Step | None:
        """The step after the present one, None on the last."""
        return self.plan.steps[self.step + 1] if self.step + 1 < len(self.plan.steps) else None

    @property
    def hold_reasons(self) -> frozenset[HoldReason]:
        """The set of reasons not to advance."""
        return frozenset(hold.reason for hold in self.holds)

    @property
    def needed_s(self) -> float:
        """Seconds the present step has to bake, 0 before the first."""
        return (self.current.bake_s if self.current else 0.0) + self.bake.extra_s

    @property
    def granted(self) -> bool:
        """The next step has the approvals it needs."""
        return self.approval is not None and len(self.approval.approved_by) >= self.rules.approval.quorum

    def held(self, reason: HoldReason) -> Hold | None:
        """The hold with this reason, None when there is none."""
        for hold in self.holds:
            if hold.reason is reason:
                return hold
        return None

    def with_(self, **changes: object) -> Self:
        """A copy with fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Freeze:
    """A window in which nothing starts and no weight goes up.

    `scope` is a service or "all"; `until` None is open-ended.
    """

    id: str
    scope: str
    reason: str
    by: Actor
    since: float
    until: float | None = None

    def covers(self, service: str, now: float) -> bool:
        """True while this freeze binds the service at `now`: from when it is stored, also where `since` has yet to come
        by the clock of whoever reads it."""
        return self.scope in ("all", service) and (self.until is None or now < self.until)
