"""Nodes underneath: what the watch says of them, and what they hold up, through the whole engine."""

import pytest

from bot.analysis.nodes import CORES, HISTORY_S, HISTORY_STEP_S, PRESSURE, SAMPLED, TIME_LOST, UP, Level
from bot.analysis.promql import over
from bot.analysis.samples import Answer, Query, Series
from bot.catalog import load
from bot.rollout.model import HoldReason, Phase
from bot.usecases import reading
from bot.usecases.start import StartAsk, start
from tests.engine.stage import ADA, CATALOG, HOST, Stage, stage
from tests.fakes.chat import Said

NODES = ("node-1", "node-2")


class Machines:
    """Two nodes with two cores each whose exporters are scraped every second while `pass_time` lets time pass."""

    def __init__(self, made: Stage) -> None:
        self.made = made
        self.steal = dict.fromkeys(NODES, 0.0)
        self.up = dict.fromkeys(NODES, 1.0)
        self._stolen = dict.fromkeys(NODES, 100.0)
        self._waited = dict.fromkeys(NODES, 50.0)
        self._past: dict[Query, dict[str, list[tuple[float, float]]]] = {}
        self._tell()

    async def pass_time(self, seconds: int) -> None:
        """Whole seconds, one scrape each."""
        for _ in range(seconds):
            for name in NODES:
                self._stolen[name] += 2 * self.steal[name]
                self._waited[name] += 0.01 + 0.9 * self.steal[name]
            await self.made.play(1.0)
            self._tell()

    def _tell(self) -> None:
        now = self.made.clock.now()
        told = {
            TIME_LOST: {name: self._stolen[name] for name in NODES},
            CORES: dict.fromkeys(NODES, 2.0),
            SAMPLED: dict.fromkeys(NODES, now),
            UP: dict(self.up),
            PRESSURE["CPU pressure"]: dict(self._waited),
        }
        for query, values in told.items():
            self.made.metrics.answers[query.promql] = [(_labels(query, name), value) for name, value in values.items()]
            for name, value in values.items():
                self._past.setdefault(query, {}).setdefault(name, []).append((now, value))
            self.made.metrics.answers[over(query.promql, HISTORY_S, HISTORY_STEP_S)] = Answer(
                tuple(Series(_labels(query, name), tuple(points)) for name, points in self._past[query].items())
            )


def _labels(query: Query, name: str) -> dict[str, str]:
    return {"instance": f"{name}:9100"} | ({"mode": "steal"} if query == TIME_LOST else {})


async def started(made: Stage) -> str:
    """Start payments on three steps; the canary's pods are on node-2, stable's on node-1."""
    answer = await start(made.desk, StartAsk("payments", steps="10%:10s, 50%:10s, 100%:10s"), ADA)
    assert answer.rollout is not None
    return answer.rollout.id


def said_of(made: Stage, node: str) -> list[Said]:
    return [said for said in made.chat.messages.values() if f"Node {node}" in said.text]


async def test_no_weight_goes_up_while_a_node_under_the_canary_is_critical() -> None:
    """Steal on node-2 holds at the present weight, the gate table says why, and it goes on when the steal is over."""
    async with stage() as made:
        machines = Machines(made)
        name = await started(made)
        await machines.pass_time(6)
        assert made.weights() == [10]
        machines.steal["node-2"] = 0.2
        await machines.pass_time(40)
        held = await made.rollout(name)
        assert (held.phase, held.hold_reasons) == (Phase.HOLDING, frozenset({HoldReason.NODES}))
        assert made.weights() == [10]
        look = (await reading.gates(made.desk, "payments")).assessment
        assert look.nodes_critical == ("node-2",)
        assert [report.gate for report in look.reports if report.holds] == ["nodes"]
        hold = held.held(HoldReason.NODES)
        assert hold is not None
        assert "node-2 under v2 is critical: CPU steal" in hold.detail
        machines.steal["node-2"] = 0.0
        await machines.pass_time(120)
        assert (await made.rollout(name)).phase is Phase.PROMOTED


async def test_critical_nodes_elsewhere_hold_nobody_up() -> None:
    """Steal under stable alone is warned of and changes nothing."""
    async with stage() as made:
        machines = Machines(made)
        name = await started(made)
        machines.steal["node-1"] = 0.2
        await machines.pass_time(60)
        assert (await made.rollout(name)).phase is Phase.PROMOTED
        assert said_of(made, "node-1")


async def test_a_node_has_one_message_that_is_edited_and_closed() -> None:
    """It names the rollouts on the node, shows pressure beside steal, gets worse and better in place, and ends well."""
    async with stage() as made:
        machines = Machines(made)
        name = await started(made)
        await machines.pass_time(5)
        machines.steal["node-2"] = 0.05
        await machines.pass_time(10)
        (said,) = said_of(made, "node-2")
        assert "degraded" in said.text
        assert f"{name} (canary v2)" in said.text
        machines.steal["node-2"] = 0.3
        await machines.pass_time(10)
        (said,) = said_of(made, "node-2")
        assert "critical" in said.text
        words = str(said.blocks)
        assert "steal 30%" in words
        assert "CPU pressure 28%" in words
        machines.steal["node-2"] = 0.0
        await machines.pass_time(90)
        (said,) = said_of(made, "node-2")
        assert "healthy again" in said.text
        assert 2 <= len(said.edits) <= 8
        assert not said_of(made, "node-1")


async def test_steal_that_comes_and_goes_does_not_flap() -> None:
    """Four bad seconds in every ten are one story of one message, not one every ten seconds."""
    async with stage() as made:
        machines = Machines(made)
        for _ in range(12):
            machines.steal["node-2"] = 0.3
            await machines.pass_time(4)
            machines.steal["node-2"] = 0.0
            await machines.pass_time(6)
        (said,) = said_of(made, "node-2")
        assert "critical" in said.text
        assert len(said.edits) <= 2


async def test_a_silent_exporter_is_a_warning() -> None:
    """Not knowing the steal of a node is said, and holds nothing."""
    async with stage() as made:
        machines = Machines(made)
        name = await started(made)
        machines.up["node-2"] = 0.0
        await machines.pass_time(60)
        (said,) = said_of(made, "node-2")
        assert "exporter does not answer" in said.text
        assert (await made.rollout(name)).phase is Phase.PROMOTED


@pytest.mark.parametrize(
    ("on_machine", "phase", "weight"), [("hold", Phase.HOLDING, 10), ("roll_back", Phase.ROLLED_BACK, 0)]
)
async def test_the_catalog_says_what_a_failure_of_the_machine_does(on_machine: str, phase: Phase, weight: int) -> None:
    """A slow tail with a flat middle on a starved node: held or rolled back, and either way the evidence is told."""
    async with stage() as made:
        made.catalog = load(CATALOG.replace("check_every: 1s", f"check_every: 1s, on_machine: {on_machine}"))
        machines = Machines(made)
        name = await started(made)
        await machines.pass_time(3)
        machines.steal["node-2"] = 0.08
        await machines.pass_time(5)
        made.metrics.behave(HOST, "v2", slow=0.06, slow_ms=900)
        await machines.pass_time(40)
        rollout = await made.rollout(name)
        assert (rollout.phase, made.weights()[-1]) == (phase, weight)
        told = " ".join(made.chat.texts)
        assert "Likely the machine, not the release" in told
        assert "node-2 (v2) steal 8%" in told


@pytest.mark.parametrize("judge", ["sequential", "threshold"])
async def test_what_was_measured_on_a_starved_machine_is_not_held_against_the_release(judge: str) -> None:
    """Held for the machine, the rollout bakes anew once it is well, and is promoted."""
    async with stage() as made:
        text = CATALOG.replace("check_every: 1s", "check_every: 1s, on_machine: hold")
        made.catalog = load(text.replace("p99: {max: 250ms,", f"p99: {{max: 250ms, judge: {judge},"))
        machines = Machines(made)
        name = await started(made)
        await machines.pass_time(3)
        machines.steal["node-2"] = 0.08
        await machines.pass_time(5)
        made.metrics.behave(HOST, "v2", slow=0.06, slow_ms=900)
        await machines.pass_time(40)
        assert (await made.rollout(name)).hold_reasons == {HoldReason.NODES}
        machines.steal["node-2"] = 0.0
        made.metrics.behave(HOST, "v2", slow=0.0)
        await machines.pass_time(150)
        rollout = await made.rollout(name)
        assert rollout.phase is Phase.PROMOTED, rollout.reason
        assert any("The bake of 10% begins again" in said for said in made.chat.texts)


async def test_a_slow_release_on_a_well_node_goes_back_and_is_named() -> None:
    """`on_machine: hold` is no excuse for a release that is slow by itself."""
    async with stage() as made:
        made.catalog = load(CATALOG.replace("check_every: 1s", "check_every: 1s, on_machine: hold"))
        machines = Machines(made)
        name = await started(made)
        await machines.pass_time(5)
        made.metrics.behave(HOST, "v2", slow=0.06, slow_ms=900)
        await machines.pass_time(40)
        rollout = await made.rollout(name)
        assert rollout.phase is Phase.ROLLED_BACK
        assert "Likely the release, not the machine" in rollout.reason


async def test_who_begins_to_watch_knows_what_was_before() -> None:
    """`nodes` on a replica that never watched, and a holder that has just begun, judge the last minutes."""
    made = Stage()
    await made.add_service()
    machines = Machines(made)
    machines.steal["node-2"] = 0.2
    await machines.pass_time(10)
    views = await reading.nodes(made.desk)
    assert [(view.health.name, view.health.level) for view in views] == [
        ("node-2", Level.CRITICAL),
        ("node-1", Level.OK),
    ]
    assert views[0].health.value("steal") == pytest.approx(0.2, rel=0.15)
    await made.engine.start()
    await made.play(2.0)
    await made.engine.stop()
    (said,) = said_of(made, "node-2")
    assert "critical" in said.text
