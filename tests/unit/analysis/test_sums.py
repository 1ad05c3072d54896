"""Sums that Prometheus makes: the same requests as counted from samples, in a fraction of the answer."""

import asyncio
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.analysis.assessment import assess, questions
from bot.analysis.counts import count, covered
from bot.analysis.latency import sort as sort_latencies
from bot.analysis.look import BUCKETS, REQUESTS
from bot.analysis.memory import Memory
from bot.analysis.merging import by_service, merged, part, shape
from bot.analysis.promql import over, selector
from bot.analysis.requests import Whose
from bot.analysis.requests import sort as sort_requests
from bot.analysis.samples import Answer, Query, Series
from bot.analysis.sums import Sums, all_due, bounds_for, moment, sum_question
from bot.rollout.gate import Verdict, parse_gate
from bot.rollout.model import Bake
from tests.fakes.metrics import FakeMetrics
from tests.unit.analysis.scene import HOST, MISSING, Scene, target

ERRORS, SLOW = parse_gate("error-rate<1%"), parse_gate("p99<250ms")
OTHER = "checkout.shop.svc.cluster.local"
CUT = 3.0
"""The mesh cuts every bucket to whole requests for itself, so a larger bucket may say one less than a smaller one."""
_SUMS = re.compile(
    r'sum by \(([\w,]+)\) \(\(\((?P<series>(?P<metric>\w+)\{(?P<service>destination_service=~?"[^"]*")'
    r'(?:,le=~"(?P<le>[^"]*)")?\}) - (?P=series) offset (?P<s>\d+)s\) >= 0\)'
    r" or \((?P=series) and on \(job, instance\) \(up offset (?P=s)s == 1\)\)\)"
    r" or max by \(destination_service\) \(timestamp\((?P=series)\)\)"
)


class Summing(FakeMetrics):
    """Also answers the questions for sums, from its own samples, as Prometheus defines their operators."""

    async def ask(self, queries: Sequence[Query]) -> Mapping[Query, Answer]:
        for query in queries:
            if "count" in query.promql.partition("istio_")[0]:
                number = 120 / self.scrape_s if "over_time" in query.promql else 4.0
                self.answers[query.promql] = [({}, number)]
        raw = await super().ask([query for query in queries if not _SUMS.fullmatch(query.promql)])
        self.asked.extend(query for query in queries if _SUMS.fullmatch(query.promql))
        summed = [query for query in queries if _SUMS.fullmatch(query.promql)]
        return {**raw, **{query: await self._summed(query) for query in summed}}  # type: ignore[dict-item]

    async def _summed(self, query: Query) -> Answer:
        asked = _SUMS.fullmatch(query.promql)
        assert asked is not None
        assert query.at is not None
        at, seconds = query.at, int(asked["s"])
        window = f"{asked['metric']}{{{asked['service']}}}[{int(2 * self.scrape_s) + 1}s]"
        both = (Query(window, at), Query(window, at - seconds))
        told = await super().ask(both)
        answer, former = told[both[0]], told[both[1]]
        assert isinstance(answer, Answer)
        assert isinstance(former, Answer)
        earlier = {tuple(series.labels.items()): series.points[-1] for series in former.series}
        bounds = set((asked["le"] or "").replace("\\\\", "").split("|")) if asked["le"] else None
        sums: dict[tuple[tuple[str, str], ...], float] = {}
        for series in answer.series:
            if bounds is not None and series.labels["le"] not in bounds:
                continue
            now, before = series.points[-1], earlier.get(tuple(series.labels.items()))
            service = (("destination_service", series.labels["destination_service"]),)
            sums[service] = max(sums.get(service, 0.0), now[0])
            labels = {name: series.labels.get(name, "") for name in asked[1].split(",")}
            kind = tuple(sorted((name, value) for name, value in labels.items() if value))
            more = now[1] if before is None or now[1] < before[1] else now[1] - before[1]
            sums[kind] = sums.get(kind, 0.0) + more
        return Answer(tuple(Series(dict(kind), ((at, total),)) for kind, total in sums.items()), self.now())


class Summed(Scene):
    """A scene whose looks ask for sums."""

    def __init__(self, *gates: object, **how: object) -> None:
        super().__init__(*gates, **how)  # type: ignore[arg-type]
        old, self.metrics = self.metrics, Summing(self.clock.now, scrape_s=self.metrics.scrape_s)
        self.metrics.__dict__.update(old.__dict__)
        self.memory = Memory(summed=True)
        self.asked: tuple[Query, ...] = ()

    def look(self, after_s: float = 0.0):
        self.clock.advance(after_s)
        now = self.clock.now()
        self.asked = questions(self.rollout, now, self.memory)
        answers = asyncio.run(self.metrics.ask(self.asked))
        look = assess(self.rollout, now, answers, self.canary_pods, self.stable_pods, self.pinned, memory=self.memory)
        self.rollout = self.rollout.with_(evidence=look.evidence, assessment=look)
        return look


def answered(scene: Scene, queries: Sequence[Query]) -> dict[Query, Answer]:
    """All answers, none of which may fail."""
    told = asyncio.run(scene.metrics.ask(queries))
    return {query: answer for query, answer in told.items() if isinstance(answer, Answer)}


_turns = st.lists(
    st.tuples(
        st.sampled_from([5.0, 15.0, 16.0, 30.0, 45.0, 200.0]),
        st.sampled_from(["v1", "v2"]),
        st.sampled_from([{}, {"fail": 0.1}, {"fail": 0.0}, {"refuse": 0.2}, {"slow": 0.05, "slow_ms": 700.0}]),
        st.sampled_from([10.0, 50.0, 100.0]),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("scrape_s", [5.0, 15.0])
@settings(max_examples=8, deadline=None)
@given(_turns)
def test_sums_count_what_samples_count(
    scrape_s: float, turns: list[tuple[float, str, dict[str, float], float]]
) -> None:
    """Whenever looks come and whatever happens between them: the same requests of each side, outcome and reporter, and
    as many of them beyond the limit, as the samples between the same two moments hold."""
    scene = Summed(ERRORS, SLOW, scrape_s=scrape_s, weight=50)
    begin = float(int(scene.clock.now())) + 20
    requests = Sums(REQUESTS, target(), scrape_s, None)
    buckets = Sums(BUCKETS, target(), scrape_s, (250.0,))
    for after_s, version, behaviour, rate in turns:
        scene.metrics.behave(HOST, version, **behaviour)
        scene.metrics.rate(HOST, rate)
        scene.clock.advance(after_s)
        now = scene.clock.now()
        if now - begin > 800:
            break
        for sums in (requests, buckets):
            asked = sums.questions(begin, None, now, 15.0, whole=False)
            told = answered(scene, [one.query for one in asked])
            sums.take(asked, [told[one.query] for one in asked], begin)
        if requests.until <= begin:
            continue
        end = requests.until
        wide = {
            metric: Query(over(selector(metric, {"destination_service": HOST}), 900), end)
            for metric in (REQUESTS, BUCKETS)
        }
        raw = answered(scene, list(wide.values()))
        one, other = requests.traffic(requests.counted((begin,))), sort_requests(target(), count(raw[wide[REQUESTS]]))
        since = max(begin, requests.since)
        for reporter in ("source", "destination"):
            counted = {side: tally for side, tally in other.tally(since, end, reporter).items() if tally.all}
            assert {side: tally for side, tally in one.tally(since, end, reporter).items() if tally.all} == counted
        few = buckets.latencies(buckets.counted((begin,)))
        full = sort_latencies(target(), count(raw[wide[BUCKETS]]))
        for side in (Whose.CANARY, Whose.STABLE):
            narrow, whole = (one.histogram(since, end, "source", side) for one in (few, full))
            assert narrow.requests == pytest.approx(whole.requests, abs=CUT)
            assert narrow.above(250.0) == pytest.approx(whole.above(250.0), abs=CUT)


def test_a_good_and_a_bad_canary_are_judged_as_from_samples() -> None:
    """The same verdicts at the same looks; the numbers differ by what came in the newest three seconds."""
    scene, plain = (
        Summed(ERRORS, SLOW, MISSING, weight=50, scrape_s=5.0),
        Scene(ERRORS, SLOW, MISSING, weight=50, scrape_s=5.0),
    )
    for turn in range(14):
        if turn == 8:
            for one in (scene, plain):
                one.metrics.behave(HOST, "v2", fail=0.3)
        summed, sampled = scene.look(15), plain.look(15)
        if turn not in (0, 1, 8):
            assert [report.verdict for report in summed.reports] == [report.verdict for report in sampled.reports]
    assert summed.reports[0].verdict is Verdict.FAIL
    assert summed.reports[0].deciding


def test_only_the_buckets_around_the_limit_are_asked_for_while_the_gate_passes() -> None:
    """All of them until there is a p99 to tell and every four minutes; what is told stays that of all buckets."""
    scene, plain = Summed(SLOW, weight=50, scrape_s=5.0), Scene(SLOW, weight=50, scrape_s=5.0)
    asked = []
    for _ in range(40):
        report, other = scene.look(15).reports[0], plain.look(15).reports[0]
        asked += [query.promql for query in scene.asked if "bucket" in query.promql]
        if report.verdict is Verdict.PASS:
            assert report.value == pytest.approx(other.value, rel=0.05)
    narrow = [text for text in asked if 'le=~"\\\\+Inf|250"' in text]
    assert 35 <= len(narrow) <= 41
    assert 2 <= len(asked) - len(narrow) <= 8


def test_those_who_look_at_the_same_moment_ask_for_all_buckets_a_few_at_a_time() -> None:
    """Of 160 that look each 15 s from the same moment on, each asks for all once in four minutes, and no more than 90
    of them at any look: together their answers are large."""
    began, hosts = 1_800_000_000.0, [f"service-{number}.shop.svc.cluster.local" for number in range(160)]
    asked = dict.fromkeys(hosts, began)
    times: Counter[str] = Counter()
    for turn in range(1, 33):
        until = began + 15 * turn
        due = [host for host in hosts if all_due(asked[host], until, 15.0, host)]
        assert len(due) <= 90
        times.update(due)
        asked.update(dict.fromkeys(due, until))
    assert {*times.values()} == {2}


def test_moments_of_looks_stay_in_step() -> None:
    """A look that comes a little late asks up to the moment that was due, one that comes much later up to its own."""
    assert moment(118.0, 15.0, 100.0) == 115.0
    assert moment(119.9, 15.0, 100.0) == 115.0
    assert moment(126.0, 15.0, 100.0) == 123.0
    assert moment(133.5, 15.0, 100.0) == 130.0
    assert moment(110.0, 15.0, 100.0) == 107.0
    assert moment(102.0, 15.0, 100.0) <= 100.0


@given(st.lists(st.floats(1, 4000), min_size=1, max_size=3), st.data())
def test_the_bounds_for_a_limit_say_as_much_as_all(limits_ms: list[float], data: st.DataObject) -> None:
    """How many requests were slower than a limit is the same from the few bounds that it needs as from all."""
    from bot.analysis.latency import Histogram

    bounds = (1.0, 5.0, 10.0, 50.0, 250.0, 1000.0, 2500.0, float("inf"))
    counts = sorted(data.draw(st.lists(st.integers(0, 1000), min_size=len(bounds), max_size=len(bounds))))
    few = bounds_for(bounds, limits_ms)
    rows = tuple(zip(bounds, map(float, counts), strict=True))
    for limit_ms in limits_ms:
        narrow = Histogram(tuple(row for row in rows if row[0] in few)).above(limit_ms)
        assert narrow == pytest.approx(Histogram(rows).above(limit_ms))


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([(REQUESTS, ()), (BUCKETS, ()), (BUCKETS, ("250", "+Inf"))]), st.integers(1, 900))
def test_sums_of_many_services_are_asked_in_one_question(asked: tuple[str, tuple[str, ...]], seconds: int) -> None:
    """Merged and told apart again, each service's part is what it alone would have been answered."""
    metric, bounds = asked
    scene = Summed(ERRORS, weight=50)
    scene.metrics.serve(OTHER, rate=20.0, canary_percent=10.0)
    scene.clock.advance(950)
    now = float(int(scene.clock.now()))
    single = {host: sum_question(metric, (host,), now - seconds, now, bounds) for host in (HOST, OTHER)}
    shapes = {host: shape(query) for host, query in single.items()}
    found = shapes[HOST]
    assert found is not None
    assert shapes[OTHER] == (found[0], (OTHER,))
    one = merged(found[0], (HOST, OTHER))
    assert shape(one) == (found[0], tuple(sorted((HOST, OTHER))))
    told = answered(scene, [one, *single.values()])
    rows = by_service(told[one])
    for host, query in single.items():
        assert sorted(part(found[0], (host,), told[one], rows).series, key=str) == sorted(told[query].series, key=str)


def test_a_new_holder_goes_on_from_the_evidence_in_words_that_all_share() -> None:
    """What was judged before is not asked again, and rollouts whose steps began at different moments ask alike."""
    texts = set()
    for older_s in (0.0, 37.0, 181.0):
        scene = Summed(ERRORS, weight=50, scrape_s=5.0)
        for _ in range(20):
            scene.look(15)
        begin = scene.rollout.bake.confirmed_at or 0.0
        scene.rollout = scene.rollout.with_(bake=replace(scene.rollout.bake, confirmed_at=begin - older_s))
        former, scene.memory = scene.rollout.evidence[0].requests, Memory(summed=True)
        look = scene.look(15)
        texts.add(tuple(query.promql for query in scene.asked))
        assert look.evidence[0].requests - former == pytest.approx(750, abs=5)
    assert len(texts) == 1


def test_scrapes_that_are_covered_are_forgotten() -> None:
    """What a look covers anew is the same without them, also after a gap, and few are kept however long it goes."""
    scene = Summed(ERRORS, weight=50, scrape_s=5.0)
    forgetting, keeping = (Sums(REQUESTS, target(), 5.0, None) for _ in range(2))
    begin = covered_until = scene.clock.now()
    for after_s in (15.0,) * 5 + (45.0, 15.0, 200.0) + (15.0,) * 9:
        scene.clock.advance(after_s)
        told = []
        for sums in (forgetting, keeping):
            asked = sums.questions(begin, None, scene.clock.now(), 15.0, whole=False)
            answers = answered(scene, [one.query for one in asked])
            sums.take(asked, [answers[one.query] for one in asked], begin)
            counted = sums.counted((begin,), covered_until if sums is forgetting else 0.0)
            told.append(covered(counted.raw_times, covered_until, 5.0))
        assert told[0] == told[1]
        assert len(forgetting.sampled) <= after_s / 5.0 + 1
        covered_until = told[0][1]
    assert len(keeping.sampled) > 40


def test_nothing_is_asked_before_there_is_a_weight() -> None:
    """No weight, no question, in sums as in samples."""
    scene = Summed(ERRORS)
    rollout = scene.rollout.with_(weight_percent=0, bake=Bake())
    assert questions(rollout, scene.clock.now(), Memory(summed=True)) == ()
