"""How long a slash command waits for its acknowledgement while 100 rollouts are under way, and for its answer."""

import asyncio
import time

from tests.bench.rig import Rig, rig
from tests.bench.table import Table, percentile

ROLLOUTS = 100
AT_ONCE = 50
REQUIRED_P99_MS = 300.0
PAUSE_S = 2.0
ANSWERED_WITHIN_S = 20.0


async def ack(quick: bool) -> Table:
    """p50, p99 and maximum over Socket Mode and over signed HTTP."""
    table = Table(f"Acknowledgement of {AT_ONCE} slash commands at once, {ROLLOUTS} rollouts active (ms)")
    for mode in ("socket", "http"):
        async with rig(mode, ROLLOUTS) as made:
            await asyncio.sleep(PAUSE_S)
            acks, answers, unanswered, errors = [], [], 0, 0
            rounds = 5 if quick else 20
            for number in range(rounds):
                began = time.time()
                told = await asyncio.gather(*(made.command(user, text) for user, text in commands(made, number)))
                acks += [float(one["ack_ms"]) for one in told]
                errors += sum(one["error"] is not None for one in told)
                came = await _answered(made, began)
                answers += [1000 * (at - began) for at in came]
                unanswered += AT_ONCE - len(came)
                await asyncio.sleep(PAUSE_S)
            p99_ms = percentile(acks, 99)
            row = {
                "door": mode,
                "commands": len(acks),
                "ack p50": percentile(acks, 50),
                "ack p99": p99_ms,
                "ack max": max(acks),
                "answer p50": percentile(answers, 50),
                "answer p99": percentile(answers, 99),
                "unanswered": unanswered,
                "refused": errors,
                "rss MiB": made.rss_mib(),
            }
            table.rows.append(row)
            if p99_ms > REQUIRED_P99_MS:
                table.failures.append(f"{mode}: p99 {p99_ms:.0f} ms, required {REQUIRED_P99_MS:.0f} ms")
            if unanswered or errors:
                table.failures.append(f"{mode}: {unanswered} commands without an answer, {errors} refused")
    return table


def commands(made: Rig, number: int) -> list[tuple[str, str]]:
    """50 commands of five kinds by two people; every round other rollouts."""
    typed = []
    for index in range(AT_ONCE):
        name = made.names[(number * AT_ONCE + index) % len(made.names)]
        kinds = (
            f"status {name}",
            "help",
            f"hold {name} bench {number}-{index}",
            f"gates {name}",
            "start payments v2 --dry-run",
        )
        typed.append((("U0ADA", "U0GRACE")[index % 2], f"/canary {kinds[index % len(kinds)]}"))
    return typed


async def _answered(made: Rig, began: float) -> list[float]:
    deadline = time.time() + ANSWERED_WITHIN_S
    while True:
        came = await made.private_answers(began)
        if len(came) >= AT_ONCE or time.time() > deadline:
            return came[:AT_ONCE]
        await asyncio.sleep(0.2)
