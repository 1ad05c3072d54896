"""For every safety rule, faults planted in the machine are found by the checks: the checks are not blind themselves."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bot.rollout import (
    advance,
    approval,
    baking,
    draft,
    drift,
    holds,
    judging,
    looking,
    machine,
    people,
    retreat,
    writes,
)
from bot.rollout.effects import Decision, MessageKind
from bot.rollout.events import Event, Looked, Request, TookOver
from bot.rollout.gate import Verdict
from bot.rollout.machine import decide
from bot.rollout.model import HoldReason, Phase, Rollout
from tests.unit.rollout.world import KINDS, Broken, rules_of, scenes, stage, walk

Patch = pytest.MonkeyPatch
Mangle = Callable[[Rollout, Event, Decision], Decision]


def mangled(mangle: Mangle) -> Callable[[Rollout, Event, float], Decision]:
    def faulty(rollout: Rollout, event: Event, now: float) -> Decision:
        return mangle(rollout, event, decide(rollout, event, now))

    return faulty


def found(faulty: Callable[[Rollout, Event, float], Decision]) -> str:
    """The first broken rule that seeded walks find, "" when they find none."""
    for seed in range(1000):
        chance = random.Random(seed)
        moves = [(chance.randint(0, KINDS), chance.randint(0, 255), chance.randint(0, 255)) for _ in range(30)]
        try:
            walk(stage(scenes()[seed % len(scenes())], rules_of(seed), faulty, Counter()), moves)
        except Broken as broken:
            return str(broken)
    return ""


def _nothing(*_: object) -> list[str]:
    return []


def _no(*_: object) -> bool:
    return False


def _yes(*_: object) -> bool:
    return True


def _too_much(monkeypatch: Patch) -> None:
    change = draft.change
    monkeypatch.setattr(draft, "change", lambda rollout, write: replace(change(rollout, write), weight_percent=50))


def _takes_out_foreign(monkeypatch: Patch) -> None:
    change = draft.change
    monkeypatch.setattr(draft, "change", lambda rollout, write: replace(change(rollout, write), remove_canary=True))


def _ignores_holds(monkeypatch: Patch) -> None:
    monkeypatch.setattr(advance, "_held", _nothing)


def _ignores_pods(monkeypatch: Patch) -> None:
    monkeypatch.setattr(advance, "_unready", _nothing)


def _ignores_gates(monkeypatch: Patch) -> None:
    monkeypatch.setattr(advance, "_unproven", _nothing)


def _ignores_bake(monkeypatch: Patch) -> None:
    monkeypatch.setattr(advance, "_unbaked", _nothing)


def _ignores_approval(monkeypatch: Patch) -> None:
    monkeypatch.setattr(advance, "_approved", _yes)


def _ignores_freezes(monkeypatch: Patch) -> None:
    monkeypatch.setattr(looking, "observe_freezes", _nothing)


def _replays_raises(monkeypatch: Patch) -> None:
    monkeypatch.setattr(looking, "withdraw", _nothing)


def _lets_fails_pass(monkeypatch: Patch) -> None:
    monkeypatch.setattr(judging, "deciding", _nothing)


def _waits_when_held(monkeypatch: Patch) -> None:
    roll_back = retreat.roll_back

    def timid(work: Any, *arguments: Any, **named: Any) -> None:
        if work.rollout.held(HoldReason.DRIFT) is None:
            roll_back(work, *arguments, **named)

    monkeypatch.setattr(judging, "roll_back", timid)


def _gives_up(monkeypatch: Patch) -> None:
    monkeypatch.setattr(writes, "zero_failed", _nothing)


def _errors_are_fails(monkeypatch: Patch) -> None:
    deciding = judging.deciding
    monkeypatch.setattr(
        judging,
        "deciding",
        lambda tallies, look: deciding(tallies, look) + [one for one in look.reports if one.verdict is Verdict.ERROR],
    )


def _blames_release(monkeypatch: Patch) -> None:
    deciding = judging.deciding
    monkeypatch.setattr(
        judging, "deciding", lambda tallies, look: [replace(one, stable_fails=False) for one in deciding(tallies, look)]
    )


def _trusts_stable(monkeypatch: Patch) -> None:
    monkeypatch.setattr(retreat, "stable_cannot_carry", _no)


def _bakes_twice_as_fast(monkeypatch: Patch) -> None:
    progress = baking.progress

    def hasty(work: Any, look: Any) -> None:
        before = work.rollout.bake.covered_s
        progress(work, look)
        bake = work.rollout.bake
        work.set(bake=replace(bake, covered_s=bake.covered_s + (bake.covered_s - before)))

    monkeypatch.setattr(looking, "progress", hasty)


def _trusts_old_samples(monkeypatch: Patch) -> None:
    for phase in (Phase.PROGRESSING, Phase.HOLDING, Phase.AWAITING_APPROVAL):
        entry = (phase, machine.Kind.TOOK_OVER)

        def trusting(work: Any, event: TookOver) -> None:
            before = work.rollout.fresh_after
            writes.took_over(work, event)
            if not work.rollout.phase.final:
                work.set(fresh_after=before)

        monkeypatch.setitem(machine.TABLE, entry, replace(machine.TABLE[entry], handle=trusting))


def _says_nothing(monkeypatch: Patch) -> None:
    say = draft.Draft.say

    def mute(self: Any, kind: MessageKind, *arguments: Any, **named: Any) -> None:
        if kind not in (MessageKind.NOTE, MessageKind.FINAL, MessageKind.ALERT):
            say(self, kind, *arguments, **named)

    monkeypatch.setattr(draft.Draft, "say", mute)


def _records_nothing(monkeypatch: Patch) -> None:
    monkeypatch.setattr(draft.Draft, "record", _nothing)


def _takes_stale_clicks(monkeypatch: Patch) -> None:
    monkeypatch.setattr(people, "stale", _no)


def _hears_twice(rollout: Rollout, event: Event, now: float) -> Decision:
    return decide(rollout.with_(heard=()), event, now)


def _takes_stale_approvals(monkeypatch: Patch) -> None:
    refusal = approval._refusal
    monkeypatch.setattr(
        approval, "_refusal", lambda rollout, request: refusal(rollout, replace(request, revision=None, step=None))
    )


def _overwrites_drift(monkeypatch: Patch) -> None:
    monkeypatch.setattr(drift, "differs", lambda rollout, route: "")


def _forgets_drift(monkeypatch: Patch) -> None:
    add_hold = holds.add_hold
    monkeypatch.setattr(
        drift,
        "add_hold",
        lambda work, reason, detail, by: reason is HoldReason.DRIFT or add_hold(work, reason, detail, by),
    )


def _blind_while_held(monkeypatch: Patch) -> None:
    judge = judging.judge
    monkeypatch.setattr(looking, "judge", lambda work, look: not work.rollout.holds and judge(work, look))


PLANTED = {
    1: (_too_much, _takes_out_foreign),
    2: (
        _ignores_holds, _ignores_pods, _ignores_gates, _ignores_bake, _ignores_approval, _ignores_freezes,
        _replays_raises,
    ),
    3: (_lets_fails_pass, _waits_when_held, _gives_up),
    4: (_errors_are_fails, _blames_release, _trusts_stable),
    5: (_bakes_twice_as_fast, _trusts_old_samples),
    6: (_says_nothing, _records_nothing),
    7: (_takes_stale_clicks, _takes_stale_approvals),
    8: (_overwrites_drift, _forgets_drift),
    9: (_blind_while_held,),
}  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "plant"),
    [(rule, plant) for rule, plants in PLANTED.items() for plant in plants],
    ids=lambda one: str(getattr(one, "__name__", one)).strip("_"),
)
def test_a_planted_fault_is_found(rule: int, plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """With this guard taken out of the machine, random walks break the rule that it guards."""
    plant(monkeypatch)
    assert f"rule {rule}:" in found(decide)


def test_without_a_fault_nothing_is_found() -> None:
    """The same walks over the machine as it is break no rule."""
    assert found(decide) == ""


def test_hearing_a_request_twice_is_found() -> None:
    """A machine that forgets which requests it has heard breaks rule 7."""
    assert "rule 7:" in found(_hears_twice)


def _revives(rollout: Rollout, event: Event, decision: Decision) -> Decision:
    if rollout.phase.final and isinstance(event, Request) and event.verb == "resume":
        return replace(decision, rollout=rollout.with_(phase=Phase.PROGRESSING), wake_at=0.0)
    return decision


def _forgets_to_wake(rollout: Rollout, event: Event, decision: Decision) -> Decision:
    return replace(decision, wake_at=None)


def _answers_twice(rollout: Rollout, event: Event, decision: Decision) -> Decision:
    return replace(decision, messages=decision.messages * 2)


def _unsaved(rollout: Rollout, event: Event, decision: Decision) -> Decision:
    return replace(decision, save=False) if isinstance(event, Looked) else decision


def _changes_its_mind(rollout: Rollout, event: Event, decision: Decision) -> Decision:
    if rollout.phase is Phase.ROLLING_BACK and isinstance(event, Request):
        return replace(decision, rollout=rollout.with_(phase=Phase.HOLDING))
    return decision


@pytest.mark.parametrize(
    ("rule", "mangle"),
    [(5, _revives), (5, _forgets_to_wake), (7, _answers_twice), (2, _unsaved), (3, _changes_its_mind)],
    ids=lambda one: str(getattr(one, "__name__", one)).strip("_"),
)
def test_a_wrong_decision_is_found(rule: int, mangle: Mangle) -> None:
    """A decision spoiled after the machine made it breaks the rule that it offends."""
    assert f"rule {rule}:" in found(mangled(mangle))
