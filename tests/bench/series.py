"""What one look asks of Prometheus, and what it costs on both sides, by how it asks: 10,000 series a service.

A real Prometheus scrapes made-up Envoys: 250 callers' and servers' views of two versions, each with one request series
and 20 buckets. CPU time of Prometheus is its process's own, ours that of asking, reading and judging.
"""

import asyncio
import http.server
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bot.adapters.prometheus import Prometheus
from bot.analysis import memory as remembering
from bot.analysis.assessment import assess, questions
from bot.analysis.memory import SCRAPES_S, Memory, sizing
from bot.analysis.samples import Answer, Query, Series
from bot.errors import CannotMeasure
from bot.rollout.gate import parse_gate
from bot.rollout.model import Bake, Rollout
from bot.sandbox.prometheus.real import start
from bot.sandbox.prometheus.targets import target
from tests.bench.table import Table
from tests.fakes.metrics import BOUNDS_MS
from tests.unit.analysis.scene import HOST, MISSING, Scene

CALLERS = 125
BOUNDS = ("0.5", "1", "5", *(str(bound) for bound in BOUNDS_MS[3:-1]), "+Inf")
GATES = (parse_gate("error-rate<1%"), parse_gate("p99<250ms"), MISSING)


async def series(quick: bool) -> Table:
    """One look after another, a scrape apart, with the question for everything, for what is new, and for sums."""
    interval_s, looks, age_s = (2.0, 2, 12.0) if quick else (15.0, 8, 240.0)
    table = Table(f"one look at 10,000 series, {interval_s:g} s scrapes, {age_s:g} s into the step")
    binary = shutil.which("prometheus")
    if binary is None:
        table.failures.append("prometheus is not installed")
        return table
    with exporter() as port, tempfile.TemporaryDirectory() as folder:
        page = target(f"istio-mesh=http://127.0.0.1:{port}/metrics")
        part, url = await start(binary, Path(folder), [page], interval_s)
        metrics = Prometheus(url, timeout_s=30.0)
        try:
            await asyncio.sleep(5 + 3 * interval_s)
            began = time.time()
            rollout = Scene(*GATES, weight=50).rollout.with_(bake=Bake(confirmed_at=began), started_at=began)
            await asyncio.sleep(age_s)
            for name in ("everything since the weight", "what is new", "sums of increments"):
                table.rows.append(await _row(metrics, part.pid, rollout, name, interval_s, looks))
        finally:
            await metrics.close()
            await part.stop_async(2.0)
    return table


async def _row(
    metrics: Prometheus, pid: int, rollout: Rollout, name: str, interval_s: float, looks: int
) -> dict[str, object]:
    memory = None if name.startswith("everything") else Memory()
    if memory is not None:
        many = remembering.MANY + 1.0 if name.startswith("sums") else 1.0
        told = [Answer((Series({}, ((0.0, value),)),)) for value in (many, many, SCRAPES_S / interval_s)]
        memory.size(rollout, dict(zip(sizing(rollout), told, strict=True)))
        rollout, _ = await _look(metrics, rollout, memory)
    ours, theirs, walls = [], [], []
    answers: dict[Query, Answer | CannotMeasure] = {}
    for _ in range(looks):
        await asyncio.sleep(interval_s)
        before, began, cpu = _cpu_s(pid), time.monotonic(), time.process_time()
        rollout, answers = await _look(metrics, rollout, memory)
        ours.append(time.process_time() - cpu)
        walls.append(time.monotonic() - began)
        theirs.append(_cpu_s(pid) - before)
    rows = [one for answer in answers.values() if isinstance(answer, Answer) for one in answer.series]
    return {
        "asked for": name,
        "series": len(rows),
        "points": sum(len(one.points) for one in rows),
        "ours, CPU ms": 1000 * median(ours),
        "Prometheus, CPU ms": 1000 * median(theirs),
        "wall ms": 1000 * median(walls),
        "samples judged": rollout.evidence[0].requests if rollout.evidence else 0.0,
    }


async def _look(
    metrics: Prometheus, rollout: Rollout, memory: Memory | None
) -> tuple[Rollout, dict[Query, Answer | CannotMeasure]]:
    answers = dict(await metrics.ask(questions(rollout, time.time(), memory)))
    look = assess(rollout, time.time(), answers, None, None, memory=memory)
    for answer in answers.values():
        if isinstance(answer, CannotMeasure):
            raise answer
    return rollout.with_(evidence=look.evidence), answers


def _cpu_s(pid: int) -> float:
    """Seconds of processor time a process has used (Linux counts in hundredths)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@contextmanager
def exporter() -> Iterator[int]:
    """A page of 500 request series and 10,000 buckets whose numbers grow by ten a second; yields its port."""
    began = time.monotonic()
    names = [
        _labels(reporter, caller, version)
        for reporter in ("source", "destination")
        for caller in range(CALLERS)
        for version in ("v1", "v2")
    ]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            number = 10 * int(time.monotonic() - began) + 1
            lines = [f"istio_requests_total{{{labels}}} {number}" for labels in names]
            for labels in names:
                for index, bound in enumerate(BOUNDS):
                    counted = int(number * min(1.0, (index + 1) / 8))
                    lines.append(f'istio_request_duration_milliseconds_bucket{{{labels},le="{bound}"}} {counted}')
            body = ("\n".join(lines) + "\n").encode()
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
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        serving.join()


def _labels(reporter: str, caller: int, version: str) -> str:
    name = f"caller-{caller}"
    labels = {
        "reporter": reporter,
        "source_workload": name,
        "source_workload_namespace": "shop",
        "source_principal": f"spiffe://cluster.local/ns/shop/sa/{name}",
        "source_app": name,
        "source_version": "v1",
        "source_cluster": "Kubernetes",
        "destination_workload": f"payments-{version}",
        "destination_workload_namespace": "shop",
        "destination_principal": "spiffe://cluster.local/ns/shop/sa/payments",
        "destination_app": "payments",
        "destination_version": version,
        "destination_service": HOST,
        "destination_service_name": "payments",
        "destination_service_namespace": "shop",
        "destination_cluster": "Kubernetes",
        "request_protocol": "http",
        "response_code": "200",
        "grpc_response_status": "",
        "response_flags": "-",
        "connection_security_policy": "mutual_tls",
        "pod": f"pod-{caller % 10}",
    }
    return ",".join(f'{label}="{value}"' for label, value in labels.items())
