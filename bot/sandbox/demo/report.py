"""The report of a demo: every figure measured in that run, weights and shares in percent, times ISO 8601."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from bot.sandbox.demo.clients import Clients, Json
from bot.sandbox.demo.story import Told

STANDARD_ERRORS = 3.3
POINTS_OF_WEIGHT = 0.5
CONVERGED_S = 0.6


@dataclass(frozen=True, slots=True)
class Judged:
    """A story's report and what in it is not as it should be."""

    report: Json
    complaints: tuple[str, ...]


async def judged(clients: Clients, told: Told, bot_lines: list[Json]) -> Judged:
    """Measure a story that has ended: shares from Envoy's own counts, times from the API server's history."""
    outcome = {"Promoted": "promoted", "RolledBack": "rolled_back"}.get(str(told.mark.get("phase")), "unfinished")
    steps = await _steps(clients, told)
    zero_at = _zero_at(told)
    verdict_at = _verdict_at(told, bot_lines)
    errors = await _errors_after(clients, told, verdict_at)
    report: Json = {
        "service": told.service,
        "rollout": told.rollout,
        "outcome": outcome,
        "reason": told.mark.get("reason", ""),
        "steps": steps,
        "approval": {"by": told.approved_by, "at": _iso(told.approved_at)} if told.approved_at else None,
        "timings": {
            "visible_at": _iso(told.visible.at) if told.visible else None,
            "verdict_at": _iso(verdict_at),
            "zero_at": _iso(zero_at),
        },
        "errors_after_verdict": errors,
        "messages": [
            {
                "channel": told.channel,
                "ts": message["ts"],
                "thread": bool(message["thread_ts"]),
                "text": message["text"],
                "edits": message["edit_count"],
            }
            for message in told.messages
            if not message["ephemeral_to"]
        ],
    }
    return Judged(report, tuple(_complaints(report)))


async def _steps(clients: Clients, told: Told) -> list[Json]:
    """One row a weight above 0: wanted, when the API server had it, and what Envoy sent where meanwhile."""
    raised = [
        write
        for before, write in zip([None, *told.writes], told.writes, strict=False)
        if write["weight"] > 0 and (before is None or before["weight"] != write["weight"])
    ]
    rows = []
    for number, write in enumerate(raised):
        later = [
            other["at"] for other in told.writes if other["at"] > write["at"] and other["weight"] != write["weight"]
        ]
        until = later[0] if later else told.ended_at
        served = await clients.served(told.service, write["at"] + CONVERGED_S, until)
        canary = sum(side["total"] for version, side in served.items() if version == "v2")
        total = sum(side["total"] for side in served.values())
        rows.append(
            {
                "step": number + 1,
                "weight": write["weight"],
                "confirmed_at": _iso(write["at"]),
                "observed_share": round(100 * canary / total, 2) if total else None,
                "requests": total,
                "canary_requests": canary,
            }
        )
    return rows


def _zero_at(told: Told) -> float | None:
    """When the canary's weight was 0 again after having been above."""
    above = False
    for write in told.writes:
        if write["weight"] > 0:
            above = True
        elif above:
            at: float = write["at"]
            return at
    return None


def _verdict_at(told: Told, bot_lines: list[Json]) -> float | None:
    """When the bot says it decided to roll back, from its own log."""
    for line in bot_lines:
        if line.get("event") == "phase" and line.get("rollout") == told.rollout and line.get("after") == "RollingBack":
            return float(line["at"])
    return None


async def _errors_after(clients: Clients, told: Told, verdict_at: float | None) -> int | None:
    """Requests that the canary answered with 5xx after the verdict, by Envoy's log."""
    if verdict_at is None:
        return None
    served = await clients.served(told.service, verdict_at, told.ended_at + CONVERGED_S)
    codes: dict[str, int] = served.get("v2", {}).get("codes", {})
    return sum(count for code, count in codes.items() if code.startswith("5"))


def _complaints(report: Json) -> list[str]:
    wrong = []
    wanted = {"payments": "promoted", "checkout": "rolled_back"}[report["service"]]
    if report["outcome"] != wanted:
        wrong.append(f"{report['service']} ended as {report['outcome']}, not {wanted}")
    for row in report["steps"]:
        tolerance = share_tolerance(row["weight"], row["requests"])
        if row["observed_share"] is None or abs(row["observed_share"] - row["weight"]) > tolerance:
            wrong.append(
                f"{report['service']} at {row['weight']}%: Envoy sent {row['observed_share']}% of {row['requests']} "
                f"requests to the canary, tolerance {tolerance:.1f} points"
            )
    if wanted == "rolled_back":
        missing = [name for name, at in report["timings"].items() if at is None]
        wrong += [f"{report['service']}: {name} was not seen" for name in missing]
    elif report["approval"] is None:
        wrong.append(f"{report['service']} was never asked for approval")
    return wrong


def share_tolerance(weight_percent: float, requests: int) -> float:
    """Points that an observed share may differ: 3.3 standard errors of a binomial share plus half a point."""
    share = weight_percent / 100
    error = math.sqrt(share * (1 - share) / requests) if requests else 1.0
    return STANDARD_ERRORS * 100 * error + POINTS_OF_WEIGHT


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
