"""`python -m bot.sandbox.mesh --kube URL --token T`: the mesh as a process of the sandbox."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from bot.sandbox.mesh.control import Control
from bot.sandbox.mesh.envoy import Envoy
from bot.sandbox.mesh.faults import Faults
from bot.sandbox.mesh.ledger import Ledger
from bot.sandbox.mesh.load import Load
from bot.sandbox.mesh.nodes import NODES, Nodes
from bot.sandbox.mesh.routes import ClusterOf, full_host
from bot.sandbox.mesh.translator import Translator
from bot.sandbox.mesh.watch import ClusterWatch
from bot.sandbox.mesh.workloads import Workloads
from bot.sandbox.process import announce, stop_event

_NAMESPACE = "shop"
_FIRST_PUSH_S = 20.0
_OPEN_FILES = 65_536


async def serve(options: argparse.Namespace) -> int:
    """Run the mesh until told to stop; return the exit status."""
    stopped = stop_event()
    with tempfile.TemporaryDirectory(prefix="canary-mesh-", ignore_cleanup_errors=True) as folder:
        return await _serve_in(Path(folder), options, stopped)


async def _serve_in(folder: Path, options: argparse.Namespace, stopped: asyncio.Event) -> int:
    rng = random.Random(options.seed)
    control = Control(Nodes(time.time(), rng))
    faults: Callable[[], Faults] = control.present_faults
    workloads = Workloads(faults, rng)
    meaning: dict[str, ClusterOf] = {}
    ledger = Ledger(meaning, workloads.who)
    envoy = await Envoy.start(folder, ledger.feed)
    watch = ClusterWatch(options.kube, options.token)
    translator = Translator(envoy, workloads, watch.world, faults, meaning)
    hosts = {service: full_host(service, _NAMESPACE) for service in options.services.split(",") if service}
    load = Load(envoy.address, hosts, options.rate, faults, rng)
    runner = web.AppRunner(control.app(ledger, translator, workloads, load), access_log=None, shutdown_timeout=0.5)
    try:
        watch.start(translator.changed)
        async with asyncio.timeout(_FIRST_PUSH_S):
            await watch.listed()
            await translator.push()
        translator.start()
        load.start()
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", options.port)
        await site.start()
        port = runner.addresses[0][1]
        url = f"http://127.0.0.1:{port}"
        announce(
            url,
            envoy=f"http://{envoy.address[0]}:{envoy.address[1]}",
            envoy_admin=envoy.admin_url,
            envoy_pid=envoy.pid,
            metrics=f"{url}/metrics",
            nodes={name: f"{url}/nodes/{name}/metrics" for name in NODES},
        )
        await _until_stopped_or_envoy_gone(stopped, envoy, ledger)
    finally:
        await load.stop()
        await translator.stop()
        await watch.stop()
        await runner.cleanup()
        workloads.close()
        await envoy.stop()
    return 0


async def _until_stopped_or_envoy_gone(stopped: asyncio.Event, envoy: Envoy, ledger: Ledger) -> None:
    while envoy.returncode is None:
        ledger.drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), 0.5)
            return
    raise SystemExit(f"Envoy ended with status {envoy.returncode}")


def _allow_many_connections() -> None:
    """Raise the limit of open files: requests that hang keep two connections each in this process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> int:
    """Read the options and run."""
    _allow_many_connections()
    parser = argparse.ArgumentParser(prog="python -m bot.sandbox.mesh", description=__doc__)
    parser.add_argument("--kube", required=True, help="address of the API server")
    parser.add_argument("--token", required=True, help="its bearer token")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rate", type=float, default=100.0, help="requests per second to each service")
    parser.add_argument("--services", default="payments,checkout", help="names of services of namespace shop")
    parser.add_argument(
        "--seed", type=int, default=None, help="seed of the random numbers (latencies, faults, arrivals)"
    )
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    return asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
