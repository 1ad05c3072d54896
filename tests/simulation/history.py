"""Everything that happened in one run, and what of it breaks the product's rules.

One decision is judged by `bot.rollout.invariants`; here is judged what only the whole history shows: what arrived at
the API server, from whom, when, and whether people were told. Nothing of the bot's own judgement is used for that.
"""

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from bot.adapters.mesh import annotation
from bot.rollout.effects import Decision, Direction, Message, MessageKind, SetWeight
from bot.rollout.events import Event, Request
from bot.rollout.invariants import violations
from bot.rollout.model import Phase, Rollout, Target
from bot.rollout.route import Mark

AT_ONCE_S = 2.0
RETRIED_WITHIN_S = 12.0
TAKEN_OVER_WITHIN_S = 30.0
FREEZE_BINDS_AFTER_S = 10.0
BAKE_SLACK_S = 0.5
LATE_WITHIN_S = 12.0
CLOCK_IS_RIGHT_S = 5.0
TELLING = (MessageKind.NOTE, MessageKind.FINAL, MessageKind.ALERT)
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
    """The canary's weight as it changed at the API server."""

    at: float
    rollout: str
    weight: int
    was: int


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
        self.store: Any = None
        self.weight_of: Callable[[Target], int] = lambda target: 0
        self.skew_of: Callable[[str], float] = lambda who: 0.0
        self.overridden: set[str] = set()
        self._digest = sha256()
        self._climbs: dict[str, Climb] = {}
        self._raises: dict[tuple[str, int], tuple[Rollout, bool]] = {}
        self._sent: dict[tuple[str, str, int], float] = {}
        self._saved: set[tuple[str, int]] = set()
        self._last_landing: dict[str, list[tuple[float, str]]] = {}
        self._back_since: dict[str, float] = {}
        self._back_pending: dict[str, float] = {}
        self._unreachable: list[float] = []
        self._shaken: list[float] = []
        self._chat_troubles: list[float] = []
        self._posts: dict[tuple[str, bool], list[float]] = {}

    def say(self, who: str, what: str, text: str = "") -> None:
        """Write a line."""
        line = Line(self.now(), who, what, text)
        self._digest.update(str(line).encode())
        if self.keep_lines:
            self.lines.append(line)

    def breaks(self, figure: str, text: str) -> None:
        """A rule was broken."""
        self.broken.append(Broken(figure, text))
        self.say("CHECKER", figure, text)

    @property
    def digest(self) -> str:
        """Of everything that happened, in order."""
        return self._digest.hexdigest()[:16]

    def fault(self, who: str, service: str, call: str, fate: str) -> None:
        """A call was made to fail."""
        self.faults += 1
        self.fates[fate] += 1
        self.say(who, "fault", f"{service}.{call}: {fate}")
        if service == "api":
            self._unreachable.append(self.now())
        elif service in ("chat", "store"):
            self._chat_troubles.append(self.now())
        if service == "store":
            self._shaken.append(self.now())

    def disturb(self, who: str, what: str) -> None:
        """A process was killed, stopped, cut off."""
        self.faults += 1
        self.fates[what.split(" by ")[0].split(" from ")[0]] += 1
        self._shaken.append(self.now())
        self._chat_troubles.append(self.now())
        self.say(who, "disturbed", what)

    def decided(self, who: str, rollout: Rollout, event: Event, decision: Decision, now: float) -> None:
        """A decision was made."""
        for text in violations(rollout, event, decision, now):
            number = int(text.split(":")[0].removeprefix("rule "))
            self.breaks(FIGURE_OF_RULE.get(number, "broken"), f"{rollout.id}: {text}")
        after = decision.rollout
        if decision.effects or decision.messages or after.phase is not rollout.phase:
            kinds = ",".join(message.kind.value for message in decision.messages)
            effects = ",".join(
                f"{one.direction.value}:{one.weight_percent}@{one.mark.revision}"
                for one in decision.effects
                if isinstance(one, SetWeight)
            )
            text = f"{rollout.id} {_named(event)}: {rollout.phase.value}->{after.phase.value} {effects} [{kinds}]"
            if self.keep_lines and after.holds:
                text += f" holds {sorted(hold.reason.value for hold in after.holds)}"
            self.say(who, "decides", text)
        for effect in decision.effects:
            if not isinstance(effect, SetWeight):
                continue
            if effect.direction is Direction.RAISE:
                hurried = bool(rollout.hurry or rollout.override)
                self._raises[rollout.id, effect.mark.revision] = (rollout, hurried)
                if rollout.override:
                    self.overridden.add(rollout.id)
            elif effect.direction is Direction.ZERO and after.phase is Phase.ROLLING_BACK:
                self._back_since.setdefault(rollout.id, self.now())
                if self.weight_of(rollout.target):
                    self._back_pending.setdefault(rollout.id, self.now())

    def sent(self, who: str, target: Target, change: SetWeight) -> None:
        """A process begins to write a route."""
        self._sent[who, change.mark.rollout, change.mark.revision] = self.now()
        if change.direction is not Direction.RAISE:
            return
        leases = self.store.leases
        if leases.owner != who or leases.until <= self.store.clock.monotonic():
            self.breaks("raised_wrongly", f"{change.mark.rollout}: {who} sends a raise without the lease")
        if abs(self.skew_of(who)) > CLOCK_IS_RIGHT_S:
            return
        now = self.store.clock.now()
        for freeze in self.store.freezes._freezes.values():
            if freeze.covers(target.service, now) and now - freeze.since > FREEZE_BINDS_AFTER_S:
                self.breaks("raised_wrongly", f"{change.mark.rollout}: a raise {now - freeze.since:.0f} s into a freeze")

    def landed(
        self, who: str, target: Target, before: dict[str, Any], after: dict[str, Any], store: Any, now: float
    ) -> None:
        """A patch of ours arrived at the API server."""
        self._only_weights(target, before, after)
        mark = annotation.mark_of(after)
        was, weight = _canary(before, target), _canary(after, target)
        if mark is None:
            self.breaks("broken", f"rule 1: {who} writes no mark on {target.service}")
            return
        name = mark.rollout
        self.say(who, "landed", f"{name} {was}% -> {weight}% revision {mark.revision} {mark.phase}")
        if weight > was:
            self._raised(who, target, mark, was, weight)
        if weight == 0:
            self._climbs[name] = Climb()
            self._reached_zero(name)
        if weight != was:
            self.moves.append(Move(self.now(), name, weight, was))
        self._last_landing.setdefault(name, []).append((self.now(), who))

    def by_hand(self, service: str, manager: str, stable: int, canary: int, mark: Mark | None) -> None:
        """Somebody else changed the route."""
        self.say(manager, "by hand", f"{service} stable {stable} canary {canary}")
        for name, rollout in self.rollouts.items():
            if rollout.target.service == service:
                self._climbs[name] = Climb()
                if canary == 0:
                    self._reached_zero(name)

    def saved(self, rollout: Rollout) -> None:
        """A record was saved."""
        self.rollouts[rollout.id] = rollout
        if rollout.write is not None:
            self._saved.add((rollout.id, rollout.write.revision))

    def created(self, rollout: Rollout) -> None:
        """A rollout was started."""
        self.rollouts.setdefault(rollout.id, rollout)
        self.say(rollout.id, "created", rollout.phase.value)

    def asked(self, request: Request) -> None:
        """A person's request reached the inbox."""
        self.requests[request.id] = request
        self.say(request.by.id, "asks", f"{request.verb} {request.option} {request.rollout}")

    def queued(self, rollout_id: str, messages: Sequence[Message]) -> None:
        """Messages were put into the outbox."""
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
        for name, rollout in self.rollouts.items():
            record = self.store.rollouts.records.get(name)
            if record is None:
                self.breaks("lost", f"{name} has no record any more")
            elif not record.rollout.phase.final:
                at = f"{record.rollout.phase.value} at {record.rollout.weight_percent}%"
                holds = sorted(hold.reason.value for hold in record.rollout.holds)
                self.breaks("lost", f"{name} has not ended: {at}, {holds}, write {record.rollout.write}")
        for name, since in self._back_pending.items():
            if self.store.rollouts.records[name].rollout.phase is not Phase.PROMOTED:
                self.breaks("late_rollbacks", f"{name}: decided to go back at {since:.1f} s, and never at 0")
        for move in self.moves:
            self._announced(move)
        if outbox_left:
            self.breaks("unannounced", f"{outbox_left} letters were never delivered")
        for request in self.requests.values():
            thread = request.reply.thread if request.reply else ""
            if not self.answers[thread]:
                self.breaks("lost", f"{request.rollout}: {request.verb} of {request.by.id} got no answer")
        for (letter, _), moments in self._posts.items():
            self._repeats(letter, moments)
        for one in telemetry:
            for event, error in one.failures:
                if event in OURS:
                    self.breaks("broken", f"{event}: {error!r}")
        for text in unexpected:
            self.breaks("broken", f"asyncio: {text}")

    def _only_weights(self, target: Target, before: dict[str, Any], after: dict[str, Any]) -> None:
        """Rule 1, at the object itself."""
        if _sum(before) != _sum(after):
            self.breaks("broken", f"rule 1: the weights of {target.service} sum to {_sum(after)}, not {_sum(before)}")
        if _without_ours(before, target) != _without_ours(after, target):
            self.breaks("broken", f"rule 1: more than weights and mark was changed on {target.service}")

    def _raised(self, who: str, target: Target, mark: Mark, was: int, weight: int) -> None:
        name = mark.rollout
        decided = self._raises.get((name, mark.revision))
        if decided is None:
            self.breaks("raised_wrongly", f"{name}: {was}% -> {weight}% that nobody decided")
            return
        if (name, mark.revision) not in self._saved:
            self.breaks("raised_wrongly", f"{name}: {weight}% was written before it was saved")
        if name in self._back_since:
            self.breaks("raised_wrongly", f"{name}: raised to {weight}% after it was decided to go back")
        sent = self._sent.get((who, name, mark.revision), self.now())
        others = [other for at, other in self._last_landing.get(name, ()) if at > sent and other != who]
        if others:
            self.breaks("raised_wrongly", f"{name}: {who} raised to {weight}% although {others[-1]} had fenced it")
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

    def _reached_zero(self, name: str) -> None:
        since = self._back_pending.pop(name, None)
        if since is None:
            return
        took_s = self.now() - since
        limit_s, cause = AT_ONCE_S, "with everything within reach"
        if any(at >= since - RETRIED_WITHIN_S for at in self._unreachable):
            last = max(at for at in self._unreachable if at >= since - RETRIED_WITHIN_S)
            limit_s, cause = max(limit_s, last - since + RETRIED_WITHIN_S), "after the API server was out of reach"
        if any(at >= since - RETRIED_WITHIN_S for at in self._shaken):
            last = max(at for at in self._shaken if at >= since - RETRIED_WITHIN_S)
            limit_s, cause = max(limit_s, last - since + TAKEN_OVER_WITHIN_S), "after a process was gone"
        if took_s > limit_s:
            self.breaks("late_rollbacks", f"{name}: at 0 only {took_s:.1f} s after the verdict, {cause}")

    def _announced(self, move: Move) -> None:
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
            line.rollout == move.rollout and line.weight_percent == move.weight and line.by for line in self.store.audits
        ):
            self.breaks("unannounced", f"{move.rollout}: {move.was}% -> {move.weight}% is not in the audit")

    def _repeats(self, letter: str, moments: Sequence[float]) -> None:
        again = len(moments) - 1
        self.repeated += again
        for earlier, later in zip(moments, moments[1:], strict=False):
            if not any(earlier - LATE_WITHIN_S <= at <= later + 1e-6 for at in self._chat_troubles):
                self.breaks("broken", f"letter {letter} was said again for no reason")


def _named(event: Event) -> str:
    return f"{event.verb} by {event.by.name}" if isinstance(event, Request) else type(event).__name__


def _entries(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return manifest["spec"]["http"][0]["route"]  # type: ignore[no-any-return]


def _sum(manifest: dict[str, Any]) -> int:
    entries = _entries(manifest)
    return 100 if len(entries) == 1 else sum(entry.get("weight", 0) for entry in entries)


def _canary(manifest: dict[str, Any], target: Target) -> int:
    subset = target.canary.destination.subset
    entries = _entries(manifest)
    return sum(int(entry.get("weight", 0)) for entry in entries if entry["destination"].get("subset") == subset)


def _without_ours(manifest: dict[str, Any], target: Target) -> dict[str, Any]:
    """The object without what we may change."""
    bare = copy.deepcopy(manifest)
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
