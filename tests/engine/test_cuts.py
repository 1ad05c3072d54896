"""Kill the process at every single call that changes something, start another, and see the story end as it should."""

from collections import Counter
from itertools import pairwise

from bot.rollout.effects import MessageKind
from bot.rollout.model import Phase
from tests.engine.dying import Run, raised, story

BAKE_S = 1.0


def repeated(run: Run) -> list[str]:
    """Texts that stand more than once in the chat, or were whispered more than once."""
    said = [(one.channel, one.thread, one.text) for one in run.made.chat.messages.values()]
    said += [(one.channel, one.to, one.text) for one in run.made.chat.whispers]
    return [f"{text} ({count}x)" for (_, _, text), count in Counter(said).items() if count > 1]


async def wrong_with(run: Run, weights: list[int], phase: Phase) -> list[str]:
    """What a good end lacks."""
    left = await run.made.store.outbox.depth()
    found = []
    rollout = run.rollout
    if rollout.phase is not phase:
        found.append(f"ended as {rollout.phase} at {rollout.weight_percent}%: {rollout.reason}")
    moved = run.made.weights()
    if moved[moved[0] == 0 :] != weights:
        found.append(f"weights {moved}")
    rises = raised(run)
    if [weight for _, weight in rises] != sorted({weight for _, weight in rises}):
        found.append(f"raises {rises}")
    gaps = [after - before for (before, _), (after, _) in pairwise(rises)]
    if any(gap < BAKE_S for gap in gaps):
        found.append(f"a bake of {min(gaps):.1f} s")
    short = [one for one in run.seen.raises if one.step >= 0 and one.bake.covered_s < one.needed_s]
    if short:
        found.append(f"raised after {[one.bake.covered_s for one in short]} s of covered time")
    if len(repeated(run)) > 1:
        found.append(f"repeated: {repeated(run)}")
    finals = [message for _, message in run.made.store.said if message.kind is MessageKind.FINAL]
    if len(finals) != 1 or left:
        found.append(f"{len(finals)} final messages, {left} letters left in the outbox")
    if run.made.telemetry.failures:
        found.append(f"failures: {run.made.telemetry.failures}")
    return found


async def every_cut(bad: bool, weights: list[int], phase: Phase) -> int:
    """Cut at point 1, 2, 3 ... until a story ends uncut; how many cuts were tried."""
    wrong = []
    tried = 0
    while True:
        run = await story(tried + 1, bad=bad)
        found = await wrong_with(run, weights, phase)
        wrong += [f"cut {tried + 1}, {run.cut}: {text}" for text in found]
        if not run.cut:
            break
        tried += 1
    print(f"{tried} cuts tried, {len(wrong)} complaints")
    assert wrong == [], "\n".join(wrong)
    return tried


async def test_a_good_release_survives_a_kill_at_every_call() -> None:
    """No step doubled, none lost, no bake shortened, at most one message repeated, whatever call was the last."""
    assert await every_cut(False, [10, 50, 100], Phase.PROMOTED) > 60


async def test_a_bad_release_reaches_zero_after_a_kill_at_every_call() -> None:
    """The rollback is always finished by the next process, and its end is told."""
    assert await every_cut(True, [10, 0], Phase.ROLLED_BACK) > 30
