"""Many rollouts under way, as they stand in Redis and on the API server when a bot starts."""

import asyncio
import copy
import json
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import aiohttp

from bot.adapters.mesh import annotation, virtualservice
from bot.adapters.redis.store import RedisStore
from bot.catalog import Catalog, load
from bot.rollout.gate import Assessment, GateReport, Share, Verdict
from bot.rollout.model import Actor, Bake, Destination, Phase, Rollout, RouteRef, Side, Source, Target, Told
from bot.rollout.plan import parse_steps
from bot.rollout.route import Mark
from bot.rollout.start import opening, scheduled
from bot.sandbox.kube.world import WORKLOADS
from bot.sandbox.kube.world import pod as sandbox_pod

WEIGHT = 5
STEPS = "5%:4h, 100%:4h"
LONGEST_BAKED_S = 240
CHANNELS = ("#deploys", "#payments", "#checkout")
CATALOG = """
defaults: {plan: long, channel: "#deploys", check_every: EVERY}
plans:
  long: {steps: "5%:4h, 100%:4h"}
gates:
  error-rate: {max: 1%, min_requests: 50}
  p99: {max: 250ms, min_requests: 500}
services:
  payments: {namespace: shop, mesh: istio, route: {name: payments, http: primary}, subsets: [v1, v2]}
"""
_AT_ONCE = 80


def catalog(every_s: int) -> str:
    """The bot's catalog; gates are checked every so many seconds."""
    return CATALOG.replace("EVERY", f"{every_s}s")


def names(count: int) -> list[str]:
    """Services that are rolled out."""
    return [f"svc-{number:05d}" for number in range(count)]


def rollouts_of(services: Sequence[str], known: Catalog) -> list[Rollout]:
    """A rollout of each, as `settle` puts them into the store."""
    return [_rollout(_virtual_service(name), number, known) for number, name in enumerate(services)]


async def settle(kube_url: str, redis_url: str, services: Sequence[str], every_s: int, shards: int = 1) -> None:
    """Put pods, routes with our mark and 5% for the canary, and records that say so, where they belong."""
    store = RedisStore(redis_url, shards=shards)
    known = load(catalog(every_s))
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60.0)) as session:
            for begin in range(0, len(services), _AT_ONCE):
                some = services[begin : begin + _AT_ONCE]
                manifests = [_virtual_service(name) for name in some]
                rollouts = [_rollout(manifest, begin + index, known) for index, manifest in enumerate(manifests)]
                for manifest, rollout in zip(manifests, rollouts, strict=True):
                    mark = Mark(rollout.id, rollout.revision, WEIGHT, rollout.phase.value, rollout.target.service)
                    text = annotation.written(mark, rollout.target, ())
                    manifest["metadata"]["annotations"] = {annotation.KEY: text}
                pods = [pod for name in some for pod in _pods(name)]
                async with session.post(f"{kube_url}/_sandbox/store", json=manifests + pods) as answer:
                    if answer.status != 200:
                        raise RuntimeError(await answer.text())
                await asyncio.gather(*(_create(store, rollout) for rollout in rollouts))
    finally:
        await store.close()


async def _create(store: RedisStore, rollout: Rollout) -> None:
    await store.rollouts.create(rollout, time.time(), (), opening(rollout, rollout.created_at).audit)


def _pods(service: str) -> Iterator[dict[str, Any]]:
    """One ready pod of each version."""
    for workload in WORKLOADS[:2]:
        text = json.dumps(sandbox_pod(workload, 0)).replace("payments", service)
        made: dict[str, Any] = json.loads(text)
        made["metadata"]["uid"] = str(uuid.uuid4())
        yield made


def _virtual_service(name: str) -> dict[str, Any]:
    host = f"{name}.shop.svc.cluster.local"
    route = [
        {"destination": {"host": host, "subset": subset}, "weight": weight}
        for subset, weight in (("v1", 100 - WEIGHT), ("v2", WEIGHT))
    ]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": "shop", "uid": str(uuid.uuid4())},
        "spec": {"hosts": [host], "http": [{"name": "primary", "retries": {"attempts": 2}, "route": route}]},
    }


def _rollout(manifest: dict[str, Any], number: int, known: Catalog) -> Rollout:
    """A rollout that has baked its first step for some time, up to four minutes."""
    name = manifest["metadata"]["name"]
    host = f"{name}.shop.svc.cluster.local"
    place = virtualservice.places(copy.deepcopy(manifest))[0]
    entry = known.entry(name, "shop")
    now = time.time()
    since = now - 30 - number * 7 % LONGEST_BAKED_S

    def side(version: str) -> Side:
        return Side(
            version, Destination(host, version), (f"{name}-{version}",), version, (("app", name), ("version", version))
        )

    route = RouteRef(
        "istio", "shop", name, "http", "primary", virtualservice.match_digest(place.route), manifest["metadata"]["uid"]
    )
    begun = scheduled(
        id=f"{name}-b0b0",
        target=Target(name, "shop", host, route, side("v1"), side("v2")),
        plan=parse_steps(STEPS),
        gates=entry.gates_for("http"),
        rules=replace(entry.rules, channel=CHANNELS[number % len(CHANNELS)]),
        by=Actor(Source.PERSON, "U0ADA", "Ada", "slash"),
        now=since - 5,
    )
    gates = ("error-rate", "p99", "pods", "missing-responses", "nodes")
    passed = tuple(
        GateReport(gate, Verdict.PASS, "as at the last look", step=0, weight_percent=WEIGHT) for gate in gates
    )
    seen = Assessment(now, 0, WEIGHT, passed, Share(None, 0, None, "as at the last look"))
    return begun.with_(
        phase=Phase.PROGRESSING, assessment=seen, step=0, weight_percent=WEIGHT, marked=1, touched=True,
        started_at=since - 2, bake=Bake(confirmed_at=since, arrived_at=since + 5, seen=True, covered_until=since + 5),
        card_at=since, told=Told(Verdict.PASS, 0),
    )  # fmt: skip
