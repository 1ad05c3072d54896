"""Keep Envoy in step with the API server, and measure how long a change takes to arrive, as istiod does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import aiohttp

from bot.sandbox.mesh.envoy import Envoy
from bot.sandbox.mesh.faults import Faults
from bot.sandbox.mesh.ledger import Histogram
from bot.sandbox.mesh.routes import ClusterOf, World, translation
from bot.sandbox.mesh.workloads import Workloads
from bot.sandbox.process import PartError

_log = logging.getLogger(__name__)
_CONVERGENCE_BUCKETS_S = (0.1, 0.5, 1, 3, 5, 10, 20, 30)
_PUSH_BUCKETS_S = (0.01, 0.1, 1, 3, 5, 10, 20, 30)
_SETTLE_S = 0.01
_HOLD_CHECK_S = 0.05


class Translator:
    """Push the world's routes to Envoy after each change, at once unless a fault holds them back.

    What each cluster stands for is added to `meaning` and stays there: requests of a cluster that is gone still finish.
    """

    def __init__(
        self,
        envoy: Envoy,
        workloads: Workloads,
        world: Callable[[], World],
        faults: Callable[[], Faults],
        meaning: dict[str, ClusterOf],
    ) -> None:
        self._envoy = envoy
        self._workloads = workloads
        self._world = world
        self._faults = faults
        self._changed = asyncio.Event()
        self._changed_at = 0.0
        self._meaning = meaning
        self._task: asyncio.Task[None] | None = None
        self.convergence_s = Histogram(_CONVERGENCE_BUCKETS_S)
        self.push_s = Histogram(_PUSH_BUCKETS_S)
        self.rejects = 0
        self.in_force: list[dict[str, Any]] = []

    def changed(self) -> None:
        """Say that the world is not what it was."""
        if not self._changed.is_set():
            self._changed_at = time.monotonic()
            self._changed.set()

    def start(self) -> None:
        """Begin to push."""
        self._task = asyncio.create_task(self._run(), name="translator")

    async def stop(self) -> None:
        """Stop pushing."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def push(self) -> None:
        """Bring pods, clusters and routes up to date once.

        Raises:
            PartError: Envoy refused the result.
        """
        world = self._world()
        await self._workloads.follow(list(world.pods))
        await self._workloads.apply_faults()
        result = translation(world, self._workloads.address_of)
        self._meaning.update(result.meaning)
        await self._envoy.push(result.clusters, result.virtual_hosts)
        self.in_force = result.virtual_hosts

    async def _run(self) -> None:
        while True:
            await self._changed.wait()
            # A list or a burst of pods is one push, and a single patch is not held up noticeably.
            await asyncio.sleep(_SETTLE_S)
            while time.monotonic() - self._changed_at < self._faults().push_delay_s:
                await asyncio.sleep(_HOLD_CHECK_S)
            changed_at = self._changed_at
            self._changed.clear()
            started = time.monotonic()
            try:
                await self.push()
            except (PartError, aiohttp.ClientError, TimeoutError, KeyError, ValueError, TypeError) as error:
                self.rejects += 1
                _log.error("routes not pushed: %s", error)
                continue
            self.push_s.observe(time.monotonic() - started)
            self.convergence_s.observe(time.monotonic() - changed_at)
