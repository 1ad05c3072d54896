"""`canary-bot demo`: the world, the bot, the stories, the report; stays up in a terminal, else ends by itself."""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import aiohttp

from bot.sandbox.demo.clients import Clients, Json
from bot.sandbox.demo.report import Judged, judged
from bot.sandbox.demo.story import StoryFailed, bad_release, good_release
from bot.sandbox.process import PartError, until_told_to_stop
from bot.sandbox.world import Options, World, new_world

Print = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """How to run a demo: end by itself, and where to write the report (None: nowhere)."""

    options: Options
    exit_when_done: bool
    json_path: Path | None = None
    stories: bool = True


async def run(wish: Wish, say: Print) -> int:
    """Run a demo; 0 when both stories ended as they should."""
    began = time.monotonic()
    world = new_world(wish.options)
    try:
        say("Starting the sandbox: Redis, a Kubernetes API, Envoy with two services, Prometheus, Slack ...")
        await world.start()
        await world.start_bot()
        say(f"Ready after {time.monotonic() - began:.1f} s. The page: {world.page_url}")
        status = await _stories(wish, world, say) if wish.stories else 0
        say(f"Finished after {time.monotonic() - began:.1f} s.")
        if not wish.exit_when_done:
            say(f"The sandbox stays up for playing: open {world.page_url}  (Ctrl-C ends it)")
            await until_told_to_stop()
        return status
    except PartError as error:
        say(f"The sandbox could not start: {error}")
        return 1
    finally:
        await world.stop()


async def _stories(wish: Wish, world: World, say: Print) -> int:
    async with aiohttp.ClientSession() as session:
        clients = Clients(session, world.url("slack"), world.url("kube"), world.url("mesh"), world.prometheus_url)
        echo = asyncio.create_task(_echo(clients, say))
        found: list[Judged] = []
        try:
            for title, story in (
                ("A good release: payments v2", good_release),
                ("A bad release: checkout v2", bad_release),
            ):
                say("")
                say(f"--- {title}")
                told = await story(clients, say)
                found.append(await judged(clients, told, world.bot_lines))
        except StoryFailed as error:
            say(f"FAILED: {error}")
            say(f"The end of the bot's log:\n{world.bot.stderr_tail if world.bot else ''}")
        finally:
            await asyncio.sleep(0.3)
            echo.cancel()
            with suppress(asyncio.CancelledError):
                await echo
    if wish.json_path is not None:
        wish.json_path.write_text(json.dumps({"stories": [one.report for one in found]}, indent=2) + "\n")
    complaints = [complaint for one in found for complaint in one.complaints]
    say("")
    for one in found:
        for line in summary(one.report):
            say(line)
    for complaint in complaints:
        say(f"WRONG: {complaint}")
    return 0 if len(found) == 2 and not complaints else 1


async def _echo(clients: Clients, say: Print) -> None:
    """Print every announcement as it is posted."""
    seen: set[tuple[str, str]] = set()
    while True:
        with suppress(aiohttp.ClientError, TimeoutError):
            for message in await clients.messages():
                key = (message["channel"], message["ts"])
                if key in seen or message["ephemeral_to"]:
                    continue
                seen.add(key)
                at = datetime.fromtimestamp(float(message["ts"])).astimezone().strftime("%H:%M:%S")
                where = "   thread" if message["thread_ts"] else "  channel"
                say(f"{at} {where}  {message['text']}")
        await asyncio.sleep(0.2)


def summary(report: Json) -> list[str]:
    """A story in a few lines."""
    lines = [f"{report['service']}: {report['outcome']}" + (f" - {report['reason']}" if report["reason"] else "")]
    lines += [
        f"  {row['weight']:>3}% wanted, {row['observed_share']}% of {row['requests']} requests observed"
        for row in report["steps"]
    ]
    if report["approval"]:
        lines.append(f"  approved by {report['approval']['by']} at {report['approval']['at']}")
    times = {name: datetime.fromisoformat(at).timestamp() for name, at in report["timings"].items() if at}
    if "verdict_at" in times and "zero_at" in times:
        lines.append(f"  verdict to weight 0: {1000 * (times['zero_at'] - times['verdict_at']):.0f} ms")
    if "visible_at" in times and "zero_at" in times:
        lines.append(f"  failing value visible to weight 0: {times['zero_at'] - times['visible_at']:.2f} s")
    if report["errors_after_verdict"] is not None:
        lines.append(f"  requests in error served by the canary after the verdict: {report['errors_after_verdict']}")
    return lines


def interactive() -> bool:
    """A person sits at both ends of the terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()
