"""Backtests on a recorded history: the use case over the real Prometheus, whose past was backfilled by promtool."""

import asyncio
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace

import pytest

from bot.adapters.charts import backtest_png
from bot.adapters.prometheus import Prometheus
from bot.analysis.backtest import Backtest, GateResult, Outcome
from bot.catalog import load
from bot.errors import UserError
from bot.sandbox.process import Part, free_port
from bot.usecases.backtest import BacktestAsk, Means, backtest
from bot.usecases.desk import Desk
from bot.views.backtest import backtest as shown
from bot.views.backtest import document
from tests.engine.stage import Stage
from tests.fixtures.requirements import needs_binary, needs_module

NOW = 1_750_000_000.0
HOURS = 4
SCRAPE_S = 15
HOST = "payments.shop.svc.cluster.local"
BOUNDS = (10.0, 25.0, 50.0, 100.0, 250.0, 500.0, float("inf"))
SLOW = (NOW - 2.5 * 3600, NOW - 2.2 * 3600)
"""When both pods were slow."""
DOWN = (NOW - 1.5 * 3600, NOW - 1.4 * 3600)
"""When Prometheus did not scrape."""
RESTART = NOW - 0.8 * 3600
"""When pod b's counters began again."""

CATALOG = """
defaults: {plan: short, check_every: 15s}
plans:
  short: {steps: "10%:5m, 50%:5m, 100%:5m"}
  long: {steps: "10%:3h, 100%:3h"}
gates:
  error-rate: {max: 1%, min_requests: 50}
  p99: {max: 100ms, min_requests: 100}
services:
  payments: {namespace: shop, mesh: istio, route: {name: payments}, subsets: [v1, v2]}
  ratio:
    namespace: shop
    mesh: istio
    route: {name: payments}
    gates: {error-rate: {max: 2x}, p99: null}
  queued:
    namespace: shop
    mesh: istio
    route: {name: payments}
    gates:
      error-rate: null
      p99: null
      queue: {query: 'max(queue_length{service="{{service}}"})', max: 20}
"""


def recording() -> Iterator[str]:
    """Four hours of payments in OpenMetrics: two pods of v1 that fail one request in 500, and a caller's proxy."""
    moments = [at for at in range(int(NOW - HOURS * 3600), int(NOW) + 1, SCRAPE_S) if not DOWN[0] <= at < DOWN[1]]
    requests: dict[str, list[str]] = {"total": [], "bucket": []}
    for pod, reporter in (("payments-v1-a", "destination"), ("payments-v1-b", "destination"), ("loadgen-1", "source")):
        named = (
            f'reporter="{reporter}",pod="{pod}",destination_service="{HOST}",destination_workload="payments-v1",'
            'destination_version="v1",request_protocol="http",response_flags="-"'
        )
        begun = NOW - HOURS * 3600 - 3600
        for code, per_s in (("200", 4.99), ("500", 0.01)):
            for at in moments:
                since = RESTART if pod.endswith("b") and at >= RESTART else begun
                factor = 2 if reporter == "source" else 1
                count = int((at - since) * per_s * factor)
                requests["total"].append(f'istio_requests_total{{{named},response_code="{code}"}} {count} {at}')
        for bound in BOUNDS:
            le = "+Inf" if bound == float("inf") else f"{bound:g}"
            for at in moments:
                since = RESTART if pod.endswith("b") and at >= RESTART else begun
                slow_s = max(0.0, min(at, SLOW[1]) - max(since, SLOW[0]))
                slow = int(0.05 * 5 * slow_s) if bound <= 250 else 0
                count = 0 if bound < 25 else int((at - since) * 5) - slow
                requests["bucket"].append(
                    f'istio_request_duration_milliseconds_bucket{{{named},response_code="200",le="{le}"}} {count} {at}'
                )
    yield from requests["total"]
    yield from requests["bucket"]
    for at in moments:
        yield f'queue_length{{service="queued"}} {90 if SLOW[0] <= at < SLOW[1] else 3} {at}'
    yield "# EOF"


@pytest.fixture(scope="module")
def recorded_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that has only the recording."""
    prometheus, promtool = needs_binary("prometheus"), needs_binary("promtool")
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "recording.txt").write_text("\n".join(recording()) + "\n")
    (folder / "prometheus.yml").write_text("global: {scrape_interval: 15s}\n")
    made = subprocess.run(
        [promtool, "tsdb", "create-blocks-from", "openmetrics", "recording.txt", "data"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    address = f"127.0.0.1:{free_port()}"
    part = Part(
        "prometheus",
        [
            prometheus,
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--storage.tsdb.retention.time=36500d",
            f"--web.listen-address={address}",
            "--log.level=warn",
        ],
        cwd=folder,
    )
    try:
        _wait_ready(part, address)
        yield f"http://{address}"
    finally:
        part.stop()
        shutil.rmtree(folder)


def _wait_ready(part: Part, address: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and part.returncode is None:
        try:
            with urllib.request.urlopen(f"http://{address}/-/ready", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"prometheus was not ready\n{part.stderr_tail}")


@dataclass(frozen=True, slots=True)
class Lab:
    """A desk at the end of the recorded history."""

    desk: Desk

    async def tried(self, service: str = "payments", since_s: float = HOURS * 3600.0, **more: object) -> Backtest:
        return await backtest(self.desk, BacktestAsk(service, since_s, **more), Means(looks_max=500))  # type: ignore[arg-type]


@pytest.fixture
async def lab(recorded_url: str) -> AsyncIterator[Lab]:
    stage = Stage(catalog=load(CATALOG))
    stage.clock.step_wall(NOW - stage.clock.now())
    target = stage.mesh.add("payments")
    for service in ("ratio", "queued"):
        stage.mesh.targets[service] = replace(target, service=service)
    stage.mesh.findings |= {service: () for service in stage.mesh.targets}
    metrics = Prometheus(recorded_url)
    yield Lab(replace(stage.desk, metrics=metrics))
    await metrics.close()


def gate(result: Backtest, name: str) -> GateResult:
    return next(one for one in result.gates if one.gate.name == name)


async def test_a_limit_is_failed_where_the_past_broke_it_and_only_there(lab: Lab) -> None:
    """Runs that met the slow half hour fail p99, the others pass; another limit is found that none would fail."""
    result = await lab.tried(every_s=900.0)
    p99 = gate(result, "p99")
    failed = [run for run in p99.runs if run.outcome is Outcome.FAILED]
    assert failed
    for run in p99.runs:
        meets = run.begin < SLOW[1] and run.begin + 960 > SLOW[0]
        assert run.outcome is not Outcome.FAILED or meets, run
    assert result.runs == len(p99.runs) == 15
    assert all(run.failed_at is not None and SLOW[0] < run.failed_at < SLOW[1] + 660 for run in failed)
    assert p99.advice.startswith(f"p99<100 ms would have failed {len(failed)} of 15 runs; 500 ms 0 of 15.")
    assert gate(result, "error-rate").count(Outcome.FAILED) == 0
    assert "not recorded" in gate(result, "pods").untried


async def test_the_requests_are_those_that_were_recorded(lab: Lab) -> None:
    """Neither a restarted pod nor pieces nor a gap in the scrapes adds or loses requests."""
    result = await lab.tried(since_s=3600.0)
    assert result.requests == pytest.approx(3600 * 10, rel=0.01)
    error_rate = gate(result, "error-rate")
    at_the_end = [run.seen[-1][1] for run in error_rate.runs]
    assert sum(at_the_end) / len(at_the_end) == pytest.approx(0.002, rel=0.5)


async def test_relative_gates_are_tried_between_two_halves_of_the_pods(lab: Lab) -> None:
    """Two pods that fail alike do not fail each other's relative limit."""
    result = await lab.tried("ratio", since_s=7200.0)
    ratio = gate(result, "error-rate")
    assert ratio.untried == ""
    assert len(ratio.runs) == result.runs
    assert ratio.count(Outcome.FAILED) == 0
    assert gate(result, "missing-responses").count(Outcome.FAILED) == 0


async def test_custom_gates_are_asked_once_for_the_whole_past(lab: Lab) -> None:
    """A query of the team's own is judged with the values it had at each look."""
    result = await lab.tried("queued", every_s=900.0)
    queue = gate(result, "queue")
    assert queue.count(Outcome.FAILED) >= 1
    assert all(run.begin < SLOW[1] and run.begin + 960 > SLOW[0] for run in queue.runs if run.outcome is Outcome.FAILED)
    assert queue.count(Outcome.PASSED) >= 10


async def test_a_shorter_history_is_used_and_said(lab: Lab) -> None:
    """More was asked for than there is: what there is counts, and its length is told."""
    result = await lab.tried(since_s=86400.0, every_s=1800.0)
    assert result.end - result.begin == pytest.approx(HOURS * 3600, abs=60)
    assert any("has 4 h of its requests, not 1 d" in note for note in result.notes)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (BacktestAsk("paymets", 3600.0), "The gates of `paymets` cannot be tried."),
        (BacktestAsk("payments", 3600.0, plan="slow"), "There is no plan called `slow`."),
        (BacktestAsk("payments", 3600.0, plan="long"), "The plan takes 6 h"),
        (BacktestAsk("payments", 40 * 86400.0), "at most 30 days"),
        (BacktestAsk("payments", HOURS * 3600.0, every_s=1.0), "rollouts; at most 3,000 are imagined"),
    ],
)
async def test_what_cannot_be_tried_is_said(lab: Lab, ask: BacktestAsk, said: str) -> None:
    """Unknown names, a plan longer than the history, and too much at once each get a sentence of their own."""
    with pytest.raises(UserError) as told:
        await backtest(lab.desk, ask)
    assert said in told.value.message


async def test_a_service_without_a_past_is_told_so(lab: Lab) -> None:
    """Before the recording begins there is nothing."""
    lab.desk.clock.step_wall(-10 * 86400)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="Prometheus has no samples of `payments`"):
        await lab.tried(since_s=3600.0)


async def test_prometheus_away_is_told_so(lab: Lab) -> None:
    """Nothing is judged without an answer."""
    away = Prometheus(f"http://127.0.0.1:{free_port()}")
    try:
        with pytest.raises(UserError, match="could not be read: Prometheus cannot be reached"):
            await backtest(replace(lab.desk, metrics=away), BacktestAsk("payments", 3600.0))
    finally:
        await away.close()


async def test_too_large_an_answer_is_asked_for_in_smaller_pieces(lab: Lab, recorded_url: str) -> None:
    """An answer beyond the limit is not the end: halves of it are asked for, with the same result."""
    whole = await lab.tried(since_s=3600.0)
    metrics = Prometheus(recorded_url, max_bytes=200_000)
    try:
        cut = await backtest(replace(lab.desk, metrics=metrics), BacktestAsk("payments", 3600.0), Means(looks_max=500))
    finally:
        await metrics.close()
    assert cut.requests == whole.requests
    assert gate(cut, "p99").values == gate(whole, "p99").values


async def test_one_backtest_at_a_time(lab: Lab) -> None:
    """A second one is refused at once, and the first one's end makes room again."""
    first = asyncio.create_task(lab.tried(since_s=3600.0))
    await asyncio.sleep(0)
    with pytest.raises(UserError, match="Another backtest is under way"):
        await lab.tried(since_s=3600.0)
    await first
    assert (await lab.tried(since_s=3600.0)).runs == (await first).runs


async def test_a_time_limit_ends_it_with_the_way_on(lab: Lab) -> None:
    """Once the time is over it stops between two pieces of work and says what to ask instead."""

    def hurry(what: str, part: float) -> None:
        if what.startswith("judging"):
            lab.desk.clock.advance(40.0)  # type: ignore[attr-defined]

    with pytest.raises(UserError, match="not done within 1 min") as told:
        await backtest(lab.desk, BacktestAsk("payments", 3600.0), Means(limit_s=60.0, looks_max=500), hurry)
    assert "canary-bot simulate" in told.value.hint
    assert not lab.desk.backtesting.locked()


async def test_the_answer_says_what_failed_when_and_what_would_not_have(lab: Lab) -> None:
    """The private answer has a row for each gate, the advice, and the moments; JSON and chart say the same."""
    result = await lab.tried(every_s=900.0)
    answer = shown(result)
    failed = gate(result, "p99").count(Outcome.FAILED)
    assert f"p99&lt;100 ms would have failed {failed} of 15 runs; 500 ms 0 of 15." in answer.text
    assert "When: <!date^" in str(answer.blocks)
    written = document(result)
    assert next(one for one in written["gates"] if one["gate"]["name"] == "p99")["failed"] == failed
    needs_module("matplotlib")
    assert backtest_png(result).startswith(b"\x89PNG")
