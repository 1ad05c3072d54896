"""Node health: the levels of product.md's table, reached at once and left without flapping."""

from collections.abc import Mapping, Sequence

import pytest

from bot.analysis.facts import NodeFacts
from bot.analysis.nodes import (
    CORES,
    SAMPLED,
    TIME_LOST,
    UP,
    Level,
    NodeHealth,
    judge_nodes,
    node_of,
    node_questions,
)
from bot.analysis.samples import Answer, Query, Series
from bot.errors import CannotMeasure

START = 1_800_000_000.0


class Machine:
    """node-1 with two cores, sampled every 5 s."""

    def __init__(self, instance: str = "node-1:9100") -> None:
        self.now = START
        self.labels = {"instance": instance}
        self.lost = {"steal": 100.0, "iowait": 50.0}
        self.up = 1.0
        self.conditions: tuple[tuple[str, str, float], ...] = (("Ready", "True", START - 9999),)
        self.healths: Mapping[str, NodeHealth] = {}

    def facts(self) -> Sequence[NodeFacts]:
        return (NodeFacts("node-1", self.conditions, ("10.0.0.1", "node-1.internal")),)

    def answers(self) -> dict[Query, Answer | CannotMeasure]:
        def vector(*rows: tuple[dict[str, str], float]) -> Answer:
            return Answer(tuple(Series(labels, ((self.now, value),)) for labels, value in rows))

        return {
            TIME_LOST: vector(*((self.labels | {"mode": mode}, value) for mode, value in self.lost.items())),
            CORES: vector((self.labels, 2.0)),
            SAMPLED: vector((self.labels | {"cpu": "0"}, self.now)),
            UP: vector((self.labels | {"job": "node-exporter"}, self.up)),
        }

    def sample(self, steal: float = 0.0, iowait: float = 0.0, times: int = 1) -> NodeHealth:
        """`times` samples with these fractions of a core-second lost on each core."""
        for _ in range(times):
            self.now += 5
            self.lost["steal"] += steal * 2 * 5
            self.lost["iowait"] += iowait * 2 * 5
            self.judge()
        return self.healths["node-1"]

    def judge(self, answers: Mapping[Query, Answer | CannotMeasure] | None = None) -> NodeHealth:
        self.healths = judge_nodes(self.healths, self.facts(), self.answers() if answers is None else answers, self.now)
        return self.healths["node-1"]


@pytest.mark.parametrize(
    ("losses", "level"),
    [
        ({"steal": 0.01}, Level.OK),
        ({"steal": 0.03}, Level.WARN),
        ({"steal": 0.15}, Level.CRITICAL),
        ({"iowait": 0.05}, Level.OK),
        ({"iowait": 0.12}, Level.WARN),
        ({"iowait": 0.35}, Level.CRITICAL),
    ],
)
def test_levels_of_steal_and_iowait(losses: dict[str, float], level: Level) -> None:
    """Fractions of a core-second, over all cores of the node."""
    machine = Machine()
    machine.sample(times=2)
    health = machine.sample(**losses, times=3)
    assert health.level is level
    assert bool(health.reasons) is (level > Level.OK)
    (mode,) = losses
    assert health.value(mode) == pytest.approx(losses[mode])


def test_three_of_five_samples_are_needed() -> None:
    """Two bad samples are noise, the third within five is not."""
    machine = Machine()
    machine.sample(times=3)
    assert machine.sample(0.15, times=2).level is Level.OK
    machine.sample()
    assert machine.sample(0.15).level is Level.CRITICAL


def test_a_level_is_left_only_after_a_calm_minute() -> None:
    """It does not flap: good samples clear it once none of the last minute held it."""
    machine = Machine()
    machine.sample(times=2)
    machine.sample(0.15, times=3)
    raised_at = machine.healths["node-1"].since
    assert machine.sample(times=12).level is Level.CRITICAL
    assert machine.healths["node-1"].since == raised_at
    health = machine.sample(times=3)
    assert (health.level, health.reasons) == (Level.OK, ())
    assert health.since > raised_at


def test_a_sample_seen_twice_counts_once() -> None:
    """Looking more often than Prometheus scrapes does not make one bad sample three."""
    machine = Machine()
    machine.sample(times=2)
    machine.sample(0.15)
    for _ in range(5):
        machine.judge()
    assert machine.healths["node-1"].level is Level.OK


def test_a_reboot_is_no_negative_steal() -> None:
    """Counters that fell are a new beginning."""
    machine = Machine()
    machine.sample(times=2)
    machine.lost = {"steal": 0.0, "iowait": 0.0}
    health = machine.sample()
    assert health.level is Level.OK
    assert all(0 <= sample <= 1 for signal in health.signals.values() for sample in signal.samples)


@pytest.mark.parametrize(
    ("condition", "lasting_s", "level"),
    [
        (("Ready", "False"), 31, Level.CRITICAL),
        (("Ready", "Unknown"), 31, Level.CRITICAL),
        (("Ready", "False"), 29, Level.OK),
        (("MemoryPressure", "True"), 31, Level.WARN),
        (("DiskPressure", "True"), 31, Level.WARN),
        (("PIDPressure", "True"), 31, Level.WARN),
        (("NetworkUnavailable", "True"), 31, Level.WARN),
        (("MemoryPressure", "False"), 9999, Level.OK),
        (("SomethingElse", "True"), 9999, Level.OK),
    ],
)
def test_conditions_count_after_thirty_seconds(condition: tuple[str, str], lasting_s: float, level: Level) -> None:
    """Any bad one for 30 s; NotReady is critical."""
    machine = Machine()
    machine.conditions = ((*condition, START + 5 - lasting_s),)
    health = machine.sample()
    assert health.level is level
    if level > Level.OK:
        assert "31 s" in health.reasons[0]


def test_a_condition_that_recovers_clears_after_a_minute() -> None:
    """Ready again for a moment is not healthy yet."""
    machine = Machine()
    machine.conditions = (("Ready", "False", START - 60),)
    assert machine.sample().level is Level.CRITICAL
    machine.conditions = (("Ready", "True", START + 5),)
    assert machine.sample(times=11).level is Level.CRITICAL
    assert machine.sample(times=2).level is Level.OK


def test_a_silent_exporter_warns() -> None:
    """Without it steal is not known, which is said."""
    machine = Machine()
    machine.up = 0
    health = machine.sample()
    assert health.level is Level.WARN
    assert "exporter does not answer" in health.reasons[0]


def test_without_prometheus_conditions_are_still_judged_and_steal_stays_as_it_was() -> None:
    """Each signal has its own source."""
    machine = Machine()
    machine.sample(times=2)
    machine.sample(0.15, times=3)
    machine.conditions = (("DiskPressure", "True", START - 60),)
    away = dict.fromkeys(node_questions(machine.now), CannotMeasure("down"))
    machine.now += 300
    health = machine.judge(away)
    assert health.level is Level.CRITICAL
    assert len(health.reasons) == 2


@pytest.mark.parametrize("instance", ["node-1", "node-1:9100", "10.0.0.1:9100", "node-1.internal:9100", "node-1.x.y:1"])
def test_instances_are_matched_to_nodes_by_name_or_address(instance: str) -> None:
    """With or without port, by short or long name."""
    machine = Machine(instance)
    machine.sample(times=2)
    assert machine.sample(0.15, times=3).level is Level.CRITICAL


def test_a_stranger_is_no_node() -> None:
    """Exporters of machines outside the cluster are left alone, and addresses resolve for others too."""
    machine = Machine("database-7:9100")
    machine.sample(times=2)
    assert machine.sample(0.5, times=3).level is Level.OK
    assert node_of("10.0.0.1:9100", machine.facts()) == "node-1"
    assert node_of("[fd00::1]:9100", (NodeFacts("six", (), ("fd00::1",)),)) == "six"
    assert node_of("database-7:9100", machine.facts()) is None
