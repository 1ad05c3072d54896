"""Waiting for a ring, but no longer than some time."""

import asyncio

from bot.ports.clock import Clock


async def rest(rung: asyncio.Event, clock: Clock, seconds: float) -> None:
    """Return when the event is set, after `seconds` at the latest."""
    waits = (asyncio.create_task(rung.wait()), asyncio.create_task(clock.sleep(seconds)))
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
