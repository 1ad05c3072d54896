"""Kill the process at every single call that changes something, start another, and see the story end as it should."""

from collections import Counter
from itertools import pairwise

import pytest

from bot.rollout.effects import MessageKind
from bot.rollout.model import HoldReason, Phase, Rollout
from bot.usecases.freezing import freeze
from bot.usecases.requests import put
from bot.usecases.undo import undo
from tests.engine.dying import Plot, Run, Tick, raised, story
from tests.engine.stage import ADA, Stage

BAKE_S = 1.0


def repeated(run: Run) -> list[str]:
    """Texts that stand in the chat, or were whispered, more often than they were said."""
    said = [(one.channel, one.thread, one.text) for one in run.made.chat.messages.values()]
    said += [(one.channel, one.to, one.text) for one in run.made.chat.whispers]
    meant = [message.text for _, message in run.made.store.said if message.text]
    often = [(text, count) for (_, _, text), count in Counter(said).items() if count > 1]
    return [f"{text} ({count}x)" for text, count in often if count > max(1, sum(one in text for one in meant))]


async def wrong_with(run: Run, plot: Plot) -> list[str]:
    """What a good end lacks."""
    left = await run.made.store.outbox.depth()
    found = []
    rollout = run.rollout
    if rollout.phase is not plot.phase:
        found.append(f"ended as {rollout.phase} at {rollout.weight_percent}%: {rollout.reason}")
    moved = run.made.weights()
    if moved[moved[0] == 0 :] != list(plot.weights):
        found.append(f"weights {moved}")
    rises = raised(run)
    again = 1 if plot is PLOTS["re-applied"] else 0
    steps = [weight for _, weight in rises][again:]
    if steps != sorted(set(steps)):
        found.append(f"raises {rises}")
    gaps = [after - before for (before, _), (after, _) in pairwise(rises)]
    if any(gap < BAKE_S for gap in gaps):
        found.append(f"a bake of {min(gaps):.1f} s")
    risen = [one for one in run.seen.raises if one.step >= 0 and one.write and one.write.step > one.step]
    short = [one for one in risen if one.bake.covered_s < one.needed_s]
    if short:
        found.append(f"raised after {[one.bake.covered_s for one in short]} s of covered time")
    if len(repeated(run)) > 1:
        found.append(f"repeated: {repeated(run)}")
    finals = [
        message for name, message in run.made.store.said if message.kind is MessageKind.FINAL and name == run.name
    ]
    if len(finals) != 1 or left:
        found.append(f"{len(finals)} final messages, {left} letters left in the outbox")
    failures = [one for one in run.made.telemetry.failures if one[0] not in plot.failures]
    if failures:
        found.append(f"failures: {failures}")
    return found


async def every_cut(plot: Plot) -> int:
    """Cut at point 1, 2, 3 ... until a story ends uncut; how many cuts were tried."""
    wrong = []
    tried = 0
    while True:
        run = await story(tried + 1, plot)
        found = await wrong_with(run, plot)
        wrong += [f"cut {tried + 1}, {run.cut}: {text}" for text in found]
        if not run.cut:
            break
        tried += 1
    print(f"{tried} cuts tried, {len(wrong)} complaints")
    assert wrong == [], "\n".join(wrong)
    return tried


async def test_a_good_release_survives_a_kill_at_every_call() -> None:
    """No step doubled, none lost, no bake shortened, at most one message repeated, whatever call was the last."""
    assert await every_cut(Plot()) > 60


async def test_a_bad_release_reaches_zero_after_a_kill_at_every_call() -> None:
    """The rollback is always finished by the next process, and its end is told."""
    assert await every_cut(Plot(bad=True, weights=(10, 0), phase=Phase.ROLLED_BACK)) > 30


def at_ten(rollout: Rollout, done: set[str]) -> bool:
    """The first weight has been reached, for the first time; from now on the process may die."""
    if rollout.weight_percent != 10 or rollout.write is not None or "armed" in done:
        return False
    done.add("armed")
    return True


async def once(made: Stage, done: set[str], verb: str, rollout: Rollout, option: str = "") -> None:
    """Ada asks for something, once."""
    if verb not in done:
        done.add(verb)
        await put(made.desk, verb, rollout.id, ADA, reason="I say so", option=option)


def drifting(option: str, weight: int) -> Tick:
    """Somebody sets the canary to `weight`, and Ada answers the question with `option`; again when she is told to."""

    async def tick(made: Stage, rollout: Rollout, done: set[str]) -> str:
        again = sum("ask for it again" in message.text for _, message in made.store.said)
        if at_ten(rollout, done):
            made.mesh.edit("payments", canary_weight=weight)
        elif HoldReason.DRIFT in rollout.hold_reasons and f"asked {again}" not in done:
            done.add(f"asked {again}")
            await put(made.desk, "drift", rollout.id, ADA, reason="I say so", option=option)
        return ""

    return tick


async def frozen(made: Stage, rollout: Rollout, done: set[str]) -> str:
    """A freeze of some seconds."""
    if at_ten(rollout, done):
        await freeze(made.desk, "all", 3.0, "audit", ADA)
    return ""


async def unanswered(made: Stage, rollout: Rollout, done: set[str]) -> str:
    """Nobody approves: after four seconds the rules roll back."""
    if rollout.phase is Phase.AWAITING_APPROVAL:
        done.add("armed")
    return ""


async def undone(made: Stage, rollout: Rollout, done: set[str]) -> str:
    """A promotion is undone."""
    if rollout.phase is Phase.PROMOTED and "armed" not in done:
        done |= {"armed", "last"}
        return (await undo(made.desk, "payments", ADA)).id
    return ""


async def forgotten(made: Stage, rollout: Rollout, done: set[str]) -> str:
    """The store loses everything, and Ada resumes what was kept or rebuilt."""
    if at_ten(rollout, done):
        made.store.wipe()
    elif HoldReason.RECOVERED in rollout.hold_reasons:
        await once(made, done, "resume", rollout)
    return ""


async def deleted(made: Stage, rollout: Rollout, done: set[str]) -> str:
    """Somebody deletes the route, and Ada rolls back."""
    if at_ten(rollout, done):
        made.mesh.delete("payments")
    elif HoldReason.DRIFT in rollout.hold_reasons:
        await once(made, done, "rollback", rollout)
    return ""


async def hindered(made: Stage, rollout: Rollout, done: set[str]) -> str:
    """A bad release, and an API server that refuses its way to 0 three times: people are paged."""
    if at_ten(rollout, done):
        made.mesh.fail("transient", times=3)
    return ""


async def held(made: Stage, rollout: Rollout, done: set[str]) -> str:
    """Ada holds, and resumes when it is held."""
    if at_ten(rollout, done):
        await once(made, done, "hold", rollout)
    elif HoldReason.PERSON in rollout.hold_reasons:
        await once(made, done, "resume", rollout)
    return ""


THREE = "10%:1s, 50%:1s, 100%:1s"
BACK = Phase.ROLLED_BACK
PLOTS = {
    "adopted": Plot(THREE, tick=drifting("adopt", 30), late=True, weights=(10, 30, 50, 100)),
    "re-applied": Plot(THREE, tick=drifting("reapply", 30), late=True, weights=(10, 50, 100)),
    "frozen": Plot(THREE, tick=frozen, late=True),
    "held": Plot(THREE, tick=held, late=True),
    "unanswered": Plot(tick=unanswered, late=True, weights=(10, 0), phase=BACK),
    "undone": Plot(THREE, tick=undone, late=True, last=False, weights=(10, 50, 100, 0), phase=BACK),
    "forgotten": Plot(THREE, tick=forgotten, late=True, failures=frozenset({"lease-lost-on-save"})),
    "deleted": Plot(THREE, tick=deleted, late=True, weights=(10,), phase=BACK),
    "hindered": Plot(THREE, bad=True, tick=hindered, late=True, weights=(10, 0), phase=BACK),
}


@pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS.keys())
async def test_what_was_begun_is_finished_after_a_kill_at_every_call(plot: Plot) -> None:
    """What people, other writers and a forgetful store bring about ends as it should, by whichever process."""
    assert await every_cut(plot) > 5
