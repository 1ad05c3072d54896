"""`python -m bot.sandbox.prometheus --target JOB[/INSTANCE]=URL ...`: Prometheus as a process of the sandbox."""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import sys
import tempfile
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from bot.sandbox.process import Part, announce, stop_event
from bot.sandbox.prometheus import real
from bot.sandbox.prometheus.api import Api
from bot.sandbox.prometheus.embedded import Embedded
from bot.sandbox.prometheus.faults import FaultSwitch
from bot.sandbox.prometheus.targets import Target, target


async def serve(options: argparse.Namespace) -> int:
    """Run until told to stop; return the exit status."""
    stopped = stop_event()
    targets: list[Target] = options.target
    binary = options.binary if options.binary not in (None, "none") else None
    if options.binary is None:
        binary = shutil.which("prometheus")
    switch = FaultSwitch()
    app = web.Application(middlewares=[switch.middleware, _token_check(options.token)])
    app.add_routes(switch.routes())
    folder = Path(tempfile.mkdtemp(prefix="canary-prometheus-"))
    server: Part | None = None
    embedded: Embedded | None = None
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    try:
        if binary is not None:
            server, upstream = await real.start(binary, folder, targets, options.scrape_interval)
            proxy = real.Proxy(upstream)
            app.cleanup_ctx.append(proxy.lifetime)
            app.add_routes(proxy.routes())
        else:
            embedded = Embedded(targets, options.scrape_interval)
            app.add_routes(Api(embedded).routes())
            embedded.start()
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", options.port).start()
        announce(f"http://127.0.0.1:{runner.addresses[0][1]}", backend="prometheus" if server else "embedded")
        await stopped.wait()
    finally:
        await runner.cleanup()
        if embedded is not None:
            await embedded.stop()
        if server is not None:
            await server.stop_async()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _token_check(token: str | None) -> Middleware:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        wanted = None if token is None or request.path.startswith("/_sandbox/") else f"Bearer {token}"
        if wanted is not None and request.headers.get("Authorization") != wanted:
            return web.Response(status=401, text="Unauthorized\n")
        return await handler(request)

    return check


def main() -> int:
    """Read the options and run."""
    parser = argparse.ArgumentParser(prog="python -m bot.sandbox.prometheus", description=__doc__)
    parser.add_argument("--target", action="append", type=target, default=[], help="JOB=URL or JOB/INSTANCE=URL")
    parser.add_argument("--scrape-interval", type=float, default=1.0, help="seconds")
    parser.add_argument("--binary", default=None, help="path of a prometheus, or `none` for the embedded one")
    parser.add_argument("--token", default=None, help="ask for this bearer token")
    parser.add_argument("--port", type=int, default=0)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    return asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
