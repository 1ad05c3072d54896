"""What the machine keeps of the gates' evidence: over every step, until the canary is another one."""

from bot.rollout.gate import GateEvidence
from tests.unit.rollout.test_machine import begun


def seen(requests: float) -> tuple[GateEvidence, ...]:
    return (GateEvidence("error-rate", "source", until=requests, requests=requests),)


def test_evidence_is_kept_over_steps_and_once() -> None:
    """The newest look's, in the rollout and not in the look as well; a raise forgets the look and keeps it."""
    world = begun(steps="5%:20s, 25%:20s, 100%:20s")
    for number in range(1, 8):
        world.now += 5
        world.step(world.look(evidence=seen(100.0 * number)))
        assert world.rollout.evidence == seen(100.0 * number)
        assert world.rollout.assessment is None or world.rollout.assessment.evidence == ()
    assert world.rollout.weight_percent == 25


def test_a_look_that_could_not_weigh_takes_nothing_away() -> None:
    """Neither a look without evidence, nor one that was made for another step."""
    world = begun()
    world.now += 5
    world.step(world.look(evidence=seen(100.0)))
    world.now += 5
    world.step(world.look())
    world.step(world.look(step=3, evidence=seen(900.0)))
    assert world.rollout.evidence == seen(100.0)


def test_evidence_alone_is_no_reason_to_save() -> None:
    """It is saved with what else is saved, since Prometheus can tell it again from where the record ends."""
    world = begun()
    world.now += 5
    world.step(world.look(evidence=seen(100.0)))
    world.now += 1
    decision = world.step(world.look(evidence=seen(120.0)))
    assert decision.rollout.evidence == seen(120.0)
    assert not decision.save


def test_a_canary_that_begins_again_begins_without_evidence() -> None:
    """What was seen of the former pods says nothing of the new ones."""
    world = begun()
    world.now += 5
    world.step(world.look(evidence=seen(100.0), canary_fingerprint="print-2"))
    world.ask("restart")
    assert world.rollout.target.fingerprint == "print-2"
    assert world.rollout.evidence == ()
