"""Both of the sandbox's Prometheus back ends answer alike, and fail alike when told to."""

from __future__ import annotations

import asyncio
import http.server
import json
import math
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from bot.sandbox.process import Part
from bot.sandbox.prometheus.targets import Target, target
from tests.fixtures.requirements import needs_binary, needs_module

INTERVAL_S = 0.25


@dataclass(slots=True)
class Page:
    """A page to scrape that the test writes."""

    text: str = ""
    gone: bool = False
    scrapes: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """A Prometheus of one of the two kinds that scrapes the page."""

    part: Part
    page: Page

    def get(self, path: str, method: str = "GET", **parameters: str) -> tuple[int, Any]:
        """Call the API; returns status and body."""
        encoded = urllib.parse.urlencode(parameters)
        url = f"{self.part.url}{path}" + (f"?{encoded}" if method == "GET" and encoded else "")
        request = urllib.request.Request(url, data=encoded.encode() if method == "POST" else None, method=method)
        return _send(request)

    async def query(self, expression: str, **more: str) -> Any:
        """The data of an instant query."""
        status, body = await asyncio.to_thread(self.get, "/api/v1/query", query=expression, **more)
        assert status == 200, body
        return body["data"]

    async def values(self, expression: str, **more: str) -> list[tuple[dict[str, str], float]]:
        """An instant vector as (labels, value)."""
        data = await self.query(expression, **more)
        return [(item["metric"], float(item["value"][1])) for item in data["result"]]

    async def eventually(self, expression: str, accept: Callable[[list[tuple[dict[str, str], float]]], Any]) -> Any:
        """The first answer that is accepted."""
        async with asyncio.timeout(60):
            while not accept(found := await self.values(expression)):
                await asyncio.sleep(0.05)
            return found

    async def scraped(self, times: int) -> None:
        """Wait until the page was scraped so many times more, and the last of them is stored."""
        wanted = self.page.scrapes + times + 1
        async with asyncio.timeout(60):
            while self.page.scrapes < wanted:
                await asyncio.sleep(0.02)

    async def faults(self, **changes: Any) -> tuple[int, Any]:
        """Merge into the faults."""
        data = json.dumps(changes).encode()
        return await asyncio.to_thread(
            _send, urllib.request.Request(f"{self.part.url}/_sandbox/faults", data=data, method="PUT")
        )


def _send(request: urllib.request.Request) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            text, status = answer.read().decode(), answer.status
    except urllib.error.HTTPError as error:
        with error:
            text, status = error.read().decode(), error.code
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


class _Handler(http.server.BaseHTTPRequestHandler):
    page: Page

    def do_GET(self) -> None:
        self.page.scrapes += 1
        if self.page.gone:
            self.close_connection = True
            return
        body = self.page.text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module", params=["embedded", "prometheus"])
def running(request: pytest.FixtureRequest) -> Iterator[Asked]:
    """Each kind of Prometheus, with a page of ours as its target `node-exporter/node-1`."""
    if request.param == "embedded":
        needs_module("prombed")
        binary = "none"
    else:
        binary = needs_binary("prometheus")
    page = Page()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"page": page}))
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    url = f"http://127.0.0.1:{server.server_port}/some/metrics"
    options = ["--binary", binary, "--scrape-interval", str(INTERVAL_S), "--target", f"node-exporter/node-1={url}"]
    part = Part.module("prometheus", *options)
    try:
        part.wait_ready(30)
        assert part.ready["backend"] == request.param
        yield Asked(part, page)
    finally:
        part.stop()
        server.shutdown()
        server.server_close()
        serving.join()


@pytest.fixture
async def asked(running: Asked) -> Asked:
    """It without faults, and a target that answers with an empty page; each test names series of its own."""
    await running.faults(down=False, slow_s=0, wrong=None)
    running.page.gone = False
    running.page.text = ""
    await running.eventually("up", lambda found: found and found[0][1] == 1)
    return running


async def test_series_carry_the_job_and_instance_of_their_target(asked: Asked) -> None:
    """`JOB/INSTANCE=URL` becomes the labels `job` and `instance`, whatever the URL's host and path are."""
    asked.page.text = 'labelled_total{code="200"} 5\n'
    found = await asked.eventually("labelled_total", bool)
    labels = {"__name__": "labelled_total", "code": "200", "instance": "node-1", "job": "node-exporter"}
    assert found == [(labels, 5.0)]


async def test_a_range_selector_is_a_matrix_of_real_samples(asked: Asked) -> None:
    """A raw range through /query returns each scrape with its own time, and a series born inside begins there."""
    asked.page.text = 'ranged_total{code="200"} 5\n'
    await asked.eventually("ranged_total", bool)
    await asked.scraped(2)
    asked.page.text += 'ranged_total{code="500"} 1\n'
    await asked.eventually('ranged_total{code="500"}', bool)
    asked.page.text = 'ranged_total{code="200"} 9\nranged_total{code="500"} 3\n'
    await asked.eventually('ranged_total{code="500"}', lambda found: found[0][1] == 3)
    data = await asked.query("ranged_total[60s]")
    assert data["resultType"] == "matrix"
    series = {item["metric"]["code"]: item["values"] for item in data["result"]}
    assert float(series["200"][0][1]) == 5
    assert float(series["200"][-1][1]) == 9
    assert float(series["500"][0][1]) == 1
    assert len(series["500"]) < len(series["200"])
    for values in series.values():
        moments = [float(moment) for moment, _ in values]
        assert moments == sorted(set(moments))


async def test_promql_of_the_gates_answers_alike(asked: Asked) -> None:
    """Each construct that queries may use has the same, right answer on both back ends."""
    asked.page.text = (
        'gated_total{code="200",pod="a"} 5\ngated_total{code="200",pod="b"} 2\n'
        'gated_total{code="500",pod="a"} 1\n'
        'took_bucket{le="10"} 50\ntook_bucket{le="100"} 99\ntook_bucket{le="+Inf"} 100\n'
    )
    await asked.eventually("took_bucket", bool)
    await asked.scraped(2)

    async def one(expression: str) -> float:
        found = await asked.values(expression)
        assert len(found) == 1, (expression, found)
        return found[0][1]

    by_code = await asked.values("sum by (code) (gated_total)")
    assert sorted(by_code, key=lambda item: item[1]) == [({"code": "500"}, 1.0), ({"code": "200"}, 7.0)]
    assert await one('sum(gated_total{code=~"5..",pod!="z"}) / sum(gated_total)') == pytest.approx(1 / 8)
    assert await one("histogram_quantile(0.5, sum by (le) (took_bucket))") == pytest.approx(10)
    assert await one("count(gated_total > 1.5)") == 2
    assert await one('increase(took_bucket{le="+Inf"}[5s])') == 0
    assert await one("max_over_time(up[5s])") == 1
    assert await one('resets(took_bucket{le="+Inf"}[5s])') == 0
    assert await one("vector(3)") == 3
    assert await one("absent(nothing)") == 1
    assert await asked.values("nothing") == []
    clock = await asked.query("time()", time="1700000000.5")
    assert clock["resultType"] == "scalar"
    assert float(clock["result"][1]) == 1700000000.5
    scraped_at = await one("timestamp(up)")
    newest = (await asked.query("up[20s]"))["result"][0]["values"][-1][0]
    assert scraped_at <= float(newest)


async def test_a_subquery_has_one_point_per_aligned_step(asked: Asked) -> None:
    """`x[range:step]` through /query is a matrix at multiples of the step, also of an expression."""
    asked.page.text = 'stepped_total{code="200"} 5\n'
    await asked.eventually("stepped_total", bool)
    await asked.scraped(8)
    now_s = float((await asked.query("stepped_total[30s]"))["result"][0]["values"][-1][0])
    for expression in ("stepped_total", "sum(stepped_total)", "max(timestamp(stepped_total))"):
        data = await asked.query(f"{expression}[20s:1s]", time=str(now_s))
        assert data["resultType"] == "matrix"
        (series,) = data["result"]
        moments = [float(moment) for moment, _ in series["values"]]
        assert moments
        assert all(moment == int(moment) and now_s - 20 <= moment <= now_s for moment in moments)
        assert moments == [moments[0] + number for number in range(len(moments))]
        if expression.startswith("max"):
            assert all(0 <= moment - float(value) < 20 for moment, value in series["values"])
        else:
            assert {value for _, value in series["values"]} == {"5"}


async def test_a_past_moment_can_be_asked_for(asked: Asked) -> None:
    """`time` in Unix seconds or RFC 3339 gives the values as they were then."""
    asked.page.text = 'past_total{code="200"} 5\n'
    await asked.eventually("past_total", bool)
    await asked.scraped(2)
    moment_s = float((await asked.query("past_total[30s]"))["result"][0]["values"][-1][0])
    asked.page.text = 'past_total{code="200"} 77\n'
    await asked.eventually("past_total", lambda found: found[0][1] == 77)
    assert (await asked.values("past_total", time=str(moment_s)))[0][1] == 5
    written = datetime.fromtimestamp(moment_s, UTC).isoformat().replace("+00:00", "Z")
    assert (await asked.values("past_total", time=written))[0][1] == 5


async def test_post_and_range_queries_answer(asked: Asked) -> None:
    """Queries may be posted, and a range query steps through time."""
    asked.page.text = 'posted_total{mark="here"} 5\n'
    await asked.eventually("posted_total", bool)
    await asked.scraped(3)
    status, body = await asyncio.to_thread(asked.get, "/api/v1/query", "POST", query="posted_total")
    assert (status, body["data"]["result"][0]["value"][1]) == (200, "5")
    end_s = float((await asked.query("posted_total[30s]"))["result"][0]["values"][-1][0])
    status, body = await asyncio.to_thread(
        asked.get, "/api/v1/query_range", query="posted_total", start=str(end_s - 1), end=str(end_s), step="500ms"
    )
    assert status == 200
    assert body["data"]["resultType"] == "matrix"
    assert body["data"]["result"][0]["values"][-1] == [pytest.approx(end_s), "5"]
    assert (await asyncio.to_thread(asked.get, "/api/v1/label/mark/values"))[1]["data"] == ["here"]
    assert "mark" in (await asyncio.to_thread(asked.get, "/api/v1/labels"))[1]["data"]


@pytest.mark.parametrize("expression", ["1 +", "nope(1)", 'up{a="b"', ""])
async def test_a_wrong_query_is_bad_data(asked: Asked, expression: str) -> None:
    """What is not PromQL is a 400 with errorType bad_data, as a body of Prometheus' form."""
    status, body = await asyncio.to_thread(asked.get, "/api/v1/query", query=expression)
    assert status == 400
    assert body["status"] == "error"
    assert body["errorType"] == "bad_data"
    assert body["error"]


async def test_a_dead_target_is_down_and_its_series_end(asked: Asked) -> None:
    """When a target stops answering, `up` is 0 and its series are gone at once, though other history stays."""
    asked.page.text = 'dying_total{code="200"} 5\n'
    await asked.eventually("dying_total", bool)
    asked.page.gone = True
    await asked.eventually('up{instance="node-1"}', lambda found: found and found[0][1] == 0)
    assert await asked.values("dying_total") == []
    assert (await asked.query("dying_total[60s]"))["result"]


async def test_it_can_be_down(asked: Asked) -> None:
    """`down` cuts connections, or answers with a status, and ends with the fault."""
    await asked.faults(down=True)
    with pytest.raises((urllib.error.URLError, ConnectionError, OSError)):
        await asyncio.to_thread(asked.get, "/api/v1/query", query="up")
    await asked.faults(down=503)
    assert (await asyncio.to_thread(asked.get, "/-/ready"))[0] == 503
    await asked.faults(down=False)
    assert (await asyncio.to_thread(asked.get, "/-/ready"))[0] == 200


async def test_it_can_answer_wrongly(asked: Asked) -> None:
    """`wrong` gives a login page, values that are NaN, no series, or JSON that breaks off."""
    asked.page.text = 'spoiled_total{code="200"} 5\n'
    await asked.eventually("spoiled_total", bool)
    await asked.faults(wrong="html")
    status, text = await asyncio.to_thread(asked.get, "/api/v1/query", query="up")
    assert (status, "<html>" in text) == (200, True)
    await asked.faults(wrong="nan")
    assert all(math.isnan(value) for _, value in await asked.values("spoiled_total"))
    matrix = await asked.query("spoiled_total[10s]")
    assert {value for _, value in matrix["result"][0]["values"]} == {"NaN"}
    await asked.faults(wrong="empty")
    assert await asked.values("spoiled_total") == []
    await asked.faults(wrong="cut")
    assert isinstance((await asyncio.to_thread(asked.get, "/api/v1/query", query="up"))[1], str)
    await asked.faults(wrong=None)
    assert (await asked.values("spoiled_total"))[0][1] == 5


async def test_it_can_be_slow(asked: Asked) -> None:
    """With `slow_s` an answer is not there when a client of less patience gives up."""
    await asked.faults(slow_s=30)
    request = urllib.request.Request(f"{asked.part.url}/api/v1/query?query=up")

    def impatient() -> None:
        urllib.request.urlopen(request, timeout=0.3).close()

    with pytest.raises(TimeoutError):
        await asyncio.to_thread(impatient)


async def test_a_wrong_fault_is_refused(asked: Asked) -> None:
    """An unknown fault or a wrong value is a 400 that names it, and nothing changes."""
    for change, named in (({"dwn": True}, "dwn"), ({"wrong": "xml"}, "xml"), ({"slow_s": "long"}, "long")):
        status, body = await asked.faults(**change)
        assert status == 400
        assert named in body["error"]
    assert (await asyncio.to_thread(asked.get, "/-/ready"))[0] == 200


def test_a_target_is_job_instance_and_url() -> None:
    """A target option without an instance takes the URL's host and port; another form is refused."""
    url = "http://127.0.0.1:1/metrics"
    assert target(f"istio-mesh={url}") == Target("istio-mesh", "127.0.0.1:1", url)
    assert target(f"node-exporter/node-2={url}") == Target("node-exporter", "node-2", url)
    for wrong in (url, f"={url}", "job=ftp://x/y", "job"):
        with pytest.raises(ValueError, match="expected JOB="):
            target(wrong)
