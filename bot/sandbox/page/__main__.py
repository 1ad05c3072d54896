"""`python -m bot.sandbox.page --world world.json`: serve the page on loopback."""

import argparse
import asyncio
import logging
from pathlib import Path

from aiohttp import web

from bot.sandbox.page.server import Page
from bot.sandbox.page.world import read_world
from bot.sandbox.process import announce, until_told_to_stop


async def _serve(options: argparse.Namespace) -> None:
    page = Page(read_world(options.world))
    runner = web.AppRunner(page.app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", options.port).start()
    announce(f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        await until_told_to_stop()
    finally:
        await runner.cleanup()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bot.sandbox.page", description=__doc__)
    parser.add_argument("--world", type=Path, required=True, help="the file that says where the parts are")
    parser.add_argument("--port", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(_serve(_options()))
