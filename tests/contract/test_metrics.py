"""The Metrics port over the embedded Prometheus and the real one: gates read both alike.

An exporter in this process writes Istio's series. The same rollout is judged on what each back end stored of them.
"""

import asyncio
import http.server
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from zlib import crc32

import pytest

from bot.adapters.prometheus import Prometheus
from bot.analysis.assessment import assess, questions
from bot.analysis.counts import count
from bot.analysis.facts import NodeFacts
from bot.analysis.nodes import Level, NodeHealth, judge_nodes, node_questions
from bot.analysis.promql import over, selector
from bot.analysis.samples import Answer, Query
from bot.errors import CannotMeasure
from bot.rollout.gate import Assessment, GateSpec, Verdict
from bot.rollout.model import Bake, Rollout
from bot.sandbox.process import Part
from tests.fixtures.requirements import needs_binary, needs_module
from tests.unit.analysis.scene import ERROR_RATE, MISSING, P99, Scene, details, target

INTERVAL_S = 0.25
BOUNDS = ("5", "10", "25", "50", "100", "250", "500", "+Inf")


def _escaped(value: str) -> str:
    """A label value in the exposition format, which knows three escapes only."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


@dataclass(slots=True)
class Exporter:
    """Istio's counters as a page; `requests` adds to them, `reset` is the restart of a proxy."""

    counters: dict[tuple[str, tuple[tuple[str, str], ...]], float] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    scrapes: int = 0

    def requests(
        self, number: int, host: str, version: str, *, reporter: str = "source", slow: int = 0, **labels: str
    ) -> None:
        """Count requests of 8 ms, `slow` of them of 400 ms."""
        known = {
            "reporter": reporter,
            "source_workload": "loadgen",
            "destination_service": host,
            "destination_workload": f"payments-{version}" if version else "unknown",
            "destination_version": version or "unknown",
            "request_protocol": "http",
            "response_code": "200",
            "response_flags": "-",
            "grpc_response_status": "",
        } | labels
        with self.lock:
            self._add("istio_requests_total", known, number)
            for bound in BOUNDS:
                limit = float("inf") if bound == "+Inf" else float(bound)
                fitting = (number - slow if limit >= 10 else 0) + (slow if limit >= 500 else 0)
                self._add("istio_request_duration_milliseconds_bucket", known | {"le": bound}, fitting)

    def sets(self, name: str, value: float, **labels: str) -> None:
        """Set any series."""
        with self.lock:
            self.counters[name, tuple(sorted(labels.items()))] = value

    def reset(self, host: str) -> None:
        """The proxies of a host restart: their counters begin again."""
        with self.lock:
            for key in [key for key in self.counters if ("destination_service", host) in key[1]]:
                del self.counters[key]

    def page(self) -> bytes:
        """The exposition."""
        with self.lock:
            self.scrapes += 1
            lines = [
                f"{name}{{{','.join(f'{label}={_escaped(value)}' for label, value in labels)}}} {number:g}"
                for (name, labels), number in sorted(self.counters.items())
            ]
        return ("\n".join(lines) + "\n").encode()

    def _add(self, name: str, labels: dict[str, str], number: int) -> None:
        key = name, tuple(sorted(labels.items()))
        self.counters[key] = self.counters.get(key, 0) + number


@dataclass(frozen=True, slots=True)
class Running:
    """One back end and the exporter that it scrapes."""

    url: str
    exporter: Exporter
    backend: str


@pytest.fixture(scope="module", params=["embedded", "prometheus"])
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    """Each kind of Prometheus, scraping our page."""
    if request.param == "embedded":
        needs_module("prombed")
        binary = "none"
    else:
        binary = needs_binary("prometheus")
    exporter = Exporter()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = exporter.page()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    part = Part.module(
        "prometheus",
        *("--binary", binary, "--scrape-interval", str(INTERVAL_S)),
        *("--target", f"node-exporter/node-1=http://127.0.0.1:{server.server_port}/metrics"),
    )
    try:
        part.wait_ready(30)
        yield Running(part.url, exporter, request.param)
    finally:
        part.stop()
        server.shutdown()
        server.server_close()
        serving.join()


@dataclass(frozen=True, slots=True)
class World:
    """A service of its own for each test, and a client of its own."""

    metrics: Prometheus
    exporter: Exporter
    backend: str
    host: str

    async def scraped(self, times: int = 1) -> None:
        """Wait until the page as it is now has been stored this often."""
        wanted = self.exporter.scrapes + times + 1
        async with asyncio.timeout(30):
            while self.exporter.scrapes < wanted:
                await asyncio.sleep(0.02)

    async def ask(self, promql: str) -> Answer:
        """The answer to one question, which has to be one."""
        answer = (await self.metrics.ask([Query(promql)]))[Query(promql)]
        assert isinstance(answer, Answer), answer
        return answer

    async def eventually(self, rollout: Rollout, accept: Callable[[Assessment], bool]) -> Assessment:
        """Look until a look is accepted."""
        look = None
        for _ in range(200):
            look = await self.look(rollout)
            if accept(look):
                return look
            await asyncio.sleep(0.1)
        assert look is not None
        raise AssertionError(details(look.reports))

    async def look(self, rollout: Rollout) -> Assessment:
        """One look, as the engine makes it."""
        answers = await self.metrics.ask(questions(rollout, time.time()))
        return assess(rollout, time.time(), answers, None, None)


@pytest.fixture
async def world(running: Running, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A host named for the test, so that tests share a server and no series."""
    metrics = Prometheus(running.url)
    name = f"t{crc32(request.node.name.encode())}"
    yield World(metrics, running.exporter, running.backend, f"{name}.shop.svc.cluster.local")
    await metrics.close()


def baking(world: World, *gates: GateSpec, weight: int = 50) -> Rollout:
    """A rollout of this test's host whose weight was confirmed just now."""
    base = Scene(*gates, weight=weight).rollout
    steered = target()
    stable = replace(steered.stable, destination=replace(steered.stable.destination, host=world.host))
    canary = replace(steered.canary, destination=replace(steered.canary.destination, host=world.host))
    return base.with_(
        target=replace(steered, host=world.host, stable=stable, canary=canary),
        bake=Bake(confirmed_at=time.time()),
        started_at=time.time(),
    )


def samples(look: Assessment) -> int:
    return min(report.samples or 0 for report in look.reports)


async def test_a_good_and_a_bad_canary_are_judged_by_exact_counts(world: World) -> None:
    """60 good of both sides pass; then 12 new errors, a series nobody had seen before, make 12 of 120 exactly."""
    for version in ("v1", "v2"):
        world.exporter.requests(7, world.host, version)
    await world.scraped(2)
    rollout = baking(world, ERROR_RATE, MISSING)
    await world.scraped(4)
    for version in ("v1", "v2"):
        world.exporter.requests(60, world.host, version)
    good = await world.eventually(rollout, lambda look: samples(look) >= 60)
    assert good.passed, details(good.reports)
    assert (good.reports[0].samples, good.reports[0].stable_samples, good.reports[0].value) == (60, 60, 0.0)
    assert good.share.percent == 50
    assert good.coverage is not None
    assert good.coverage.added_s > 0.5

    world.exporter.requests(48, world.host, "v2")
    world.exporter.requests(12, world.host, "v2", response_code="503", response_flags="UC")
    bad = await world.eventually(rollout, lambda look: samples(look) >= 120)
    assert bad.reports[0].verdict is Verdict.FAIL
    assert (bad.reports[0].samples, bad.reports[0].value) == (120, 0.1)


async def test_connection_failures_that_name_no_side_fail_the_canary(world: World) -> None:
    """Everything of the canary is refused: nothing at the destination, no workload and no version at the source."""
    world.exporter.requests(5, world.host, "v1")
    await world.scraped(2)
    rollout = baking(world, ERROR_RATE)
    await world.scraped(4)
    world.exporter.requests(60, world.host, "v1")
    world.exporter.requests(60, world.host, "v1", reporter="destination")
    world.exporter.requests(60, world.host, "", response_code="503", response_flags="UF,URX")
    look = await world.eventually(rollout, lambda look: look.reports[0].verdict is Verdict.FAIL)
    assert look.reports[0].deciding
    assert look.reports[0].value == 1.0


async def test_p99_from_buckets_agrees_with_the_servers_own_quantile(world: World) -> None:
    """Our interpolation is Prometheus': the same number from the same buckets."""
    for version in ("v1", "v2"):
        world.exporter.requests(0, world.host, version)
    await world.scraped(2)
    rollout = baking(world, replace(P99, min_requests=100))
    await world.scraped(4)
    world.exporter.requests(1000, world.host, "v1")
    world.exporter.requests(1000, world.host, "v2", slow=40)
    look = await world.eventually(rollout, lambda look: samples(look) >= 1000)
    report = look.reports[0]
    assert report.verdict is Verdict.FAIL
    buckets = selector(
        "istio_request_duration_milliseconds_bucket",
        {"destination_service": world.host, "destination_version": "v2"},
    )
    theirs = await world.ask(f"histogram_quantile(0.99, sum by (le) ({buckets}))")
    assert report.value == pytest.approx(theirs.series[0].points[0][1], rel=1e-6)


async def test_a_restarted_proxy_loses_nothing(world: World) -> None:
    """Counters that begin again are added, series by series."""
    for version in ("v1", "v2"):
        world.exporter.requests(100, world.host, version)
    await world.scraped(2)
    rollout = baking(world, ERROR_RATE)
    await world.scraped(4)
    for version in ("v1", "v2"):
        world.exporter.requests(40, world.host, version)
    await world.eventually(rollout, lambda look: samples(look) >= 40)
    await world.scraped(2)
    world.exporter.reset(world.host)
    for version in ("v1", "v2"):
        world.exporter.requests(30, world.host, version)
    look = await world.eventually(rollout, lambda look: samples(look) >= 70)
    assert (look.reports[0].samples, look.reports[0].stable_samples) == (70, 70)


async def test_raw_ranges_come_with_the_scrapes_own_times(world: World) -> None:
    """One point a scrape, ascending, at the interval that the samples themselves show."""
    world.exporter.requests(5, world.host, "v1")
    await world.scraped(6)
    answer = await world.ask(over(selector("istio_requests_total", {"destination_service": world.host}), 120))
    times = [moment for moment, _ in answer.series[0].points]
    assert times == sorted(set(times))
    assert count(answer).interval_s == pytest.approx(INTERVAL_S, abs=0.1)
    assert answer.server_time == pytest.approx(time.time(), abs=3)


HOSTILE = ('a"b', "a\\b", "a\nb", "a}b{c", "a,b=~'.*'", "ä.*|b", "a\tb", "`a`", "$(x)", "{{canary}}", "other")


async def test_hostile_names_select_exactly_themselves(world: World) -> None:
    """As equal value and inside a pattern, on the server's own parser: that series and no other."""
    for number, name in enumerate(HOSTILE):
        world.exporter.sets("hostile_total", number, who=name, test=world.host)
    await world.scraped(2)
    for number, name in enumerate(HOSTILE):
        for wanted in (name, (name, "nobody")):
            answer = await world.ask(selector("hostile_total", {"who": wanted, "test": world.host}))
            assert [series.points[0][1] for series in answer.series] == [number], name


async def test_long_bakes_are_asked_in_coarse_points_with_recent_raw_ones(world: World) -> None:
    """Two hours into a bake: subqueries reach back, raw samples are exact at the end, history covers what it has."""
    for version in ("v1", "v2"):
        world.exporter.requests(60, world.host, version)
    await world.scraped(2)
    rollout = baking(world, ERROR_RATE)
    rollout = rollout.with_(bake=replace(rollout.bake, confirmed_at=time.time() - 7000, arrived_at=time.time() - 6900))
    await world.scraped(2)
    for version in ("v1", "v2"):
        world.exporter.requests(60, world.host, version)
    await world.scraped(2)
    assert len(questions(rollout, time.time())) == 3
    look = await world.look(rollout)
    assert (look.reports[0].verdict, look.reports[0].samples) == (Verdict.PASS, 60), details(look.reports)
    assert look.coverage is not None
    assert 0 < look.coverage.added_s < 120


async def test_a_bad_query_is_cannot_measure_with_the_servers_words(world: World) -> None:
    """And the good one beside it still answers."""
    answers = await world.metrics.ask([Query("sum("), Query("up")])
    bad = answers[Query("sum(")]
    assert isinstance(bad, CannotMeasure)
    assert "answered 400" in str(bad)
    assert isinstance(answers[Query("up")], Answer)


async def test_node_questions_answer_on_every_back_end(world: World) -> None:
    """Steal of 15% on each of two cores is critical after three samples."""
    healths: dict[str, NodeHealth] = {}
    facts = (NodeFacts("node-1", (("Ready", "True", 0.0),)),)
    steal = 0.0
    for _ in range(8):
        for cpu in ("0", "1"):
            for mode, value in (("steal", steal), ("iowait", 0.0), ("idle", 100.0)):
                world.exporter.sets("node_cpu_seconds_total", value, cpu=cpu, mode=mode)
        await world.scraped(1)
        answers = await world.metrics.ask(node_questions(time.time()))
        assert all(isinstance(answer, Answer) for answer in answers.values()), answers
        healths = judge_nodes(healths, facts, answers, time.time())
        steal += 0.5
    assert healths["node-1"].level is Level.CRITICAL
    assert healths["node-1"].value("steal") is not None


async def test_the_version_is_told(world: World) -> None:
    """`check` shows which Prometheus it reached."""
    assert await world.metrics.ready()
