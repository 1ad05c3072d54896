"""A record that was written by a holder whose clock was ahead."""

from dataclasses import replace

from bot.rollout.baking import fresh_bake
from bot.rollout.events import Looked
from bot.rollout.gate import Assessment, Verdict
from bot.rollout.machine import decide
from bot.rollout.model import Bake, Rollout
from tests.fixtures.rollouts import NOW, rollout

AHEAD = Bake(confirmed_at=NOW + 90, arrived_at=NOW + 90, covered_until=NOW + 90, extra_s=30.0)


def looked(before: Rollout, verdict: Verdict) -> Rollout:
    assert before.assessment is not None
    reports = tuple(replace(report, verdict=verdict) for report in before.assessment.reports)
    look: Assessment = replace(before.assessment, at=NOW + 40, reports=reports, coverage=None)
    return decide(before, Looked(look, ()), NOW + 40).rollout


def test_a_bake_that_has_yet_to_come_begins_now() -> None:
    """Else no sample counts for its gates until that moment, and a bad canary keeps its traffic unjudged."""
    before = rollout(bake=AHEAD, fresh_after=NOW + 90, holds=())
    after = looked(before, Verdict.INCONCLUSIVE)
    assert replace(after.bake, inconclusive_since=None, arrived_at=None, seen=False) == fresh_bake(NOW + 40, 30.0)
    assert after.fresh_after == NOW + 40


def test_a_look_that_cannot_measure_says_nothing_of_the_time() -> None:
    """It may be this holder's own clock that is wrong; then its gates are ERROR, and the bake stays as it is."""
    assert looked(rollout(bake=AHEAD, holds=()), Verdict.ERROR).bake.confirmed_at == NOW + 90


def test_a_bake_that_has_begun_stays() -> None:
    """A few seconds between clocks are what is allowed."""
    near = replace(AHEAD, confirmed_at=NOW + 44, arrived_at=NOW + 44, covered_until=NOW + 44)
    assert looked(rollout(bake=near, holds=()), Verdict.INCONCLUSIVE).bake.confirmed_at == NOW + 44
