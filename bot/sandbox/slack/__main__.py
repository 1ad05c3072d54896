"""`python -m bot.sandbox.slack`: serve the stand-in for Slack on loopback."""

import argparse
import asyncio
import logging

from aiohttp import web

from bot.sandbox.process import announce, until_told_to_stop
from bot.sandbox.slack.server import Slack
from bot.sandbox.slack.web import APP_TOKEN, BOT_TOKEN

SIGNING_SECRET = "sandbox-signing-secret"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bot.sandbox.slack", description=__doc__)
    parser.add_argument("--mode", choices=("socket", "http"), default="socket", help="how payloads reach the bot")
    parser.add_argument("--bot-url", help="address of the bot for --mode http; /slack/events is added")
    parser.add_argument("--rate-limits", choices=("on", "off"), default="on")
    parser.add_argument("--port", type=int, default=0)
    return parser.parse_args()


async def _serve(options: argparse.Namespace) -> None:
    slack = Slack(
        mode=options.mode,
        bot_url=options.bot_url,
        rate_limits=options.rate_limits == "on",
        signing_secret=SIGNING_SECRET,
    )
    runner = web.AppRunner(slack.app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", options.port)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    slack.set_address(url)
    announce(
        url,
        api_url=f"{url}/api/",
        bot_token=BOT_TOKEN,
        app_token=APP_TOKEN,
        signing_secret=SIGNING_SECRET,
    )
    try:
        await until_told_to_stop()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(_serve(_options()))
