"""Records are read so that thousands of them share what they have in common."""

from bot.adapters.redis.reader import Reader
from bot.rollout.model import Actor, Source
from bot.rollout.record import dump
from tests.fixtures.rollouts import rollout


def test_what_is_read_is_the_record() -> None:
    """Nothing that is shared changes what a record says."""
    reader = Reader()
    for one in (rollout(), rollout("b-1", "b"), rollout("b-2", "b", started_by=Actor(Source.BOT, "x" * 40))):
        assert reader.rollout(dump(one)) == one


def test_two_records_have_their_plan_gates_rules_and_names_once() -> None:
    """Of ten thousand rollouts with one plan there is one plan, and one text for each short name."""
    reader = Reader()
    one, other = (reader.rollout(dump(rollout(f"{name}-1", name))) for name in ("a", "b"))
    assert one.plan is other.plan
    assert one.gates is other.gates
    assert one.rules is other.rules
    assert one.target.route.mesh is other.target.route.mesh
    assert one.started_by is other.started_by


def test_a_record_has_its_host_and_labels_once() -> None:
    """They stand in it for each side."""
    target = Reader().rollout(dump(rollout())).target
    assert target.stable.destination.host is target.host
    assert target.canary.destination.host is target.host
    assert target.stable.selector[0] is target.canary.selector[0]
