"""Run the bot: start everything in order, and on SIGTERM drain it in the opposite one."""

import asyncio
import faulthandler
import gc
import signal

import uvloop

from bot.bootstrap import Bot, build
from bot.errors import OtherShards
from bot.settings import Settings

CATALOG_POLL_S = 5.0
DRAIN_S = 8.0
CANCELLED_WITHIN_S = 1.0
COLLECTED_AFTER = (5000, 4, 500)
"""New objects before garbage among them is looked for, how many such passes before one over all of these, and how many
of those before one over the whole heap. Python's own numbers are for small heaps: with 10,000 rollouts in memory a pass
over the heap, or over all that 20 s have made, stops the event loop for a good part of a second. What is garbage only
after it outlived the small passes waits for one over the heap: some twenty minutes there, hours with few rollouts."""
HANGS_AFTER_S = 28.0
"""A stop takes no longer, whatever hangs: then the process says where, and ends. Kubernetes waits for 30 s."""


def serve(settings: Settings) -> int:
    """`run` on libuv's event loop, which takes a sixth off the processor time of a look (docs/load.md)."""
    return uvloop.run(run(settings))


async def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; 0 after a clean stop.

    Raises what `build` raises, and OtherShards when the records in Redis are spread over another number of shards.
    """
    gc.set_threshold(*COLLECTED_AFTER)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    bot = await build(settings)
    try:
        await bot.claim()
    except OtherShards:
        await bot.close()
        raise
    watch = asyncio.create_task(_watch_catalog(bot))
    opening = asyncio.create_task(bot.open_entrance())
    try:
        await start(bot)
        await stopped.wait()
        faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True)
        bot.telemetry.line("stopping")
    finally:
        for task in (watch, opening):
            task.cancel()
        await asyncio.wait((watch, opening), timeout=CANCELLED_WITHIN_S)
        await stop(bot)
    return 0


async def start(bot: Bot) -> None:
    """Listen for health first, then work; the entrance opens beside it, as soon as Slack answers."""
    await bot.http.start()
    await bot.engine.start()
    bot.telemetry.line("started", http=bot.http.address)


async def stop(bot: Bot) -> None:
    """Not ready; close the intake; finish what was begun; give the lease back; close the connections."""
    bot.draining = True
    await bot.close_entrance(DRAIN_S)
    await bot.engine.stop()
    await bot.http.stop()
    await bot.close()
    bot.telemetry.line("stopped")


async def _watch_catalog(bot: Bot) -> None:
    """Take over a changed catalog file; a bad one is reported and the former kept."""
    while True:
        await asyncio.sleep(CATALOG_POLL_S)
        bot.reload_catalog()
