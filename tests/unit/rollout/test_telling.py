"""What a look is told of in the thread: each verdict of a step once, whoever holds the rollout."""

from bot.rollout.effects import Decision
from bot.rollout.events import TookOver
from bot.rollout.gate import Verdict
from tests.unit.rollout.test_machine import begun, said
from tests.unit.rollout.world import World


def seen(world: World, verdict: Verdict, *, after_s: float = 5) -> Decision:
    world.now += after_s
    return world.step(world.look(world.report(verdict)))


def test_a_new_holder_that_counts_anew_does_not_tell_a_verdict_again() -> None:
    """Its first looks have too few requests: neither that nor the same PASS afterwards is news in the channel."""
    world = begun(steps="5%:10m, 100%:10m")
    assert "All gates pass at 5%." in said(seen(world, Verdict.PASS))
    world.step(TookOver(world.route.state()))
    assert "too little data" not in said(seen(world, Verdict.INCONCLUSIVE))
    assert "All gates pass" not in said(seen(world, Verdict.PASS))


def test_traffic_that_stays_away_is_told() -> None:
    """Too little data after a PASS is told once, unless it may come from counting anew."""
    world = begun(steps="5%:1h, 100%:10m")
    seen(world, Verdict.PASS)
    assert "has too little data at 5%" in said(seen(world, Verdict.INCONCLUSIVE, after_s=400))
    assert not seen(world, Verdict.INCONCLUSIVE).messages
    assert "All gates pass at 5%." in said(seen(world, Verdict.PASS))


def test_every_step_tells_its_own_verdict() -> None:
    """A PASS at 5% says nothing of 25%; too little data at the beginning of a step is no news."""
    world = begun(steps="5%:10s, 25%:10m, 100%:10s")
    while world.rollout.weight_percent == 5:
        seen(world, Verdict.PASS)
    assert "too little data" not in said(seen(world, Verdict.INCONCLUSIVE))
    assert "All gates pass at 25%." in said(seen(world, Verdict.PASS))


def test_a_fail_is_told_whenever_it_begins() -> None:
    """Also right after a take-over, and the PASS after it."""
    world = begun(steps="5%:10m, 100%:10m")
    seen(world, Verdict.PASS)
    world.step(TookOver(world.route.state()))
    assert "error-rate fails at 5%" in said(seen(world, Verdict.FAIL))
    assert "All gates pass again at 5%." in said(seen(world, Verdict.PASS))
