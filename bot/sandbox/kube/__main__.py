"""`python -m bot.sandbox.kube`: the sandbox's Kubernetes API server as a process."""

from __future__ import annotations

import argparse
import asyncio
import secrets
from pathlib import Path

import yaml
from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from bot.sandbox.kube import world
from bot.sandbox.kube.access import BOT, Access
from bot.sandbox.kube.control import Control, documents, load
from bot.sandbox.kube.faults import Faults
from bot.sandbox.kube.resources import RESOURCES
from bot.sandbox.kube.server import BODY_LIMIT, CONTROL_BODY_LIMIT, ApiServer
from bot.sandbox.kube.status import Json
from bot.sandbox.kube.store import Store
from bot.sandbox.process import announce, until_told_to_stop


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bot.sandbox.kube", description=__doc__)
    parser.add_argument("--token", help="bearer token of the bot; made up and told in the ready line when absent")
    parser.add_argument(
        "--user", action="append", default=[], metavar="NAME=TOKEN", help="another user and their token; repeatable"
    )
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument(
        "--seed", action="append", default=[], type=Path, metavar="FILE", help="manifests to load; repeatable"
    )
    parser.add_argument("--empty", action="store_true", help="start without the sandbox's world")
    parser.add_argument(
        "--without", action="append", default=[], metavar="GROUP", help="API group that is not installed; repeatable"
    )
    parser.add_argument(
        "--serve",
        action="append",
        default=[],
        metavar="GROUP=v1,v1beta1",
        help="the only versions of a group that are served; repeatable",
    )
    parser.add_argument("--rules", type=Path, help="YAML file with `deny` and `allow` lists")
    parser.add_argument("--watch-history", type=int, default=1_000, help="events kept per kind for resumed watches")
    return parser.parse_args()


def _stated(arguments: argparse.Namespace) -> Json:
    stated: Json = {"without": arguments.without}
    served = dict(item.split("=", 1) for item in arguments.serve)
    stated["serve"] = {group: versions.split(",") for group, versions in served.items()}
    if arguments.rules is not None:
        rules = yaml.safe_load(arguments.rules.read_text(encoding="utf-8"))
        stated |= {key: rules[key] for key in ("deny", "allow") if key in rules}
    return {key: value for key, value in stated.items() if value}


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    limit = CONTROL_BODY_LIMIT if message.path.startswith("/_sandbox/") else BODY_LIMIT
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=limit)


async def _serve(arguments: argparse.Namespace) -> None:
    token = arguments.token or secrets.token_urlsafe(24)
    tokens = {token: BOT}
    tokens |= {secret: name for name, secret in (item.split("=", 1) for item in arguments.user)}
    faults = Faults()
    faults.put(_stated(arguments))
    access = Access(tokens, faults.stated.get("deny", []), faults.stated.get("allow"))
    store = Store(RESOURCES, arguments.watch_history)
    seed = world.empty() if arguments.empty else world.manifests()
    for path in arguments.seed:
        seed += documents(path.read_text(encoding="utf-8"))
    load(store, seed)
    store.writes.clear()
    server = ApiServer(store, access, faults)
    server.control = Control(server, seed).handle
    runner = web.ServerRunner(
        web.Server(server.handle, access_log=None, handler_cancellation=True), shutdown_timeout=0.5
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", arguments.port)
    await site.start()
    port = runner.addresses[0][1]
    announce(f"http://127.0.0.1:{port}", token=token)
    await until_told_to_stop()
    server.stopping.set()
    store.drop_watches()
    await runner.cleanup()


def main() -> None:
    """Run until told to stop."""
    asyncio.run(_serve(_arguments()))


if __name__ == "__main__":
    main()
