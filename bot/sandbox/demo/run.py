"""`canary-bot demo`: the world, the bot, the stories, the report; stays up in a terminal, else ends by itself."""

import asyncio
import json
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from bot.sandbox.demo.clients import Clients, Refused
from bot.sandbox.demo.report import Judged, judged
from bot.sandbox.demo.routelog import RouteLog
from bot.sandbox.demo.story import StoryFailed, bad_release, good_release
from bot.sandbox.demo.telling import Echo, Say, end_of_log, summary
from bot.sandbox.process import PartError, until_told_to_stop
from bot.sandbox.world import Options, World, new_world

FOLLOWING_S = 10.0
STORIES = (
    ("A good release: payments v2", good_release),
    ("A bad release: checkout v2 fails 5% of its requests", bad_release),
)


@dataclass(frozen=True, slots=True)
class Wish:
    """How to run a demo: end by itself, and where to write the report (None: nowhere)."""

    options: Options
    exit_when_done: bool
    json_path: Path | None = None
    stories: bool = True


async def run(wish: Wish, say: Say) -> int:
    """Run a demo; 0 when both stories ended as they should, 1 when not, 130 when it was ended by a signal."""
    here = asyncio.current_task()
    assert here is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, here.cancel)
    began = time.monotonic()
    world = new_world(wish.options)
    try:
        say("Starting the sandbox: Redis, a Kubernetes API, Envoy with two services, Prometheus, Slack ...", "quiet")
        await world.start()
        await world.start_bot()
        say(f"Ready after {time.monotonic() - began:.1f} s. The page: {world.page_url}", "quiet")
        status = await _stories(wish, world, say) if wish.stories else 0
        say(f"Finished after {time.monotonic() - began:.1f} s.", "quiet")
        if not wish.exit_when_done:
            say(f"The sandbox stays up for playing: open {world.page_url}  (Ctrl-C ends it)", "title")
            await until_told_to_stop()
        return status
    except PartError as error:
        say(f"The sandbox could not start: {error}", "bad")
        return 1
    except asyncio.CancelledError:
        here.uncancel()
        say("Ended before it was done.", "wait")
        return 130
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: None)
        await world.stop()


async def _stories(wish: Wish, world: World, say: Say) -> int:
    async with aiohttp.ClientSession() as session:
        clients = Clients(session, world.url("slack"), world.kube_url, world.url("mesh"), world.prometheus_url)
        beside = []
        if world.external_kube:
            log = RouteLog(session, world.kube_url, world.kube_token)
            beside.append(asyncio.create_task(log.run()))
            await asyncio.wait_for(log.following.wait(), FOLLOWING_S)
            clients = replace(clients, seen_writes=log.writes)
        echo = Echo(clients, say)
        beside.append(asyncio.create_task(echo.run()))
        found: list[Judged] = []
        try:
            for title, story in STORIES:
                say()
                say(f"--- {title}", "title")
                told = await story(clients, say, echo.shown)
                await echo.round()
                found.append(await judged(clients, told, world.bot_lines))
        except (StoryFailed, Refused, aiohttp.ClientError, TimeoutError) as error:
            say(f"FAILED: {error}", "bad")
            say("The end of the bot's log:")
            for line in end_of_log(world.bot_lines):
                say(line)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
    if wish.json_path is not None:
        wish.json_path.write_text(json.dumps({"stories": [one.report for one in found]}, indent=2) + "\n")
    complaints = [complaint for one in found for complaint in one.complaints]
    say()
    for one in found:
        for line, tone in summary(one.report):
            say(line, tone)
    for complaint in complaints:
        say(f"WRONG: {complaint}", "bad")
    return 0 if len(found) == len(STORIES) and not complaints else 1


def interactive() -> bool:
    """A person sits at both ends of the terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()
