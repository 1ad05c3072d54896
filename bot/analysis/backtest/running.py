"""The gates tried on the past: rollouts imagined in recorded history, with stable in the canary's place.

Every request of stable is given to the imagined canary with the probability of the step's weight, as the mesh would
have routed it, so the canary is as thin as a real one and is known to be no worse. What fails then is a false alarm,
or a limit that stable itself does not keep. A comparison with stable needs two sides that differ as two sets of pods
do: there the canary's requests come from one half of stable's pods and stable's from the other. A limit of its own is
tried without a stable side, since a real rollout only holds when stable breaks the limit as well, and that would hide
the limits that stable does not keep.

The verdicts are those of `assess`, look by look, with evidence and tallies carried as the state machine carries them.
"""

from collections.abc import Sequence
from dataclasses import replace

from bot.analysis.assessment import assess, questions
from bot.analysis.backtest.populations import Recorded
from bot.analysis.backtest.results import GateRun, Outcome
from bot.analysis.backtest.schedule import duration_s, looks_of
from bot.analysis.backtest.splitting import UNRECORDED, Split
from bot.analysis.backtest.tape import RANGE, Draw, Tape
from bot.rollout.gate import Assessment, GateReport, GateSpec, Relation, Verdict
from bot.rollout.judging import counted, deciding
from bot.rollout.model import Actor, Destination, Phase, Rollout, Rules, Source, Target
from bot.rollout.plan import Plan
from bot.rollout.start import scheduled


def imagined(target: Target, plan: Plan, gates: Sequence[GateSpec], rules: Rules, begin: float) -> Rollout:
    """A rollout of stable against stable that begins at `begin`; without the gates that nothing recorded can answer."""
    named = target.stable
    canary = replace(named, workloads=("~canary",), destination=Destination(target.host, "~canary"))
    stable = replace(
        named, label=f"the rest of {named.label}", workloads=("~stable",), destination=Destination(target.host)
    )
    return scheduled(
        id=f"{target.service}-imagined",
        target=replace(target, stable=stable, canary=canary, fingerprint=""),
        plan=replace(plan, steps=tuple(replace(step, approval=False) for step in plan.steps)),
        gates=tuple(gate for gate in gates if gate.kind not in UNRECORDED),
        rules=rules,
        by=Actor(Source.BOT),
        now=begin,
    ).with_(phase=Phase.PROGRESSING, started_at=begin)


def custom_questions(rollout: Rollout, look_every_s: float, interval_s: float) -> tuple[str, ...]:
    """Every text beside the recorded series that the looks of one imagined rollout will ask."""
    texts: list[str] = []
    for baking, moments in looks_of(rollout, rollout.created_at, look_every_s, interval_s):
        for now in moments:
            texts.extend(query.promql for query in questions(baking, now) if not RANGE.match(query.promql))
    return tuple(dict.fromkeys(texts))


def run(
    rollout: Rollout, split: Split, known: Recorded, begin: float, look_every_s: float, draw: Draw
) -> dict[str, GateRun]:
    """One imagined rollout begun at `begin`: how each of its gates fared, by name.

    A gate that failed is not judged again, the others go on as if it had not.
    """
    history = known.history
    interval_s = history.interval_s
    ends = begin + duration_s(rollout.plan, interval_s)
    if history.requests(begin, ends) < 1:
        return {gate.name: GateRun(begin, Outcome.WAITED, "No requests at all.", samples=0) for gate in rollout.gates}
    tape = Tape(rollout, split, known, begin, draw, interval_s)
    told = {gate.name: _Told(gate) for gate in rollout.gates}
    carried = rollout
    for baking, moments in looks_of(rollout, begin, look_every_s, interval_s):
        stepped = carry(baking, carried)
        for now in moments:
            look = assess(stepped, now, tape.answers(questions(stepped, now), now), None, None)
            tallies = counted(stepped.tallies, look)
            failing = {report.gate for report in deciding(tallies, look)}
            for report in look.reports:
                told[report.gate].hear(report, now, report.gate in failing, now == moments[-1])
            stepped = kept(stepped, look).with_(
                tallies=tallies, bake=replace(stepped.bake, covered_until=max(stepped.bake.covered_until, now))
            )
        carried = stepped
        if all(one.failed_at is not None for one in told.values()):
            break
    return {name: one.run(begin) for name, one in told.items()}


def carry(baking: Rollout, before: Rollout) -> Rollout:
    """A step's rollout with what the machine keeps from the step before: look and evidence, not the tallies."""
    return baking.with_(assessment=before.assessment, evidence=before.evidence)


def kept(rollout: Rollout, look: Assessment) -> Rollout:
    """The rollout after a look, as the machine keeps it."""
    return rollout.with_(assessment=replace(look, evidence=()), evidence=look.evidence or rollout.evidence)


class _Told:
    """What one gate has said so far in one run."""

    def __init__(self, gate: GateSpec) -> None:
        self.gate = gate
        self.failed_at: float | None = None
        self.waited: GateReport | None = None
        self.unmeasured: GateReport | None = None
        self.last: GateReport | None = None
        self.seen: list[tuple[float, float]] = []

    def hear(self, report: GateReport, now: float, fails: bool, ends_step: bool) -> None:
        """Take one report in; `fails` ends the gate's part."""
        if self.failed_at is not None:
            return
        if not (fails or ends_step):
            return
        self.last = report
        value = _value(self.gate, report)
        if value is not None and report.verdict in (Verdict.PASS, Verdict.FAIL):
            self.seen.append((now, value))
        if fails:
            self.failed_at = now
        elif report.verdict is Verdict.INCONCLUSIVE:
            self.waited = self.waited or report
        elif report.verdict is Verdict.ERROR:
            self.unmeasured = self.unmeasured or report

    def run(self, begin: float) -> GateRun:
        """How it fared in the end."""
        if self.failed_at is not None:
            outcome, spoke = Outcome.FAILED, self.last
        elif self.unmeasured is not None:
            outcome, spoke = Outcome.UNMEASURED, self.unmeasured
        elif self.waited is not None:
            outcome, spoke = Outcome.WAITED, self.waited
        else:
            outcome, spoke = Outcome.PASSED, self.last
        return GateRun(
            begin,
            outcome,
            spoke.detail if spoke else "",
            self.failed_at,
            max((value for _, value in self.seen), default=None),
            spoke.samples if spoke else None,
            spoke.needed_samples if spoke else None,
            tuple(self.seen),
        )


def _value(gate: GateSpec, report: GateReport) -> float | None:
    if gate.relation is not Relation.RELATIVE or report.value is None:
        return report.value
    return report.value / report.stable_value if report.stable_value else None
