"""The nine safety rules of the product, as far as one decision can show them; for tests and simulation.

Every rule is worked out here again from the values alone: nothing of the machine that decides is used, so that a
fault there is seen here.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from bot.rollout.effects import Decision, Direction, MessageKind, Page, SetWeight
from bot.rollout.events import Clocked, Event, Looked, Request, RouteGone, TookOver, WriteFailed, Written
from bot.rollout.gate import Assessment, GateReport, Verdict
from bot.rollout.model import HoldReason, OnSilence, Phase, Rollout
from bot.rollout.route import RouteState
from bot.values import dataclass

_RUNNING = (Phase.PROGRESSING, Phase.AWAITING_APPROVAL, Phase.HOLDING)
_ZEROED = ("RollingBack", "RolledBack")


@dataclass(frozen=True, slots=True)
class Turn:
    """One decision with what led to it."""

    before: Rollout
    event: Event
    decision: Decision
    now: float

    @property
    def after(self) -> Rollout:
        """The rollout as decided."""
        return self.decision.rollout

    @property
    def changes(self) -> list[SetWeight]:
        """Every change of the route that was asked for."""
        return [effect for effect in self.decision.effects if isinstance(effect, SetWeight)]

    @property
    def route(self) -> RouteState | None:
        """The reading of the route that came with the event."""
        match self.event:
            case Looked() | Clocked() | TookOver() | WriteFailed():
                return self.event.route
            case _:
                return None


def violations(before: Rollout, event: Event, decision: Decision, now: float) -> tuple[str, ...]:
    """Every broken rule as `rule N: what`; empty when the decision is safe."""
    turn = Turn(before, event, decision, now)
    return tuple(f"rule {number}: {text}" for number, rule in RULES.items() for text in rule(turn))


def _only_weights(turn: Turn) -> Iterator[str]:
    """Rule 1: one change at a time, within the total, of our two destinations and our annotation."""
    if len(turn.changes) > 1:
        yield "more than one change of the route in one decision"
    for change in turn.changes:
        write = turn.after.write
        if write is None or (write.weight_percent, write.revision) != (change.weight_percent, change.mark.revision):
            yield "a change of the route that the record does not know"
        if not 0 <= change.weight_percent <= turn.after.target.total:
            yield f"a weight of {change.weight_percent}%"
        if (change.mark.rollout, change.mark.weight_percent) != (turn.after.id, change.weight_percent):
            yield "a mark that says something else than the weights"
        if change.direction is Direction.ZERO and change.weight_percent != 0:
            yield f"going to 0 writes {change.weight_percent}%"
        if change.direction is Direction.MARK and change.weight_percent != turn.after.weight_percent:
            yield "a mark that moves weight"
        ends = change.direction is Direction.ZERO and turn.after.phase is Phase.ROLLING_BACK
        if change.remove_canary and not (ends and turn.before.target.canary_inserted):
            yield "a destination that is not ours is taken out"
    before, after = (replace(target, fingerprint="") for target in (turn.before.target, turn.after.target))
    told = turn.before.found
    chosen = isinstance(turn.event, Request) and turn.event.verb in ("drift", "rollback")
    if told is not None and chosen and after.route.uid == told.uid:
        before = replace(before, route=replace(before.route, uid=told.uid))
    if after != before:
        yield "the rollout steers something else now"


def _up_only_when_allowed(turn: Turn) -> Iterator[str]:
    """Rule 2: up in the order of the plan, with PASS, approval, no hold, no freeze, ready pods, saved first, fenced."""
    for change in turn.changes:
        if change.direction is not Direction.RAISE:
            continue
        if not turn.decision.save or turn.after.write is None or not turn.after.write.raising:
            yield "a raise that is not saved first"
        match turn.event:
            case Looked(assessment=look):
                yield from _raised_by_look(turn, change, look)
            case Request(verb="drift", option="reapply"):
                yield from _reapplied(turn, change)
            case _:
                yield f"a raise without a look, by {type(turn.event).__name__}"


def _raised_by_look(turn: Turn, change: SetWeight, look: Assessment) -> Iterator[str]:
    before, after = turn.before, turn.after
    assert isinstance(turn.event, Looked)
    steps = before.plan.steps
    step = before.step + 1
    if step >= len(steps) or change.weight_percent != steps[step].weight_percent:
        yield f"{change.weight_percent}% is not the next step of the plan"
        return
    mark = turn.route.mark if turn.route else None
    known = mark.revision if mark and mark.rollout == before.id else before.marked
    if (change.from_percent, change.expected) != (before.weight_percent, known):
        yield "a raise that does not test our last written state"
    if before.write is not None and not before.write.raising:
        yield "a raise beside a change under way"
    if before.write is not None and before.write.revision == change.mark.revision:
        yield "a raise that was pending is replayed"
    first = before.step < 0 and before.weight_percent == 0
    excused = {HoldReason.NO_DATA, HoldReason.CANNOT_MEASURE} if before.override else set()
    if after.hold_reasons - excused:
        yield f"a raise while held: {', '.join(sorted(after.hold_reasons))}"
    if any(freeze.covers(before.target.service, turn.now) for freeze in turn.event.freezes):
        yield "a raise in a freeze"
    if not look.stable_ready or not look.canary_ready:
        yield "a raise without ready pods on both sides"
    if (look.step, look.weight_percent) != (before.step, before.weight_percent):
        yield "a raise on a look at another step"
    if not first and not before.override:
        times = [report.newest_sample_at for report in look.reports if report.newest_sample_at is not None]
        if not look.reports or any(report.verdict is not Verdict.PASS for report in look.reports):
            yield "a raise without a PASS"
        if not times or min(times) <= max(before.fresh_after, before.bake.confirmed_at or 0.0):
            yield "a raise on samples that are not of this step or this holder"
        if after.bake.covered_s < after.needed_s and not before.hurry:
            yield f"a raise after {after.bake.covered_s:g} of {after.needed_s:g} s"
    if steps[step].approval:
        approval = before.approval
        people = {actor.id for actor in approval.approved_by} if approval and approval.step == step else set()
        if before.rules.approval.four_eyes:
            people.discard(before.started_by.id)
        if len(people) < before.rules.approval.quorum:
            yield "a raise without its approvals"


def _reapplied(turn: Turn, change: SetWeight) -> Iterator[str]:
    before = turn.before
    if before.found is None or change.weight_percent != before.weight_percent:
        yield "re-applying another weight than ours"
        return
    canary = before.found.canary_weight or 0
    everything = before.found.stable_weight + canary
    if everything and 100 * canary >= change.weight_percent * everything:
        return
    if not change.weight_percent:
        return
    if before.hold_reasons - {HoldReason.DRIFT}:
        yield "re-applying upwards while held"
    if before.assessment is None or (before.step >= 0 and not before.assessment.passed):
        yield "re-applying upwards without a PASS"


def _down_at_once(turn: Turn) -> Iterator[str]:
    """Rule 3: a deciding FAIL, or a person, sends the canary to 0 in this wake-up; it is tried until it is there."""
    before, after, event = turn.before, turn.after, turn.event
    zero = any(change.direction is Direction.ZERO for change in turn.changes)
    if before.phase in _RUNNING and isinstance(event, Looked) and _must_go(before, event) and not zero:
        yield "a deciding FAIL and the canary keeps its traffic"
    if (
        before.phase in _RUNNING
        and isinstance(event, Request)
        and event.verb == "rollback"
        and not _out_of_date(before, event)
        and event.id not in before.heard
        and not zero
        and (before.touched or before.weight_percent)
    ):
        yield "a person asked to roll back and the canary keeps its traffic"
    if before.phase is not Phase.ROLLING_BACK:
        return
    if after.phase not in (Phase.ROLLING_BACK, Phase.ROLLED_BACK):
        yield f"a roll back that became {after.phase.value}"
    if after.phase is not Phase.ROLLING_BACK:
        known = isinstance(event, Request) and event.verb == "rollback" and before.gone
        if not (isinstance(event, Written | RouteGone) or known or (turn.route and not turn.route.canary_weight)):
            yield "a roll back that ended before the canary was at 0"
        return
    if not zero and isinstance(event, Looked | Clocked | TookOver):
        yield "a roll back that is not tried again"
    if turn.decision.wake_at is None or turn.decision.wake_at > turn.now + 5:
        yield "a roll back that waits more than 5 s"
    if isinstance(event, WriteFailed | RouteGone):
        paged = any(isinstance(effect, Page) and not effect.resolved for effect in turn.decision.effects)
        if not paged and (before.paged_at is None or turn.now - before.paged_at >= 300):
            yield "a roll back fails and nobody is paged"


def _must_go(rollout: Rollout, event: Looked) -> bool:
    look, route = event.assessment, event.route or rollout.found
    if route is not None and route.stable_lost:
        return False
    if (look.step, look.weight_percent) != (rollout.step, rollout.weight_percent):
        return False
    if not (rollout.touched and rollout.weight_percent > 0) or look.stable_ready == 0:
        return False
    guilty = [report for report in _deciding(rollout, look) if not report.stable_fails]
    blamed = rollout.rules.on_machine is OnSilence.HOLD and look.machine_explains(guilty)
    return bool(guilty) and not blamed


def _deciding(rollout: Rollout, look: Assessment) -> list[GateReport]:
    """FAILs at their limit, counting only those with newer samples than the last counted ones."""
    found = []
    for report in look.reports:
        if report.verdict is not Verdict.FAIL or report.holds:
            continue
        tally = next((tally for tally in rollout.tallies if tally.gate == report.gate), None)
        newest = look.at if report.newest_sample_at is None else report.newest_sample_at
        newer = 1 if tally is None or newest > tally.last_sample_at else 0
        consecutive, total = (tally.consecutive, tally.total) if tally else (0, 0)
        reached = consecutive + newer >= report.fail_after or total + newer >= report.fail_total
        if report.deciding or reached:
            found.append(report)
    return found


def _unmeasured_is_not_bad(turn: Turn) -> Iterator[str]:
    """Rule 4: back only for a FAIL of the release alone, a person, or a silence whose stated default that is."""
    before, after, event = turn.before, turn.after, turn.event
    if before.phase not in _RUNNING or after.phase is not Phase.ROLLING_BACK:
        return
    match event:
        case Request(verb="rollback"):
            return
        case Looked(assessment=look):
            ready: int | None = look.stable_ready
            fails = [report for report in _deciding(before, look) if not report.stable_fails]
            silent_s = before.rules.no_data_after_s or 2 * before.needed_s
            since = before.bake.inconclusive_since
            no_data = (
                before.rules.on_no_data is OnSilence.ROLL_BACK and since is not None and turn.now - since >= silent_s
            )
        case Clocked():
            ready, fails, no_data = event.stable_ready, [], False
        case _:
            ready, fails, no_data = None, [], False
    route = turn.route or before.found
    if ready == 0 or (route is not None and route.stable_lost):
        yield "back to a stable that has no ready pod, or none that can be reached"
    hold, told = before.held(HoldReason.DRIFT), before.found
    unserved = (
        turn.route is not None
        and bool(turn.route.canary_lost and turn.route.canary_weight)
        and (hold is not None and turn.now - hold.since >= 2)
        and (told is not None and bool(told.canary_lost))
    )
    approval = before.approval
    expired = (
        approval is not None
        and turn.now >= approval.expires_at
        and before.rules.approval.on_expiry is OnSilence.ROLL_BACK
    )
    mark = turn.route.mark if turn.route else None
    said_so = mark is not None and mark.rollout == before.id and mark.phase in _ZEROED
    if not (fails or no_data or expired or said_so or unserved):
        yield f"rolled back for {after.reason!r}, which is no FAIL, person, expired question or traffic without pods"


def _final_and_never_lost(turn: Turn) -> Iterator[str]:
    """Rule 5: final stays final, something always wakes the others, and a bake is what samples cover."""
    before, after, event = turn.before, turn.after, turn.event
    if before.phase.final:
        if after is not before or turn.decision.effects or turn.decision.wake_at is not None:
            yield "a final rollout changed"
        return
    if not after.phase.final and turn.decision.wake_at is None:
        yield "nothing will wake this rollout"
    if after.revision < before.revision:
        yield "the revision went back"
    if isinstance(event, TookOver) and before.phase in _RUNNING:
        if after.write is not None and after.write.raising:
            yield "a pending raise was replayed by a new holder"
        if not after.phase.final and after.phase is not Phase.ROLLING_BACK and after.fresh_after < turn.now:
            yield "a new holder trusts old samples"
    same_bake = after.bake.confirmed_at == before.bake.confirmed_at
    added_s = after.bake.covered_s - (before.bake.covered_s if same_bake else 0.0)
    if same_bake and added_s < 0:
        yield "a bake lost covered time"
    if added_s > 0:
        covered = event.assessment.coverage if isinstance(event, Looked) else None
        window_s = covered.until - before.bake.covered_until if covered else 0.0
        if covered is None or before.bake.arrived_at is None or added_s > min(covered.added_s, window_s) + 1e-6:
            yield f"{added_s:g} s of bake that no samples cover"


def _announced(turn: Turn) -> Iterator[str]:
    """Rule 6: every change of weight is said with its reason, and recorded with who or what caused it."""
    if turn.after.weight_percent == turn.before.weight_percent:
        return
    said = [
        message
        for message in turn.decision.messages
        if message.kind in (MessageKind.NOTE, MessageKind.FINAL, MessageKind.ALERT) and message.text
    ]
    if not said:
        yield "a change of weight that nobody is told"
    if not any(audit.by and audit.text for audit in turn.decision.audit):
        yield "a change of weight without a record of its cause"
    if turn.after.history[-1:] == turn.before.history[-1:]:
        yield "a change of weight that the history does not have"


def _buttons_are_bound(turn: Turn) -> Iterator[str]:
    """Rule 7: a request gets one answer; a stale or second click changes nothing."""
    answers = [message for message in turn.decision.messages if message.kind is MessageKind.ANSWER]
    if not isinstance(turn.event, Request):
        if answers:
            yield "an answer that nobody asked for"
        return
    if turn.event.id in turn.before.heard:
        if answers or turn.after is not turn.before:
            yield "a request that was heard before is heard again"
        return
    if len(answers) != 1 or answers[0].reply != turn.event.reply or not answers[0].text:
        yield f"{len(answers)} answers to one request"
    if turn.after is not turn.before and _out_of_date(turn.before, turn.event):
        yield "a stale or second click changed something"


def _out_of_date(rollout: Rollout, request: Request) -> bool:
    if request.verb not in ("approve", "reject"):
        older = request.revision is not None and request.revision != rollout.revision
        return older or (request.step is not None and request.step != rollout.step)
    approval = rollout.approval
    if approval is None or (request.step is not None and request.step != approval.step):
        return True
    people = [actor.id for actor in approval.approved_by]
    decided = len(people) >= rollout.rules.approval.quorum
    again = request.verb == "approve" and request.by.id in people
    return decided or again or (request.revision is not None and request.revision < approval.revision)


def _no_fight(turn: Turn) -> Iterator[str]:
    """Rule 8: on drift it holds; nothing but going to 0, or what a person chose, is written over it."""
    before, after, event = turn.before, turn.after, turn.event
    if before.phase not in _RUNNING:
        return
    overwrites = any(change.direction is not Direction.ZERO for change in turn.changes)
    chosen = isinstance(event, Request) and event.verb == "drift"
    chosen = chosen or (before.write is not None and before.write.direction is Direction.MARK)
    if before.held(HoldReason.DRIFT) and after.held(HoldReason.DRIFT) and overwrites and not chosen:
        yield "a route that somebody else changed is overwritten"
    route = turn.route
    if route is None or before.write is not None or not isinstance(event, Looked | Clocked):
        return
    total = before.target.total
    theirs = (route.canary_weight or 0, route.stable_weight) != (before.weight_percent, total - before.weight_percent)
    theirs = theirs or bool(route.changed or route.canary_lost or route.others)
    theirs = theirs or bool(before.target.route.uid and route.uid and route.uid != before.target.route.uid)
    ours = route.mark is not None and route.mark.rollout == before.id and route.mark.revision > (before.marked or -1)
    if theirs and not ours and after.phase in _RUNNING:
        if after.held(HoldReason.DRIFT) is None:
            yield "weights that are not ours, and no hold"
        if overwrites:
            yield "weights that are not ours are overwritten"


def _never_blind(turn: Turn) -> Iterator[str]:
    """Rule 9: whatever it waits for, every valid look is judged and its FAILs are counted."""
    before, after, event = turn.before, turn.after, turn.event
    if before.phase not in _RUNNING or not isinstance(event, Looked) or after.phase not in _RUNNING:
        return
    look = event.assessment
    if (look.step, look.weight_percent) != (before.step, before.weight_percent) or before.weight_percent == 0:
        return
    if (after.step, after.weight_percent) != (before.step, before.weight_percent):
        return
    counts = {tally.gate: tally.total for tally in after.tallies}
    for report in look.reports:
        tally = next((tally for tally in before.tallies if tally.gate == report.gate), None)
        newest = look.at if report.newest_sample_at is None else report.newest_sample_at
        newer = tally is None or newest > tally.last_sample_at
        total = (tally.total if tally else 0) + (1 if newer else 0)
        if report.verdict is Verdict.FAIL and not report.holds and counts.get(report.gate, 0) != total:
            yield f"a FAIL of {report.gate} was not counted in {before.phase.value}"


RULES: dict[int, Callable[[Turn], Iterator[str]]] = {
    1: _only_weights,
    2: _up_only_when_allowed,
    3: _down_at_once,
    4: _unmeasured_is_not_bad,
    5: _final_and_never_lost,
    6: _announced,
    7: _buttons_are_bound,
    8: _no_fight,
    9: _never_blind,
}
"""Rule number of the product's list -> its check."""
