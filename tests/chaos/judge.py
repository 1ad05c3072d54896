"""What of a run's history breaks the product's rules, worked out from outside: nothing of the bot's judgement is used.

Figures are those of `build/chaos.json`. A fault excuses lateness while it lasts and for the time that the product
states for coming back; nothing excuses a raise.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace

from bot.rollout.model import Phase
from bot.rollout.plan import Plan, parse_steps
from tests.chaos.record import HELPED, MACHINE, Asked, Json, Record, Trouble, Write
from tests.chaos.schedule import APPROVERS, PLANS, Release
from tests.simulation.history import weight_sum, without_ours

FIGURES = ("lost", "doubled", "raised_wrongly", "late_rollbacks", "unannounced", "repeated_messages")
AT_ONCE_S = 2.0
RETRIED_WITHIN_S = 9.0
"""After the API server can be reached again: a call that hangs for 3 s, then 5 s until the next try."""
TAKEN_OVER_WITHIN_S = 10.0
"""After a process is gone: 3 s of lease, and a round of gates that have to fail twice."""
BAD_FOR_S = 14.0
BAKE_SLACK_S = 0.5
FROZEN_S = 4.0
CLOCKS_APART_S = 0.1
LEASE_SLACK_S = 3.0
ANSWERED_WITHIN_S = 10.0
SAID_LATE_S = 12.0
"""So long a post may take that a fault cut off."""
ONCE = re.compile(r"^\S+ (Started by |v2 of \S+ is at |Rolling back: |Rolled back: |Promoted: )")
"""What happens once in a rollout, unless it is begun anew or its route was written by somebody else."""
LOST_WITH_STORE_S = 15.0
OURS = ("loop-failed", "wake-failed", "illegal-event", "write-broken", "message-broken", "message-dropped")
"""What the bot only logs when it is itself at fault."""
PROCESS = ("bot kill", "bot term", "bot stop", "bot memory", "patch kill", "patch held", MACHINE)
TOLD = (
    r"(is at|held at|write of|goes on from|goes on at) {weight}%|"
    r"\b{weight}% (could not be written for certain|may have been on the route|was on the route)"
)
"""How a raise to some weight is told: as it was confirmed, found, taken over, or never known for certain."""
POINTED = re.compile(r"/canary status ([a-z]+-[0-9a-f]{4})\b")
"""Whose card or call a message is: one can name another rollout as well, such as that which it takes back."""
FINAL_WEIGHT = {Phase.PROMOTED: 100, Phase.ROLLED_BACK: 0, Phase.CANCELLED: 0}


@dataclass(frozen=True, slots=True)
class Broken:
    """One rule that was broken, and under which figure it counts."""

    figure: str
    text: str

    def __str__(self) -> str:
        return f"{self.figure}: {self.text}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is wrong with a run, and how many messages stand twice (with a cause that explains it, or without)."""

    broken: tuple[Broken, ...]
    repeated: int

    def count(self, figure: str) -> int:
        """How often a figure's rules were broken; for `repeated_messages` every repetition."""
        if figure == "repeated_messages":
            return self.repeated
        return sum(one.figure == figure for one in self.broken)


def judge(record: Record) -> Judgement:
    """Judge the whole history of a run."""
    broken = [
        *_lost(record), *_unanswered(record), *_own_faults(record), *_only_weights(record), *_raises(record),
        *_late(record), *_still_bad(record), *_unannounced(record),
    ]  # fmt: skip
    repeated, without_cause = _repeated(record)
    return Judgement((*broken, *without_cause), repeated)


def _lost(record: Record) -> Iterator[Broken]:
    """Every rollout that anybody was told of, or that wrote a route, has a record that ended as its route did."""
    started = {
        name
        for asked in record.asked
        if asked.text.startswith("start ") and "has been started" in asked.answer
        for name in re.findall(r"`([a-z]+-[0-9a-f]{4})`: ", asked.answer)
    }
    for name in sorted(started | {one.rollout for one in record.writes if one.rollout} | set(record.rollouts)):
        rollout = record.rollouts.get(name)
        last = record.of(name)[-1] if record.of(name) else None
        if rollout is None:
            if last is not None and last.phase in {phase.value for phase in FINAL_WEIGHT} and record.store_lost_at:
                continue
            if last is None and _shaken(record, _started_at(record, name), 5.0):
                continue
            yield Broken("lost", f"{name} has no record any more; its route says {last.phase if last else 'nothing'}")
            continue
        if not rollout.phase.final:
            holds = sorted(hold.reason.value for hold in rollout.holds)
            yield Broken("lost", f"{name} has not ended: {rollout.phase.value} at {rollout.weight_percent}%, {holds}")
            continue
        if last is None:
            continue
        if last.phase != rollout.phase.value:
            yield Broken("lost", f"{name} ended as {rollout.phase.value}, its route says {last.phase}")
        after = [one for one in record.writes if one.service == last.service and one.at > last.at]
        if not after and last.weight != FINAL_WEIGHT[rollout.phase]:
            yield Broken("lost", f"{name} ended as {rollout.phase.value} with {last.weight}% on its route")


def _started_at(record: Record, name: str) -> float:
    return next((one.until for one in record.asked if f"`{name}`: " in one.answer), record.began)


def _unanswered(record: Record) -> Iterator[Broken]:
    """Who was acknowledged is answered, soon or late, unless something was broken that takes an answer with it."""
    private: dict[str, list[float]] = defaultdict(list)
    for message in record.messages:
        if message["ephemeral_to"]:
            private[message["ephemeral_to"]].append(float(message["ts"]))
    for asked in sorted(record.asked, key=lambda one: one.at):
        if not asked.acknowledged or asked.answer == HELPED:
            continue
        answers = private[asked.user]
        found = next((at for at in sorted(answers) if at >= asked.at), None)
        if found is not None:
            answers.remove(found)
        elif not asked.answer and not _shaken(record, asked.at, ANSWERED_WITHIN_S):
            yield Broken("lost", f"`{asked.text}` of {asked.user} got no answer")


def _shaken(record: Record, at: float, within_s: float) -> list[Trouble]:
    """Faults that lasted into the time from 3 s before a moment until some time after it."""
    return [one for one in record.troubles if one.end > at - 3.0 - RETRIED_WITHIN_S and one.begin < at + within_s]


def _own_faults(record: Record) -> Iterator[Broken]:
    for line in record.lines:
        if line.rollout and line.rollout not in record.rollouts and line.event == "message-dropped":
            continue  # a letter of an earlier run, whose thread was taken away with it
        if line.event in OURS and not any(
            one.kind == "bot memory" and one.bot == line.bot and one.begin <= line.at <= one.end
            for one in record.troubles
        ):
            error = " ".join(str(line.fields.get("exception", line.fields.get("error", ""))).split())[-300:]
            yield Broken("lost", f"bot {line.bot} failed itself: {line.event} {error}")


def _only_weights(record: Record) -> Iterator[Broken]:
    """Rule 1 at the object itself."""
    for one in record.writes:
        if not one.ours:
            continue
        if weight_sum(one.before) != weight_sum(one.after):
            yield Broken("raised_wrongly", f"rule 1: weights of {one.service} sum to {weight_sum(one.after)}")
        side = SimpleNamespace(destination=SimpleNamespace(subset="v2"))
        target = SimpleNamespace(canary=side, canary_inserted=one.service == "cart")
        before, after = (without_ours(_same_generation(manifest), target) for manifest in (one.before, one.after))  # type: ignore[arg-type]
        if before != after:
            yield Broken("raised_wrongly", f"rule 1: more than weights and mark was changed on {one.service}")


def _same_generation(manifest: Json) -> Json:
    """The object without the server's own count of changes."""
    return {**manifest, "metadata": {**manifest["metadata"], "generation": 0}}


def _raises(record: Record) -> Iterator[Broken]:
    """Rule 2, for every raise that reached the API server."""
    for name in sorted({one.rollout for one in record.writes if one.rollout}):
        yield from _climb(record, name)


def _climb(record: Record, name: str) -> Iterator[Broken]:
    service = name.rpartition("-")[0]
    entered: Write | None = None
    undo = False
    for one in record.writes:
        if one.service != service or one.at < _first(record, name):
            continue
        if one.rollout != name:
            entered = None
            continue
        if one.weight <= one.was:
            entered = None if one.weight == 0 else entered
            continue
        told = f"{name}: {one.was}% -> {one.weight}% by {one.by}"
        plan = _plan_of(record, name, one.at)
        weights = [0, *(step.weight_percent for step in plan.steps)] if plan else []
        if plan and one.weight not in weights:
            yield Broken("raised_wrongly", f"{told}, which is no step of its plan")
        elif plan and one.was in weights and weights.index(one.weight) != weights.index(one.was) + 1 and not undo:
            yield Broken("raised_wrongly", f"{told}, past a step of its plan")
        if entered is not None and one.weight <= entered.weight:
            yield Broken("doubled", f"{told} after {entered.weight}%")
        if (back := _back_at(record, name)) is not None and one.at > back + CLOCKS_APART_S:
            yield Broken("raised_wrongly", f"{told}, {one.at - back:.2f} s after it was decided to go back")
        yield from _leased(record, one, told)
        yield from _allowed(record, one, plan, entered, told)
        fails = service in record.spoiled and _release(record, service) is Release.BAD
        if fails and entered is not None and not _wanted(record, name, ("promote", "drift"), record.began, one.at):
            yield Broken("raised_wrongly", f"{told}, although it fails from the start")
        entered = one


def _first(record: Record, name: str) -> float:
    return record.of(name)[0].at


def _plan_of(record: Record, name: str, at: float) -> Plan | None:
    """The plan at a moment: a rollout that is rebuilt from its route goes on with the catalog's plan."""
    rollout = record.rollouts.get(name)
    rebuilt = [line.at for line in record.lines if line.event == "rebuilt" and line.rollout == name]
    if rollout is not None and (not rebuilt or at > rebuilt[0]):
        return rollout.plan
    said = next((one.text for one in record.asked if f"`{name}`: " in one.answer), "")
    found = re.search(r" plan (\w+)", said)
    return parse_steps(PLANS[found[1]]) if found else None


def _release(record: Record, service: str) -> Release | None:
    return next((one.release for one in record.schedule.starts if one.service == service), None)


def _back_at(record: Record, name: str) -> float | None:
    """When it was first decided to go back: a line of a log, or a mark on the route."""
    said = [line.at for line in record.lines if line.event == "phase" and line.rollout == name
            and line.fields.get("after") in ("RollingBack", "RolledBack", "Cancelled")]  # fmt: skip
    wrote = [one.at for one in record.of(name) if one.phase in ("RollingBack", "RolledBack")]
    return min([*said, *wrote], default=None)


def _leased(record: Record, one: Write, told: str) -> Iterator[Broken]:
    """The holder raises: nobody else has taken the lease since this process did, and fenced the rollout."""
    gained: dict[str, float] = {}
    for line in record.lines:
        if line.event == "lease-gained" and line.at < one.at:
            gained[line.bot] = line.at
    for other, at in gained.items():
        if other == one.by or at < gained.get(one.by, record.began - 1.0):
            continue
        fenced = [write for write in record.of(one.rollout) if write.by == other and at < write.at < one.at]
        if fenced:
            yield Broken("raised_wrongly", f"{told}, after {other} had fenced it {one.at - fenced[0].at:.2f} s before")
        elif one.at - at > LEASE_SLACK_S and not _api_troubles(record, at, one.at):
            yield Broken("raised_wrongly", f"{told}, {one.at - at:.1f} s after {other} had the lease")


def _allowed(record: Record, one: Write, plan: Plan | None, entered: Write | None, told: str) -> Iterator[Broken]:
    """Bake, approval, holds and freezes."""
    if plan is not None:
        step = next((step for step in plan.steps if step.weight_percent == one.weight), None)
        if step is not None and step.approval:
            approved = _wanted(record, one.rollout, ("approve",), record.began, one.at)
            if not any(asked.user in APPROVERS for asked in approved):
                yield Broken("raised_wrongly", f"{told}, which nobody approved")
        if entered is not None and not _wanted(record, one.rollout, ("promote",), entered.at, one.at):
            bake_s = next((step.bake_s for step in plan.steps if step.weight_percent == entered.weight), 0.0)
            if one.at - entered.at < bake_s - BAKE_SLACK_S:
                yield Broken("raised_wrongly", f"{told}, {one.at - entered.at:.2f} s into a bake of {bake_s:g} s")
    for asked in record.asked:
        if _forgotten(record, asked, one):
            continue
        held = asked.text.startswith(f"hold {one.rollout} ") and "Held" in asked.answer and asked.until < one.at
        if held and not _wanted(record, one.rollout, ("resume",), asked.at, one.at):
            yield Broken("raised_wrongly", f"{told}, {one.at - asked.until:.1f} s after it was held")
        frozen = asked.text.startswith(f"freeze {one.service} ") and "rozen" in asked.answer
        if frozen and asked.until + CLOCKS_APART_S < one.at < asked.at + FROZEN_S and not _stepped(record, one):
            lifted = [other for other in record.asked if other.text == f"unfreeze {one.service}"]
            if not any(asked.at < other.until and other.at < one.at for other in lifted):
                yield Broken("raised_wrongly", f"{told}, {one.at - asked.until:.1f} s into a freeze")


def _forgotten(record: Record, asked: Asked, one: Write) -> bool:
    """Redis lost what it had acknowledged between the two."""
    return any(asked.at < at < one.at for at in record.store_lost_at)


def _stepped(record: Record, one: Write) -> bool:
    """Freezes follow the wall clock of the holder."""
    return any(
        t.kind == "bot clock" and t.bot == one.by and t.begin - 5.0 < one.at < t.end + 5.0 for t in record.troubles
    )


def _wanted(record: Record, name: str, verbs: Sequence[str], since: float, until: float) -> list[Asked]:
    """What people asked of a rollout between two moments."""
    return [
        asked
        for asked in record.asked
        if since - ANSWERED_WITHIN_S < asked.until and asked.at < until
        and any(asked.text.startswith(f"{verb} {name}") for verb in verbs)
    ]  # fmt: skip


def _api_troubles(record: Record, since: float, until: float, bot: str = "") -> list[Trouble]:
    """Faults that kept a bot (or any) from the API server between two moments."""
    return [
        one
        for one in record.troubles
        if one.begin < until and one.end > since
        and (one.kind.startswith("kube ") or one.kind in (MACHINE, "patch held") or one.text.endswith(" kube"))
        and ("" in (bot, one.bot) or bot == one.bot)
    ]  # fmt: skip


def _late(record: Record) -> Iterator[Broken]:
    """Rule 3: at 0 within 2 s of the verdict while the API server could be reached by a process that ran."""
    seen: set[str] = set()
    for line in record.lines:
        name = line.rollout
        if line.event != "phase" or line.fields.get("after") != "RollingBack" or name in seen:
            continue
        seen.add(name)
        service = name.rpartition("-")[0]
        before = [one for one in record.writes if one.service == service and one.at <= line.at]
        if not before or before[-1].weight == 0:
            continue
        zero = next(
            (one for one in record.writes if one.service == service and one.at > line.at and not one.weight), None
        )
        at = zero.at if zero else record.ended_at
        if at - line.at <= AT_ONCE_S:
            continue
        excused = line.at
        for one in _api_troubles(record, line.at - RETRIED_WITHIN_S, at, line.bot):
            excused = max(excused, one.end + RETRIED_WITHIN_S)
        for one in record.troubles:
            if one.kind in PROCESS and one.begin < at and one.end > line.at - TAKEN_OVER_WITHIN_S:
                excused = max(excused, one.end + TAKEN_OVER_WITHIN_S)
        if at > excused + AT_ONCE_S:
            troubles = ", ".join(map(str, record.troubles)) or "nothing"
            took = f"{at - line.at:.2f} s" if zero else "never"
            yield Broken("late_rollbacks", f"{name}: at 0 {took} after the verdict of {line.bot}; faults: {troubles}")


def _still_bad(record: Record) -> Iterator[Broken]:
    """A release that fails has no traffic after some quiet in which everything could be measured and written."""
    for service, since in record.spoiled.items():
        mine = [one for one in record.writes if one.service == service]
        edges = [*mine, None]
        for one, following in pairwise(edges):
            assert one is not None
            if one.weight < 20:
                continue
            begin = max(one.at, since, record.quiet_at)
            end = following.at if following else record.ended_at
            stalls = [trouble.end for trouble in record.troubles if begin < trouble.end and trouble.begin < end]
            begin = max([begin, *stalls])
            if end - begin > BAD_FOR_S and one.rollout:
                yield Broken("late_rollbacks", f"{one.rollout}: fails, and keeps {one.weight}% for {end - begin:.0f} s")


def _unannounced(record: Record) -> Iterator[Broken]:
    """Rule 6: every change of weight of ours is told in the channel with its rollout, and recorded."""
    if record.letters_left:
        yield Broken("unannounced", f"{record.letters_left} letters were never delivered")
    threads = _told(record)
    for one in record.writes:
        if not one.ours or one.weight == one.was:
            continue
        if any(-LOST_WITH_STORE_S < one.at - at < 1.0 for at in record.store_lost_at):
            continue
        if record.store_lost_at and one.rollout not in record.rollouts:
            continue
        move = f"{one.rollout}: {one.was}% -> {one.weight}%"
        said = [text for at, text in threads[one.rollout] if at >= one.at - 1.0]
        words = r"Rolled back| at 0\b| to 0\b" if one.weight == 0 else TOLD.format(weight=one.weight)
        if not any(re.search(words, text) for text in said):
            yield Broken("unannounced", f"{move} was told to nobody")
        if not any(
            line.rollout == one.rollout and line.weight_percent == one.weight and line.by for line in record.audit
        ):
            yield Broken("unannounced", f"{move} is not in the audit")


def _told(record: Record) -> dict[str, list[tuple[float, str]]]:
    """What was posted in public of each rollout: beside its card, and in the card's thread."""
    of_thread: dict[str, list[str]] = {}
    found: dict[str, list[tuple[float, str]]] = defaultdict(list)
    names = {one.rollout for one in record.writes if one.rollout} | set(record.rollouts)
    for message in record.messages:
        if message["ephemeral_to"] or message["thread_ts"]:
            continue
        text = str(message["blocks"]) + message["text"]
        own = POINTED.findall(text)
        of_thread[message["ts"]] = [name for name in sorted(names) if name in (own or text)]
    for message in record.messages:
        if message["ephemeral_to"]:
            continue
        for name in of_thread.get(message["thread_ts"] or message["ts"], ()):
            found[name].append((float(message["ts"]), message["text"]))
    return found


def _repeated(record: Record) -> tuple[int, list[Broken]]:
    """Posts that stand twice in one place although what they say happens once. The chat has no key for a post: one
    whose reply was lost is posted again, and so is one whose process died before it could note it; any other
    repetition is a fault."""
    again = any(one.kind in ("redeploy", "edit") for one in record.schedule.faults)
    places: dict[tuple[str, str], list[float]] = defaultdict(list)
    for message in record.messages:
        if message["ephemeral_to"]:
            continue
        at, text = float(message["ts"]), message["text"]
        if message["thread_ts"] and ONCE.search(text) and not (again and " is at " in text):
            places[message["thread_ts"], text].append(at)
        for name in record.rollouts if not message["thread_ts"] else ():
            shown = str(message["blocks"])
            if f"/canary status {name}" in shown and f"`{name}`  ·  `/canary status" not in shown:
                places["card", name].append(at)
    repeated, broken = 0, []
    for (_, text), moments in places.items():
        for earlier, later in pairwise(sorted(moments)):
            repeated += 1
            if not any(one.begin < later and one.end > earlier - SAID_LATE_S for one in record.troubles):
                broken.append(Broken("repeated_messages", f"said again for no reason: {text[:100]}"))
    return repeated, broken


def titled(messages: Sequence[Json]) -> list[str]:
    """Messages as lines, for a run that is printed."""
    return [f"{one['ts']} {'  ' if one['thread_ts'] else ''}{one['text'][:160]}" for one in messages]
