"""Everything that happened in one run, and what of it breaks the product's rules.

One decision is judged by `bot.rollout.invariants`; here is judged what only the whole history shows: what arrived at
the API server, from whom, when, and whether people were told. Nothing of the bot's own judgement is used for that.
"""

import marshal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from math import inf
from typing import Any

from bot.adapters.mesh import annotation
from bot.errors import NotFound
from bot.ports.store import Letter
from bot.rollout.effects import Decision, Direction, Message, MessageKind, SetWeight
from bot.rollout.events import Event, Looked, Request, RouteGone, TookOver
from bot.rollout.invariants import violations
from bot.rollout.model import HoldReason, Phase, Rollout, Target
from bot.rollout.route import Mark
from bot.rollout.wake import RETRY_S as PACE_S
from tests.simulation.machine import EPOCH_S, LOOKS_AT_CLOCKS_S
from tests.simulation.wire import LATE_S

CHECK_EVERY_S = 5.0
"""How often gates are asked in the simulation's catalog."""
SCRAPE_S = 2.0
"""How often its Prometheus scrapes."""
AT_ONCE_S = 2.0
"""From the verdict to weight 0, and from the moment at which nothing stands in the way of a call any more."""
FAIL_OVER_S = 5.0
"""The lease lasts 3 s and is asked for each second; the rest is loading and fencing."""
ROUND_S = CHECK_EVERY_S + SCRAPE_S
"""One round of gates: the next look, on samples that are newer than the last one's."""
TAKEN_OVER_WITHIN_S = FAIL_OVER_S + ROUND_S
ONCE_MORE_S = LOOKS_AT_CLOCKS_S + CHECK_EVERY_S
"""A wall clock that is stepped can put off the next look by one period, from when the timeline sees the step."""
RETRY_S = max(PACE_S)
"""The bot's longest pause between two tries of the way to 0."""
FREEZE_BINDS_AFTER_S = 1.0
"""The freezes are read last of all before a raise; an answer of before may be on its way for as long as a call may."""
SAVES_AGAIN_S = 2.0
"""What could not be saved is saved again a second later, and a call for it takes a second at most."""
BAKE_SLACK_S = 0.5
LOOKS_WITHIN_S = FAIL_OVER_S + ROUND_S
SAMPLE_SLACK_S = 0.1
RUNNING = (Phase.PROGRESSING, Phase.AWAITING_APPROVAL, Phase.HOLDING)
LATE_WITHIN_S = 12.0
CLOCK_IS_RIGHT_S = 5.5
"""What the bot allows, and the way of an answer."""
TELLING = (MessageKind.NOTE, MessageKind.FINAL, MessageKind.ALERT, MessageKind.NOTICE)
POSTED = (*TELLING, MessageKind.ASK, MessageKind.ANSWER)
OURS = frozenset(("loop-failed", "wake-failed", "illegal-event", "write-broken", "message-broken", "message-dropped"))
"""What the bot only reports when it is itself at fault."""


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened: seconds since the beginning, who, what."""

    at: float
    who: str
    what: str
    text: str

    def __str__(self) -> str:
        return f"{self.at:9.3f} {self.who:8} {self.what:12} {self.text}"


@dataclass(frozen=True, slots=True)
class Broken:
    """One rule that was broken, and under which figure it counts."""

    figure: str
    text: str


@dataclass(slots=True)
class Move:
    """The canary's weight as it changed at the API server; `by` is the process whose engine decided it, "" for a
    person's word without the store, `via` the one that sent it."""

    at: float
    rollout: str
    weight: int
    was: int
    by: str
    via: str


@dataclass(slots=True)
class Drift:
    """Somebody else changed the route of a running rollout; `was` is what the route was before, `settled` when a
    person, the other writer, or an end of the rollout settled it."""

    at: float
    rollout: str
    manager: str
    was: "Seen"
    held: bool
    settled: float = inf


@dataclass(frozen=True, slots=True)
class Trouble:
    """What stood in the way of a process from `since` to `until`.

    `what` is the server that it could not talk to, "birth" or "process" for its beginning, stop and end, "clock" for a
    step of its clock, "links" for a cut or mended connection whose calls fail by themselves. `held` says that it had
    the lease then, or that nobody had it.
    """

    since: float
    until: float
    who: str
    what: str
    held: bool


@dataclass(slots=True)
class Climb:
    """The raises of a rollout since it last began: (moment, weight)."""

    raises: list[tuple[float, int]] = field(default_factory=list)


@dataclass(slots=True)
class Told:
    """One message of a rollout as it was queued."""

    at: float
    rollout: str
    message: Message


LOOKING = ("birth", "process", "clock", "links", "api", "store", "metrics")
"""What a look, and taking over, need."""
TALKING = ("birth", "process", "links", "chat", "store")
"""What a letter needs."""
FIGURE_OF_RULE = {2: "raised_wrongly", 3: "late_rollbacks", 5: "lost", 6: "unannounced"}


class History:
    """Hears of everything. `now` is virtual time; `store` is set once there is one."""

    def __init__(self, now: Callable[[], float], *, lines: bool = False) -> None:
        self.now = now
        self.lines: list[Line] = []
        self.keep_lines = lines
        self.broken: list[Broken] = []
        self.faults = 0
        self.fates: Counter[str] = Counter()
        self.rollouts: dict[str, Rollout] = {}
        self.moves: list[Move] = []
        self.told: list[Told] = []
        self.requests: dict[str, Request] = {}
        self.answers: Counter[str] = Counter()
        self.repeated = 0
        self.waits: list[tuple[str, float, float, bool]] = []
        self.store: Any = None
        self.manifest_of: Callable[[tuple[str, str]], dict[str, Any] | None] = lambda key: None
        self.weight_of: Callable[[Target], int] = lambda target: 0
        self.skew_of: Callable[[str], float] = lambda who: 0.0
        self.overridden: set[str] = set()
        self._climbs: dict[str, Climb] = {}
        self._raises: dict[tuple[str, int], tuple[Rollout, bool]] = {}
        self._sent: dict[tuple[str, str, int], float] = {}
        self._saved: set[tuple[str, int]] = set()
        self._last_landing: dict[str, list[tuple[float, str]]] = {}
        self._given: list[tuple[float, str]] = []
        self._back_since: dict[str, float] = {}
        self._back_by: dict[str, str] = {}
        self._back_pending: dict[str, tuple[float, str]] = {}
        self._troubles: list[Trouble] = []
        self._gone: dict[str, list[float]] = {}
        self._looked: dict[str, float] = {}
        self._in_hand_since: dict[tuple[str, str], float] = {}
        self._frozen_at: dict[str, float] = {}
        self._letters: dict[str, tuple[float, Letter]] = {}
        self._asked_at: dict[str, float] = {}
        self._forgotten: list[tuple[float, float]] = []
        self._may_be_gone: set[str] = set()
        self._ended_on_route: set[str] = set()
        self._unresumed: dict[str, float] = {}
        self._killed: set[str] = set()
        self._ended: set[str] = set()
        self._decided: set[tuple[str, str, int]] = set()
        self._back_known: set[str] = set()
        self._of_others: dict[str, tuple[float, str]] = {}
        self._begins_on: dict[str, Seen] = {}
        self._drifts: dict[str, Drift] = {}
        self._drifted: list[Drift] = []
        self._posts: dict[tuple[str, bool], list[float]] = {}

    def say(self, who: str, what: str, text: str = "") -> None:
        """Write a line."""
        if self.keep_lines:
            self.lines.append(Line(self.now(), who, what, text))

    def breaks(self, figure: str, text: str) -> None:
        """A rule was broken."""
        self.broken.append(Broken(figure, text))
        self.say("CHECKER", figure, text)

    @property
    def digest(self) -> str:
        """Of everything that happened, in order; of nothing where no lines are kept."""
        return sha256("\n".join(map(str, self.lines)).encode()).hexdigest()[:16]

    def fault(self, who: str, service: str, call: str, fate: str, lasts_s: float) -> None:
        """A call was made to fail; its caller knows after `lasts_s`."""
        self.faults += 1
        self.fates[fate] += 1
        self._trouble(who, service, lasts_s)
        self.say(who, "fault", f"{service}.{call}: {fate}")

    def disturb(self, who: str, what: str, *, gone: bool = False, to: str = "process") -> None:
        """Something befell a process (or its "clock", or its "links"); `gone` when it does not run, or not for long."""
        self.faults += 1
        self.fates[what.split(" by ", maxsplit=1)[0].split(" from ", maxsplit=1)[0]] += 1
        self._trouble(who, to, ONCE_MORE_S if to == "clock" else 0.0)
        if gone:
            self._gone.setdefault(who, []).append(self.now())
        if what == "killed":
            self._killed.add(who)
        if what in ("killed", "told to stop"):
            self._ended.add(who)
        self.say(who, "disturbed", what)

    def _trouble(self, who: str, what: str, lasts_s: float) -> None:
        self._troubles.append(Trouble(self.now(), self.now() + lasts_s, who, what, self._has_lease(who)))

    def given(self, who: str) -> None:
        """The lease was given to a process."""
        self._given.append((self.now(), who))

    def _has_lease(self, who: str) -> bool:
        """It has the lease, or nobody has: another holder cannot know what it decides."""
        leases = self.store.leases
        return not leases.owner or leases.owner == who or leases.until <= self.store.clock.monotonic()

    def _troubled_until(self, since: float, services: Sequence[str], who: Sequence[str] = ()) -> float:
        """When the last trouble ended that reached beyond `since`: of `who`, or of who had the lease at the time."""
        return max(
            (
                one.until
                for one in self._troubles
                if one.until >= since and one.what in services and (one.who in who if who else one.held)
            ),
            default=0.0,
        )

    def decided(self, who: str, rollout: Rollout, event: Event, decision: Decision, now: float) -> None:
        """A decision was made."""
        for text in violations(rollout, event, decision, now):
            number = int(text.split(":")[0].removeprefix("rule "))
            self.breaks(FIGURE_OF_RULE.get(number, "broken"), f"{rollout.id}: {text}")
        after = decision.rollout
        by_its_clock = self.now() + min(0.0, self.skew_of(who))
        if isinstance(event, TookOver):
            self._in_hand_since[who, rollout.id] = by_its_clock
            if self._unheard(who, rollout.id):
                # Nor does it bind the decider, should that get the rollout back from the other.
                self._back_since.pop(rollout.id)
                self._back_by.pop(rollout.id)
        self._in_hand_since.setdefault((who, rollout.id), by_its_clock)
        self._not_blind(rollout, event)
        if self.keep_lines and (decision.effects or decision.messages or after.phase is not rollout.phase):
            kinds = ",".join(message.kind.value for message in decision.messages)
            effects = ",".join(
                f"{one.direction.value}:{one.weight_percent}@{one.mark.revision}"
                for one in decision.effects
                if isinstance(one, SetWeight)
            )
            text = f"{rollout.id} {_named(event)}: {rollout.phase.value}->{after.phase.value} {effects} [{kinds}]"
            if after.holds:
                text += f" holds {sorted(hold.reason.value for hold in after.holds)}"
            self.say(who, "decides", text)
        for effect in decision.effects:
            if not isinstance(effect, SetWeight):
                continue
            self._decided.add((who, rollout.id, effect.mark.revision))
            if effect.direction is Direction.RAISE:
                self._fresh(who, rollout, event)
                self._unbound(who, rollout)
                hurried = bool(rollout.hurry or rollout.override)
                self._raises[rollout.id, effect.mark.revision] = (rollout, hurried)
            if rollout.override and (effect.direction is Direction.RAISE or effect.mark.phase == Phase.PROMOTED.value):
                self.overridden.add(rollout.id)
            if effect.direction is Direction.ZERO and after.phase is Phase.ROLLING_BACK:
                if self._has_lease(who):
                    self._back_since.setdefault(rollout.id, self.now())
                    self._back_by.setdefault(rollout.id, who)
                if self._made_again(after):
                    self._of_others.setdefault(rollout.id, (self.now(), who))
                elif self.weight_of(rollout.target) and not self._of_another(rollout) and not self._over(rollout):
                    self._back_pending.setdefault(rollout.id, (self.now(), who))

    def _unheard(self, who: str, name: str) -> bool:
        """Who decided to go back was killed, or cut off until another had the rollout, before anything of that arrived
        anywhere: nobody else can know of it, and the other holder asks the gates itself."""
        decider = self._back_by.get(name)
        if decider is None or name in self._back_known:
            return False
        return decider in self._killed or (decider != who and self._has_lease(who) and self._silenced(decider, name))

    def _unbound(self, who: str, rollout: Rollout) -> None:
        """A way to 0 that nobody could hear of is waited for no longer: who raises has asked the gates itself."""
        if self._unheard(who, rollout.id):
            self._back_since.pop(rollout.id, None)
            self._back_by.pop(rollout.id, None)
            self._back_pending.pop(rollout.id, None)

    def _silenced(self, decider: str, name: str) -> bool:
        """It could not save its decision to go back, from then until another had the lease: stopped, or with saves
        that failed. Who could have saved it and did not is no excuse for a raise."""
        since = self._back_since[name]
        if decider not in self._ended and any(at >= since for at in self._gone.get(decider, ())):
            return True
        taken = [at for at, who in self._given if who != decider and at >= since]
        return self._troubled_until(since, ("store",), (decider,)) >= min(taken, default=since) - SAVES_AGAIN_S

    def _made_again(self, rollout: Rollout) -> bool:
        """The object is another one than the rollout steers: nothing is written to it until a person who was told so
        asks once more, and then the limit begins."""
        manifest = self.manifest_of(("shop", rollout.target.service))
        return manifest is not None and manifest["metadata"]["uid"] != rollout.target.route.uid

    def _of_another(self, rollout: Rollout) -> bool:
        """A later rollout has the route: a holder that was stopped decides on one that has ended."""
        manifest = self.manifest_of(("shop", rollout.target.service))
        mark = annotation.mark_of(manifest) if manifest else None
        return mark is not None and mark.rollout != rollout.id

    def _over(self, rollout: Rollout) -> bool:
        """Its end stands on the route: a holder that was cut off decides on what others have ended, and the weight that
        is there now is somebody else's."""
        manifest = self.manifest_of(("shop", rollout.target.service))
        mark = annotation.mark_of(manifest) if manifest else None
        return mark is not None and mark.rollout == rollout.id and annotation.is_final(mark.phase)

    def _fresh(self, who: str, rollout: Rollout, event: Event) -> None:
        """Rule 5: a new holder raises on what it has seen itself."""
        if not isinstance(event, Looked) or rollout.step < 0 or rollout.override:
            return
        newest = event.assessment.newest_sample_at
        since = self._in_hand_since[who, rollout.id]
        if newest is None or newest - EPOCH_S <= since - SAMPLE_SLACK_S:
            self.breaks("raised_wrongly", f"{rollout.id}: {who} raises on samples from before it had the rollout")

    def unwatched(self, rollout: Rollout) -> None:
        """Say so when nobody looks at a canary that has traffic although everything is within reach."""
        blind_s = self.now() - max(self._looked.get(rollout.id, 0.0), self._troubled_until(0.0, LOOKING))
        if rollout.phase in RUNNING and rollout.weight_percent and blind_s > LOOKS_WITHIN_S:
            self.breaks("lost", f"{rollout.id}: nobody has looked at it for {blind_s:.0f} s")
            self._looked[rollout.id] = self.now()

    def _not_blind(self, rollout: Rollout, event: Event) -> None:
        """Rule 9: whatever it waits for, somebody looks at a canary that has traffic. Without a route nobody sends it
        any: then somebody looks for the route."""
        if isinstance(event, Looked | RouteGone) or rollout.phase not in RUNNING or not rollout.weight_percent:
            self._looked[rollout.id] = self.now()
            return
        looked = self._looked.setdefault(rollout.id, self.now())
        blind_s = self.now() - max(looked, self._troubled_until(looked, LOOKING))
        if blind_s > LOOKS_WITHIN_S:
            self.breaks(
                "broken", f"rule 9: {rollout.id} was not looked at for {blind_s:.0f} s of {rollout.phase.value}"
            )
            self._looked[rollout.id] = self.now()

    def sent(self, who: str, target: Target, change: SetWeight) -> None:
        """A process begins to write a route."""
        self._sent[who, change.mark.rollout, change.mark.revision] = self.now()
        if change.direction is not Direction.RAISE:
            return
        leases = self.store.leases
        if leases.owner != who or leases.until <= self.store.clock.monotonic():
            self.breaks("raised_wrongly", f"{change.mark.rollout}: {who} sends a raise without the lease")
        self._with_a_right_clock(who, change)
        now = self.store.clock.now()
        for freeze in self.store.freezes._freezes.values():
            since_s = self.now() - self._frozen_at[freeze.id]
            by_both = all(freeze.covers(target.service, at) for at in (now, now + self.skew_of(who)))
            if by_both and since_s > FREEZE_BINDS_AFTER_S:
                self.breaks("raised_wrongly", f"{change.mark.rollout}: a raise {since_s:.0f} s into a freeze")

    def _with_a_right_clock(self, who: str, change: SetWeight) -> None:
        """Who has a wrong clock measures nothing: only a first raise, or a person's, is not stopped by that."""
        name = change.mark.rollout
        stepped = max((one.since for one in self._troubles if one.who == who and one.what == "clock"), default=-inf)
        rollout, hurried = self._raises[name, change.mark.revision]
        wrong = abs(self.skew_of(who)) > CLOCK_IS_RIGHT_S and self.now() - stepped > AT_ONCE_S
        if wrong and rollout.step >= 0 and not hurried and rollout.held(HoldReason.DRIFT) is None:
            self.breaks("raised_wrongly", f"{name}: {who} raises by a clock that is {self.skew_of(who):+.0f} s wrong")

    def frozen(self, freeze_id: str) -> None:
        """A freeze arrived at the store."""
        self._frozen_at[freeze_id] = self.now()

    def landed(
        self, who: str, target: Target, before: dict[str, Any], after: dict[str, Any], store: Any, now: float
    ) -> None:
        """A patch of ours arrived at the API server."""
        self._only_weights(target, before, after)
        mark = annotation.mark_of(after)
        was, weight = canary_weight(before, target), canary_weight(after, target)
        if mark is None:
            self.breaks("broken", f"rule 1: {who} writes no mark on {target.service}")
            return
        name = mark.rollout
        self.say(who, "landed", f"{name} {was}% -> {weight}% revision {mark.revision} {mark.phase}")
        former = annotation.mark_of(before)
        if weight and former is not None and former.rollout == name and former.revision >= mark.revision:
            self.breaks("raised_wrongly", f"{name}: revision {mark.revision} was written over {former.revision}")
        if weight > was:
            self._raised(who, target, mark, was, weight)
        if annotation.is_final(mark.phase):
            self._ended_on_route.add(name)
        if mark.phase == Phase.ROLLED_BACK.value:
            self._back_known.add(name)
        if weight == 0:
            self._settle(name)
            self._climbs[name] = Climb()
            self._reached_zero(name, who)
        if weight != was:
            by = who if (who, name, mark.revision) in self._decided else ""
            self.moves.append(Move(self.now(), name, weight, was, by, who))
        self._last_landing.setdefault(name, []).append((self.now(), who))
        self._begins_on.pop(name, None)

    def by_hand(self, target: Target, manager: str, before: dict[str, Any] | None, after: dict[str, Any]) -> None:
        """Somebody else changed the route, or made it anew (no `before`)."""
        canary = canary_weight(after, target)
        self.say(manager, "by hand", f"{target.service} canary at {canary}%")
        self._touched_by(target.service, manager, _seen(before, target), _seen(after, target), canary)

    def removed(self, target: Target, manager: str, before: dict[str, Any]) -> None:
        """Somebody deleted the route."""
        self.say(manager, "by hand", f"the route of {target.service} is deleted")
        for name, (at, _) in list(self._of_others.items()):
            since = max(at, self._troubled_until(at, LOOKING))
            if self.rollouts[name].target.service == target.service and self.now() - since < RETRY_S + AT_ONCE_S:
                del self._of_others[name]
        self._touched_by(target.service, manager, _seen(before, target), NO_ROUTE, 0)

    def _touched_by(self, service: str, manager: str, was: "Seen", now: "Seen", canary: int) -> None:
        """A change of what others have changed before back to what it was settles that. What was there before a rollout
        had begun to write counts as well, until its first write: that is what it begins on."""
        for name, rollout in self.rollouts.items():
            if rollout.target.service != service:
                continue
            self._climbs[name] = Climb()
            if canary == 0:
                self._back_pending.pop(name, None)
            record = self.store.rollouts.records.get(name)
            if record is None:
                self._gone_on_both_sides(name)
            if record is None or record.rollout.phase not in RUNNING or not record.rollout.touched:
                if record is not None and not record.rollout.phase.final:
                    self._begins_on.setdefault(name, was)
                continue
            standing = self._drifts.get(name)
            begins_on = self._begins_on.get(name)
            if standing is not None and now in (standing.was, begins_on):
                self._settle(name)
            elif standing is None and now not in (was, begins_on):
                held = record.rollout.held(HoldReason.DRIFT) is not None
                self._drifts[name] = Drift(self.now(), name, manager, was, held)
                self._drifted.append(self._drifts[name])

    def _gone_on_both_sides(self, name: str) -> None:
        """Its record is lost, and now its mark is, before anybody could have found it by that."""
        leases = self.store.leases
        nobody = not leases.owner or leases.until <= self.store.clock.monotonic()
        forgotten = max((until for _, until in self._forgotten), default=0.0)
        if nobody or self.now() <= max(forgotten, self._troubled_until(forgotten, LOOKING)) + TAKEN_OVER_WITHIN_S:
            self._may_be_gone.add(name)

    def _settle(self, name: str) -> None:
        drift = self._drifts.pop(name, None)
        if drift is not None:
            drift.settled = self.now()

    def forgets(self, since: float) -> None:
        """The store forgets what it took since then; called before it does.

        Everything that has moved a route has to be found again by its mark. What has not may be gone.
        """
        self.faults += 1
        self.fates["store forgets"] += 1
        self._troubles.append(Trouble(self.now(), self.now(), "", "store", True))
        self._forgotten.append((since, self.now()))
        self.say("store", "forgets", "everything" if since == -inf else f"{self.now() - since:.1f} s")
        for name, rollout in self.rollouts.items():
            record = self.store.rollouts.records.get(name)
            manifest = self.manifest_of(("shop", rollout.target.service))
            mark = annotation.mark_of(manifest) if manifest else None
            live = mark is not None and mark.rollout == name and not annotation.is_final(mark.phase)
            if not live:
                self._may_be_gone.add(name)
            elif since == -inf and record is not None and not record.rollout.phase.final:
                self._unresumed[name] = self.now()
            if self._unresumed.get(name, -inf) >= since > -inf:
                del self._unresumed[name]
            if self._back_since.get(name, inf) >= since:
                self._back_since.pop(name, None)
                self._back_by.pop(name, None)
                self._back_pending.pop(name, None)

    def put_off(self, name: str, for_s: float) -> None:
        """The store has forgotten the end of a rollout, and what it still knows is due only then by a clock that was
        ahead: its holder has it no longer in memory and comes back to it then."""
        self._looked[name] = self.now() + for_s

    def _lost_with_the_store(self, at: float) -> bool:
        return any(since <= at <= until for since, until in self._forgotten)

    def saved(self, rollout: Rollout) -> None:
        """A record was saved."""
        self.rollouts[rollout.id] = rollout
        if rollout.phase is Phase.ROLLING_BACK or rollout.phase.final:
            self._back_known.add(rollout.id)
        if rollout.write is not None:
            self._saved.add((rollout.id, rollout.write.revision))

    def created(self, rollout: Rollout) -> None:
        """A rollout was started."""
        self.rollouts.setdefault(rollout.id, rollout)
        self.say(rollout.id, "created", rollout.phase.value)

    def began(self, who: str, text: str) -> None:
        """A process begins; before it there may have been none."""
        self._trouble(who, "birth", 0.0)
        self.say(who, "starts", text)

    def asked(self, request: Request) -> None:
        """A person's request reached the inbox."""
        self.requests[request.id] = request
        self._asked_at[request.id] = self.now()
        if request.verb == "drift":
            self._settle(request.rollout)
        elif request.verb == "resume":
            self._unresumed.pop(request.rollout, None)
        self.say(request.by.id, "asks", f"{request.verb} {request.option} {request.rollout}")

    def queued(self, rollout_id: str, messages: Sequence[Message], letters: Sequence[Letter]) -> None:
        """Messages were put into the outbox, as these letters."""
        self._letters.update((letter.id, (self.now(), letter)) for letter in letters)
        for message in messages:
            self.told.append(Told(self.now(), rollout_id, message))
            if message.kind is MessageKind.ANSWER and message.reply is not None:
                self.answers[message.reply.thread] += 1
                self.say(rollout_id, "answer", message.text)

    def posted(self, letter: str, thread: str, text: str) -> None:
        """A post arrived at the chat."""
        self._posts.setdefault((letter, bool(thread)), []).append(self.now())
        self.say("chat", "posted", f"{letter} {text[:100]}")

    def whispered(self, letter: str, thread: str, text: str) -> None:
        """A whisper arrived at the chat."""
        self._posts.setdefault((letter, True), []).append(self.now())

    def still_bad(self, rollout: Rollout, weight: int, for_s: float) -> None:
        """A bad release has kept its traffic although everything could be measured and written."""
        self.breaks("late_rollbacks", f"{rollout.id}: a bad release keeps {weight}% for {for_s:.0f} s of quiet")

    def promoted_badly(self, name: str) -> None:
        """A release that failed from the beginning was promoted."""
        if name not in self.overridden:
            self.breaks("raised_wrongly", f"{name}: a release that fails was promoted")

    def finish(self, outbox_left: int, telemetry: Sequence[Any], unexpected: Sequence[str]) -> None:
        """Judge the whole."""
        for name in self.rollouts:
            record = self.store.rollouts.records.get(name)
            if record is None:
                if name not in self._may_be_gone | self._ended_on_route:
                    self.breaks("lost", f"{name} has no record any more")
            elif not record.rollout.phase.final:
                at = f"{record.rollout.phase.value} at {record.rollout.weight_percent}%"
                holds = sorted(hold.reason.value for hold in record.rollout.holds)
                self.breaks("lost", f"{name} has not ended: {at}, {holds}, write {record.rollout.write}")
        for name, (since, _) in self._back_pending.items():
            record = self.store.rollouts.records.get(name)
            if record is not None and record.rollout.phase is not Phase.PROMOTED:
                self.breaks("late_rollbacks", f"{name}: decided to go back at {since:.1f} s, and never at 0")
        for name, (_, who) in sorted(self._of_others.items()):
            if who in self._ended and name in self._may_be_gone and name not in self.store.rollouts.records:
                continue
            if not any(one.rollout == name and "made again" in one.message.text for one in self.told):
                self.breaks("unannounced", f"{name}: nobody was told that the object is another one")
        for move in self.moves:
            self._announced(move)
        self._ends_told_once()
        for drift in self._drifted:
            self._drift_told(drift)
        if outbox_left:
            self.breaks("unannounced", f"{outbox_left} letters were never delivered")
        for request in self.requests.values():
            thread = request.reply.thread if request.reply else ""
            if not self.answers[thread] and not self._lost_with_the_store(self._asked_at[request.id]):
                self.breaks("lost", f"{request.rollout}: {request.verb} of {request.by.id} got no answer")
        for (name, _), moments in self._posts.items():
            self._repeats(name, moments)
        delivered = {name for name, _ in self._posts}
        for queued_at, letter in self._letters.values():
            if letter.id in delivered or outbox_left or self._lost_with_the_store(queued_at):
                continue
            if letter.message.kind in POSTED:
                self.breaks("unannounced", f"letter {letter.id} was never posted: {letter.message.text[:80]}")
        for one in telemetry:
            for event, error in one.failures:
                forgotten = event == "message-dropped" and isinstance(error, NotFound) and self._forgotten
                if event in OURS and not forgotten:
                    self.breaks("broken", f"{event}: {error!r}")
        for text in unexpected:
            self.breaks("broken", f"asyncio: {text}")

    def _only_weights(self, target: Target, before: dict[str, Any], after: dict[str, Any]) -> None:
        """Rule 1, at the object itself."""
        if weight_sum(before) != weight_sum(after):
            self.breaks(
                "broken",
                f"rule 1: the weights of {target.service} sum to {weight_sum(after)}, not {weight_sum(before)}",
            )
        if without_ours(before, target) != without_ours(after, target):
            self.breaks("broken", f"rule 1: more than weights and mark was changed on {target.service}")

    def _raised(self, who: str, target: Target, mark: Mark, was: int, weight: int) -> None:
        name = mark.rollout
        decided = self._raises.get((name, mark.revision))
        if decided is None:
            self.breaks("raised_wrongly", f"{name}: {was}% -> {weight}% that nobody decided")
            return
        if (name, mark.revision) not in self._saved:
            self.breaks("raised_wrongly", f"{name}: {weight}% was written before it was saved")
        sent = self._sent.get((who, name, mark.revision), self.now())
        if sent > self._back_since.get(name, inf):
            self.breaks("raised_wrongly", f"{name}: raised to {weight}% after it was decided to go back")
        elif name in self._back_since:
            self._back_pending[name] = (self.now(), self._back_by[name])
        newer = [other for at, other in self._last_landing.get(name, ()) if at > sent]
        if newer:
            self.breaks("raised_wrongly", f"{name}: {who} raised to {weight}% although {newer[-1]} had written since")
        if name in self._drifts:
            self.breaks("broken", f"rule 8: {name}: {weight}% over what {self._drifts[name].manager} did")
        if sent > self._unresumed.get(name, inf):
            self.breaks(
                "raised_wrongly", f"{name}: raised to {weight}% after the store forgot it, and nobody resumed it"
            )
        rollout, hurried = decided
        climb = self._climbs.setdefault(name, Climb())
        if climb.raises:
            since, former = climb.raises[-1]
            if weight <= former:
                self.breaks("doubled", f"{name}: {weight}% after {former}%")
            bake_s = next((step.bake_s for step in rollout.plan.steps if step.weight_percent == former), 0.0)
            if not hurried and self.now() - since < bake_s - BAKE_SLACK_S:
                self.breaks("raised_wrongly", f"{name}: {former}% baked {self.now() - since:.1f} of {bake_s:g} s")
        climb.raises.append((self.now(), weight))

    def _reached_zero(self, name: str, by: str) -> None:
        """Rule 3: going to 0 needs the API server and the process that decided it, and nothing else.

        Its calls may fail: then it tries again at its pace. When it is gone, or a new holder was first, the lease
        moves, and the gates are asked once more by somebody who can reach what that takes.
        """
        since, decider = self._back_pending.pop(name, (0.0, ""))
        if not decider:
            return
        ready, limit_s, cause = since, AT_ONCE_S, "with everything within reach"
        gone = [at for at in self._gone.get(decider, ()) if at >= since]
        if by == decider:
            troubled = self._troubled_until(since, ("api", "process"), (decider,))
            if troubled:
                ready, limit_s, cause = troubled, RETRY_S + AT_ONCE_S, "after its calls failed or it was stopped"
        else:
            troubled = max(self._troubled_until(since, LOOKING, (by,)), self._troubled_until(since, LOOKING))
            ready, limit_s, cause = max(since, troubled), TAKEN_OVER_WITHIN_S + AT_ONCE_S, "by another holder"
        took_s = self.now() - ready
        self.waits.append((cause, self.now() - since, took_s, bool(gone)))
        if took_s > limit_s:
            self.breaks("late_rollbacks", f"{name}: at 0 only {took_s:.1f} s after the verdict, {cause}")

    def _announced(self, move: Move) -> None:
        if self._nobody_knows(move):
            return
        said = [
            one.message
            for one in self.told
            if one.rollout == move.rollout and one.message.kind in TELLING and one.at >= move.at - 1e-6
        ]
        if move.weight == 0:
            told = any("Rolled back" in one.text or " at 0" in one.text or "to 0" in one.text for one in said)
        else:
            told = any(f"{move.weight}%" in one.text for one in said)
        if not told:
            self.breaks("unannounced", f"{move.rollout}: {move.was}% -> {move.weight}% was told to nobody")
        if not any(
            line.rollout == move.rollout and line.weight_percent == move.weight and line.by
            for line in self.store.audits
        ):
            self.breaks("unannounced", f"{move.rollout}: {move.was}% -> {move.weight}% is not in the audit")

    def _nobody_knows(self, move: Move) -> bool:
        """Its rollout was lost with the store, and who knew of it is gone as well. Or a person rolled back by the mark
        after the store had forgotten, through a process that could not reach the store: the mark is final then, the
        person was answered, and no record is left to tell more."""
        if move.rollout in self.store.rollouts.records:
            return False
        if move.rollout in self._may_be_gone:
            return bool(move.weight) or move.by in self._ended or not move.by
        if not move.weight and move.by in self._ended and move.rollout in self._ended_on_route:
            return bool(self._forgotten)
        without_the_store = any(
            one.who == move.via and one.what == "store" and one.since <= move.at <= one.until + AT_ONCE_S
            for one in self._troubles
        )
        return not move.weight and not move.by and move.rollout in self._ended_on_route and without_the_store

    def _ends_told_once(self) -> None:
        """An end is said to everybody once, unless the store forgot in between that it had been, or took a letter of
        before only afterwards; or it was an end twice, as somebody gave the canary weight again in between."""
        told: dict[str, float] = {}
        for one in self.told:
            if one.message.kind is not MessageKind.FINAL and "lost the record" not in one.message.text:
                continue
            before = told.get(one.rollout)
            forgot = before is not None and any(
                before <= until + LATE_S and since <= one.at for since, until in self._forgotten
            )
            ends = sum(1 for move in self.moves if move.rollout == one.rollout and not move.weight and move.by)
            if before is not None and not forgot and ends < 2:
                self.breaks("broken", f"{one.rollout}: its end was told again: {one.message.text[:80]}")
            told[one.rollout] = one.at

    def _drift_told(self, drift: Drift) -> None:
        """Rule 8: people are told of it, or by then it has been settled, goes back, or has ended. A watch that has died
        without a word costs a minute: that is how often routes are read without one."""
        until = drift.at + TAKEN_OVER_WITHIN_S
        for one in self._troubles:
            nobody_before = one.what == "birth"
            if one.held and one.what in (*LOOKING, "api news") and (one.since <= until or nobody_before):
                until = max(until, one.until + TAKEN_OVER_WITHIN_S)
        record = self.store.rollouts.records.get(drift.rollout)
        ended = record is None or (record.rollout.ended_at or inf) - EPOCH_S <= until
        ended = ended or self._back_since.get(drift.rollout, inf) <= until
        if drift.held or drift.settled <= until or ended:
            return
        if not any(
            one.rollout == drift.rollout and drift.at <= one.at <= until and _names(one.message, drift.manager)
            for one in self.told
        ):
            self.breaks(
                "unannounced", f"{drift.rollout}: what {drift.manager} did at {drift.at:.1f} s was told to nobody"
            )

    def _repeats(self, letter: str, moments: Sequence[float]) -> None:
        again = len(moments) - 1
        self.repeated += again
        for earlier, later in pairwise(moments):
            excuses = (one for one in self._troubles if one.what in TALKING)
            if not any(earlier - LATE_WITHIN_S <= one.since <= later + 1e-6 for one in excuses):
                self.breaks("broken", f"letter {letter} was said again for no reason")


Seen = tuple[int, int, str | None]
"""Of a route: the canary's weight, the sum of all, and our annotation."""
NO_ROUTE: Seen = (0, 0, None)


def _seen(manifest: dict[str, Any] | None, target: Target) -> Seen:
    if manifest is None:
        return NO_ROUTE
    text = (manifest["metadata"].get("annotations") or {}).get(annotation.KEY)
    return canary_weight(manifest, target), weight_sum(manifest), text


def _names(message: Message, manager: str) -> bool:
    """Whether a message tells that somebody else was at the route, or that the rollout has ended."""
    if message.kind is MessageKind.FINAL:
        return True
    words = ("route", "object", "not found", manager)
    return message.kind in (*TELLING, MessageKind.ASK) and any(word in message.text for word in words)


def _named(event: Event) -> str:
    return f"{event.verb} by {event.by.name}" if isinstance(event, Request) else type(event).__name__


def copied(manifest: dict[str, Any]) -> dict[str, Any]:
    """An object as it comes over the network: another one, of the same text and numbers."""
    return marshal.loads(marshal.dumps(manifest))


def _entries(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return manifest["spec"]["http"][0]["route"]


def weight_sum(manifest: dict[str, Any]) -> int:
    entries = _entries(manifest)
    return 100 if len(entries) == 1 else sum(entry.get("weight", 0) for entry in entries)


def canary_weight(manifest: dict[str, Any], target: Target) -> int:
    subset = target.canary.destination.subset
    entries = _entries(manifest)
    return sum(int(entry.get("weight", 0)) for entry in entries if entry["destination"].get("subset") == subset)


def without_ours(manifest: dict[str, Any], target: Target) -> dict[str, Any]:
    """The object without what we may change."""
    bare = copied(manifest)
    for key in ("resourceVersion", "managedFields", "annotations"):
        bare["metadata"].pop(key, None)
    inserted = target.canary_inserted
    subset = target.canary.destination.subset
    entries = [one for one in _entries(bare) if not (inserted and one["destination"].get("subset") == subset)]
    for entry in entries:
        entry.pop("weight", None)
    bare["spec"]["http"][0]["route"] = entries
    others = (manifest["metadata"].get("annotations") or {}).items()
    bare["metadata"]["annotations"] = {key: text for key, text in others if key != annotation.KEY}
    return bare
