"""The checker of the fault bench: a history as it should be passes, and one planted break of each figure is found."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bot.rollout.effects import Audit
from bot.rollout.model import Phase
from bot.rollout.plan import parse_steps
from tests.chaos.judge import FIGURES, judge
from tests.chaos.record import HELPED, Asked, Json, Line, Record, Trouble, Write
from tests.chaos.schedule import PLANS, Fault, Release, Schedule, Start, draw
from tests.fixtures.rollouts import rollout as made

BEGAN = 1_800_000_000.0
NAME = "orders-b0b0"


def _route(weight: int) -> Json:
    entries = [
        {"destination": {"host": "orders", "subset": subset}, "weight": share}
        for subset, share in (("v1", 100 - weight), ("v2", weight))
    ]
    return {"metadata": {"name": "orders", "annotations": {}}, "spec": {"http": [{"timeout": "2s", "route": entries}]}}


def _write(at: float, was: int, weight: int, revision: int, phase: str, by: str = "a") -> Write:
    return Write(BEGAN + at, by, True, "orders", was, weight, NAME, revision, phase, _route(was), _route(weight))


def _said(at: float, text: str, thread: bool = True) -> Json:
    return {
        "ts": f"{BEGAN + at:.6f}",
        "thread_ts": f"{BEGAN + 1.0:.6f}" if thread else None,
        "channel": "C0CHECKOUT",
        "user": "U0CANARY",
        "text": text,
        "blocks": [] if thread else [{"type": "context", "text": f"`/canary status {NAME}`"}],
        "ephemeral_to": None,
    }


def _phase(at: float, before: str, after: str, bot: str = "a") -> Line:
    return Line(BEGAN + at, bot, "phase", {"rollout": NAME, "before": before, "after": after})


def _record() -> Record:
    """A release that goes bad at 50% and is sent back at once, without any fault."""
    schedule = Schedule(0, (Start(0.0, "orders", "short", Release.SPOILED, 5.0),), (), ())
    record = Record(schedule, BEGAN, BEGAN + 15.0, BEGAN + 20.0)
    record.asked = [
        Asked(BEGAN, BEGAN + 0.3, "U0ADA", "start orders v2 plan short", True, f"`{NAME}`: has been started")
    ]
    record.lines = [
        Line(BEGAN - 0.5, "a", "lease-gained", {"token": 1}),
        _phase(0.4, "Scheduled", "Progressing"),
        _phase(6.0, "Progressing", "RollingBack"),
        _phase(6.2, "RollingBack", "RolledBack"),
    ]
    record.spoiled = {"orders": BEGAN + 5.0}
    record.writes = [
        _write(0.5, 0, 20, 3, "Progressing"),
        _write(3.0, 20, 50, 5, "Progressing"),
        _write(6.1, 50, 0, 7, "RolledBack"),
    ]
    rollout = made(NAME, "orders", plan=parse_steps(PLANS["short"]), phase=Phase.ROLLED_BACK, created_at=BEGAN)
    record.rollouts = {NAME: rollout}
    return _told(record)


def _told(record: Record) -> Record:
    """Announce and record every change of weight, a tenth of a second after it."""
    record.messages = [_said(1.0, "🔴 Rolled back: orders v2", thread=False)]
    for number, one in enumerate(record.writes):
        at = one.at - BEGAN + 0.1
        if one.weight > one.was:
            record.messages.append(_said(at, f"✅ v2 of orders is at {one.weight}% (was {one.was}%): number {number}."))
        elif one.weight == 0:
            record.messages.append(_said(at, f"🔴 Rolling back: v2 of orders goes from {one.was}% to 0 now."))
            record.messages.append(_said(at + 1.0, "🔴 Rolled back: orders v2 has no traffic in shop."))
    record.audit = [Audit(one.at, NAME, "weight", "gates", "said", one.weight) for one in record.writes]
    return record


def _lose(record: Record) -> None:
    record.rollouts = {NAME: replace(record.rollouts[NAME], phase=Phase.HOLDING)}


def _forget(record: Record) -> None:
    record.rollouts = {}


def _contradict(record: Record) -> None:
    record.rollouts = {NAME: replace(record.rollouts[NAME], phase=Phase.PROMOTED)}


def _fail_to_answer(record: Record) -> None:
    record.asked.append(Asked(BEGAN + 4.0, BEGAN + 12.0, "U0ADA", f"hold {NAME} because", True, ""))


def _break(record: Record) -> None:
    record.lines.append(Line(BEGAN + 4.0, "a", "wake-failed", {"exception": "KeyError"}))


def _double(record: Record) -> None:
    record.writes.insert(2, replace(_write(5.5, 20, 50, 6, "Progressing"), was=20))


def _skip(record: Record) -> None:
    record.writes[1] = _write(3.0, 20, 100, 5, "Progressing")
    record.writes[2] = _write(6.1, 100, 0, 7, "RolledBack")


def _leave_the_plan(record: Record) -> None:
    record.writes[1] = _write(3.0, 20, 60, 5, "Progressing")
    record.writes[2] = _write(6.1, 60, 0, 7, "RolledBack")


def _hurry(record: Record) -> None:
    record.writes[1] = _write(1.5, 20, 50, 5, "Progressing")


def _skip_the_approval(record: Record) -> None:
    record.rollouts = {NAME: replace(record.rollouts[NAME], plan=parse_steps(PLANS["asked"]))}


def _ignore_a_hold(record: Record) -> None:
    record.asked.append(Asked(BEGAN + 1.0, BEGAN + 1.4, "U0GRACE", f"hold {NAME} because", True, "✋ Held: because"))


def _ignore_a_freeze(record: Record) -> None:
    record.asked.append(Asked(BEGAN + 1.0, BEGAN + 1.4, "U0GRACE", "freeze orders for 4s audit", True, "Frozen: audit"))


def _raise_after_the_fence(record: Record) -> None:
    record.lines.append(Line(BEGAN + 2.0, "b", "lease-gained", {"token": 2}))
    record.writes.insert(1, _write(2.2, 20, 20, 4, "Progressing", by="b"))


def _raise_without_the_lease(record: Record) -> None:
    record.lines.append(Line(BEGAN - 0.4, "b", "lease-gained", {"token": 2}))


def _raise_after_going_back(record: Record) -> None:
    record.lines[2] = _phase(2.5, "Progressing", "RollingBack")
    record.writes[2] = _write(3.5, 50, 0, 7, "RolledBack")


def _raise_what_fails(record: Record) -> None:
    start = replace(record.schedule.starts[0], release=Release.BAD)
    record.schedule = replace(record.schedule, starts=(start,))


def _change_more(record: Record) -> None:
    after = json.loads(json.dumps(record.writes[1].after))
    after["spec"]["http"][0]["timeout"] = "9s"
    record.writes[1] = replace(record.writes[1], after=after)


def _lose_weight(record: Record) -> None:
    after = json.loads(json.dumps(record.writes[1].after))
    after["spec"]["http"][0]["route"][0]["weight"] = 40
    record.writes[1] = replace(record.writes[1], after=after)


def _linger(record: Record) -> None:
    record.writes[2] = _write(8.5, 50, 0, 7, "RolledBack")


def _keep_what_fails(record: Record) -> None:
    record.quiet_at = BEGAN + 6.0
    record.ended_at = BEGAN + 40.0
    record.lines = record.lines[:2]
    record.writes[2] = _write(30.0, 50, 0, 7, "RolledBack")


def _say_nothing(record: Record) -> None:
    del record.messages[2]


def _say_no_end(record: Record) -> None:
    del record.messages[3:]


def _record_nothing(record: Record) -> None:
    record.audit = [one for one in record.audit if one.weight_percent != 50]


def _keep_a_letter(record: Record) -> None:
    record.letters_left = 1


def _say_twice(record: Record) -> None:
    record.messages.append({**record.messages[2], "ts": f"{BEGAN + 4.0:.6f}"})


def _two_cards(record: Record) -> None:
    record.messages.append(_said(9.0, "🔴 Rolled back: orders v2", thread=False))


PLANTED = {
    "lost": (_lose, _forget, _contradict, _fail_to_answer, _break),
    "doubled": (_double,),
    "raised_wrongly": (
        _skip, _leave_the_plan, _hurry, _skip_the_approval, _ignore_a_hold, _ignore_a_freeze, _raise_after_the_fence,
        _raise_without_the_lease, _raise_after_going_back, _raise_what_fails, _change_more, _lose_weight,
    ),
    "late_rollbacks": (_linger, _keep_what_fails),
    "unannounced": (_say_nothing, _say_no_end, _record_nothing, _keep_a_letter),
    "repeated_messages": (_say_twice, _two_cards),
}  # fmt: skip


def test_a_history_as_it_should_be_passes() -> None:
    """Nothing is found where nothing is wrong."""
    assert judge(_record()).broken == ()


def test_every_figure_has_a_plant() -> None:
    """No figure is published whose break was never seen to be found."""
    assert tuple(PLANTED) == FIGURES


@pytest.mark.parametrize(
    ("figure", "plant"),
    [(figure, plant) for figure, plants in PLANTED.items() for plant in plants],
    ids=lambda value: value if isinstance(value, str) else value.__name__.strip("_"),
)
def test_a_planted_break_is_found_under_its_figure(figure: str, plant) -> None:
    """One change of a good history counts under its figure and under no other."""
    record = _record()
    plant(record)
    if figure not in ("unannounced", "repeated_messages"):
        _told(record)
    judgement = judge(record)
    assert {one.figure for one in judgement.broken} == {figure}, judgement.broken
    assert judgement.count(figure) > 0


def test_a_fault_excuses_lateness_only_as_long_as_it_lasts() -> None:
    """A route that cannot be written is written soon after it can be again, and no later."""
    for ended, excused in ((8.0, True), (5.0, False)):
        record = _record()
        record.quiet_at = record.ended_at = BEGAN + 40.0
        record.writes[2] = _write(18.0, 50, 0, 7, "RolledBack")
        record.troubles = [Trouble(BEGAN + 4.0, BEGAN + ended, "kube 500")]
        assert (not judge(_told(record)).broken) is excused


def test_a_fault_of_another_process_excuses_nothing() -> None:
    """The one that decided could reach the API server."""
    record = _record()
    record.writes[2] = _write(9.0, 50, 0, 7, "RolledBack")
    record.troubles = [Trouble(BEGAN + 4.0, BEGAN + 8.0, "link", "b", "cut kube")]
    assert [one.figure for one in judge(_told(record)).broken] == ["late_rollbacks"]


@pytest.mark.parametrize(("lifted", "found"), [(2.5, []), (3.2, ["raised_wrongly"])])
def test_a_freeze_that_the_bench_lifts_binds_until_then(lifted: float, found: list[str]) -> None:
    """When all is mended freezes are taken away: what is raised before that is held against the bot as ever."""
    record = _record()
    _ignore_a_freeze(record)
    record.asked.append(Asked(BEGAN + lifted, BEGAN + lifted + 0.1, "U0GRACE", "unfreeze orders", True, HELPED))
    assert [one.figure for one in judge(record).broken] == found


def test_a_message_repeated_for_a_lost_reply_is_counted_and_not_held_against_the_bot() -> None:
    """The chat has no key for a post: the figure says so, the run does not fail."""
    record = _record()
    _say_twice(record)
    record.troubles = [Trouble(BEGAN + 2.5, BEGAN + 4.0, "slack lost")]
    judgement = judge(record)
    assert (judgement.repeated, judgement.broken) == (1, ())


@pytest.mark.parametrize("other", ["orders-a0a0", "orders-c0c0"])
def test_a_card_that_names_another_rollout_speaks_for_its_own_only(other: str) -> None:
    """What takes a rollout back names it: its thread tells its own changes, and none of the other's."""
    record = _record()
    record.messages[0]["blocks"][0]["text"] = f"takes back `{other}`  ·  `/canary status {NAME}`"
    record.rollouts[other] = replace(record.rollouts[NAME], id=other)
    assert judge(record).broken == ()
    record.writes.append(replace(_write(7.0, 20, 0, 9, "RolledBack"), rollout=other))
    record.audit.append(Audit(BEGAN + 7.0, other, "weight", "gates", "said", 0))
    assert [str(one) for one in judge(record).broken] == [f"unannounced: {other}: 20% -> 0% was told to nobody"]


def test_a_seed_draws_the_same_schedule_again() -> None:
    """And leaving out what a machine cannot do changes nothing else."""
    for seed in range(50):
        whole = draw(seed)
        assert draw(seed) == whole
        without = draw(seed, clocks=False, memory=False)
        assert (without.starts, without.asks) == (whole.starts, whole.asks)
        left: list[Fault] = [one for one in whole.faults if one.kind not in ("bot clock", "bot memory")]
        assert list(without.faults) == left
