"""What a holder remembers between looks: the same judgement as from everything asked again, for a fraction."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.analysis.assessment import assess, questions
from bot.analysis.memory import MANY, Memory, sizing
from bot.analysis.samples import Answer, Query, Series
from bot.analysis.sums import increments
from bot.rollout.gate import Assessment, GateReport, parse_gate
from tests.unit.analysis.scene import HOST, MISSING, Scene

RAW_S = 1100.0
ERRORS, SLOW = parse_gate("error-rate<1%"), parse_gate("p99<250ms")


class Remembering(Scene):
    """Every look twice: from everything asked again, and with a memory of the looks before."""

    def __init__(self, *gates: object, **how: object) -> None:
        super().__init__(*gates, **how)  # type: ignore[arg-type]
        self.memory = Memory()
        self.points = 0

    def both(self, after_s: float) -> tuple[Assessment, Assessment]:
        self.clock.advance(after_s)
        now = self.clock.now()
        answers = asyncio.run(self.metrics.ask(questions(self.rollout, now, self.memory)))
        self.points = sum(len(one.points) for a in answers.values() if isinstance(a, Answer) for one in a.series)
        remembered = assess(self.rollout, now, answers, None, None, memory=self.memory)
        return super().look(), remembered


def numbers(look: Assessment) -> list[GateReport]:
    return [replace(report, query="") for report in look.reports]


_turns = st.lists(
    st.tuples(
        st.sampled_from([1.0, 5.0, 15.0, 40.0, 170.0, 400.0]),
        st.sampled_from(["v1", "v2"]),
        st.sampled_from([{}, {"fail": 0.1}, {"fail": 0.0}, {"refuse": 0.2}, {"slow": 0.05, "slow_ms": 700.0}]),
        st.sampled_from([10.0, 50.0, 100.0]),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("scrape_s", [1.0, 15.0])
@settings(max_examples=12, deadline=None)
@given(_turns)
def test_a_memory_changes_no_number(scrape_s: float, turns: list[tuple[float, str, dict[str, float], float]]) -> None:
    """Whatever happens in between, and however long nobody looks: the same reports, share and coverage, as long as all
    can be asked again in raw samples."""
    scene = Remembering(ERRORS, SLOW, MISSING, scrape_s=scrape_s, weight=50)
    begin = scene.clock.now()
    for after_s, version, behaviour, rate in turns:
        scene.metrics.behave(HOST, version, **behaviour)
        scene.metrics.rate(HOST, rate)
        anew, remembered = scene.both(after_s)
        if scene.clock.now() - begin > RAW_S:
            break
        assert numbers(remembered) == numbers(anew)
        assert remembered.share == anew.share
        assert remembered.coverage == anew.coverage
        assert [one.until for one in remembered.evidence] == [one.until for one in anew.evidence]


def test_a_look_asks_only_for_what_is_new() -> None:
    """Ten minutes into a step a look reads a tenth of the samples, from a window of its own short ladder."""
    scene = Remembering(ERRORS, SLOW, weight=50)
    scene.both(600)
    first = scene.points
    scene.both(5)
    assert scene.points < first / 10
    asked = questions(scene.rollout, scene.clock.now() + 5, scene.memory)
    assert [query.promql.rpartition("[")[2] for query in asked] == ["15s]", "15s]"]


def test_an_answer_that_fails_is_made_up_for() -> None:
    """Nothing is lost when Prometheus is away for one look, or for so long that all is asked again."""
    for away_s in (20, 500):
        scene = Remembering(ERRORS, SLOW, weight=50)
        scene.both(30)
        scene.metrics.broken = "503"
        anew, remembered = scene.both(5)
        assert numbers(remembered) == numbers(anew)
        scene.metrics.broken = ""
        anew, remembered = scene.both(away_s)
        assert numbers(remembered) == numbers(anew)


def pod(name: str, code: str, *points: tuple[float, float]) -> Series:
    labels = {"reporter": "destination", "destination_service": HOST, "destination_workload": "payments-v2"}
    return Series({**labels, "instance": name, "response_code": code}, points)


def remembered(scene: Scene, memory: Memory, now: float, *series: Series) -> Assessment:
    answers = {query: Answer(series, now) for query in questions(scene.rollout, now, memory)}
    return assess(scene.rollout, now, answers, None, None, memory=memory)


def test_births_resets_and_pods_that_come_back_are_counted_once() -> None:
    """A new code in a known pod counts in full, a restart from 0, a new pod from its first sample, and a pod that
    comes back with what it counted meanwhile."""
    scene, memory = Scene(ERRORS, weight=50), Memory()
    begin = scene.clock.now()
    remembered(scene, memory, begin + 30, pod("a", "200", *((begin + t, 1000.0) for t in (-15, 0, 15, 30))))
    look = remembered(
        scene,
        memory,
        begin + 60,
        pod("a", "200", (begin + 45, 1100.0), (begin + 60, 30.0)),
        pod("a", "500", (begin + 60, 7.0)),
        pod("b", "200", (begin + 60, 50_000.0)),
    )
    assert look.reports[0].samples == 100 + 30 + 7
    look = remembered(scene, memory, begin + 90, pod("a", "200", (begin + 90, 40.0)))
    assert look.reports[0].samples == 137 + 10
    look = remembered(scene, memory, begin + 120, pod("b", "200", (begin + 120, 50_060.0)))
    assert look.reports[0].samples == 147 + 60


def sized(scene: Scene, series: float) -> Memory:
    memory = Memory()
    counts = [Answer((Series({}, ((0.0, value),)),)) for value in (series, 20.0, 20.0)]
    memory.size(scene.rollout, dict(zip(sizing(scene.rollout), counts, strict=True)))
    return memory


def test_a_service_of_very_many_series_is_asked_for_sums_only() -> None:
    """Above the bound increments are asked for, whose moments meet; what they say is judged as samples are."""
    scene = Scene(ERRORS, weight=50)
    memory, begin = sized(scene, MANY + 1), scene.clock.now()
    kind = {"reporter": "destination", "destination_service": HOST, "destination_workload": "payments-v2"}

    def turn(now: float, good: float, bad: float) -> tuple[list[Query], Assessment]:
        asked = questions(scene.rollout, now, memory)
        at = now - 3
        rows = (
            Series({**kind, "response_code": "200"}, ((at, good),)),
            Series({**kind, "response_code": "500"}, ((at, bad),)),
        )
        newest = Series({"destination_service": HOST}, ((at, at - 1),))
        answers = {query: Answer((*rows, newest), now) for query in asked}
        look = assess(scene.rollout, now, answers, None, None, memory=memory)
        scene.rollout = scene.rollout.with_(evidence=look.evidence)
        return [query for query in asked if query.promql.startswith("sum by")], look

    first, look = turn(begin + 33, 300, 0)
    assert [(query.at, "offset 24s" in query.promql) for query in first] == [(begin + 30, True)]
    assert (look.reports[0].verdict, look.reports[0].samples) == ("pass", 300)
    second, look = turn(begin + 48, 100, 50)
    assert [(query.at, "offset 15s" in query.promql) for query in second] == [(begin + 45, True)]
    assert (look.reports[0].verdict, look.reports[0].samples) == ("fail", 450)
    again, look = turn(begin + 48, 9999, 9999)
    assert (again, look.reports[0].samples) == ([], 450)
    assert sized(scene, MANY).instead(questions(scene.rollout, begin + 60), scene.rollout, begin + 60) == questions(
        scene.rollout, begin + 60
    )


def test_what_the_first_look_read_is_not_counted_twice() -> None:
    """The first look reads samples and the number of series; from then on it is sums, since the first scrape of all
    targets after the weight was set."""
    scene, memory = Scene(ERRORS, weight=50), Memory()
    begin = scene.clock.now()
    remembered(scene, memory, begin + 30, pod("a", "200", *((begin + t, 1000.0 + t) for t in (-15, 0, 15, 30))))
    counts = [Answer((Series({}, ((0.0, value),)),)) for value in (MANY + 1, 20.0, 8.0)]
    memory.size(scene.rollout, dict(zip(sizing(scene.rollout), counts, strict=True)))
    asked = [query for query in questions(scene.rollout, begin + 48, memory) if query.promql.startswith("sum by")]
    assert [query.at for query in asked] == [begin + 45]
    assert "offset 30s" in asked[0].promql


def test_a_new_holder_of_a_service_of_very_many_series_goes_on_where_the_evidence_ends() -> None:
    """The increments since the first scrape at the weight, in two pieces that meet where the record's evidence does."""
    scene = Scene(ERRORS, weight=50)
    begin = scene.clock.now()
    scene.look(60)
    reached = scene.rollout.evidence[0].until
    asked = questions(scene.rollout, begin + 103, sized(scene, MANY + 1))
    ends = [query.at for query in asked if query.promql.startswith("sum by")]
    assert ends == [reached, begin + 100]
    assert f"offset {round(reached - begin - 6)}s" in asked[0].promql
    assert f"offset {round(begin + 100 - reached)}s" in asked[1].promql


def test_increments_say_in_promql_what_they_promise() -> None:
    """The text that the contract tests ask a real Prometheus."""
    assert increments("x", "a,b", 15) == (
        "sum by (a,b) (((x - x offset 15s) >= 0) or (x and on (job, instance) (up offset 15s == 1)))"
    )
