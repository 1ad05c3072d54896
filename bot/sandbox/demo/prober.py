"""An independent prober: asks Prometheus every 100 ms whether the failing value can be seen yet.

It shares no code with the bot: counts of the canary's answered requests since a moment, and how many were 5xx.
"""

import asyncio
import time
from dataclasses import dataclass

import aiohttp

from bot.sandbox.demo.clients import Clients, Json, Refused

EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Seen:
    """The first moment the failing value was visible, and what it was."""

    at: float
    requests: int
    errors: int


async def first_failure(
    clients: Clients, service: str, version: str, *, since: float, limit: float, min_requests: int
) -> Seen:
    """Ask until the canary's error rate is above `limit` with at least `min_requests`; cancel it to stop."""
    host = f"{service}.shop.svc.cluster.local"
    promql = (
        f'istio_requests_total{{reporter="destination",destination_service="{host}",'
        f'destination_version="{version}"}}[%ds]'
    )
    while True:
        asked = time.time()
        try:
            series = await clients.query(promql % max(2, int(asked - since) + 2))
        except (Refused, aiohttp.ClientError, TimeoutError):
            series = []
        requests = sum(_grown(one, since) for one in series)
        errors = sum(_grown(one, since) for one in series if one["metric"]["response_code"].startswith("5"))
        if requests >= min_requests and errors / requests > limit:
            return Seen(time.time(), requests, errors)
        await asyncio.sleep(max(0.0, EVERY_S - (time.time() - asked)))


def _grown(series: Json, since: float) -> int:
    """What a counter has counted since a moment; a series born later counts from 0."""
    points = [(float(at), float(value)) for at, value in series["values"]]
    before = [value for at, value in points if at <= since]
    return int(points[-1][1] - (before[-1] if before else 0.0)) if points else 0
