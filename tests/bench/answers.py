"""A metrics server for many services: answers range questions from a formula, fast, in a process of its own.

`python -m tests.bench.answers SECONDS` prints its address. Series have all labels that Istio gives them, samples are
this many seconds apart, each service is scraped at its own moment. `GET /stats` tells the questions answered.
`PUT /bad` with a list of services makes their canaries fail half of their requests from then on.
"""

import asyncio
import json
import re
import sys
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from aiohttp import web

from bot.sandbox.process import announce, until_told_to_stop

REQUESTS_PER_S = 100.0
CANARY_SHARE = 0.05
FAILING = 0.5
NAME = "@service@"
SUFFIX = ".shop.svc.cluster.local"
BUCKETS = (
    ("0.5", 0.0), ("1", 0.05), ("5", 0.3), ("10", 0.6), ("25", 0.8), ("50", 0.9), ("100", 0.96), ("250", 0.995),
    ("500", 0.999), ("1000", 1.0), ("2500", 1.0), ("5000", 1.0), ("10000", 1.0), ("30000", 1.0), ("60000", 1.0),
    ("300000", 1.0), ("600000", 1.0), ("1800000", 1.0), ("3600000", 1.0), ("+Inf", 1.0),
)  # fmt: skip
TEMPLATES_KEPT = 200
EMPTY = b'{"status":"success","data":{"resultType":"vector","result":[]}}'
_SUMS = re.compile(
    r"sum by \((?P<kinds>[\w,]+)\) \(\(\((?P<series>(?P<metric>istio_\w+)\{destination_service(?P<pattern>=~?)"
    r'"(?P<names>[^"]*)"(?:,le=~"(?P<bounds>[^"]*)")?\}) - (?P=series) offset (?P<offset>\d+)s\) >= 0\)'
    r" or \((?P=series) and on \(job, instance\) \(up offset (?P=offset)s == 1\)\)\)"
    r" or max by \(destination_service\) \(timestamp\((?P=series)\)\)"
)
_SELECTOR = re.compile(r'(istio_\w+)\{destination_service=(~?)"([^"]*)"[^}]*\}(?:\[(\d+)s(?::(\d+)s)?\])?')


def labels(metric: str, reporter: str, version: str, code: str, bound: str = "") -> dict[str, str]:
    """What Istio's standard metrics carry, with the pod's labels that a scrape adds."""
    pod = f"{NAME}-{version}-6f7d9c8b5-x2x4z" if reporter == "destination" else "loadgen-5c9f8d7b6-k8s2q"
    workload = f"{NAME}-{version}"
    found = {
        "__name__": metric,
        "reporter": reporter,
        "source_workload": "loadgen",
        "source_workload_namespace": "shop",
        "source_principal": "spiffe://cluster.local/ns/shop/sa/loadgen",
        "source_app": "loadgen",
        "source_version": "v1",
        "source_cluster": "Kubernetes",
        "source_canonical_service": "loadgen",
        "source_canonical_revision": "v1",
        "destination_workload": workload,
        "destination_workload_namespace": "shop",
        "destination_principal": f"spiffe://cluster.local/ns/shop/sa/{NAME}",
        "destination_app": NAME,
        "destination_version": version,
        "destination_service": f"{NAME}{SUFFIX}",
        "destination_service_name": NAME,
        "destination_service_namespace": "shop",
        "destination_cluster": "Kubernetes",
        "destination_canonical_service": NAME,
        "destination_canonical_revision": version,
        "request_protocol": "http",
        "response_code": code,
        "grpc_response_status": "",
        "response_flags": "-",
        "connection_security_policy": "mutual_tls" if reporter == "destination" else "unknown",
        "job": "istio-mesh",
        "instance": "10.244.1.7:15020",
        "namespace": "shop",
        "pod": pod,
    }
    return found | ({"le": bound} if bound else {})


@dataclass(slots=True)
class Formula:
    """Counters of all services since `began`; `bad` says since when (epoch seconds) a canary fails."""

    scrape_s: int
    began: float = field(default_factory=lambda: time.time() - 7200)
    bad: dict[str, float] = field(default_factory=dict)
    templates: OrderedDict[tuple[object, ...], str] = field(default_factory=OrderedDict)

    def rows(self, metric: str, service: str, end: float, window_s: int, step_s: int) -> str:
        """The series of one service in the window that ends at `end`, as JSON without the brackets around."""
        phase = sum(service.encode()) % self.scrape_s
        newest = end - (end - phase) % self.scrape_s
        bad_since = self.bad.get(service)
        key = (metric, phase, newest, window_s, step_s, bad_since)
        template = self.templates.get(key)
        if template is None:
            template = self.templates[key] = self._template(metric, newest, end - window_s, step_s, bad_since)
            if len(self.templates) > TEMPLATES_KEPT:
                self.templates.popitem(last=False)
        return template.replace(NAME, service)

    def sums(
        self, metric: str, service: str, end: float, since_s: int, kinds: tuple[str, ...], bounds: frozenset[str]
    ) -> str:
        """What one service has counted between two moments, by these labels, and its newest sample's time."""
        phase = sum(service.encode()) % self.scrape_s
        newest, former = (at - (at - phase) % self.scrape_s for at in (end, end - since_s))
        bad_since = self.bad.get(service)
        key = (metric, newest, former, end, kinds, bounds, bad_since)
        template = self.templates.get(key)
        if template is None:
            template = self.templates[key] = self._summed(metric, newest, former, end, kinds, bounds, bad_since)
            if len(self.templates) > TEMPLATES_KEPT:
                self.templates.popitem(last=False)
        return template.replace(NAME, service)

    def _summed(
        self,
        metric: str,
        newest: float,
        former: float,
        end: float,
        kinds: tuple[str, ...],
        bounds: frozenset[str],
        bad_since: float | None,
    ) -> str:
        made = []
        for version, share in (("v1", 1 - CANARY_SHARE), ("v2", CANARY_SHARE)):
            per_s = REQUESTS_PER_S * share
            since = bad_since if version == "v2" else None
            for reporter in ("source", "destination"):
                totals: dict[str, float] = {}
                for code in ("200", "500") if since is not None else ("200",):
                    for bound, fraction in [("", 1.0)] if metric == "istio_requests_total" else BUCKETS:
                        if bound and bounds and bound not in bounds:
                            continue
                        failed = code == "500"
                        more = int(fraction * self._count(per_s, newest, since, failed=failed))
                        more -= int(fraction * self._count(per_s, former, since, failed=failed))
                        if failed and newest < (since or 0.0):
                            continue
                        full = labels(metric, reporter, version, code, bound)
                        kept = {name: full[name] for name in sorted(kinds) if full.get(name)}
                        name = json.dumps(kept, separators=(",", ":"))
                        totals[name] = totals.get(name, 0.0) + more
                made += [f'{{"metric":{name},"value":[{end:.3f},"{total:g}"]}}' for name, total in totals.items()]
        made.append(f'{{"metric":{{"destination_service":"{NAME}{SUFFIX}"}},"value":[{end:.3f},"{newest:.3f}"]}}')
        return ",".join(made)

    def _template(self, metric: str, newest: float, begin: float, step_s: int, bad_since: float | None) -> str:
        distance = max(step_s, self.scrape_s)
        times = [newest - distance * index for index in range(int((newest - begin) // distance), -1, -1)]
        made = []
        for version, share in (("v1", 1 - CANARY_SHARE), ("v2", CANARY_SHARE)):
            per_s = REQUESTS_PER_S * share
            since = bad_since if version == "v2" else None
            for reporter in ("source", "destination"):
                for code in ("200", "500") if since is not None else ("200",):
                    kinds = [("", 1.0)] if metric == "istio_requests_total" else BUCKETS
                    for bound, fraction in kinds:
                        points = [
                            (at, int(fraction * self._count(per_s, at, since, failed=code == "500"))) for at in times
                        ]
                        if code == "500":
                            points = [(at, value) for at, value in points if at >= (since or 0.0)]
                        if points:
                            name = json.dumps(labels(metric, reporter, version, code, bound), separators=(",", ":"))
                            values = ",".join(f'[{at:.3f},"{value}"]' for at, value in points)
                            made.append(f'{{"metric":{name},"values":[{values}]}}')
        return ",".join(made)

    def _count(self, per_s: float, at: float, since: float | None, *, failed: bool) -> float:
        after = 0.0 if since is None else max(0.0, at - since) * per_s * FAILING
        return after if failed else (at - self.began) * per_s - after


def answer(formula: Formula, query: str, end: float) -> bytes:
    """The whole answer to an instant query; nothing for what is not about requests."""
    summed = _SUMS.fullmatch(query)
    if summed is not None:
        bounds = frozenset(filter(None, (summed["bounds"] or "").replace("\\\\", "").split("|")))
        kinds = tuple(summed["kinds"].split(","))
        names = _names(summed["names"], pattern=summed["pattern"] == "=~")
        rows = [formula.sums(summed["metric"], name, end, int(summed["offset"]), kinds, bounds) for name in names]
        return f'{{"status":"success","data":{{"resultType":"vector","result":[{",".join(rows)}]}}}}'.encode()
    found = _SELECTOR.search(query)
    if found is None:
        return EMPTY
    metric, pattern, text, window, step = found.groups()
    services = _names(text, pattern=bool(pattern))
    if found.start() == 0 and window:
        rows = [formula.rows(metric, name, end, int(window), int(step or 0)) for name in services]
        return f'{{"status":"success","data":{{"resultType":"matrix","result":[{",".join(rows)}]}}}}'.encode()
    if "count" not in query:
        return EMPTY
    value = 4 if metric == "istio_requests_total" else 4 * len(BUCKETS)
    if "count_over_time" in query:
        value = int(window or 0) // formula.scrape_s
    by = " by (destination_service)" in query
    rows = [
        json.dumps({"metric": {"destination_service": name + SUFFIX} if by else {}, "value": [end, str(value)]})
        for name in services
    ]
    return f'{{"status":"success","data":{{"resultType":"vector","result":[{",".join(rows)}]}}}}'.encode()


def _names(text: str, *, pattern: bool) -> list[str]:
    """Services without the end that all have; an alternation of literals is what is asked for, and nothing else."""
    if pattern and re.search(r"(?<!\\)\.|[*+?()\[\]{}^$]", text):
        raise ValueError(f"not an alternation of names: {text[:80]}")
    return [name.removesuffix(SUFFIX) for name in text.replace("\\\\.", ".").split("|" if pattern else "\n")]


class Server:
    """The HTTP side, and what was asked."""

    def __init__(self, scrape_s: int) -> None:
        self._formula = Formula(scrape_s)
        self._queries = 0
        self._sent = 0
        self._services: set[str] = set()

    async def query(self, request: web.Request) -> web.Response:
        asked = await request.post()
        text = str(asked.get("query", ""))
        self._queries += 1
        found = _SELECTOR.search(text)
        if found is not None and "count" not in text.partition("(")[0]:
            self._services.update(found.group(3).split("|"))
        try:
            body = answer(self._formula, text, float(str(asked.get("time") or time.time())))
        except ValueError as error:
            told = {"status": "error", "errorType": "bad_data", "error": f"invalid parameter: {error}"}
            return web.json_response(told, status=400)
        self._sent += len(body)
        return web.Response(body=body, content_type="application/json")

    async def stats(self, _request: web.Request) -> web.Response:
        return web.json_response({"queries": self._queries, "bytes": self._sent, "services": len(self._services)})

    async def bad(self, request: web.Request) -> web.Response:
        now = time.time()
        self._formula.bad.update(dict.fromkeys(await request.json(), now))
        return web.json_response({"since": now})

    async def version(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "success", "data": {"version": "3.0.0"}})


async def main(scrape_s: int) -> None:
    """Serve until told to stop."""
    server = Server(scrape_s)
    app = web.Application(client_max_size=1 << 22)
    app.add_routes(
        [
            web.post("/api/v1/query", server.query),
            web.get("/api/v1/status/buildinfo", server.version),
            web.get("/stats", server.stats),
            web.put("/bad", server.bad),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    announce(f"http://127.0.0.1:{runner.addresses[0][1]}")
    await until_told_to_stop()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
